//! The metadata: sizes, and the parent of a differencing disk (MS-VHDX 2.6).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::header::MIB;
use super::region::Region;
use crate::block::Storage;
use crate::block::formats::extent_map::read_exact;
use crate::error::{Error, Layer, Result};
use crate::escape::escape;
use crate::guid::Guid;
use crate::units::HostOffset;

const FILE_PARAMETERS: Guid = Guid::new(0xCAA1_6737, 0xFA36, 0x4D43, [0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B]);
const VIRTUAL_SIZE: Guid = Guid::new(0x2FA5_4224, 0xCD1B, 0x4876, [0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8]);
const PAGE_83: Guid = Guid::new(0xBECA_12AB, 0xB2E6, 0x4523, [0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46]);
const LOGICAL_SECTOR: Guid = Guid::new(0x8141_BF1D, 0xA96F, 0x4709, [0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F]);
const PHYSICAL_SECTOR: Guid = Guid::new(0xCDA3_48C7, 0x445D, 0x4471, [0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56]);
const PARENT_LOCATOR: Guid = Guid::new(0xA8D3_5F2D, 0xB30B, 0x454D, [0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C]);

/// The only type of parent locator: a VHDX.
const LOCATOR_TYPE: Guid = Guid::new(0xB04A_EFB7, 0xD19E, 0x4A81, [0xB7, 0x89, 0x25, 0xB8, 0xE9, 0x44, 0x59, 0x13]);

/// Bytes of the metadata table; the items follow.
const TABLE: u64 = 64 << 10;

/// The specification's limits: of the number of entries, and of an item in bytes.
const ENTRIES_MAX: u16 = 2047;
const ITEM_MAX: u32 = 1 << 20;

/// Largest disk: 64 TiB.
const SIZE_MAX: u64 = 64 << 40;

const SIGNATURE: [u8; 8] = *b"metadata";

/// What the table begins with ("Metadata Table Header").
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredTable {
    signature: [u8; 8],
    reserved: U16,
    entry_count: U16,
    reserved2: [u8; 20],
}

const _: () = assert!(size_of::<StoredTable>() == 32);

/// An entry of the table ("Metadata Table Entry").
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredEntry {
    /// Which item it is.
    item_id: [u8; 16],
    /// Where the item is, from the start of the region.
    offset: U32,
    /// Bytes of the item.
    length: U32,
    /// Bit 0 user metadata, bit 1 metadata of the virtual disk, bit 2: a reader
    /// that does not support the item must not open the file.
    flags: U32,
    reserved2: U32,
}

const _: () = assert!(size_of::<StoredEntry>() == 32);

const ENTRY_REQUIRED: u32 = 1 << 2;

/// The item "File Parameters".
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredFileParameters {
    /// Bytes of a payload block.
    block_size: U32,
    /// Bit 0: the blocks stay allocated (a fixed disk); bit 1: there is a parent.
    flags: U32,
}

const _: () = assert!(size_of::<StoredFileParameters>() == 8);

const LEAVE_BLOCKS_ALLOCATED: u32 = 1;
const HAS_PARENT: u32 = 1 << 1;

/// What the item "Parent Locator" begins with.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredLocator {
    locator_type: [u8; 16],
    reserved: U16,
    key_value_count: U16,
}

const _: () = assert!(size_of::<StoredLocator>() == 20);

/// A key and its value, both UTF-16; lengths are bytes ("Parent Locator Entry").
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredLocatorEntry {
    /// From the start of the item.
    key_offset: U32,
    /// From the start of the item.
    value_offset: U32,
    key_length: U16,
    value_length: U16,
}

const _: () = assert!(size_of::<StoredLocatorEntry>() == 12);

/// The checked metadata of a VHDX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Bytes of a payload block: a power of two, 1 to 256 MiB.
    pub(super) block_size: u64,
    /// The disk's size in bytes.
    pub(super) virtual_size: u64,
    /// Bytes of a sector as the guest sees it: 512 or 4096.
    pub(super) sector: u64,
    /// The parent, for a differencing disk.
    pub(super) parent: Option<ParentLocator>,
    /// Whether the disk is of fixed size (a hint to writers).
    pub(super) is_fixed: bool,
}

/// How to find the parent, and which one it must be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ParentLocator {
    /// Data write GUIDs of which the parent must have one.
    pub(super) linkage: Vec<Guid>,
    /// Path relative to the child's folder.
    pub(super) relative: Option<String>,
    /// Absolute paths on the machine that made the child.
    pub(super) absolute: Vec<String>,
}

/// The items that a reader needs, as they are stored.
#[derive(Default)]
struct Items {
    parameters: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
    logical_sector: Option<Vec<u8>>,
    parent: Option<Vec<u8>>,
}

