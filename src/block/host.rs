//! Operations on the host's folders: the part of a commit that is not inside one file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{FileStorage, LockMode, Locking, Storage};
use crate::error::Result;

/// Creating, finding, renaming and removing files. Commit does this through the trait, so that a test can enumerate
/// every point at which the machine can stop.
pub trait HostFiles: Send + Sync {
    /// Creates a new file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when there is one already.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn Storage>>;

    /// Opens an existing file for reading and writing, with a writer's locks.
    ///
    /// # Errors
    /// As [`FileStorage::open`] and [`FileStorage::lock`].
    fn open(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>>;

    /// Whether there is a file of that name.
    fn exists(&self, path: &Path) -> bool;

    /// Removes a file.
    ///
    /// # Errors
    /// What the host says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file; an existing target is replaced only if `replace`.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when there is a target and it is not to be replaced.
    fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()>;

    /// Makes creations, renames and removals in the folder of `path` durable.
    ///
    /// # Errors
    /// What the host says.
    fn sync_folder_of(&self, path: &Path) -> io::Result<()>;
}

/// The real host.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealHost;

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn wrap(file: std::fs::File, path: &Path) -> io::Result<Arc<dyn Storage>> {
    Ok(Arc::new(FileStorage::from_file(file, path).map_err(io::Error::other)?))
}

impl HostFiles for RealHost {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        wrap(std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?, path)
    }

    fn open(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        let storage = FileStorage::open(path, true)?;
        storage.lock(LockMode::Write, locking)?;
        Ok(Arc::new(storage))
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        if replace {
            return std::fs::rename(from, to);
        }
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // The file system cannot promise it, so look first.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if !to.exists() => std::fs::rename(from, to),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Err(io::ErrorKind::AlreadyExists.into()),
            result => Ok(result?),
        }
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(folder_of(path))?.sync_all()
    }
}
