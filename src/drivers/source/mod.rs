//! Where driver files come from: a directory or an ISO image, read file by file.

use crate::error::{Error, Kind, Layer, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One directory or ISO image with drivers.
#[derive(Debug)]
pub struct Source {
    root: PathBuf,
    files: Vec<SourceFile>,
}

/// A file of a [`Source`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path below the source's root, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

impl Source {
    /// Opens a directory or an ISO image and lists its files; reads none of them.
    ///
    /// # Errors
    /// [`Kind::Drivers`] when there is no such file or folder, or it is neither; [`Kind::Damaged`] for a broken ISO.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::new(Kind::Drivers, Layer::Drivers, "no such driver folder")
                .path(path.display().to_string())
                .hint("give the folder or the ISO image of the drivers, for instance virtio-win.iso"));
        }
        Ok(Self { root: path.to_owned(), files: Vec::new() })
    }

    /// The path that was opened.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All files, in a stable order.
    #[must_use]
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Reads a whole file by its path below the root.
    ///
    /// # Errors
    /// When there is no such file or it cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        std::fs::read(self.root.join(path)).map_err(|e| Error::io(Layer::Drivers, "cannot read", e).path(path))
    }
}

/// Several sources, the first one preferred.
#[derive(Debug, Clone, Default)]
pub struct Sources(pub(crate) Vec<Arc<Source>>);

impl Sources {
    /// Opens every path.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        paths.iter().map(|p| Source::open(p.as_ref()).map(Arc::new)).collect::<Result<_>>().map(Self)
    }

    /// The sources in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.0.iter()
    }
}
