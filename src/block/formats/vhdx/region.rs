//! The region table: where the block allocation table and the metadata are (MS-VHDX 2.2.3).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::header::{Header, MIB, checksum};
use crate::block::Storage;
use crate::block::formats::extent_map::read_exact;
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;
use crate::units::HostOffset;

/// Where the two copies of the table lie.
const OFFSETS: [HostOffset; 2] = [HostOffset(192 << 10), HostOffset(256 << 10)];

/// Bytes of one copy, which the checksum covers.
const TABLE: usize = 64 << 10;

/// The specification's limit of the number of entries.
const ENTRIES_MAX: u32 = 2047;

const BAT: Guid = Guid::new(0x2DC2_7766, 0xF623, 0x4200, [0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08]);
const METADATA: Guid = Guid::new(0x8B7C_A206, 0x4790, 0x4B9A, [0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E]);

const SIGNATURE: [u8; 4] = *b"regi";

/// What a table begins with ("Region Table Header").
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredTable {
    signature: [u8; 4],
    /// CRC-32C of the 64 KiB, this field taken as zero.
    checksum: U32,
    entry_count: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<StoredTable>() == 16);

/// An entry of the table ("Region Table Entry").
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredEntry {
    /// Which region it is.
    guid: [u8; 16],
    file_offset: U64,
    /// Bytes of the region.
    length: U32,
    /// Bit 0: a reader that does not support the region must not open the file.
    flags: U32,
}

const _: () = assert!(size_of::<StoredEntry>() == 32);

const FLAG_REQUIRED: u32 = 1;

/// A range of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) offset: HostOffset,
    /// In bytes, like the region's offset a multiple of 1 MiB.
    pub(super) length: u64,
}

/// The regions that a reader needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Regions {
    /// The block allocation table.
    pub(super) bat: Region,
    pub(super) metadata: Region,
}

impl Regions {
    /// Reads the first valid copy.
    pub(super) fn read(storage: &dyn Storage, file_length: u64, header: &Header) -> Result<Self> {
        let mut raw = vec![0; TABLE];
        for offset in OFFSETS {
            read_exact(storage, offset, &mut raw)?;
            if let Ok((table, entries)) = StoredTable::ref_from_prefix(&raw)
                && table.signature == SIGNATURE
                && table.checksum == checksum(&raw)
            {
                return Self::parse(table, entries, offset, file_length, header);
            }
        }
        Err(Error::damaged(Layer::Block, "the VHDX has no valid region table")
            .at(OFFSETS[0])
            .hint("let Hyper-V repair the file, or copy it again"))
    }

    fn parse(table: &StoredTable, entries: &[u8], at: HostOffset, file_length: u64, header: &Header) -> Result<Self> {
        let count = table.entry_count.get();
        if count > ENTRIES_MAX {
            return Err(Error::damaged(Layer::Block, "the VHDX's region table has too many entries")
                .at(at.saturating_add(std::mem::offset_of!(StoredTable, entry_count) as u64))
                .expected_found(format_args!("at most {ENTRIES_MAX}"), count));
        }
        let entries = <[StoredEntry]>::ref_from_prefix_with_elems(entries, count as usize).map_or(&[][..], |(e, _)| e);
        let (mut bat, mut metadata) = (None, None);
        let mut taken = vec![Region { offset: HostOffset(0), length: MIB }];
        if header.log_length > 0 {
            taken.push(Region { offset: header.log_offset, length: header.log_length });
        }
        let first = at.saturating_add(size_of::<StoredTable>() as u64);
        for (i, entry) in entries.iter().enumerate() {
            let here = first.saturating_add((i * size_of::<StoredEntry>()) as u64);
            let region = Region { offset: HostOffset(entry.file_offset.get()), length: entry.length.get().into() };
            let slot = match Guid(entry.guid) {
                BAT => &mut bat,
                METADATA => &mut metadata,
                guid if entry.flags.get() & FLAG_REQUIRED != 0 => {
                    return Err(Error::unsupported(Layer::Block, format!("the VHDX needs the unknown region {guid}"))
                        .at(here)
                        .hint("convert the disk in Hyper-V first (Convert-VHD)"));
                }
                _ => continue,
            };
            region.check(here, file_length, &taken)?;
            taken.push(region);
            if slot.replace(region).is_some() {
                return Err(Error::damaged(Layer::Block, "the VHDX's region table names a region twice").at(here));
            }
        }
        let missing = |what: &str| {
            Error::damaged(Layer::Block, format!("the VHDX's region table does not name the {what}")).at(at)
        };
        Ok(Self {
            bat: bat.ok_or_else(|| missing("block allocation table"))?,
            metadata: metadata.ok_or_else(|| missing("metadata"))?,
        })
    }
}

impl Region {
    /// Checks the region of the entry at `at`: whole MiB inside the file, apart from those that are `taken`.
    fn check(&self, at: HostOffset, file_length: u64, taken: &[Self]) -> Result<()> {
        let damaged = |message: &str| Err(Error::damaged(Layer::Block, message).at(at));
        let Some(end) = self.offset.checked_add(self.length).filter(|end| end.0 <= file_length) else {
            return damaged("a region of the VHDX lies beyond the end of the file");
        };
        if self.length == 0 || !self.offset.0.is_multiple_of(MIB) || !self.length.is_multiple_of(MIB) {
            return damaged("a region of the VHDX is not whole MiB");
        }
        if taken.iter().any(|t| self.offset < t.offset.saturating_add(t.length) && t.offset < end) {
            return damaged("regions of the VHDX overlap");
        }
        Ok(())
    }
}