impl Metadata {
    /// Reads and checks the metadata region.
    pub(super) fn read(storage: &dyn Storage, region: Region) -> Result<Self> {
        let items = Items::read(storage, region)?;
        let missing =
            |what: &str| Error::damaged(Layer::Block, format!("the VHDX's metadata lack the {what}")).at(region.offset);
        let parameters: StoredFileParameters = read_item(items.parameters).ok_or_else(|| missing("file parameters"))?;
        let virtual_size: U64 = read_item(items.size).ok_or_else(|| missing("virtual disk size"))?;
        let sector: U32 = read_item(items.logical_sector).ok_or_else(|| missing("logical sector size"))?;
        let (block_size, flags) = (u64::from(parameters.block_size.get()), parameters.flags.get());
        let (virtual_size, sector) = (virtual_size.get(), u64::from(sector.get()));
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
        let parent = match (flags & HAS_PARENT != 0, items.parent) {
            (false, _) => None,
            (true, Some(raw)) => Some(ParentLocator::parse(&raw, region.offset)?),
            (true, None) => return Err(missing("parent locator")),
        };
        let is_fixed = flags & LEAVE_BLOCKS_ALLOCATED != 0;
        Ok(Self { block_size, virtual_size, sector, parent, is_fixed })
    }
}

/// The structure at the start of an item; `None` if the item is missing or too short.
fn read_item<T: FromBytes>(item: Option<Vec<u8>>) -> Option<T> {
    T::read_from_prefix(&item?).ok().map(|(structure, _)| structure)
}

impl Items {
    fn read(storage: &dyn Storage, region: Region) -> Result<Self> {
        let mut raw = vec![0; TABLE as usize];
        read_exact(storage, region.offset, &mut raw)?;
        let damaged = |message: &str, at: usize| {
            Error::damaged(Layer::Block, message).at(region.offset.saturating_add(at as u64))
        };
        let table = StoredTable::ref_from_prefix(&raw).ok().filter(|(table, _)| table.signature == SIGNATURE);
        let (table, entries) = table.ok_or_else(|| damaged("the VHDX's metadata have no signature", 0))?;
        let count = table.entry_count.get();
        if count > ENTRIES_MAX {
            let field = std::mem::offset_of!(StoredTable, entry_count);
            return Err(damaged("the VHDX's metadata have too many entries", field)
                .expected_found(format_args!("at most {ENTRIES_MAX}"), count));
        }
        let entries = <[StoredEntry]>::ref_from_prefix_with_elems(entries, count.into()).map_or(&[][..], |(e, _)| e);
        let mut items = Self::default();
        for (i, entry) in entries.iter().enumerate() {
            let here = size_of::<StoredTable>() + i * size_of::<StoredEntry>();
            let (offset, length) = (u64::from(entry.offset.get()), entry.length.get());
            let slot = match Guid(entry.item_id) {
                FILE_PARAMETERS => &mut items.parameters,
                VIRTUAL_SIZE => &mut items.size,
                LOGICAL_SECTOR => &mut items.logical_sector,
                PARENT_LOCATOR => &mut items.parent,
                PAGE_83 | PHYSICAL_SECTOR => continue,
                guid if entry.flags.get() & ENTRY_REQUIRED != 0 => {
                    return Err(Error::unsupported(
                        Layer::Block,
                        format!("the VHDX needs the unknown metadata item {guid}"),
                    )
                    .at(region.offset.saturating_add(here as u64))
                    .hint("convert the disk in Hyper-V first (Convert-VHD)"));
                }
                _ => continue,
            };
            if length > ITEM_MAX || offset < TABLE || offset + u64::from(length) > region.length {
                return Err(damaged("a metadata item of the VHDX lies outside its region", here));
            }
            let mut item = vec![0; length as usize];
            read_exact(storage, region.offset.saturating_add(offset), &mut item)?;
            if slot.replace(item).is_some() {
                return Err(damaged("the VHDX has a metadata item twice", here));
            }
        }
        Ok(items)
    }
}

impl ParentLocator {
    /// Parses the item `raw`; `at` is where its region begins, for errors.
    fn parse(raw: &[u8], at: HostOffset) -> Result<Self> {
        let damaged = |message: &str| Error::damaged(Layer::Block, message).at(at);
        let stored = StoredLocator::ref_from_prefix(raw).ok();
        let Some((stored, mut rest)) = stored.filter(|(stored, _)| stored.locator_type == LOCATOR_TYPE.0) else {
            return Err(damaged("the VHDX's parent locator is of an unknown type"));
        };
        let mut locator = Self::default();
        for _ in 0..stored.key_value_count.get() {
            let Ok((entry, next)) = StoredLocatorEntry::ref_from_prefix(rest) else { break };
            rest = next;
            let key = text(raw, entry.key_offset, entry.key_length);
            let value = text(raw, entry.value_offset, entry.value_length);
            let (Some(key), Some(value)) = (key, value) else {
                return Err(damaged("an entry of the VHDX's parent locator lies outside it"));
            };
            match key.as_str() {
                "parent_linkage" | "parent_linkage2" => locator.linkage.push(Guid::parse(&value).ok_or_else(|| {
                    damaged("the VHDX's parent linkage is not a GUID").expected_found("{…}", escape(&value))
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

/// The UTF-16 text of `length` bytes at `offset` of the item; `None` when it reaches beyond the item.
fn text(item: &[u8], offset: U32, length: U16) -> Option<String> {
    let bytes = item.get(offset.get() as usize..)?.get(..length.get().into())?;
    let units = bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit));
    Some(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}
