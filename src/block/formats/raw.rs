//! Raw images: files and block devices that hold the disk's bytes as they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::{Extent, ExtentKind, Format, Image, ImageParts, Storage, StorageExt, beyond_end, is_inside};
use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;

/// The guest's sector. A raw file that is not a multiple of it is read with zeros at its end, as QEMU does.
const SECTOR: u64 = 512;

/// A file or block device opened as a raw disk. It has no parent.
#[derive(Debug)]
pub struct RawImage {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    /// The disk's size in bytes: whole sectors.
    size: u64,
    /// Bytes of the file.
    stored: u64,
}

impl RawImage {
    /// Opens `storage`, the file at `path`, as a raw disk.
    ///
    /// # Errors
    /// When the host cannot tell the file's length.
    pub fn open(storage: Arc<dyn Storage>, path: &Path) -> Result<Self> {
        let stored = storage.len().map_err(|e| {
            Error::io(Layer::Block, "cannot find the length of the file", e).path(path.display().to_string())
        })?;
        let size = stored.checked_next_multiple_of(SECTOR).unwrap_or(stored);
        Ok(Self { storage, path: path.to_owned(), size, stored })
    }

    fn error(&self, message: &str, error: std::io::Error) -> Error {
        Error::io(Layer::Block, message, error).path(self.path.display().to_string())
    }
}

impl Image for RawImage {
    fn len(&self) -> u64 {
        self.size
    }

    fn format(&self) -> Format {
        Format::Raw
    }

    fn format_in_qemu(&self) -> Option<Format> {
        (!self.storage.is_part()).then_some(Format::Raw)
    }

    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        if !is_inside(offset, buf.len(), self.size) {
            return Err(beyond_end(offset, buf.len(), self.size));
        }
        self.storage.read_or_zeros_at(offset.0, buf).map_err(|e| self.error("cannot read the file", e).at(offset))
    }

    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        let rest = self.size.saturating_sub(offset.0).min(limit);
        if rest == 0 {
            return Err(beyond_end(offset, 1, self.size));
        }
        if offset.0 >= self.stored {
            return Ok(Extent { length: rest, kind: ExtentKind::Unallocated });
        }
        let run =
            self.storage.run_at(offset.0).map_err(|e| self.error("cannot find the holes of the file", e).at(offset))?;
        let kind = if run.is_data { ExtentKind::Data } else { ExtentKind::Unallocated };
        Ok(Extent { length: run.length.clamp(1, rest), kind })
    }

    fn bytes_read(&self) -> u64 {
        self.storage.bytes_read()
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn parts(&self) -> Option<ImageParts<'_>> {
        (!self.storage.is_part()).then_some(ImageParts { file: &self.storage, data_file: None })
    }
}
