//! As much of tar as an OVA needs: ustar, with the long names and sizes of GNU and pax (POSIX.1-2001).

use super::header::{BLOCK, StoredHeader, text};
use crate::block::Storage;
use crate::block::formats::extent_map::{length, read_exact, read_struct};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Most members (with the blocks that describe them) that are read; an OVA has a handful.
const MEMBERS_MAX: usize = 4096;

/// Longest extended header or long name, in bytes.
const EXTRA_MAX: u64 = 64 << 10;

/// A plain file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Where its content begins in the archive.
    pub(super) offset: HostOffset,
    /// Bytes of its content.
    pub(super) length: u64,
}

/// All plain files of the archive.
pub(super) fn members(storage: &dyn Storage) -> Result<Vec<Member>> {
    let mut walk = Walk::new(storage)?;
    let mut members = Vec::new();
    while let Some(member) = walk.next()? {
        members.push(member);
    }
    Ok(members)
}

/// Whether the archive has a plain file of such a name.
pub(super) fn has_member(storage: &dyn Storage, is_wanted: impl Fn(&str) -> bool) -> Result<bool> {
    let mut walk = Walk::new(storage)?;
    while let Some(member) = walk.next()? {
        if is_wanted(&member.name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A walk from header to header.
struct Walk<'a> {
    storage: &'a dyn Storage,
    /// Bytes of the archive.
    length: u64,
    /// Where the next header is.
    at: HostOffset,
    steps: usize,
    /// Name and size of the next member, where a header before it has them.
    long_name: Option<String>,
    long_size: Option<u64>,
}

impl<'a> Walk<'a> {
    fn new(storage: &'a dyn Storage) -> Result<Self> {
        Ok(Self { storage, length: length(storage)?, at: HostOffset(0), steps: 0, long_name: None, long_size: None })
    }

    /// The next plain file; `None` at the end of the archive.
    fn next(&mut self) -> Result<Option<Member>> {
        loop {
            // An archive that was cut between two members has no end mark; nothing of a member is missing then.
            let here = self.at;
            let content = here.saturating_add(BLOCK);
            if content.0 > self.length {
                return Ok(None);
            }
            self.steps += 1;
            if self.steps > MEMBERS_MAX {
                return Err(
                    Error::damaged(Layer::Block, format!("the archive has more than {MEMBERS_MAX} members")).at(here)
                );
            }
            let header: StoredHeader = read_struct(self.storage, here)?;
            if header.is_end() {
                return Ok(None);
            }
            if !header.is_checksum_right() {
                return Err(Error::damaged(Layer::Block, "a header of the archive has a wrong checksum")
                    .at(here)
                    .hint("the file is damaged: copy it again"));
            }
            let size = header
                .size()
                .ok_or_else(|| Error::damaged(Layer::Block, "a size in the archive is not a number").at(here))?;
            let is_about_others = matches!(
                header.typeflag,
                StoredHeader::TYPE_LONG_NAME
                    | StoredHeader::TYPE_LONG_LINK
                    | StoredHeader::TYPE_PAX
                    | StoredHeader::TYPE_PAX_GLOBAL
            );
            let size = if is_about_others { size } else { self.long_size.take().unwrap_or(size) };
            let end = content.checked_add(size).filter(|end| end.0 <= self.length).ok_or_else(|| {
                Error::damaged(Layer::Block, "a member of the archive lies beyond its end")
                    .at(here)
                    .hint("the file is truncated: copy it again")
            })?;
            self.at = HostOffset(end.0.next_multiple_of(BLOCK));
            match header.typeflag {
                StoredHeader::TYPE_FILE | StoredHeader::TYPE_FILE_OLD | StoredHeader::TYPE_CONTIGUOUS => {
                    let name = self.long_name.take().unwrap_or_else(|| header.path());
                    let name = name.trim_start_matches("./").to_owned();
                    return Ok(Some(Member { name, offset: content, length: size }));
                }
                StoredHeader::TYPE_LONG_NAME => self.long_name = Some(text(&self.read_extra(content, size)?)),
                StoredHeader::TYPE_PAX => {
                    let records = self.read_extra(content, size)?;
                    self.apply_pax(&records);
                }
                StoredHeader::TYPE_SPARSE => {
                    return Err(Error::unsupported(Layer::Block, "a sparse member in the archive")
                        .at(here)
                        .hint("unpack the archive, and give winject the disk image inside"));
                }
                _ => (self.long_name, self.long_size) = (None, None),
            }
        }
    }

    /// The content of a header that describes the next member.
    fn read_extra(&self, offset: HostOffset, size: u64) -> Result<Vec<u8>> {
        if size > EXTRA_MAX {
            return Err(Error::damaged(Layer::Block, "an extended header of the archive is too long")
                .at(offset)
                .expected_found(format_args!("at most {EXTRA_MAX} bytes"), size));
        }
        let mut raw = vec![0; size as usize];
        read_exact(self.storage, offset, &mut raw)?;
        Ok(raw)
    }

    /// Takes name and size of the next member from pax records, each of them `LENGTH key=value` and a line feed.
    fn apply_pax(&mut self, mut records: &[u8]) {
        while let Some(space) = records.iter().position(|b| *b == b' ') {
            let length = std::str::from_utf8(&records[..space]).ok().and_then(|n| n.parse::<usize>().ok());
            let Some(record) = length.filter(|l| *l > space).and_then(|l| records.get(space + 1..l)) else { return };
            let record = text(record);
            match record.trim_end_matches('\n').split_once('=') {
                Some(("path", value)) => self.long_name = Some(value.to_owned()),
                Some(("size", value)) => self.long_size = value.parse().ok(),
                _ => {}
            }
            records = records.get(length.unwrap_or(usize::MAX)..).unwrap_or_default();
        }
    }
}
