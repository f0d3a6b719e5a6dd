//! The disks around the Windows volume.

use std::fmt;

use crate::error::Result;
use crate::partition::{Disk, Partition, PartitionId, PartitionTable, read_partition_id};
use crate::plan::BootFiles;

/// A disk of a virtual machine.
#[derive(Clone, Copy)]
pub struct VmDisk<'a> {
    /// The content of the whole disk.
    pub disk: &'a dyn Disk,
    /// The partition table that was read from it.
    pub table: &'a PartitionTable,
    /// What findings call it: the name of its file.
    pub name: &'a str,
}

impl fmt::Debug for VmDisk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmDisk").field("table", self.table).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The disks of a virtual machine, as far as they are known, and the partition that holds Windows.
#[derive(Debug, Clone, Copy)]
pub struct BootDisks<'a> {
    /// The disk with Windows.
    pub windows: VmDisk<'a>,
    /// The partition of Windows.
    pub partition: &'a Partition,
    /// The other disks, on which the boot manager may lie.
    pub others: &'a [VmDisk<'a>],
    /// Names of those whose partition table is damaged, each with the reason: their tables are empty here.
    pub unread: &'a [String],
    /// What a plan makes of the boot volume on the disk with Windows: it counts instead of what the disk holds.
    pub planned: Option<&'a BootFiles>,
}

impl<'a> BootDisks<'a> {
    /// All disks, that of Windows first.
    pub(super) fn all(&self) -> impl Iterator<Item = &VmDisk<'a>> {
        std::iter::once(&self.windows).chain(self.others)
    }

    /// The files that a plan writes to this partition.
    pub(super) fn planned_on(&self, disk: &VmDisk<'_>, partition: &Partition) -> Option<&'a BootFiles> {
        self.planned.filter(|files| self.has_windows(disk) && files.partition == partition.number)
    }

    /// Whether this one of the disks is the one with Windows.
    pub(super) fn has_windows(&self, disk: &VmDisk<'_>) -> bool {
        std::ptr::eq(disk.table, self.windows.table)
    }

    /// The name of a disk that the firmware starts, if it is not the one with Windows.
    pub(super) fn start(&self, disk: &VmDisk<'a>) -> Option<&'a str> {
        (!self.has_windows(disk)).then_some(disk.name)
    }

    /// The name of a partition in findings, with its disk if there are several.
    pub(super) fn label(&self, disk: &VmDisk<'_>, partition: &Partition) -> String {
        if self.others.is_empty() { partition.label() } else { format!("{} of {}", partition.label(), disk.name) }
    }

    /// What the boot configuration calls the partition of Windows.
    pub(super) fn windows_id(&self) -> Result<Option<PartitionId>> {
        read_partition_id(self.windows.disk, self.windows.table, self.partition)
    }

    /// The partition of this id on any disk but that of Windows, by its name in findings.
    pub(super) fn find_on_others(&self, id: PartitionId) -> Result<Option<String>> {
        for disk in self.others {
            for partition in &disk.table.partitions {
                if read_partition_id(disk.disk, disk.table, partition)? == Some(id) {
                    return Ok(Some(self.label(disk, partition)));
                }
            }
        }
        Ok(None)
    }
}
