//! As much of tar as an OVA needs: ustar, with the long names and sizes of GNU and pax (POSIX.1-2001).

use crate::block::Storage;
use crate::block::formats::extent_map::{length, read_exact};
use crate::error::{Error, Layer, Result};

const BLOCK: u64 = 512;

/// Members that are looked at; an OVA has a handful.
const MEMBERS_MAX: usize = 4096;

/// Longest extended header or long name.
const EXTRA_MAX: u64 = 64 << 10;

/// A plain file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// First byte of its content in the archive.
    pub(super) offset: u64,
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

struct Walk<'a> {
    storage: &'a dyn Storage,
    length: u64,
    at: u64,
    steps: usize,
    long_name: Option<String>,
    long_size: Option<u64>,
}

impl<'a> Walk<'a> {
    fn new(storage: &'a dyn Storage) -> Result<Self> {
        Ok(Self { storage, length: length(storage)?, at: 0, steps: 0, long_name: None, long_size: None })
    }

    /// The next plain file; `None` at the end of the archive.
    fn next(&mut self) -> Result<Option<Member>> {
        loop {
            // An archive that was cut between two members has no end mark; nothing of a member is missing then.
            if self.at + BLOCK > self.length {
                return Ok(None);
            }
            self.steps += 1;
            if self.steps > MEMBERS_MAX {
                return Err(Error::damaged(Layer::Block, format!("the archive has more than {MEMBERS_MAX} members"))
                    .at(self.at));
            }
            let mut raw = [0; BLOCK as usize];
            read_exact(self.storage, self.at, &mut raw)?;
            if raw == [0; BLOCK as usize] {
                return Ok(None);
            }
            check_sum(&raw, self.at)?;
            let size = number(&raw[124..136])
                .ok_or_else(|| Error::damaged(Layer::Block, "a size in the archive is no number").at(self.at))?;
            let kind = raw[156];
            let size =
                if matches!(kind, b'L' | b'x' | b'g' | b'K') { size } else { self.long_size.take().unwrap_or(size) };
            let offset = self.at + BLOCK;
            let end = offset.checked_add(size).filter(|end| *end <= self.length);
            let end = end.ok_or_else(|| {
                Error::damaged(Layer::Block, "a member of the archive lies beyond its end")
                    .at(self.at)
                    .hint("the file is truncated: copy it again")
            })?;
            let header_at = self.at;
            self.at = end.next_multiple_of(BLOCK);
            match kind {
                b'0' | 0 | b'7' => {
                    let name = self.long_name.take().unwrap_or_else(|| name(&raw));
                    return Ok(Some(Member { name: name.trim_start_matches("./").to_owned(), offset, length: size }));
                }
                b'L' => self.long_name = Some(text(&self.extra(offset, size)?)),
                b'x' => {
                    let records = self.extra(offset, size)?;
                    self.take_pax(&records);
                }
                b'S' => {
                    return Err(Error::unsupported(Layer::Block, "a sparse member in the archive")
                        .at(header_at)
                        .hint("unpack the archive, and give winject the disk image inside"));
                }
                _ => (self.long_name, self.long_size) = (None, None),
            }
        }
    }

    fn extra(&self, offset: u64, size: u64) -> Result<Vec<u8>> {
        if size > EXTRA_MAX {
            return Err(Error::damaged(Layer::Block, "an extended header of the archive is too long")
                .at(offset)
                .expected_found(format_args!("at most {EXTRA_MAX} bytes"), size));
        }
        let mut raw = vec![0; size as usize];
        read_exact(self.storage, offset, &mut raw)?;
        Ok(raw)
    }

    /// Records "LENGTH key=value\n".
    fn take_pax(&mut self, mut records: &[u8]) {
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

/// The checksum: the sum of all bytes, its own field counted as blanks.
fn check_sum(raw: &[u8; BLOCK as usize], at: u64) -> Result<()> {
    let sum: u64 = raw.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) }).sum();
    if number(&raw[148..156]) == Some(sum) {
        return Ok(());
    }
    Err(Error::damaged(Layer::Block, "a header of the archive has a wrong checksum")
        .at(at)
        .hint("the file is damaged: copy it again"))
}

/// Octal digits, or (GNU, for 8 GiB and more) a big-endian number behind a set top bit.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let mut value = u64::from(field[0] & 0x7F);
        for byte in &field[1..] {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value);
    }
    let digits: Vec<u8> = field.iter().copied().take_while(|b| *b != 0).filter(|b| *b != b' ').collect();
    if digits.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()
}

fn name(raw: &[u8; BLOCK as usize]) -> String {
    let (name, prefix) = (text(&raw[..100]), text(&raw[345..500]));
    if &raw[257..262] == b"ustar" && raw[262] == 0 && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}

fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}
