//! The metadata: sizes, and the parent of a differencing disk (MS-VHDX 2.6).

use super::region::Region;
use super::{MIB, le16, le32, le64};
use crate::block::Storage;
use crate::block::formats::extent_map::read_exact;
use crate::error::{Error, Layer, Result};
use crate::escape::escape;
use crate::guid::Guid;

const FILE_PARAMETERS: Guid = Guid::new(0xCAA1_6737, 0xFA36, 0x4D43, [0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B]);
const VIRTUAL_SIZE: Guid = Guid::new(0x2FA5_4224, 0xCD1B, 0x4876, [0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8]);
const PAGE_83: Guid = Guid::new(0xBECA_12AB, 0xB2E6, 0x4523, [0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46]);
const LOGICAL_SECTOR: Guid = Guid::new(0x8141_BF1D, 0xA96F, 0x4709, [0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F]);
const PHYSICAL_SECTOR: Guid = Guid::new(0xCDA3_48C7, 0x445D, 0x4471, [0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56]);
const PARENT_LOCATOR: Guid = Guid::new(0xA8D3_5F2D, 0xB30B, 0x454D, [0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C]);

/// The only type of parent locator: a VHDX.
const LOCATOR_TYPE: Guid = Guid::new(0xB04A_EFB7, 0xD19E, 0x4A81, [0xB7, 0x89, 0x25, 0xB8, 0xE9, 0x44, 0x59, 0x13]);

/// Bytes of the metadata table.
const TABLE: u64 = 64 << 10;

/// Most entries, and the largest item.
const ENTRIES_MAX: u16 = 2047;
const ITEM_MAX: u32 = 1 << 20;

/// Largest disk: 64 TiB.
const SIZE_MAX: u64 = 64 << 40;

/// What the metadata say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Bytes per block.
    pub(crate) block_size: u64,
    /// Guest size.
    pub(crate) virtual_size: u64,
    /// Bytes per sector that the guest sees.
    pub(crate) sector: u64,
    /// The parent, for a differencing disk.
    pub(crate) parent: Option<ParentLocator>,
    /// Whether the disk is of fixed size (a hint to writers).
    pub(crate) is_fixed: bool,
}

/// How to find the parent, and which one it must be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ParentLocator {
    /// Data write GUIDs of which the parent must have one.
    pub(crate) linkage: Vec<Guid>,
    /// Path relative to the child.
    pub(crate) relative: Option<String>,
    /// Absolute paths.
    pub(crate) absolute: Vec<String>,
}

#[derive(Default)]
struct Items {
    parameters: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
    logical: Option<Vec<u8>>,
    parent: Option<Vec<u8>>,
}

impl Metadata {
    /// Reads and checks the metadata region.
    pub(crate) fn read(storage: &dyn Storage, region: Region) -> Result<Self> {
        let items = Items::read(storage, region)?;
        let missing =
            |what: &str| Error::damaged(Layer::Block, format!("the VHDX's metadata lack the {what}")).at(region.offset);
        let fixed = |item: Option<Vec<u8>>, length: usize, what: &str| {
            item.filter(|i| i.len() >= length).ok_or_else(|| missing(what))
        };
        let parameters = fixed(items.parameters, 8, "file parameters")?;
        let size = fixed(items.size, 8, "virtual disk size")?;
        let logical = fixed(items.logical, 4, "logical sector size")?;
        let (block_size, flags) = (u64::from(le32(&parameters, 0)), le32(&parameters, 4));
        let (virtual_size, sector) = (le64(&size, 0), u64::from(le32(&logical, 0)));
        let damaged = |message: &str| Err(Error::damaged(Layer::Block, message).at(region.offset));
        if !block_size.is_power_of_two() || !(MIB..=256 * MIB).contains(&block_size) {
            return damaged("the VHDX's block size is not a power of two between 1 and 256 MiB");
        }
        if sector != 512 && sector != 4096 {
            return damaged("the VHDX's logical sector size is neither 512 nor 4096");
        }
        if virtual_size > SIZE_MAX || !virtual_size.is_multiple_of(sector) {
            return damaged("the VHDX's virtual size is beyond 64 TiB or not whole sectors");
        }
        let parent = match (flags & 2 != 0, items.parent) {
            (false, _) => None,
            (true, Some(raw)) => Some(ParentLocator::parse(&raw, region.offset)?),
            (true, None) => return Err(missing("parent locator")),
        };
        Ok(Self { block_size, virtual_size, sector, parent, is_fixed: flags & 1 != 0 })
    }
}

