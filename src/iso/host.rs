//! An image file of the host.

use crate::error::{Error, Layer, Result};
use crate::host::{self, Unreadable};
use crate::io::VolumeRead;
use crate::units::VolumeOffset;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file that is read at offsets.
#[derive(Debug)]
pub struct HostFile {
    file: File,
    length: u64,
}

impl HostFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(Layer::Iso, "cannot open the image", e).path(path.display().to_string());
        let file = host::open(path, true).map_err(|error| match error {
            Unreadable::Io(error) => io(error),
            Unreadable::NotAFile(kind) => Error::unsupported(Layer::Iso, format!("cannot open the image: {kind}"))
                .path(path.display().to_string())
                .hint("give the path of an ISO image"),
            other @ Unreadable::TooLarge(_) => other.into_error("the image", path, Layer::Iso),
        })?;
        let length = file.metadata().map_err(io)?.len();
        Ok(Self { file, length })
    }
}

impl VolumeRead for HostFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, offset.0).map_err(|e| Error::io(Layer::Iso, "cannot read the image", e).at(offset))
    }
}
