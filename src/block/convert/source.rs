//! What can be converted.

use std::path::PathBuf;

use crate::block::stage::Original;
use crate::block::{Extent, Image, Stage};
use crate::error::Result;
use crate::units::ImageOffset;

/// A disk that can be converted: an [`Image`], or a [`Stage`] with its changes.
pub trait DiskSource: Sync {
    /// Length of the disk in bytes.
    fn len(&self) -> u64;

    /// Whether the disk has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the disk's content from `offset`.
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
}

impl DiskSource for Stage {
    fn len(&self) -> u64 {
        Self::len(self)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Self::read_at(self, offset, buf)
    }
    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        Self::extent_at(self, offset, limit)
    }
    fn files(&self) -> Vec<PathBuf> {
        self.image().files()
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
        Self::extent_at(self, offset, limit)
    }
    fn files(&self) -> Vec<PathBuf> {
        Self::files(self)
    }
}
