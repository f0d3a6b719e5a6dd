//! Positional access to files of the host, as a trait that tests can implement.

use std::any::Any;
use std::fmt;
use std::io;

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

    /// Asks the host to begin to store a range that was written, without waiting for it, and to drop from its cache what is
    /// stored already. Whether the host does such things; what goes wrong, the next flush says.
    fn begin_write_back(&self, _offset: u64, _length: u64) -> bool {
        false
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

    /// Whether it lies on another host: it is recognised by its content alone, and can neither grow nor shrink.
    fn is_remote(&self) -> bool {
        false
    }

    /// The storage itself, for a caller that needs methods of its type.
    fn as_any(&self) -> Option<&dyn Any> {
        None
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