impl Items {
    fn read(storage: &dyn Storage, region: Region) -> Result<Self> {
        let mut table = vec![0; TABLE as usize];
        read_exact(storage, region.offset, &mut table)?;
        let damaged = |message: &str, at: u64| Error::damaged(Layer::Block, message).at(region.offset + at);
        if !table.starts_with(b"metadata") {
            return Err(damaged("the VHDX's metadata have no signature", 0));
        }
        let count = le16(&table, 10);
        if count > ENTRIES_MAX {
            return Err(damaged("the VHDX's metadata have too many entries", 10)
                .expected_found(format_args!("at most {ENTRIES_MAX}"), count));
        }
        let mut items = Self::default();
        for (i, entry) in table[32..].chunks_exact(32).take(count.into()).enumerate() {
            let here = 32 + 32 * i as u64;
            let mut guid = [0; 16];
            guid.copy_from_slice(&entry[..16]);
            let (offset, length, flags) = (le32(entry, 16), le32(entry, 20), le32(entry, 24));
            let slot = match Guid(guid) {
                FILE_PARAMETERS => &mut items.parameters,
                VIRTUAL_SIZE => &mut items.size,
                LOGICAL_SECTOR => &mut items.logical,
                PARENT_LOCATOR => &mut items.parent,
                PAGE_83 | PHYSICAL_SECTOR => continue,
                guid if flags & 4 != 0 => {
                    return Err(Error::unsupported(
                        Layer::Block,
                        format!("the VHDX needs metadata {guid} that are not known"),
                    )
                    .at(region.offset + here)
                    .hint("convert the disk in Hyper-V first (Convert-VHD)"));
                }
                _ => continue,
            };
            let end = u64::from(offset) + u64::from(length);
            if length > ITEM_MAX || u64::from(offset) < TABLE || end > region.length {
                return Err(damaged("a metadata item of the VHDX lies outside its region", here));
            }
            let mut item = vec![0; length as usize];
            read_exact(storage, region.offset + u64::from(offset), &mut item)?;
            if slot.replace(item).is_some() {
                return Err(damaged("a metadata item of the VHDX is there twice", here));
            }
        }
        Ok(items)
    }
}

impl ParentLocator {
    fn parse(raw: &[u8], at: u64) -> Result<Self> {
        let damaged = |message: &str| Error::damaged(Layer::Block, message).at(at);
        if raw.len() < 20 || raw[..16] != LOCATOR_TYPE.0 {
            return Err(damaged("the VHDX's parent locator is of an unknown type"));
        }
        let mut locator = Self::default();
        for entry in raw[20..].chunks_exact(12).take(le16(raw, 18).into()) {
            let text = |offset: u32, length: u16| {
                let bytes = raw.get(offset as usize..)?.get(..length.into())?;
                let units = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
                Some(char::decode_utf16(units).map(|c| c.unwrap_or('\u{FFFD}')).collect::<String>())
            };
            let key = text(le32(entry, 0), le16(entry, 8));
            let value = text(le32(entry, 4), le16(entry, 10));
            let (Some(key), Some(value)) = (key, value) else {
                return Err(damaged("an entry of the VHDX's parent locator lies outside it"));
            };
            match key.as_str() {
                "parent_linkage" | "parent_linkage2" => locator.linkage.push(Guid::parse(&value).ok_or_else(|| {
                    damaged("the VHDX's parent linkage is no GUID").expected_found("{…}", escape(&value))
                })?),
                "relative_path" => locator.relative = Some(value),
                "absolute_win32_path" | "volume_path" => locator.absolute.push(value),
                _ => {}
            }
        }
        if locator.linkage.is_empty() {
            return Err(damaged("the VHDX's parent locator has no parent linkage"));
        }
        Ok(locator)
    }
}
