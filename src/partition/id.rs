//! The ids by which Windows' boot configuration names a disk and a partition.

use std::fmt;

use zerocopy::{FromZeros, IntoBytes};

use super::disk::Disk;
use super::format::MbrSector;
use super::table::{Partition, PartitionTable, Scheme};
use crate::error::Result;
use crate::guid::Guid;
use crate::units::ImageOffset;

/// What the boot configuration calls a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionId {
    /// Both GUIDs are in the table.
    Gpt {
        /// Disk GUID of the header.
        disk: Guid,
        /// Unique GUID of the entry, not that of its type.
        partition: Guid,
    },
    /// An MBR gives partitions no id: the place counts.
    Mbr {
        /// Disk signature in the MBR.
        disk: u32,
        /// First byte of the partition.
        start: u64,
    },
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt { disk, partition } => write!(f, "GPT partition {partition} of disk {disk}"),
            Self::Mbr { disk, start } => write!(f, "MBR partition at {start:#x} of disk {disk:#010x}"),
        }
    }
}

/// What the boot configuration calls a disk. Windows takes a disk offline whose id another one has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskId {
    /// Disk GUID of a GPT's header.
    Gpt(Guid),
    /// Disk signature of an MBR; 0 if the disk has none yet.
    Mbr(u32),
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => f.write_str(&guid.braced()),
            Self::Mbr(signature) => write!(f, "{signature:#010x}"),
        }
    }
}

/// The id of a disk; `None` if it has no partition table.
///
/// # Errors
/// What reading the disk gives.
pub fn read_disk_id<D: Disk + ?Sized>(disk: &D, table: &PartitionTable) -> Result<Option<DiskId>> {
    match table.scheme {
        Scheme::Mbr => Ok(Some(DiskId::Mbr(read_signature(disk)?))),
        Scheme::Gpt => Ok(table.disk_guid.map(DiskId::Gpt)),
        Scheme::Bare => Ok(None),
    }
}

fn read_signature<D: Disk + ?Sized>(disk: &D) -> Result<u32> {
    let mut mbr = MbrSector::new_zeroed();
    disk.read_at(ImageOffset(0), mbr.as_mut_bytes())?;
    Ok(mbr.disk_signature.get())
}

/// The id of a partition; `None` without a partition table.
///
/// # Errors
/// What reading the disk gives.
pub fn read_partition_id<D: Disk + ?Sized>(
    disk: &D,
    table: &PartitionTable,
    partition: &Partition,
) -> Result<Option<PartitionId>> {
    match table.scheme {
        Scheme::Mbr => Ok(Some(PartitionId::Mbr { disk: read_signature(disk)?, start: partition.start.0 })),
        Scheme::Gpt => {
            Ok(table.disk_guid.zip(partition.unique_guid).map(|(disk, partition)| PartitionId::Gpt { disk, partition }))
        }
        Scheme::Bare => Ok(None),
    }
}
