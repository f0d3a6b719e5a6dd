//! What the name of an image stands for.

use std::path::Path;
use std::sync::Arc;

use super::commit::other_name::refuse_half_written;
use super::journal::{refuse_pending, refuse_pending_export};
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::escape::shell_argument;
use crate::host::{FileStorage, LockMode, Locking, Storage, is_nbd_name, is_same_file};
use crate::nbd::{NbdOptions, NbdStorage, is_same_export};

/// Opens a file for reading, as every reader of an image must: locked against writers, and not when an interrupted run
/// may have left it half written.
pub(crate) fn open_file(path: &Path, locking: Locking) -> Result<FileStorage> {
    let storage = FileStorage::open(path, false)?;
    storage.lock(LockMode::Read, locking)?;
    refuse_pending(path, &storage)?;
    Ok(storage)
}

/// Whether both names stand for one file, or for one export.
pub(crate) fn is_same_image(one: &Path, other: &Path) -> bool {
    is_same_file(one, other) || is_same_export(one, other)
}

/// What an image's name stands for: a file (or a block device) of the host, or an export of an NBD server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageName<'a> {
    /// Path of a file.
    File(&'a Path),
    /// An NBD URI, which need not be well formed.
    Nbd(&'a Path),
}

impl<'a> ImageName<'a> {
    /// Tells the two apart by the scheme. A file whose name begins like an NBD URI needs `./` before it.
    #[must_use]
    pub fn of(name: &'a Path) -> Self {
        if is_nbd_name(name) { Self::Nbd(name) } else { Self::File(name) }
    }

    /// Opens what holds the image for reading.
    ///
    /// # Errors
    /// For a file those of [`open_file`]; for an export those of [`NbdStorage::open`], and [`Kind::Pending`](crate::Kind::Pending) when an edit of it
    /// was interrupted.
    pub(crate) fn open(self, locking: Locking, nbd: &NbdOptions) -> Result<Arc<dyn Storage>> {
        Ok(match self {
            Self::File(path) => Arc::new(open_file(path, locking)?),
            Self::Nbd(name) => {
                refuse_pending_export(name, nbd)?;
                let disk: Arc<dyn Storage> = Arc::new(NbdStorage::open(name, nbd.clone())?);
                refuse_half_written(name, nbd, &disk)?;
                disk
            }
        })
    }

    /// The path of a file, for what cannot be done with an export.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for an export: `cannot` says what is not done with it.
    pub(crate) fn require_file(self, cannot: &str) -> Result<&'a Path> {
        match self {
            Self::File(path) => Ok(path),
            Self::Nbd(name) => Err(Error::unsupported(
                Layer::Block,
                format!("cannot {cannot}: it is an NBD export, and this needs a file"),
            )
            .with_code(ErrorCode::NbdFileNeeded)
            .path(name.display().to_string())
            .hint(format!("copy it first: winject convert {} NEW.qcow2", shell_argument(name, "URI")))),
        }
    }
}
