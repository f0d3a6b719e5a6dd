//! The boot configuration: a registry hive of objects, each with elements whose numbers say what they are ("BCD
//! Reference" of Microsoft's documentation; the form of the devices after Geoff Chappell, "BCD Elements").

use crate::error::Result;
use crate::field::utf16_from_le;
use crate::guid::Guid;
use crate::hive::reader::Reader;
use crate::partition::PartitionId;

/// The object of the boot manager.
const BOOT_MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";
/// Description of a Windows loader.
const WINDOWS_LOADER: u32 = 0x1020_0003;
/// `ApplicationDevice`, `ApplicationPath`, `OSDevice`, `SystemRoot` of a loader.
const DEVICE: &str = "11000001";
const PATH: &str = "12000002";
const OS_DEVICE: &str = "21000001";
const SYSTEM_ROOT: &str = "22000002";
/// `DefaultObject` and `DisplayOrder` of the boot manager.
const DEFAULT: &str = "23000003";
const DISPLAY_ORDER: &str = "24000001";

/// Where an entry looks for its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Device {
    Missing,
    /// The partition that the boot manager came from (kind 5).
    Boot,
    /// A partition (kind 6).
    Partition(PartitionId),
    /// The partition that holds a file of a given path (kind 8).
    Locate,
    /// A file or RAM disk (kind 0).
    File,
    /// An unknown or broken kind.
    Unknown(u32),
}

/// The entry that starts without a choice of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub id: String,
    pub path: Option<String>,
    pub device: Device,
    pub os_device: Device,
    pub system_root: Option<String>,
}

/// The default entry of a store, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DefaultEntry {
    /// The boot manager starts this entry.
    Found(Entry),
    /// The store has objects, but none leads to a loader: the reason.
    Broken(String),
    /// The store has no objects: it was never filled, and does not tell what the boot manager will start.
    EmptyStore,
}

/// Reads the entry that starts without a choice of the user.
///
/// # Errors
/// [`Kind::Damaged`](crate::Kind::Damaged) when the hive cannot be read.
pub(super) fn default_entry(store: &Reader<'_>) -> Result<DefaultEntry> {
    if store.key("Objects")?.is_none() {
        return Ok(DefaultEntry::EmptyStore);
    }
    Ok(match entry(store)? {
        Ok(entry) => DefaultEntry::Found(entry),
        Err(problem) => DefaultEntry::Broken(problem),
    })
}

fn entry(store: &Reader<'_>) -> Result<std::result::Result<Entry, String>> {
    if store.key(&format!("Objects\\{BOOT_MANAGER}"))?.is_none() {
        return Ok(Err(format!("it has no boot manager object {BOOT_MANAGER}")));
    }
    let default = texts(store, BOOT_MANAGER, DEFAULT)?;
    let first = if default.is_empty() { texts(store, BOOT_MANAGER, DISPLAY_ORDER)? } else { default };
    let Some(id) = first.into_iter().next() else {
        return Ok(Err("its boot manager has neither a default entry nor a display order".to_owned()));
    };
    let Some(description) = store.key(&format!("Objects\\{id}\\Description"))? else {
        return Ok(Err(format!("its default entry {id} is not there")));
    };
    let kind = description.value("Type")?.and_then(|value| value.as_u32());
    if kind != Some(WINDOWS_LOADER) {
        let kind = kind.unwrap_or(0);
        return Ok(Err(format!("its default entry {id} is not a Windows loader (type {kind:#x})")));
    }
    Ok(Ok(Entry {
        path: texts(store, &id, PATH)?.into_iter().next(),
        device: device(store, &id, DEVICE)?,
        os_device: device(store, &id, OS_DEVICE)?,
        system_root: texts(store, &id, SYSTEM_ROOT)?.into_iter().next(),
        id,
    }))
}

/// The element of a loader that keeps it from using a graphics mode (`graphicsmodedisabled`).
pub(crate) const NO_GRAPHICS: &str = "16000046";
/// The element of a loader that allows drivers with a test signature (`testsigning`).
pub(crate) const TEST_SIGNING: &str = "16000049";

/// The key of an element, below the root of the store.
pub(crate) fn element_key(object: &str, number: &str) -> String {
    format!("Objects\\{object}\\Elements\\{number}")
}

/// Whether a flag of an object is set.
pub(super) fn has_flag(store: &Reader<'_>, object: &str, number: &str) -> Result<bool> {
    Ok(element(store, object, number)?.is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0)))
}

