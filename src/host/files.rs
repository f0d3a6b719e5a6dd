//! Operations on the host's folders: the part of a commit that is not inside one file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::file_id::FileId;
use super::file_storage::FileStorage;
use super::folder::folder_of;
use super::leftover;
use super::qemu_lock::{LockMode, Locking};
use super::read::{open_as_it_is, open_as_it_is_for_writing};
use super::storage::Storage;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// Creating, finding, renaming and removing files. Commit does this through the trait, so that a test can enumerate
/// every point at which the machine can stop.
pub trait HostFiles: Send + Sync {
    /// Creates a new file for reading and writing, with the permissions `mode` (less those that the user's umask
    /// takes).
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when there is one already.
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn Storage>>;

    /// Opens an existing file for reading and writing, with a writer's locks.
    ///
    /// # Errors
    /// Those of [`FileStorage::open`] and [`FileStorage::lock`].
    fn open(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>>;

    /// Takes a writer's locks on an existing file without writing to it; they are held until the storage is dropped.
    ///
    /// # Errors
    /// Those of [`FileStorage::open`] and [`FileStorage::lock`].
    fn lock(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>>;

    /// The file that `path` leads to, symbolic links followed; `path` itself when that cannot be found out.
    fn real_path(&self, path: &Path) -> PathBuf;

    /// Opens a journal for reading. Any user who may write to a folder can put a journal there, and a journal is
    /// obeyed; so it counts only if it is a regular file (no link is followed) that belongs to the owner of its image
    /// or to the current user, and that other users may not write to.
    ///
    /// # Errors
    /// [`Kind::Pending`](crate::Kind::Pending) with the reason for which it does not count.
    fn open_journal(&self, path: &Path, image_owner: Option<u32>) -> Result<Arc<dyn Storage>>;

    /// Opens an undo record for reading and writing; it counts under the conditions of a
    /// [journal](Self::open_journal).
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) with the reason for which it does not count.
    fn open_record(&self, path: &Path, image_owner: Option<u32>) -> Result<Arc<dyn Storage>>;

    /// Removes the temporary files that killed runs left in the folder of an output.
    fn remove_leftovers(&self, _output: &Path) {}

    /// Whether another run is writing this temporary file.
    fn is_claimed(&self, _temporary: &Path) -> bool {
        false
    }

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

    /// The folder for journals, where they are not next to their images.
    fn journal_folder(&self) -> Option<&Path> {
        None
    }
}

/// The file system of the machine that winject runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealHost;

impl RealHost {
    /// See [`HostFiles::create`].
    pub(super) fn create_file(self, path: &Path, mode: u32) -> io::Result<FileStorage> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        let file = options.open(path)?;
        leftover::claim(&file)?;
        FileStorage::from_file(file, path).map_err(io::Error::other)
    }
}

impl HostFiles for RealHost {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.create_file(path, mode)?))
    }

    fn remove_leftovers(&self, output: &Path) {
        leftover::remove(output);
    }

    fn is_claimed(&self, temporary: &Path) -> bool {
        leftover::is_claimed(temporary)
    }

    fn open(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        let storage = FileStorage::open(path, true)?;
        storage.lock(LockMode::Write, locking)?;
        Ok(Arc::new(storage))
    }

    fn lock(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        let file = open_as_it_is(&self.real_path(path))
            .map_err(|e| Error::io(Layer::Host, "cannot open the file", e).path(path.display().to_string()))?;
        let storage = FileStorage::from_file(file, path)?;
        storage.lock(LockMode::Write, locking)?;
        Ok(Arc::new(storage))
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }

    fn open_journal(&self, path: &Path, image_owner: Option<u32>) -> Result<Arc<dyn Storage>> {
        let opened = open_as_it_is(path).map_err(unreadable).and_then(|file| judge_journal(file, image_owner));
        let file = opened.map_err(|reason| {
            Error::new(Kind::Pending, Layer::Host, format!("cannot use the undo journal: {reason}"))
                .with_code(ErrorCode::JournalUnusable)
                .path(path.display().to_string())
                .hint("find out who made that file; if the image is good as it is, remove it")
        })?;
        Ok(Arc::new(FileStorage::from_file(file, path)?))
    }

    fn open_record(&self, path: &Path, image_owner: Option<u32>) -> Result<Arc<dyn Storage>> {
        let opened = open_as_it_is(path).map_err(unreadable).and_then(|file| judge_journal(file, image_owner));
        // Only what has been judged is opened for writing.
        let opened = opened.and_then(|file| {
            let id = |file: &File| file.metadata().map(|meta| FileId::from(&meta)).map_err(unreadable);
            let judged = id(&file)?;
            let file = open_as_it_is_for_writing(path).map_err(unreadable)?;
            if id(&file)? == judged { Ok(file) } else { Err("another file took its name".to_owned()) }
        });
        let file = opened.map_err(|reason| {
            Error::refused(Layer::Host, format!("cannot use the undo record: {reason}"))
                .with_code(ErrorCode::UndoRecordUnusable)
                .path(path.display().to_string())
                .hint("find out who made that file, and remove it if it is of no use")
        })?;
        Ok(Arc::new(FileStorage::from_file(file, path)?))
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
            // The file system cannot promise it. A link replaces nothing either; where there are none, look first.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match std::fs::hard_link(from, to) {
                Ok(()) => std::fs::remove_file(from),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists || self.exists(to) => {
                    Err(io::ErrorKind::AlreadyExists.into())
                }
                Err(_) => std::fs::rename(from, to),
            },
            result => Ok(result?),
        }
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        match File::open(folder_of(path)) {
            Ok(folder) => folder.sync_all(),
            // A folder that may be written to but not read (mode -wx): its entries are made durable with the whole file
            // system, or with all of them where the file itself is gone or may not be read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => match File::open(path) {
                Ok(file) => Ok(rustix::fs::syncfs(file)?),
                Err(_) => {
                    rustix::fs::sync();
                    Ok(())
                }
            },
            Err(error) => Err(error),
        }
    }
}

fn unreadable(error: io::Error) -> String {
    let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    if is_link { "it is a symbolic link".to_owned() } else { error.to_string() }
}

/// Passes a journal that only the image's owner or the current user can have written; else says why it does not count.
fn judge_journal(file: File, image_owner: Option<u32>) -> Result<File, String> {
    let metadata = file.metadata().map_err(unreadable)?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if owner != rustix::process::geteuid().as_raw() && Some(owner) != image_owner {
        return Err(format!("it belongs to user {owner}, neither to you nor to the owner of the image"));
    }
    if mode & 0o022 != 0 {
        return Err(format!("other users may write to it (mode {mode:04o})"));
    }
    Ok(file)
}
