//! Operations on the host's folders: the part of a commit that is not inside one file.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{FileStorage, LockMode, Locking, Storage};
use crate::error::{Error, Layer, Result};

/// Creating, finding, renaming and removing files. Commit does this through the trait, so that a test can enumerate
/// every point at which the machine can stop.
pub trait HostFiles: Send + Sync {
    /// Creates a new file for reading and writing, with the permissions `mode` (less those that the user's umask takes).
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when there is one already.
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn Storage>>;

    /// Opens an existing file for reading and writing, with a writer's locks.
    ///
    /// # Errors
    /// As [`FileStorage::open`] and [`FileStorage::lock`].
    fn open(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>>;

    /// Takes a writer's locks on an existing file without writing to it; they are held until the storage is dropped.
    ///
    /// # Errors
    /// As [`FileStorage::open`] and [`FileStorage::lock`].
    fn lock(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>>;

    /// The file that `path` leads to, symbolic links followed; `path` itself when that cannot be found out.
    fn real_path(&self, path: &Path) -> PathBuf;

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

pub(crate) use crate::host_file::folder_of;

/// Opens a file for reading, whatever it turns out to be: a symbolic link is not followed, a FIFO is not waited for.
pub(crate) fn open_as_it_is(path: &Path) -> io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Permissions of a file that only its owner may use.
pub(crate) const PRIVATE: u32 = 0o600;

fn wrap(file: std::fs::File, path: &Path) -> io::Result<Arc<dyn Storage>> {
    Ok(Arc::new(FileStorage::from_file(file, path).map_err(io::Error::other)?))
}

impl HostFiles for RealHost {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn Storage>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        wrap(options.open(path)?, path)
    }

    fn open(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        let storage = FileStorage::open(path, true)?;
        storage.lock(LockMode::Write, locking)?;
        Ok(Arc::new(storage))
    }

    fn lock(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        let file = open_as_it_is(&self.real_path(path))
            .map_err(|e| Error::io(Layer::Host, "cannot be opened", e).path(path.display().to_string()))?;
        let storage = FileStorage::from_file(file, path)?;
        storage.lock(LockMode::Write, locking)?;
        Ok(Arc::new(storage))
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
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
