//! Entries of L1, L2 and refcount tables (QEMU docs/interop/qcow2.rst, "Cluster mapping").

use super::cluster::{ClusterSize, GuestCluster, HostCluster};
use super::header::{HOST_OFFSET_MAX, Header};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Bits 9 to 55: a host offset.
const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;
/// Bit 63: the refcount is exactly one.
const COPIED: u64 = 1 << 63;
/// Bit 62: a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of a standard entry: reads as zeros (version 3, no subclusters).
const ZERO: u64 = 1;
/// Bit 0 of a bitmap table's entry without a cluster: all bits are one.
const ALL_ONES: u64 = 1;
const L1_RESERVED: u64 = 0x7F00_0000_0000_01FF;
const L2_RESERVED: u64 = 0x3F00_0000_0000_01FE;

/// The sectors of a compressed cluster's descriptor are of 512 bytes whatever the cluster size.
const SECTOR: u64 = 512;

/// An entry of an L1 table: where an L2 table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct L1Entry(pub u64);

impl L1Entry {
    /// The entry for an L2 table to which nothing else refers.
    pub fn to(table: HostOffset) -> Self {
        Self(table.0 | COPIED)
    }

    /// Whether the entry refers to nothing.
    pub fn is_absent(self) -> bool {
        self.0 == 0
    }

    /// The bits of the host offset, unchecked; 0 for none.
    pub fn offset(self) -> HostOffset {
        HostOffset(self.0 & OFFSET_MASK)
    }

    /// Where the L2 table is, checked.
    pub fn l2_table(self, clusters: ClusterSize) -> Result<Option<HostOffset>> {
        if self.0 & L1_RESERVED != 0 || !clusters.is_aligned(self.offset()) {
            return Err(Error::damaged(Layer::Block, format!("invalid L1 entry {:#018x}", self.0)));
        }
        Ok(Some(self.offset()).filter(|table| table.0 != 0))
    }

    /// Whether the entry says that the refcount is exactly one.
    pub fn is_copied(self) -> bool {
        self.0 & COPIED != 0
    }

    /// The same entry with the right flag.
    pub fn with_copied(self, is_copied: bool) -> Self {
        Self(with_copied(self.0, is_copied))
    }
}

/// The first word of an L2 entry: where a guest cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct L2Entry(pub u64);

impl L2Entry {
    /// The entry of a cluster that reads as zeros, whatever is below it.
    pub const ZERO: Self = Self(ZERO);

    /// The entry for a standard cluster to which nothing else refers.
    pub fn standard(host: HostOffset) -> Self {
        Self(host.0 | COPIED)
    }

    /// The entry for `length` compressed bytes; `None` when the entry has too few bits for their offset.
    pub fn compressed(clusters: ClusterSize, host: HostOffset, length: u64) -> Option<Self> {
        let bits = compressed_offset_bits(clusters);
        let last = host.0.checked_add(length)?.checked_sub(1)?;
        let more_sectors = last / SECTOR - host.0 / SECTOR;
        (host.0 >> bits == 0).then_some(Self(host.0 | more_sectors << bits | COMPRESSED))
    }

    /// The bits of a standard cluster's host offset, unchecked; 0 for none.
    pub fn offset(self) -> HostOffset {
        HostOffset(self.0 & OFFSET_MASK)
    }

    /// Whether the cluster is compressed.
    pub fn is_compressed(self) -> bool {
        self.0 & COMPRESSED != 0
    }

    /// Whether the entry says that the refcount is exactly one.
    pub fn is_copied(self) -> bool {
        self.0 & COPIED != 0
    }

    /// The same entry with the right flag.
    pub fn with_copied(self, is_copied: bool) -> Self {
        Self(with_copied(self.0, is_copied))
    }
}

macro_rules! word {
    ($entry:ident) => {
        impl From<u64> for $entry {
            fn from(word: u64) -> Self {
                Self(word)
            }
        }
        impl From<$entry> for u64 {
            fn from(entry: $entry) -> Self {
                entry.0
            }
        }
    };
}

impl From<HostOffset> for RefcountTableEntry {
    fn from(block: HostOffset) -> Self {
        Self(block.0)
    }
}

word!(L1Entry);
word!(L2Entry);
word!(RefcountTableEntry);
word!(BitmapTableEntry);

fn with_copied(entry: u64, is_copied: bool) -> u64 {
    if is_copied { entry | COPIED } else { entry & !COPIED }
}

/// Bits of a compressed cluster's host offset; the rest of the entry counts sectors.
fn compressed_offset_bits(clusters: ClusterSize) -> u32 {
    62 - (clusters.bits() - 8)
}

