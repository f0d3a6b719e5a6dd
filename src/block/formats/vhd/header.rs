//! The dynamic disk header: where the block allocation table is, and who the parent is.

use std::collections::HashSet;
use std::mem::offset_of;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::footer::{UniqueId, checksum};
use crate::block::Storage;
use crate::block::formats::extent_map::{base_name, candidate_names, read_exact, read_struct};
use crate::error::{Error, Layer, Result};
use crate::escape::escape;
use crate::units::HostOffset;

const COOKIE: [u8; 8] = *b"cxsparse";

/// The header as it is stored ("Dynamic Disk Header Format").
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredHeader {
    cookie: [u8; 8],
    /// Not used: all bits are ones.
    data_offset: U64,
    /// Where the block allocation table is in the file.
    table_offset: U64,
    header_version: U32,
    /// Entries of the block allocation table.
    max_table_entries: U32,
    /// Bytes of a block's data.
    block_size: U32,
    /// Of this header; see [`checksum`].
    checksum: U32,
    parent_unique_id: [u8; 16],
    parent_time_stamp: U32,
    reserved: U32,
    /// UTF-16, padded with zeros.
    parent_unicode_name: [U16; 256],
    parent_locators: [StoredLocator; 8],
    reserved2: [u8; 256],
}

const _: () = assert!(size_of::<StoredHeader>() == 1024);

/// Where one of the parent's names is ("Parent Locator Entry").
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredLocator {
    /// How the name is written: [`RELATIVE_PATH`] …
    platform_code: [u8; 4],
    platform_data_space: U32,
    /// Bytes of the name.
    platform_data_length: U32,
    reserved: U32,
    /// Where the name is in the file.
    platform_data_offset: U64,
}

const _: () = assert!(size_of::<StoredLocator>() == 24);

/// Platform codes: a path relative to the child, an absolute one (both UTF-16, little-endian), a URL of macOS (UTF-8).
const RELATIVE_PATH: &[u8; 4] = b"W2ru";
const ABSOLUTE_PATH: &[u8; 4] = b"W2ku";
const MAC_PATH: &[u8; 4] = b"MacX";

/// Most entries of a block allocation table: 2 TiB in blocks of 4 KiB.
const ENTRIES_MAX: u32 = 1 << 29;

/// Longest path that a locator may hold, in bytes; Windows allows 32767 UTF-16 units.
const PATH_BYTES_MAX: u32 = 65536;

/// Sectors, which the sector bitmap counts, have 512 bytes.
const SECTOR: u64 = 512;

/// A checked header: what a reader needs of it.
#[derive(Debug, Clone)]
pub(super) struct DynamicHeader {
    /// The block allocation table.
    pub(super) table: HostOffset,
    /// Entries of that table.
    pub(super) entries: u32,
    /// Bytes of a block's data: a power of two.
    pub(super) block_size: u64,
    /// Unique id in the parent's footer.
    pub(super) parent_id: UniqueId,
    parent_name: String,
    locators: [StoredLocator; 8],
}

impl DynamicHeader {
    /// Reads and checks the header at `offset`.
    pub(super) fn read(storage: &dyn Storage, file_length: u64, offset: HostOffset) -> Result<Self> {
        let damaged =
            |message: &str, field: usize| Error::damaged(Layer::Block, message).at(offset.saturating_add(field as u64));
        if offset.checked_add(size_of::<StoredHeader>() as u64).is_none_or(|end| end.0 > file_length) {
            return Err(damaged("the VHD's dynamic header lies beyond the end of the file", 0));
        }
        let stored: StoredHeader = read_struct(storage, offset)?;
        if stored.cookie != COOKIE {
            return Err(damaged("the VHD's dynamic header has no cookie", 0));
        }
        let field = offset_of!(StoredHeader, checksum);
        let (found, computed) = (stored.checksum.get(), checksum(stored.as_bytes(), field));
        if found != computed {
            return Err(damaged("the VHD's dynamic header has a wrong checksum", field)
                .expected_found(format_args!("{computed:#010x}"), format_args!("{found:#010x}")));
        }
        let block_size = stored.block_size.get();
        if !block_size.is_power_of_two() || u64::from(block_size) < SECTOR {
            let field = offset_of!(StoredHeader, block_size);
            return Err(damaged("the VHD's block size is not a power of two of at least 512", field)
                .expected_found("2 MiB", block_size));
        }
        let (table, entries) = (HostOffset(stored.table_offset.get()), stored.max_table_entries.get());
        let table_end = table.checked_add(u64::from(entries) * 4);
        if entries > ENTRIES_MAX || table_end.is_none_or(|end| end.0 > file_length) {
            let field = offset_of!(StoredHeader, table_offset);
            return Err(damaged("the VHD's block allocation table does not fit into the file", field).expected_found(
                format_args!("inside {file_length} bytes"),
                format_args!("{entries} entries at {table}"),
            ));
        }
        Ok(Self {
            table,
            entries,
            block_size: u64::from(block_size),
            parent_id: UniqueId(stored.parent_unique_id),
            parent_name: text(stored.parent_unicode_name.iter().map(|unit| unit.get())),
            locators: stored.parent_locators,
        })
    }

    /// Bytes of the disk that the blocks of the table can hold.
    pub(super) fn capacity(&self) -> u64 {
        u64::from(self.entries) * self.block_size
    }

    /// Bytes of the sector bitmap in front of each block.
    pub(super) fn bitmap_bytes(&self) -> u64 {
        (self.block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR)
    }

    /// Names under which the parent may be found, best first: the relative path, the file name, the absolute path.
    pub(super) fn parent_names(&self, storage: &dyn Storage, file_length: u64) -> Result<Vec<String>> {
        let (mut relative, mut absolute) = (Vec::new(), Vec::new());
        for locator in self.locators.iter().filter(|l| l.platform_data_length > 0) {
            let list = match &locator.platform_code {
                RELATIVE_PATH => &mut relative,
                ABSOLUTE_PATH | MAC_PATH => &mut absolute,
                _ => continue,
            };
            list.push(locator.read(storage, file_length)?);
        }
        let mut names: Vec<String> = relative.iter().flat_map(|p| candidate_names(p)).collect();
        names.extend([&self.parent_name].into_iter().chain(&absolute).map(|p| base_name(p).to_owned()));
        names.retain(|n| !n.is_empty());
        let mut seen = HashSet::new();
        names.retain(|n| seen.insert(n.clone()));
        if names.is_empty() {
            return Err(Error::damaged(Layer::Block, "this differencing VHD does not name its parent")
                .expected_found("a parent locator", escape(&self.parent_name)));
        }
        Ok(names)
    }
}

impl StoredLocator {
    /// The name to which the locator refers.
    fn read(&self, storage: &dyn Storage, file_length: u64) -> Result<String> {
        let (offset, length) = (HostOffset(self.platform_data_offset.get()), self.platform_data_length.get());
        let end = offset.checked_add(u64::from(length));
        if length > PATH_BYTES_MAX || end.is_none_or(|end| end.0 > file_length) {
            return Err(
                Error::damaged(Layer::Block, "a parent locator of the VHD does not fit into the file").at(offset)
            );
        }
        let mut raw = vec![0; length as usize];
        read_exact(storage, offset, &mut raw)?;
        Ok(if &self.platform_code == MAC_PATH {
            String::from_utf8_lossy(&raw).trim_end_matches('\0').to_owned()
        } else {
            text(raw.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)))
        })
    }
}

/// The text of UTF-16 units up to the first zero.
fn text(units: impl IntoIterator<Item = u16>) -> String {
    let units = units.into_iter().take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
