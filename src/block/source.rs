//! A disk that can be copied whole.

use std::path::PathBuf;
use std::sync::Arc;

use super::image::{Extent, Image};
use crate::error::Result;
use crate::host::Storage;
use crate::units::ImageOffset;

/// A disk that can be converted: an [`Image`], or a [`Stage`](super::Stage) with its changes.
pub trait DiskSource: Sync {
    /// Length of the disk in bytes.
    fn len(&self) -> u64;

    /// Whether the disk has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// See [`Image::read_at`].
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()>;

    /// The run of one kind that begins at `offset`, at most `limit` bytes long.
    ///
    /// # Errors
    /// See [`Image::extent_at`].
    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent>;

    /// The host's files that must not become the output.
    fn files(&self) -> Vec<PathBuf>;

    /// The file that was opened, where it is known.
    fn opened_file(&self) -> Option<&Arc<dyn Storage>> {
        None
    }
}

impl<T: Image + ?Sized> DiskSource for T {
    fn len(&self) -> u64 {
        Image::len(self)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Image::read_at(self, offset, buf)
    }
    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        Image::extent_at(self, offset, limit)
    }
    fn files(&self) -> Vec<PathBuf> {
        Image::files(self)
    }
    fn opened_file(&self) -> Option<&Arc<dyn Storage>> {
        self.parts().map(|parts| parts.file)
    }
}
