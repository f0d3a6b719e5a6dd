//! What is known of an opened index.

use crate::error::Result;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::index_node::Collation;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{FileId, RecordNumber, Vcn};

/// Upper bound of the blocks of one index, for walks over damaged ones.
pub(crate) const BLOCKS_MAX: u64 = 1 << 26;

/// An index that was opened, and where its parts are.
#[derive(Debug)]
pub(crate) struct Index {
    pub file: FileId,
    /// Name of its attributes, as `$I30`.
    pub name: &'static str,
    pub collation: Collation,
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes per unit of a child's VCN: a cluster, or a sector where blocks are smaller than clusters.
    pub unit: u32,
    /// Record and instance of `$INDEX_ROOT`.
    pub root: (RecordNumber, u16),
    /// Clusters of `$INDEX_ALLOCATION`; `None` while all entries are in the root.
    pub runs: Option<Runlist>,
    /// Bytes of `$INDEX_ALLOCATION` that hold blocks.
    pub data_size: u64,
}

impl Index {
    /// VCNs from one block to the next.
    pub fn stride(&self) -> u64 {
        u64::from(self.block_size / self.unit)
    }

    /// The VCN of a block by its number.
    pub fn vcn(&self, number: u64) -> Vcn {
        Vcn(number * self.stride())
    }

    /// The number of the block with a VCN; damaged when there is none.
    pub fn number(&self, vcn: Vcn) -> Result<u64> {
        let stride = self.stride();
        if !vcn.0.is_multiple_of(stride) || vcn.0 / stride >= self.data_size / u64::from(self.block_size) {
            return Err(damaged(format!("index {} of {} points outside its blocks", self.name, self.file))
                .expected_found(format!("below {:#x} bytes", self.data_size), format!("VCN {vcn}")));
        }
        Ok(vcn.0 / stride)
    }
}
