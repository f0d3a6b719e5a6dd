//! qcow2, versions 2 and 3.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Chain, Extent, Format, Image, Storage};
use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;

/// A qcow2 image, its backing chain included.
#[derive(Debug)]
pub struct Qcow2Image {
    path: PathBuf,
}

impl Qcow2Image {
    /// Opens a qcow2 file.
    ///
    /// # Errors
    /// As [`super::open`].
    pub fn open(_storage: Arc<dyn Storage>, path: &Path, _chain: &Chain<'_>) -> Result<Self> {
        Err(Error::unsupported(Layer::Block, "reading qcow2 images").path(path.display().to_string()))
    }
}

impl Image for Qcow2Image {
    fn len(&self) -> u64 {
        0
    }
    fn format(&self) -> Format {
        Format::Qcow2
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Err(super::beyond_end(offset, buf.len(), 0))
    }
    fn extent_at(&self, offset: ImageOffset, _limit: u64) -> Result<Extent> {
        Err(super::beyond_end(offset, 1, 0))
    }
    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}
