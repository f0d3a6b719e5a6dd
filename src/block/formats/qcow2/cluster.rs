//! Clusters, of the file and of the guest's disk, as types of their own.

use crate::error::Place;
use crate::units::{HostOffset, ImageOffset};

/// Number of a cluster in the image's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct HostCluster(pub u64);

/// Number of a cluster of the guest's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct GuestCluster(pub u64);

impl From<HostCluster> for Place {
    fn from(cluster: HostCluster) -> Self {
        Self::Cluster(cluster.0)
    }
}

/// The size of an image's clusters: a power of two, 512 bytes to 2 MiB. Products that exceed 64 bits saturate, beyond the
/// end of any file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClusterSize {
    bits: u32,
}

impl ClusterSize {
    /// log2 of the smallest and of the largest cluster that QEMU accepts.
    pub const BITS: std::ops::RangeInclusive<u32> = 9..=21;

    /// 64 KiB, QEMU's default.
    pub const DEFAULT: Self = Self { bits: 16 };

    /// The size of `1 << bits` bytes; `None` outside [`BITS`](Self::BITS).
    pub fn new(bits: u32) -> Option<Self> {
        Self::BITS.contains(&bits).then_some(Self { bits })
    }

    /// log2 of the size in bytes.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.bits
    }

    /// How many clusters `bytes` bytes fill, the last one perhaps in part.
    pub fn count(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    /// The bytes of `count` clusters.
    pub fn bytes_of(self, count: u64) -> u64 {
        count.saturating_mul(self.bytes())
    }

    /// Whether the offset is a cluster's first byte.
    pub fn is_aligned(self, offset: HostOffset) -> bool {
        offset.0.is_multiple_of(self.bytes())
    }

    /// The cluster of the file that holds the byte at `offset`.
    pub fn host_cluster(self, offset: HostOffset) -> HostCluster {
        HostCluster(offset.0 >> self.bits)
    }

    /// Where a cluster of the file begins.
    pub fn host_offset(self, cluster: HostCluster) -> HostOffset {
        HostOffset(self.bytes_of(cluster.0))
    }

    /// The cluster of the disk that holds the byte at `offset`.
    pub fn guest_cluster(self, offset: ImageOffset) -> GuestCluster {
        GuestCluster(offset.0 >> self.bits)
    }

    /// Where a cluster of the disk begins.
    pub fn guest_offset(self, cluster: GuestCluster) -> ImageOffset {
        ImageOffset(self.bytes_of(cluster.0))
    }
}
