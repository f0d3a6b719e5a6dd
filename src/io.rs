//! The small traits through which file systems reach a volume.
//!
//! A file system never sees a file of the host: it sees a volume that it can read, and perhaps write, at byte offsets.
//! Partition views of the stage implement these traits, and so does [`MemoryVolume`] for tests and small jobs.

use crate::error::{Error, Layer, Result};
use crate::units::VolumeOffset;

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    // Wide comparisons against a constant block let the compiler use vector instructions.
    const ZEROS: [u8; 4096] = [0; 4096];
    data.chunks(ZEROS.len()).all(|chunk| ZEROS.get(..chunk.len()) == Some(chunk))
}

/// A volume that can be read at any byte offset.
pub trait VolumeRead {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether the volume has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the volume begins in the image that holds it, in bytes: what an error must add to an offset of the volume, so
    /// that the place can be looked at in the image.
    fn image_offset(&self) -> u64 {
        0
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// When the range is not inside the volume, or the image below cannot be read.
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()>;
}

/// A volume that can also be written. Writes go to a stage in memory, never straight to the user's file.
pub trait VolumeWrite: VolumeRead {
    /// Stores `data` at `offset`.
    ///
    /// # Errors
    /// When the range is not inside the volume, or the stage cannot take more.
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()>;
}

impl<T: VolumeRead + ?Sized> VolumeRead for &T {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn image_offset(&self) -> u64 {
        (**self).image_offset()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buf)
    }
}

impl<T: VolumeRead + ?Sized> VolumeRead for &mut T {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn image_offset(&self) -> u64 {
        (**self).image_offset()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buf)
    }
}

impl<T: VolumeWrite + ?Sized> VolumeWrite for &mut T {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        (**self).write_at(offset, data)
    }
}

/// A volume held in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryVolume(pub Vec<u8>);

impl MemoryVolume {
    fn range(&self, offset: VolumeOffset, length: usize) -> Result<std::ops::Range<usize>> {
        usize::try_from(offset.0)
            .ok()
            .and_then(|start| start.checked_add(length).map(|end| start..end))
            .filter(|range| range.end <= self.0.len())
            .ok_or_else(|| Error::damaged(Layer::Block, "access beyond the end of the volume").at(offset))
    }
}

impl VolumeRead for MemoryVolume {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        let range = self.range(offset, buf.len())?;
        buf.copy_from_slice(&self.0[range]);
        Ok(())
    }
}

impl VolumeWrite for MemoryVolume {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        let range = self.range(offset, data.len())?;
        self.0[range].copy_from_slice(data);
        Ok(())
    }
}