/// An entry of the refcount table: where a refcount block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RefcountTableEntry(pub u64);

impl RefcountTableEntry {
    /// The bits of the block's host offset, unchecked.
    pub fn block(self) -> Option<HostOffset> {
        Some(HostOffset(self.0 & OFFSET_MASK)).filter(|block| block.0 != 0)
    }

    /// Whether bits are set that do not belong to the offset of a cluster.
    pub fn is_invalid(self, clusters: ClusterSize) -> bool {
        self.0 & !OFFSET_MASK != 0 || !clusters.is_aligned(HostOffset(self.0))
    }
}

/// An entry of a persistent bitmap's table: where a cluster of its bits is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BitmapTableEntry(pub u64);

impl BitmapTableEntry {
    /// The entry without a cluster whose bits are all one.
    pub const ALL_ONES: Self = Self(ALL_ONES);

    /// Where the cluster is; `None` when all its bits are the same.
    pub fn cluster(self) -> Option<HostOffset> {
        Some(HostOffset(self.0 & OFFSET_MASK)).filter(|cluster| cluster.0 != 0)
    }
}

/// A range of compressed bytes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompressedRange {
    pub offset: HostOffset,
    /// In bytes: at most two clusters.
    pub length: u64,
}

impl CompressedRange {
    /// The host clusters that the range touches.
    pub fn clusters(self, clusters: ClusterSize) -> impl Iterator<Item = HostCluster> {
        let last = HostOffset(self.offset.0.saturating_add(self.length.saturating_sub(1)));
        (clusters.host_cluster(self.offset).0..=clusters.host_cluster(last).0).map(HostCluster)
    }
}

/// An L2 entry, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// A standard cluster. `host` is where it is stored, if it is; of its 32 subclusters, the bits of `allocated` are
    /// stored there and those of `zero` read as zeros; the rest is the parent's. Without subclusters the masks are
    /// all ones or all zeros.
    Standard { host: Option<HostOffset>, allocated: u32, zero: u32 },
    /// A cluster that is stored as a compressed range, perhaps across cluster boundaries.
    Compressed(CompressedRange),
}

impl Mapping {
    pub const UNALLOCATED: Self = Self::Standard { host: None, allocated: 0, zero: 0 };

    /// Decodes and checks an entry (`bitmap` is the second word with subclusters) of guest cluster `cluster`.
    pub(super) fn decode(header: &Header, entry: L2Entry, bitmap: u64, cluster: GuestCluster) -> Result<Self> {
        let guest = header.clusters.guest_offset(cluster);
        let bad =
            || Error::damaged(Layer::Block, format!("invalid L2 entry {:#018x} {bitmap:#018x}", entry.0)).at(guest);
        if entry.is_compressed() {
            if header.has_data_file() || bitmap != 0 || entry.is_copied() {
                return Err(bad());
            }
            return Self::decode_compressed(header.clusters, entry).ok_or_else(bad);
        }
        let is_zero = entry.0 & ZERO != 0;
        let is_zero_legal = header.version >= 3 && !header.is_extended();
        if entry.0 & L2_RESERVED != 0 || !header.clusters.is_aligned(entry.offset()) || (is_zero && !is_zero_legal) {
            return Err(bad());
        }
        // With an external data file the first cluster is at offset 0, told apart by COPIED.
        let is_first_of_data_file = header.has_data_file() && entry.is_copied();
        let host = Some(entry.offset()).filter(|host| host.0 != 0 || is_first_of_data_file);
        if header.has_data_file() && host.is_some_and(|host| host.0 != guest.0) {
            return Err(bad());
        }
        let (allocated, zero) = if header.is_extended() {
            let (zero, allocated) = ((bitmap >> 32) as u32, bitmap as u32);
            if zero & allocated != 0 || (allocated != 0 && host.is_none()) {
                return Err(bad());
            }
            (allocated, zero)
        } else if is_zero {
            (0, u32::MAX)
        } else if host.is_some() {
            (u32::MAX, 0)
        } else {
            (0, 0)
        };
        Ok(Self::Standard { host, allocated, zero })
    }

    fn decode_compressed(clusters: ClusterSize, entry: L2Entry) -> Option<Self> {
        let bits = compressed_offset_bits(clusters);
        let offset = HostOffset(entry.0 & ((1 << bits) - 1));
        let more_sectors = (entry.0 & (COMPRESSED - 1)) >> bits;
        if offset >= HOST_OFFSET_MAX {
            return None;
        }
        let length = (more_sectors + 1) * SECTOR - offset.0 % SECTOR;
        Some(Self::Compressed(CompressedRange { offset, length }))
    }
}
