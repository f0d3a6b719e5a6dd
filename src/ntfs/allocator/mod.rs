//! Free clusters and records: finding, allocating and freeing them.

mod bitmap;
mod clusters;
mod free_space;
mod records;

pub(super) use clusters::{ClusterAllocator, Fill, full};
pub(super) use records::RecordAllocator;
