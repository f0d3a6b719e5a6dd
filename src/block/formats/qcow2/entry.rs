//! Entries of L1 and L2 tables (QEMU docs/interop/qcow2.rst, "Cluster mapping").

use super::header::Header;
use crate::error::{Error, Layer, Result};

/// Bits 9 to 55: a host offset.
pub(super) const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;
/// Bit 63: the refcount is exactly one.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit 62: a compressed cluster.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of a standard entry: reads as zeros (version 3, no subclusters).
pub(super) const ZERO: u64 = 1;
const L1_RESERVED: u64 = 0x7F00_0000_0000_01FF;
const L2_RESERVED: u64 = 0x3F00_0000_0000_01FE;

/// The sectors of a compressed cluster's descriptor are of 512 bytes whatever the cluster size.
const SECTOR: u64 = 512;

/// An entry of an L1 table that has been checked.
pub(super) fn l2_table_offset(header: &Header, entry: u64) -> Result<Option<u64>> {
    let offset = entry & OFFSET_MASK;
    if entry & L1_RESERVED != 0 || !offset.is_multiple_of(header.cluster_size()) {
        return Err(Error::damaged(Layer::Block, format!("impossible L1 entry {entry:#018x}")));
    }
    Ok((offset != 0).then_some(offset))
}

/// A range of compressed bytes in the host file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompressedRange {
    pub offset: u64,
    pub length: u64,
}

impl CompressedRange {
    /// First and last host cluster that the range touches.
    pub fn clusters(self, cluster_bits: u32) -> std::ops::RangeInclusive<u64> {
        let last = self.offset.saturating_add(self.length.saturating_sub(1));
        (self.offset >> cluster_bits)..=(last >> cluster_bits)
    }
}

/// An L2 entry, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapping {
    /// A standard cluster. `host` is its place if it has one; of its 32 subclusters, the bits of `allocated` are
    /// stored there and those of `zero` read as zeros; the rest is the parent's. Without subclusters the masks are
    /// all ones or all zeros.
    Standard { host: Option<u64>, allocated: u32, zero: u32 },
    /// A compressed cluster.
    Compressed(CompressedRange),
}

impl Mapping {
    pub const UNALLOCATED: Self = Self::Standard { host: None, allocated: 0, zero: 0 };

    /// Decodes and checks an entry (`bitmap` is the second word with subclusters) of guest cluster `cluster`.
    pub fn decode(header: &Header, entry: u64, bitmap: u64, cluster: u64) -> Result<Self> {
        let bad = || {
            Error::damaged(Layer::Block, format!("impossible L2 entry {entry:#018x} {bitmap:#018x}"))
                .at(cluster.saturating_mul(header.cluster_size()))
        };
        if entry & COMPRESSED != 0 {
            if header.has_data_file() || bitmap != 0 || entry & COPIED != 0 {
                return Err(bad());
            }
            return Self::decode_compressed(header, entry).ok_or_else(bad);
        }
        let host_offset = entry & OFFSET_MASK;
        let zero_flag_legal = header.version >= 3 && !header.is_extended();
        if entry & L2_RESERVED != 0
            || !host_offset.is_multiple_of(header.cluster_size())
            || (entry & ZERO != 0 && !zero_flag_legal)
        {
            return Err(bad());
        }
        // With an external data file the first cluster is at offset 0, told apart by COPIED.
        let is_first_of_data_file = header.has_data_file() && entry & COPIED != 0;
        let host = (host_offset != 0 || is_first_of_data_file).then_some(host_offset);
        if header.has_data_file() && host.is_some_and(|h| h != cluster.saturating_mul(header.cluster_size())) {
            return Err(bad());
        }
        let (allocated, zero) = if header.is_extended() {
            let (zero, allocated) = ((bitmap >> 32) as u32, bitmap as u32);
            if zero & allocated != 0 || (allocated != 0 && host.is_none()) {
                return Err(bad());
            }
            (allocated, zero)
        } else if entry & ZERO != 0 {
            (0, u32::MAX)
        } else if host.is_some() {
            (u32::MAX, 0)
        } else {
            (0, 0)
        };
        Ok(Self::Standard { host, allocated, zero })
    }

    fn decode_compressed(header: &Header, entry: u64) -> Option<Self> {
        let bits = 62 - (header.cluster_bits - 8);
        let offset = entry & ((1 << bits) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> bits;
        if offset >= super::header::HOST_OFFSET_MAX {
            return None;
        }
        let length = (sectors + 1) * SECTOR - offset % SECTOR;
        Some(Self::Compressed(CompressedRange { offset, length }))
    }
}
