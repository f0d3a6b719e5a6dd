//! Locks by name, for an image that is not a file of this machine.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::leftover;
use super::locked_file::LockedFile;
use super::permissions::PRIVATE;
use crate::error::{Error, Layer, Result};

/// A link is not followed, and a reader of a named pipe is not waited for.
const FLAGS: i32 = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;

/// How often the file is made anew that another process removes when it gives the lock up.
const ATTEMPTS: usize = 100;

/// A lock that the processes of this machine share by the path of an empty file, which exists as long as it is held.
#[derive(Debug)]
pub(crate) struct NameLock(LockedFile);

impl NameLock {
    /// Takes the lock of this path, whose folder must exist.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) when another process holds it for ten seconds, [`Kind::Io`](crate::Kind::Io) when the file cannot
    /// be made.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let cannot = |e: io::Error| Error::io(Layer::Host, "cannot make a lock", e).path(path.display().to_string());
        for _ in 0..ATTEMPTS {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(PRIVATE).custom_flags(FLAGS);
            let file = options.open(path).map_err(cannot)?;
            if !file.metadata().map_err(cannot)?.is_file() {
                return Err(cannot(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
            }
            match LockedFile::lock(path) {
                // Removed by the process that held the lock.
                Err(_) if path.symlink_metadata().is_err() => {}
                locked => return locked.map(Self),
            }
        }
        Err(cannot(io::ErrorKind::TimedOut.into()))
    }

    /// Whether another process holds the lock of this path.
    pub(crate) fn is_taken(path: &Path) -> bool {
        path.symlink_metadata().is_ok() && leftover::is_claimed(path)
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        // While the lock is held: who waits for it finds that the name is gone, and makes it anew.
        if let Err(error) = std::fs::remove_file(self.0.path()) {
            tracing::debug!(%error, "cannot remove a lock");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_named_pipe_in_place_of_the_lock_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let of_thread = path.clone();
        std::thread::spawn(move || sender.send((NameLock::is_taken(&of_thread), NameLock::take(&of_thread).is_err())));
        let answer = receiver.recv_timeout(std::time::Duration::from_secs(30));
        assert_eq!(answer, Ok((false, true)), "it is waited for");
        assert!(path.symlink_metadata().is_ok());
    }

    #[test]
    fn one_at_a_time_holds_the_lock_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let held = NameLock::take(&path).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        assert!(NameLock::is_taken(&path));
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert!(!NameLock::is_taken(&path));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
