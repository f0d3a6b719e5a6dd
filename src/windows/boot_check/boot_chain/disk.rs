//! The disk around the Windows volume.

use std::fmt;

use crate::partition::{Disk, Partition, PartitionTable};

/// A disk, its partitions, and the one of them that holds Windows.
#[derive(Clone, Copy)]
pub struct BootDisk<'a> {
    /// The content of the whole disk.
    pub disk: &'a dyn Disk,
    /// The partition table that was read from it.
    pub table: &'a PartitionTable,
    /// The partition of Windows.
    pub partition: &'a Partition,
}

impl fmt::Debug for BootDisk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootDisk").field("table", self.table).field("partition", self.partition).finish_non_exhaustive()
    }
}
