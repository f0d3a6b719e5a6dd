//! The image below a stage, for readers that must not see the changes.

use std::path::PathBuf;
use std::sync::Arc;

use super::read_cache::ReadCache;
use crate::block::{DiskSource, Extent, Image};
use crate::error::Result;
use crate::units::ImageOffset;

/// The image below a stage. Reads are served from the stage's read cache, but do not fill it.
pub(crate) struct Original {
    pub(super) image: Arc<dyn Image>,
    pub(super) read_cache: Option<Arc<ReadCache>>,
}

impl Original {
    pub(crate) fn len(&self) -> u64 {
        self.image.len()
    }

    pub(crate) fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        match &self.read_cache {
            Some(cache) => cache.read_uncached(&*self.image, offset, buf),
            None => self.image.read_at(offset, buf),
        }
    }
}

impl DiskSource for Original {
    fn len(&self) -> u64 {
        Self::len(self)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Self::read_at(self, offset, buf)
    }
    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        self.image.extent_at(offset, limit)
    }
    fn files(&self) -> Vec<PathBuf> {
        self.image.files()
    }
}
