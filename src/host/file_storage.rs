//! Regular files and block devices of the host.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::in_use::refuse_vmware_lock;
use super::kernel_use::{device_in_use, refuse_attached_file, refuse_read_only_device};
use super::qemu_lock::{LockMode, Locking, OfdLock};
use super::storage::{FileIdentity, Fingerprint, HostRun, Storage};
use crate::error::{Error, Layer, Result};

/// A regular file or a block device.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
    is_device: bool,
    opened_as: Option<Fingerprint>,
    lock: Mutex<Option<OfdLock>>,
    bytes_read: AtomicU64,
}

impl FileStorage {
    /// Opens the file at `path`, for writing too if `writable`: a block device exclusively then, as a mount has it.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when it cannot be opened, [`Kind::Unsupported`](crate::Kind::Unsupported) when it
    /// is neither a regular file nor a block device; for writing [`Kind::Refused`](crate::Kind::Refused) when it is a
    /// device that is mounted or held by another program, or a file that a loop device is attached to.
    pub fn open(path: &Path, writable: bool) -> Result<Self> {
        // A FIFO that took the file's name a moment ago is not waited for.
        let mut flags = nix::libc::O_NONBLOCK;
        // Before it is opened: a socket cannot be, and to open a device may have an effect of its own.
        if let Ok(meta) = std::fs::metadata(path) {
            refuse_other_kinds(meta.file_type(), path)?;
            if writable {
                refuse_read_only_device(&meta, path)?;
                refuse_attached_file(&meta, path)?;
                // For a device, and for nothing else, the flag has a meaning without O_CREAT (open(2)).
                flags |= if meta.file_type().is_block_device() { nix::libc::O_EXCL } else { 0 };
            }
        }
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(writable).custom_flags(flags);
        let file = options.open(path).map_err(|e| {
            if flags & nix::libc::O_EXCL != 0
                && let Some(in_use) = device_in_use(&e, path)
            {
                return in_use;
            }
            let broken_link = path.read_link().ok().filter(|_| e.kind() == io::ErrorKind::NotFound);
            let error = Error::io(Layer::Host, "cannot open the file", e).path(path.display().to_string());
            if let Some(target) = broken_link {
                let text =
                    format!("it is a symbolic link to {}, which does not exist: restore that file", target.display());
                error.hint(text)
            } else if writable {
                error.hint("the file must be writable for an in-place run")
            } else {
                error
            }
        })?;
        Self::from_file(file, path)
    }

    /// Wraps a file that is already open.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn from_file(file: File, path: &Path) -> Result<Self> {
        let kind = file
            .metadata()
            .map_err(|e| Error::io(Layer::Host, "cannot examine the file", e).path(path.display().to_string()))?
            .file_type();
        refuse_other_kinds(kind, path)?;
        let mut storage = Self {
            file,
            path: path.to_owned(),
            is_device: kind.is_block_device(),
            opened_as: None,
            lock: Mutex::new(None),
            bytes_read: AtomicU64::new(0),
        };
        storage.opened_as = storage.fingerprint();
        Ok(storage)
    }

    /// The path it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses to write beyond the limit on the size of files (`ulimit -f`). The kernel would store a part of the data,
    /// perhaps of a sector, and kill the process.
    fn check_size_limit(&self, end: Option<u64>) -> io::Result<()> {
        let limit = if self.is_device { None } else { getrlimit(Resource::Fsize).current };
        match (limit, end) {
            (_, None) => Err(Errno::FBIG.into()),
            (Some(limit), Some(end)) if end > limit => Err(Errno::FBIG.into()),
            _ => Ok(()),
        }
    }

    /// The open file, for what a storage does not do.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is a regular file (not a device).
    #[must_use]
    pub fn is_regular(&self) -> bool {
        !self.is_device
    }

    /// Takes the advisory locks that QEMU would take for the same use, and looks for those of VMware.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) when another process uses the file in a way that excludes ours.
    pub fn lock(&self, mode: LockMode, locking: Locking) -> Result<()> {
        if locking == Locking::Refuse {
            refuse_vmware_lock(&self.path)?;
        }
        let lock = OfdLock::acquire(&self.file, &self.path, mode, locking)?;
        if let Ok(mut slot) = self.lock.lock() {
            *slot = lock;
        }
        Ok(())
    }
}

