//! What an open volume consists of below its public face.

use super::allocator::{ClusterAllocator, RecordAllocator};
use super::pager::Pager;
use super::short_name_hints::ShortNameHints;
use crate::clock::FileTime;
use crate::error::Result;
use crate::io::VolumeWrite;

/// The parts of an open volume that an edit works with.
#[derive(Debug)]
pub(crate) struct Core<D> {
    pub pager: Pager<D>,
    pub clusters: ClusterAllocator,
    pub records: RecordAllocator,
    /// The time stamp of everything written.
    pub clock: FileTime,
    /// New names get 8.3 partners.
    pub short_names: bool,
    pub short_name_hints: ShortNameHints,
}

impl<D: VolumeWrite> Core<D> {
    /// Runs an operation so that it either succeeds or changes nothing. Operations do not nest.
    pub fn attempt<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.pager.begin();
        self.clusters.begin();
        self.records.begin();
        let result = operation(self);
        if result.is_ok() {
            self.pager.commit();
            self.clusters.commit();
            self.records.commit();
        } else {
            self.pager.rollback();
            self.clusters.rollback();
            self.records.rollback();
        }
        result
    }
}
