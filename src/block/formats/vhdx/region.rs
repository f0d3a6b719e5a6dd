//! The region table: where the block allocation table and the metadata are (MS-VHDX 2.2.3).

use super::header::{Header, checksum};
use super::{MIB, le32, le64};
use crate::block::Storage;
use crate::block::formats::extent_map::read_exact;
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;

/// Where the two copies are.
pub(crate) const OFFSETS: [u64; 2] = [192 << 10, 256 << 10];

/// Bytes of one copy.
pub(crate) const TABLE: usize = 64 << 10;

/// Most entries of a table.
const ENTRIES_MAX: u32 = 2047;

/// The block allocation table.
pub(crate) const BAT: Guid = Guid::new(0x2DC2_7766, 0xF623, 0x4200, [0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08]);

/// The metadata.
pub(crate) const METADATA: Guid =
    Guid::new(0x8B7C_A206, 0x4790, 0x4B9A, [0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E]);

/// A range of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    /// First byte.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
}

/// The regions that a reader needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Regions {
    /// The block allocation table.
    pub(crate) bat: Region,
    /// The metadata.
    pub(crate) metadata: Region,
}

impl Regions {
    /// Reads the first valid copy.
    pub(crate) fn read(storage: &dyn Storage, file_length: u64, header: &Header) -> Result<Self> {
        let mut raw = vec![0; TABLE];
        for offset in OFFSETS {
            read_exact(storage, offset, &mut raw)?;
            if raw.starts_with(b"regi") && le32(&raw, 4) == checksum(&raw) {
                return Self::parse(&raw, offset, file_length, header);
            }
        }
        Err(Error::damaged(Layer::Block, "the VHDX has no valid region table")
            .at(OFFSETS[0])
            .hint("let Hyper-V repair the file, or copy it again"))
    }

    fn parse(raw: &[u8], at: u64, file_length: u64, header: &Header) -> Result<Self> {
        let count = le32(raw, 8);
        if count > ENTRIES_MAX {
            return Err(Error::damaged(Layer::Block, "the VHDX's region table has too many entries")
                .at(at + 8)
                .expected_found(format_args!("at most {ENTRIES_MAX}"), count));
        }
        let (mut bat, mut metadata) = (None, None);
        let mut taken = vec![Region { offset: 0, length: MIB }];
        if header.log_length > 0 {
            taken.push(Region { offset: header.log_offset, length: header.log_length });
        }
        for (i, entry) in raw[16..].chunks_exact(32).take(count as usize).enumerate() {
            let here = at + 16 + 32 * i as u64;
            let mut guid = [0; 16];
            guid.copy_from_slice(&entry[..16]);
            let region = Region { offset: le64(entry, 16), length: le32(entry, 24).into() };
            let slot = match Guid(guid) {
                BAT => &mut bat,
                METADATA => &mut metadata,
                guid if le32(entry, 28) & 1 != 0 => {
                    return Err(Error::unsupported(
                        Layer::Block,
                        format!("the VHDX needs a region {guid} that is not known"),
                    )
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
    fn check(&self, at: u64, file_length: u64, taken: &[Self]) -> Result<()> {
        let damaged = |message: &str| Err(Error::damaged(Layer::Block, message).at(at));
        let Some(end) = self.offset.checked_add(self.length).filter(|end| *end <= file_length) else {
            return damaged("a region of the VHDX lies beyond the end of the file");
        };
        if self.length == 0 || !self.offset.is_multiple_of(MIB) || !self.length.is_multiple_of(MIB) {
            return damaged("a region of the VHDX is not whole MiB");
        }
        if taken.iter().any(|t| self.offset < t.offset.saturating_add(t.length) && t.offset < end) {
            return damaged("regions of the VHDX overlap");
        }
        Ok(())
    }
}
