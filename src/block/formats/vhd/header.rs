//! The dynamic disk header: where the block allocation table is, and who the parent is.

use super::footer::{be32, be64, checksum};
use crate::block::Storage;
use crate::block::formats::extent_map::{base_name, candidate_names, read_exact};
use crate::error::{Error, Layer, Result};
use crate::escape::escape;

/// Bytes of a dynamic disk header.
pub(crate) const HEADER: usize = 1024;

/// First bytes of a dynamic disk header.
pub(crate) const COOKIE: &[u8; 8] = b"cxsparse";

/// Parent locators in a header.
const LOCATORS: usize = 8;

/// Longest path that a locator may hold; Windows allows 32767 UTF-16 units.
const PATH_BYTES_MAX: u32 = 65536;

/// "Dynamic Disk Header Format" of the specification; only what a reader needs.
#[derive(Debug, Clone)]
pub(crate) struct DynamicHeader {
    /// Byte offset of the block allocation table.
    pub(crate) table_offset: u64,
    /// Entries of that table.
    pub(crate) entries: u32,
    /// Bytes of a block's data.
    pub(crate) block_size: u64,
    /// Unique id in the parent's footer.
    pub(crate) parent_id: [u8; 16],
    parent_name: String,
    locators: Vec<Locator>,
}

#[derive(Debug, Clone, Copy)]
struct Locator {
    code: [u8; 4],
    length: u32,
    offset: u64,
}

impl DynamicHeader {
    /// Reads and checks the header at `offset`.
    pub(crate) fn read(storage: &dyn Storage, file_length: u64, offset: u64) -> Result<Self> {
        let damaged =
            |message: &str, at: usize| Error::damaged(Layer::Block, message).at(offset.saturating_add(at as u64));
        if offset.checked_add(HEADER as u64).is_none_or(|end| end > file_length) {
            return Err(damaged("the VHD's dynamic header lies beyond the end of the file", 0));
        }
        let mut raw = [0; HEADER];
        read_exact(storage, offset, &mut raw)?;
        if !raw.starts_with(COOKIE) {
            return Err(damaged("the VHD's dynamic header has no cookie", 0));
        }
        let (stored, computed) = (be32(&raw, 36), checksum(&raw, 36));
        if stored != computed {
            return Err(damaged("the VHD's dynamic header has a wrong checksum", 36)
                .expected_found(format_args!("{computed:#010x}"), format_args!("{stored:#010x}")));
        }
        let block_size = be32(&raw, 32);
        if !block_size.is_power_of_two() || block_size < 512 {
            return Err(damaged("the VHD's block size is not a power of two of at least 512", 32)
                .expected_found("2 MiB", block_size));
        }
        let (table_offset, entries) = (be64(&raw, 16), be32(&raw, 28));
        let table_end = table_offset.checked_add(u64::from(entries) * 4);
        if entries > 1 << 29 || table_end.is_none_or(|end| end > file_length) {
            return Err(damaged("the VHD's block allocation table does not fit into the file", 16).expected_found(
                format_args!("inside {file_length} bytes"),
                format_args!("{entries} entries at {table_offset:#x}"),
            ));
        }
        let mut parent_id = [0; 16];
        parent_id.copy_from_slice(&raw[40..56]);
        let name: Vec<u16> = raw[64..576].chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
        let locators = (0..LOCATORS).map(|i| Locator::parse(&raw[576 + 24 * i..600 + 24 * i])).collect();
        Ok(Self {
            table_offset,
            entries,
            block_size: u64::from(block_size),
            parent_id,
            parent_name: text(name),
            locators,
        })
    }

    /// Bytes that the blocks of the table can hold.
    pub(crate) fn capacity(&self) -> u64 {
        u64::from(self.entries) * self.block_size
    }

    /// Bytes of the sector bitmap in front of each block.
    pub(crate) fn bitmap_bytes(&self) -> u64 {
        (self.block_size / 512).div_ceil(8).next_multiple_of(512)
    }

    /// Names under which the parent may be found, best first: the relative path, the file name, the absolute path.
    pub(crate) fn parent_names(&self, storage: &dyn Storage, file_length: u64) -> Result<Vec<String>> {
        let (mut relative, mut absolute) = (Vec::new(), Vec::new());
        for locator in self.locators.iter().filter(|l| l.length > 0) {
            let path = match &locator.code {
                b"W2ru" | b"W2ku" | b"MacX" => locator.read(storage, file_length)?,
                _ => continue,
            };
            let list = if &locator.code == b"W2ru" { &mut relative } else { &mut absolute };
            list.push(path);
        }
        let mut names: Vec<String> = relative.iter().flat_map(|p| candidate_names(p)).collect();
        names.extend([&self.parent_name].into_iter().chain(&absolute).map(|p| base_name(p).to_owned()));
        names.retain(|n| !n.is_empty());
        let mut seen = std::collections::HashSet::new();
        names.retain(|n| seen.insert(n.clone()));
        if names.is_empty() {
            return Err(Error::damaged(Layer::Block, "this differencing VHD does not name its parent")
                .expected_found("a parent locator", escape(&self.parent_name)));
        }
        Ok(names)
    }
}

impl Locator {
    fn parse(raw: &[u8]) -> Self {
        Self { code: [raw[0], raw[1], raw[2], raw[3]], length: be32(raw, 8), offset: be64(raw, 16) }
    }

    fn read(&self, storage: &dyn Storage, file_length: u64) -> Result<String> {
        let end = self.offset.checked_add(u64::from(self.length));
        if self.length > PATH_BYTES_MAX || end.is_none_or(|end| end > file_length) {
            return Err(
                Error::damaged(Layer::Block, "a parent locator of the VHD does not fit into the file").at(self.offset)
            );
        }
        let mut raw = vec![0; self.length as usize];
        read_exact(storage, self.offset, &mut raw)?;
        Ok(if &self.code == b"MacX" {
            String::from_utf8_lossy(&raw).trim_end_matches('\0').to_owned()
        } else {
            text(raw.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])))
        })
    }
}

fn text(units: impl IntoIterator<Item = u16>) -> String {
    char::decode_utf16(units.into_iter().take_while(|u| *u != 0)).map(|c| c.unwrap_or('\u{FFFD}')).collect()
}
