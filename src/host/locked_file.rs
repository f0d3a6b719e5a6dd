//! Locks on files that several processes edit, one after the other.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::file_id::FileId;
use super::read::{Unreadable, open};
use crate::error::{Error, ErrorCode, Layer, Result};

/// How long a lock is waited for.
const WAIT: Duration = Duration::from_secs(10);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// A regular file, locked (`flock`) against others that edit it in the same way: read, change, replace by rename.
#[derive(Debug)]
pub(crate) struct LockedFile {
    pub(super) file: File,
    /// Metadata at the time of locking, to detect a change by a program that takes no lock.
    pub(super) meta: Metadata,
    /// The path, symbolic links resolved.
    path: PathBuf,
}

impl LockedFile {
    /// Locks the file that `path` leads to. Another process may replace it while the lock is waited for: then the new
    /// file is locked, so that what is read under the lock is what the other one wrote.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) when another process holds the lock for ten seconds, [`Kind::Unsupported`](crate::Kind::Unsupported) for what is not a
    /// regular file, [`Kind::Io`](crate::Kind::Io) when it cannot be opened.
    pub(crate) fn lock(path: &Path) -> Result<Self> {
        Self::lock_within(path, WAIT)
    }

    fn lock_within(path: &Path, wait: Duration) -> Result<Self> {
        let name = path.display().to_string();
        let cannot = |e| Error::io(Layer::Host, "cannot open the file", e).path(&name);
        let deadline = Instant::now() + wait;
        loop {
            let real = path.canonicalize().map_err(cannot)?;
            let file = open(&real, false).map_err(|error| match error {
                Unreadable::Io(error) => cannot(error),
                other => {
                    let error = other.into_error("the file", path, Layer::Host);
                    Error::unsupported(Layer::Host, "not a regular file").path(&name).source_error(error)
                }
            })?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::refused(Layer::Host, "another process is changing the file")
                        .with_code(ErrorCode::ImageInUse)
                        .path(&name)
                        .hint("wait until it has finished, and run the command again"));
                }
                Err(Errno::INTR) => continue,
                Err(error) => tracing::warn!(path = %name, %error, "the file system does not support locks"),
            }
            let meta = file.metadata().map_err(cannot)?;
            if FileId::of(&real) == Some(FileId::from(&meta)) {
                return Ok(Self { file, meta, path: real });
            }
        }
    }

    /// The path without symbolic links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_waiting_process_gets_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"old").unwrap();
        let first = LockedFile::lock(&path).unwrap();
        let refused = LockedFile::lock_within(&path, Duration::ZERO).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        let second = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| LockedFile::lock(&path).unwrap());
            std::fs::write(folder.path().join("new"), b"new").unwrap();
            std::fs::rename(folder.path().join("new"), &path).unwrap();
            drop(first);
            waiting.join().unwrap()
        });
        assert_eq!(FileId::from(&second.file.metadata().unwrap()), FileId::of(&path).unwrap());
        assert_eq!(LockedFile::lock_within(&path, Duration::ZERO).unwrap_err().kind(), Kind::Refused);
    }
}