fn refuse_other_kinds(kind: std::fs::FileType, path: &Path) -> Result<()> {
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    Err(Error::unsupported(Layer::Host, "not a regular file or a block device")
        .path(path.display().to_string())
        .hint("give the path of a disk image"))
}

impl Drop for FileStorage {
    /// Unlocks explicitly: a process that is just being started may hold a copy of the file for a moment.
    fn drop(&mut self) {
        self.unlock();
    }
}

impl Storage for FileStorage {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let position = offset.checked_add(done as u64).ok_or(io::ErrorKind::InvalidInput)?;
            match self.file.read_at(rest, position) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes_read.fetch_add(done as u64, Ordering::Relaxed);
        Ok(done)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_size_limit(offset.checked_add(data.len() as u64))?;
        self.file.write_all_at(data, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn begin_write_back(&self, offset: u64, length: u64) -> bool {
        // Linux begins to write the pages that are dirty, and drops the others.
        rustix::fs::fadvise(&self.file, offset, NonZero::new(length), Advice::DontNeed).is_ok()
    }

    fn len(&self) -> io::Result<u64> {
        if self.is_device {
            // A device's metadata say 0; its end is where seeking to the end leads.
            return Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?);
        }
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if self.is_device {
            return if length <= self.len()? { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) };
        }
        self.check_size_limit(Some(length))?;
        self.file.set_len(length)
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.is_device {
            let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
            return if end <= self.len()? { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) };
        }
        self.check_size_limit(offset.checked_add(length))?;
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, length)?)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)?)
    }

    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        let end = self.len()?;
        let rest = end.saturating_sub(offset);
        if self.is_device {
            return Ok(HostRun { length: rest, is_data: true });
        }
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Ok(HostRun { length: (data - offset).min(rest), is_data: false }),
            Ok(_) => {
                let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(offset)).unwrap_or(end);
                Ok(HostRun { length: hole.saturating_sub(offset).clamp(1.min(rest), rest), is_data: true })
            }
            Err(rustix::io::Errno::NXIO) => Ok(HostRun { length: rest, is_data: false }),
            Err(_) => Ok(HostRun { length: rest, is_data: true }),
        }
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let metadata = self.file.metadata().ok()?;
        Some(Fingerprint {
            device: if self.is_device { metadata.rdev() } else { metadata.dev() },
            inode: if self.is_device { 0 } else { metadata.ino() },
            length: self.len().ok()?,
            // The times of a device node say nothing about its content.
            modified: if self.is_device {
                0
            } else {
                i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
            },
        })
    }

    fn identity(&self) -> Option<FileIdentity> {
        let metadata = self.file.metadata().ok()?;
        let created = metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Some(FileIdentity {
            owner: metadata.uid(),
            is_device: self.is_device,
            inode: if self.is_device { metadata.rdev() } else { metadata.ino() },
            created: created.and_then(|time| i128::try_from(time.as_nanos()).ok()).unwrap_or(0),
            modified: self.fingerprint()?.modified,
        })
    }

    fn has_other_names(&self) -> bool {
        !self.is_device && self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 1)
    }

    fn opened_as(&self) -> Option<Fingerprint> {
        self.opened_as
    }

    fn is_locked(&self) -> bool {
        self.lock.lock().is_ok_and(|lock| lock.is_some())
    }

    fn unlock(&self) {
        if let Ok(mut lock) = self.lock.lock()
            && let Some(lock) = lock.take()
        {
            lock.release(&self.file);
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}
