//! The disk as this layer sees it: bytes at image offsets. Images and the stage above are disks, and so is a piece of
//! memory in tests.

use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;

/// A guest-visible disk that can be read at any byte offset.
pub trait Disk {
    /// Length of the disk in bytes.
    fn len(&self) -> u64;

    /// Whether the disk has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// When the range is not inside the disk, or the image below cannot be read.
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()>;
}

/// A disk that can also be written: the stage, never the user's file.
pub trait DiskWrite: Disk {
    /// Stores `data` at `offset`.
    ///
    /// # Errors
    /// When the range is not inside the disk, or the stage cannot take more.
    fn write_at(&mut self, offset: ImageOffset, data: &[u8]) -> Result<()>;
}

impl<T: Disk + ?Sized> Disk for &T {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buf)
    }
}

impl<T: Disk + ?Sized> Disk for &mut T {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buf)
    }
}

impl<T: DiskWrite + ?Sized> DiskWrite for &mut T {
    fn write_at(&mut self, offset: ImageOffset, data: &[u8]) -> Result<()> {
        (**self).write_at(offset, data)
    }
}

/// A disk held in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryDisk(pub Vec<u8>);

impl MemoryDisk {
    fn range(&self, offset: ImageOffset, length: usize) -> Result<std::ops::Range<usize>> {
        usize::try_from(offset.0)
            .ok()
            .and_then(|start| start.checked_add(length).map(|end| start..end))
            .filter(|range| range.end <= self.0.len())
            .ok_or_else(|| Error::damaged(Layer::Block, "access beyond the end of the disk").at(offset))
    }
}

impl Disk for MemoryDisk {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        let range = self.range(offset, buf.len())?;
        buf.copy_from_slice(&self.0[range]);
        Ok(())
    }
}

impl DiskWrite for MemoryDisk {
    fn write_at(&mut self, offset: ImageOffset, data: &[u8]) -> Result<()> {
        let range = self.range(offset, data.len())?;
        self.0[range].copy_from_slice(data);
        Ok(())
    }
}
