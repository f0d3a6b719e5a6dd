//! The ids by which Windows' boot configuration names a disk and a partition.

use std::fmt;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::disk::Disk;
use super::format::{GptEntry, MbrSector};
use super::gpt;
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

/// The id of a disk; `None` if it has no partition table, or one without a readable header.
///
/// # Errors
/// What reading the disk gives.
pub fn read_disk_id<D: Disk + ?Sized>(disk: &D, table: &PartitionTable) -> Result<Option<DiskId>> {
    match table.scheme {
        Scheme::Mbr => Ok(Some(DiskId::Mbr(read_signature(disk)?))),
        Scheme::Gpt => {
            for sector in gpt_headers(disk, table.sector) {
                if let Some(header) = gpt::read_sound_header(disk, table.sector, sector)? {
                    return Ok(Some(DiskId::Gpt(Guid(header.disk_id))));
                }
            }
            Ok(None)
        }
        Scheme::Bare => Ok(None),
    }
}

fn read_signature<D: Disk + ?Sized>(disk: &D) -> Result<u32> {
    let mut mbr = MbrSector::new_zeroed();
    disk.read_at(ImageOffset(0), mbr.as_mut_bytes())?;
    Ok(mbr.disk_signature.get())
}

/// The sectors of the primary and the backup header.
fn gpt_headers<D: Disk + ?Sized>(disk: &D, sector: u32) -> [u64; 2] {
    [1, (disk.len() / u64::from(sector).max(1)).saturating_sub(1)]
}

/// The id of a partition; `None` when the table that was read has none, or names another partition by now.
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
            for header in gpt_headers(disk, table.sector) {
                if let Some(found) = read_gpt_id(disk, table.sector, header, partition)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
        Scheme::Bare => Ok(None),
    }
}

fn read_gpt_id<D: Disk + ?Sized>(
    disk: &D,
    sector: u32,
    header: u64,
    partition: &Partition,
) -> Result<Option<PartitionId>> {
    let Some(header) = gpt::read_sound_header(disk, sector, header)? else { return Ok(None) };
    let sector = u64::from(sector);
    let index = u64::from(partition.number).saturating_sub(1);
    let in_entries = index.checked_mul(u64::from(header.entry_size.get()));
    let entries = header.entries_sector.get().checked_mul(sector);
    let place = entries.zip(in_entries).and_then(|(start, inside)| start.checked_add(inside));
    let Some(entry) = read_inside::<GptEntry, D>(disk, place)? else { return Ok(None) };
    let is_same = entry.first_sector.get().checked_mul(sector) == Some(partition.start.0);
    let id = PartitionId::Gpt { disk: Guid(header.disk_id), partition: Guid(entry.partition_id) };
    Ok(is_same.then_some(id))
}

/// The structure at a byte offset of the disk; `None` when it does not lie on the disk.
fn read_inside<T: FromBytes + IntoBytes, D: Disk + ?Sized>(disk: &D, start: Option<u64>) -> Result<Option<T>> {
    let end = start.and_then(|start| start.checked_add(size_of::<T>() as u64));
    let (Some(start), true) = (start, end.is_some_and(|end| end <= disk.len())) else { return Ok(None) };
    let mut structure = T::new_zeroed();
    disk.read_at(ImageOffset(start), structure.as_mut_bytes())?;
    Ok(Some(structure))
}
