//! Positional access to files of the host, as a trait that tests can implement.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::in_use::refuse_vmware_lock;
use super::kernel_use::{device_in_use, refuse_attached_file, refuse_read_only_device};
use super::qemu_lock::{LockMode, Locking, OfdLock};
use crate::error::{Error, Layer, Result};

/// A run of bytes in a file of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRun {
    /// Length in bytes, never 0 inside the file.
    pub length: u64,
    /// Whether the file system stores data there; otherwise it is a hole and reads as zeros.
    pub is_data: bool,
}

/// Cheap mark of a file's content: as long as it stays the same, no program has written to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Device number of the file system.
    pub device: u64,
    /// Inode number; 0 for a block device.
    pub inode: u64,
    /// Length of the content in bytes.
    pub length: u64,
    /// Time of the last change of content, in nanoseconds since 1970.
    pub modified: i128,
}

/// Which file of the host this is, wherever its folder is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// User ID of the owner.
    pub owner: u32,
    /// Whether it is a block device.
    pub is_device: bool,
    /// Inode number; of a block device the number of the device.
    pub inode: u64,
    /// When it was created, in nanoseconds since 1970; 0 where the file system does not say.
    pub created: i128,
    /// Time of the last change of content, in nanoseconds since 1970; 0 for a block device.
    pub modified: i128,
}

impl FileIdentity {
    /// Whether the other one is the same file. The number of the file system is not compared: it changes from mount to
    /// mount.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        let is_age_equal = self.created == other.created || self.created == 0 || other.created == 0;
        self.is_device == other.is_device && self.inode == other.inode && is_age_equal
    }
}

/// A file of the host (or its double in a test): positional reads and writes, flush, length.
///
/// Methods take `&self`: a file has no cursor here, and readers share it between threads. Read-only storages (a part of
/// an archive, a file with a log replayed over it) keep the default of the methods that write: they fail.
#[allow(clippy::len_without_is_empty)] // no caller needs it: a disk image is never empty
pub trait Storage: Send + Sync + fmt::Debug {
    /// Reads from `offset` until `buf` is full or the file ends; returns how much was read.
    ///
    /// # Errors
    /// What the host says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `data` at `offset`; a file grows when needed.
    ///
    /// # Errors
    /// What the host says.
    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Makes everything written so far durable, the length included.
    ///
    /// # Errors
    /// What the host says.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Length in bytes.
    ///
    /// # Errors
    /// What the host says.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or extends (with a hole) to `length`.
    ///
    /// # Errors
    /// What the host says.
    fn set_len(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Reserves space for the range without changing what it reads as; the file grows when the range is beyond its
    /// end. A file system that cannot do it says [`io::ErrorKind::Unsupported`].
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is not enough space.
    fn reserve(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Makes the range a hole (reads as zeros) without changing the length.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] when the file system cannot do it.
    fn punch(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// The run that begins at `offset`. A file system without holes reports data.
    ///
    /// # Errors
    /// What the host says.
    fn run_at(&self, offset: u64) -> io::Result<HostRun>;

    /// Identity and cheap content mark, if this is a real file.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    /// Which file this is, if it is a real one.
    fn identity(&self) -> Option<FileIdentity> {
        None
    }

    /// The fingerprint that the file had when it was opened.
    fn opened_as(&self) -> Option<Fingerprint> {
        self.fingerprint()
    }

    /// Whether the file has further names (hard links), under which its journal is not found.
    fn has_other_names(&self) -> bool {
        false
    }

    /// Gives up the reader's locks, because the same process is going to lock the file as a writer.
    fn unlock(&self) {}

    /// Whether the locks that were asked for are held. They are not on a file system without locks.
    fn is_locked(&self) -> bool {
        true
    }

    /// Whether this is only a part of a file of the host, such as a member of an archive.
    fn is_part(&self) -> bool {
        false
    }

    /// How many bytes were read so far.
    fn bytes_read(&self) -> u64 {
        0
    }
}

/// Reading helpers that every storage has.
pub trait StorageExt: Storage {
    /// Fills `buf`; the end of the file inside the range is an error.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`], or what the host says.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.read_at(offset, buf)? == buf.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Fills `buf`; what is beyond the end of the file reads as zeros.
    ///
    /// # Errors
    /// What the host says.
    fn read_or_zeros_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let count = self.read_at(offset, buf)?;
        if let Some(rest) = buf.get_mut(count..) {
            rest.fill(0);
        }
        Ok(())
    }
}

impl<T: Storage + ?Sized> StorageExt for T {}

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
            let error = Error::io(Layer::Host, "cannot open the file", e).path(path.display().to_string());
            if writable { error.hint("the file must be writable for an in-place run") } else { error }
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

/// A file held in memory: for tests, fuzzing, and small containers that were unpacked.
#[derive(Debug, Default)]
pub struct MemoryStorage(Mutex<Vec<u8>>);

impl MemoryStorage {
    /// A file with this content.
    #[must_use]
    pub fn new(content: Vec<u8>) -> Self {
        Self(Mutex::new(content))
    }

    /// A copy of the content.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        self.bytes().clone()
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The largest file that a [`MemoryStorage`] takes, so that a hostile image cannot exhaust memory through it.
const MEMORY_STORAGE_MAX: u64 = 4 << 30;

impl Storage for MemoryStorage {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let source = bytes.get(start..).unwrap_or_default();
        let count = source.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), source.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= MEMORY_STORAGE_MAX)
            .ok_or(io::ErrorKind::StorageFull)?;
        let mut bytes = self.bytes();
        if end > bytes.len() as u64 {
            bytes.resize(usize::try_from(end).map_err(|_| io::ErrorKind::StorageFull)?, 0);
        }
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::StorageFull)?;
        if let Some(target) = bytes.get_mut(start..start + data.len()) {
            target.copy_from_slice(data);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length > MEMORY_STORAGE_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes().resize(usize::try_from(length).map_err(|_| io::ErrorKind::StorageFull)?, 0);
        Ok(())
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        if end > self.len()? { self.set_len(end) } else { Ok(()) }
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let size = bytes.len();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(size);
        let end = usize::try_from(offset.saturating_add(length)).unwrap_or(usize::MAX).min(size);
        if let Some(range) = bytes.get_mut(start..end) {
            range.fill(0);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        Ok(HostRun { length: self.len()?.saturating_sub(offset), is_data: true })
    }
}