/// The object of the loader that starts without a choice of the user, if it starts the Windows of the partition `own`; else
/// why not. `is_boot_partition` says that this partition is the one of the store.
///
/// # Errors
/// [`Kind::Damaged`](crate::Kind::Damaged) when the hive cannot be read.
pub(crate) fn default_loader(
    store: &Reader<'_>,
    own: Option<PartitionId>,
    is_boot_partition: bool,
) -> Result<std::result::Result<String, String>> {
    Ok(match default_entry(store)? {
        DefaultEntry::Found(Entry { id, os_device, .. }) => match os_device {
            Device::Partition(named) if Some(named) == own => Ok(id),
            Device::Boot if is_boot_partition => Ok(id),
            _ => Err(format!("its default entry {id} does not name the partition of this Windows")),
        },
        DefaultEntry::Broken(problem) => Err(problem),
        DefaultEntry::EmptyStore => Err("it is an empty store".to_owned()),
    })
}

fn element(store: &Reader<'_>, object: &str, number: &str) -> Result<Option<Vec<u8>>> {
    Ok(store.value(&element_key(object, number), "Element")?.map(|data| data.bytes))
}

/// The strings of an element, ended by zeros (one, or as many as `bcdedit` likes).
fn texts(store: &Reader<'_>, object: &str, number: &str) -> Result<Vec<String>> {
    let bytes = element(store, object, number)?.unwrap_or_default();
    let units = utf16_from_le(&bytes);
    let parts = units.split(|unit| *unit == 0).filter(|part| !part.is_empty());
    Ok(parts.map(String::from_utf16_lossy).collect())
}

fn device(store: &Reader<'_>, object: &str, number: &str) -> Result<Device> {
    Ok(element(store, object, number)?.map_or(Device::Missing, |bytes| parse_device(&bytes)))
}

/// A device begins with 16 bytes for the object that has more options; then come the kind, flags, the length and 0. For
/// a partition the rest is its id, the kind of table and the disk's id.
mod device_fields {
    use crate::field::Field;

    pub(super) const KIND: Field<u32> = Field::at(0x10);
    /// The partition's GUID …
    pub(super) const PARTITION_GUID: usize = 0x20;
    /// … or the offset of its first byte.
    pub(super) const PARTITION_START: Field<u64> = Field::at(0x20);
    /// 0 GPT, 1 MBR.
    pub(super) const TABLE: Field<u32> = Field::at(0x34);
    /// The disk's GUID …
    pub(super) const DISK_GUID: usize = 0x38;
    /// … or its signature.
    pub(super) const DISK_SIGNATURE: Field<u32> = Field::at(0x38);
}

fn parse_device(bytes: &[u8]) -> Device {
    use device_fields::{DISK_GUID, DISK_SIGNATURE, KIND, PARTITION_GUID, PARTITION_START, TABLE};

    let guid = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map(Guid);
    match KIND.try_get(bytes) {
        Some(0) => Device::File,
        Some(5) => Device::Boot,
        Some(8) => Device::Locate,
        Some(6) => match (TABLE.try_get(bytes), guid(PARTITION_GUID), guid(DISK_GUID)) {
            (Some(0), Some(partition), Some(disk)) => Device::Partition(PartitionId::Gpt { disk, partition }),
            (Some(1), Some(_), _) => Device::Partition(PartitionId::Mbr {
                disk: DISK_SIGNATURE.get(bytes),
                start: PARTITION_START.get(bytes),
            }),
            _ => Device::Unknown(6),
        },
        kind => Device::Unknown(kind.unwrap_or(u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::hive::Hive;

    #[test]
    fn a_store_without_objects_is_empty_not_broken() {
        let bytes = Hive::create("NewStoreRoot", FileTime(0)).finish(&[]).unwrap();
        assert_eq!(default_entry(&Reader::open(&bytes).unwrap()).unwrap(), DefaultEntry::EmptyStore);
    }

    #[test]
    fn devices_of_both_tables() {
        let mut bytes = vec![0u8; 88];
        bytes[0x10] = 6;
        bytes[0x18] = 0x48;
        bytes[0x20..0x30].fill(1);
        bytes[0x38..0x48].fill(2);
        assert_eq!(
            parse_device(&bytes),
            Device::Partition(PartitionId::Gpt { disk: Guid([2; 16]), partition: Guid([1; 16]) })
        );
        bytes[0x34] = 1;
        assert_eq!(
            parse_device(&bytes),
            Device::Partition(PartitionId::Mbr { disk: 0x0202_0202, start: 0x0101_0101_0101_0101 })
        );
        bytes[0x34] = 7;
        assert_eq!(parse_device(&bytes), Device::Unknown(6));
        for (kind, expected) in [(0, Device::File), (5, Device::Boot), (8, Device::Locate), (9, Device::Unknown(9))] {
            bytes[0x10] = kind;
            assert_eq!(parse_device(&bytes), expected);
        }
        assert_eq!(parse_device(&[]), Device::Unknown(u32::MAX));
    }
}
