//! Advisory locks as QEMU takes them, so that neither side edits an image that the other one uses.
//!
//! QEMU keeps read locks (open file description locks) on single bytes of the image: byte 100 + p says "I use
//! permission p", byte 200 + p says "I do not share permission p". Whether another process
//! holds such a byte shows in whether it could be write-locked.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::{Error, ErrorCode, Layer, Result};

/// What we are going to do with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Read it, and want it to stay as it is meanwhile.
    Read,
    /// Write and resize it.
    Write,
}

/// How to treat locks of other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locking {
    /// Refuse a file that another process uses against our needs (the default).
    #[default]
    Refuse,
    /// Take no locks and look at none. Reading an image under a running guest gives a torn picture.
    Ignore,
}

/// QEMU's permissions, as bits: consistent read, write, write unchanged, resize.
const CONSISTENT_READ: u8 = 0;
const WRITE: u8 = 1;
const RESIZE: u8 = 3;
const PERMISSIONS: u8 = 4;
const USED_BASE: i64 = 100;
const UNSHARED_BASE: i64 = 200;

impl LockMode {
    fn uses(self) -> &'static [u8] {
        match self {
            Self::Read => &[CONSISTENT_READ],
            Self::Write => &[CONSISTENT_READ, WRITE, RESIZE],
        }
    }

    /// Like qemu-img, a reader does not tolerate writers: it could read half-written metadata.
    fn does_not_share(self) -> &'static [u8] {
        &[WRITE, RESIZE]
    }
}

/// Whether the file system knows locks at all. Takes none.
pub(super) fn has_locks(file: &File) -> bool {
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut range(USED_BASE, libc::F_WRLCK))).is_ok()
}

/// Locks that are held as long as the file stays open.
#[derive(Debug)]
pub(crate) struct OfdLock {
    bytes: Vec<i64>,
}

impl OfdLock {
    /// Takes the locks for `mode`; `None` when the file system does not support them or the caller ignores locks.
    pub(crate) fn acquire(file: &File, path: &Path, mode: LockMode, locking: Locking) -> Result<Option<Self>> {
        if locking == Locking::Ignore {
            return Ok(None);
        }
        let lock = Self {
            bytes: (mode.uses().iter().map(|p| USED_BASE + i64::from(*p)))
                .chain(mode.does_not_share().iter().map(|p| UNSHARED_BASE + i64::from(*p)))
                .collect(),
        };
        // First announce, then look: two that do so at once both see each other.
        for byte in &lock.bytes {
            match set(file, *byte, libc::F_RDLCK) {
                Ok(()) => {}
                Err(e) if is_contended(&e) => {
                    lock.release(file);
                    return Err(in_use(path, *byte));
                }
                Err(e) => {
                    tracing::warn!(path = %path.display(), error = %e, "the file system does not support locks");
                    lock.release(file);
                    return Ok(None);
                }
            }
        }
        let foreign = (0..PERMISSIONS)
            .filter(|p| mode.uses().contains(p))
            .map(|p| UNSHARED_BASE + i64::from(p))
            .chain(mode.does_not_share().iter().map(|p| USED_BASE + i64::from(*p)))
            .find(|byte| is_held_by_another(file, *byte));
        match foreign {
            Some(byte) => {
                lock.release(file);
                Err(in_use(path, byte))
            }
            None => Ok(Some(lock)),
        }
    }

    /// Gives the locks back.
    pub(crate) fn release(&self, file: &File) {
        for byte in &self.bytes {
            if let Err(error) = set(file, *byte, libc::F_UNLCK) {
                tracing::debug!(%error, byte, "cannot unlock");
            }
        }
    }
}

fn in_use(path: &Path, byte: i64) -> Error {
    let what = match byte {
        101 => "another process writes to the image",
        103 => "another process resizes the image",
        200 => "another process does not allow reading the image",
        _ => "another process has the image open and does not allow writing to it",
    };
    Error::refused(Layer::Block, what)
        .with_code(ErrorCode::ImageInUse)
        .path(path.display().to_string())
        .hint("shut the guest down, or stop the program that uses the image (qemu, qemu-nbd), and try again")
}

fn is_contended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
}

#[allow(clippy::cast_possible_truncation)] // constants of the system's headers, all below 10
fn range(byte: i64, kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: byte, l_len: 1, l_pid: 0 }
}

fn set(file: &File, byte: i64, kind: i32) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&range(byte, kind)))?;
    Ok(())
}

fn is_held_by_another(file: &File, byte: i64) -> bool {
    let mut wanted = range(byte, libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut wanted)).is_ok() && i32::from(wanted.l_type) != libc::F_UNLCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::host::FileStorage;

    fn image() -> tempfile::NamedTempFile {
        tempfile::NamedTempFile::new().unwrap()
    }

    fn try_lock(path: &Path, mode: LockMode) -> Result<FileStorage> {
        let storage = FileStorage::open(path, mode == LockMode::Write)?;
        storage.lock(mode, Locking::Refuse)?;
        Ok(storage)
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        use crate::host::Storage;
        let file = image();
        let one = try_lock(file.path(), LockMode::Read).unwrap();
        let two = try_lock(file.path(), LockMode::Read).unwrap();
        assert_eq!(try_lock(file.path(), LockMode::Write).unwrap_err().kind(), Kind::Refused);
        one.unlock();
        drop(two);
        let writer = try_lock(file.path(), LockMode::Write).unwrap();
        assert_eq!(try_lock(file.path(), LockMode::Read).unwrap_err().kind(), Kind::Refused);
        assert_eq!(try_lock(file.path(), LockMode::Write).unwrap_err().kind(), Kind::Refused);
        drop(writer);
        try_lock(file.path(), LockMode::Read).unwrap();
    }
}
