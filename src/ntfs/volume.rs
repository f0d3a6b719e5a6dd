//! The open volume.

use super::boot::Geometry;
use super::file_name::Times;
use super::name::{Namespace, NtfsName};
use super::units::FileId;
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};

/// How to open a volume.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The one time that everything written gets.
    pub clock: FileTime,
    /// Only reading is wanted: the states that forbid an edit (unclean log, dirty flag, hibernation) are no error.
    pub read_only: bool,
    /// Accept a volume whose dirty flag is set.
    pub allow_dirty: bool,
    /// Empty an unclean `$LogFile` and set the dirty flag, so that Windows checks the volume.
    pub discard_log: bool,
    /// Remove the hibernation state and set the dirty flag; the saved session is lost.
    pub discard_hibernation: bool,
}

impl OpenOptions {
    /// For editing, with all refusals.
    #[must_use]
    pub fn new(clock: FileTime) -> Self {
        Self { clock, read_only: false, allow_dirty: false, discard_log: false, discard_hibernation: false }
    }

    /// For reading only.
    #[must_use]
    pub fn read_only() -> Self {
        Self { read_only: true, ..Self::new(FileTime(1)) }
    }
}

/// Whose protection a new file gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// The same as this file's, which must have a security id; else the nearest parent's that has one.
    Like(FileId),
    /// The same as the parent directory's; if that has a descriptor of its own, the first child's that has an id.
    LikeParent,
    /// An id in `$Secure`.
    Id(u32),
}

/// What a new file or directory is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct New {
    /// Protection.
    pub security: Security,
    /// DOS attributes; `None` gives 0x20 for files and 0 for directories.
    pub attributes: Option<u32>,
    /// All four times; `None`: the volume's clock.
    pub time: Option<FileTime>,
}

impl Default for New {
    fn default() -> Self {
        Self { security: Security::LikeParent, attributes: None, time: None }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: NtfsName,
    /// The file.
    pub file: FileId,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes of content, as the directory remembers it.
    pub size: u64,
    /// DOS attributes, as the directory remembers them.
    pub attributes: u32,
    /// Namespace; entries of [`Namespace::Dos`] repeat a file under its short name.
    pub namespace: Namespace,
}

/// Facts about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes of the unnamed stream.
    pub size: u64,
    /// Times.
    pub times: Times,
    /// DOS attributes.
    pub attributes: u32,
    /// Id in `$Secure`; `None` when the file has a descriptor of its own (or none).
    pub security: Option<u32>,
    /// Names, DOS names included.
    pub links: u16,
    /// Tag of the reparse point.
    pub reparse_tag: Option<u32>,
    /// Named streams.
    pub streams: Vec<NtfsName>,
}

/// An open NTFS volume.
#[derive(Debug)]
pub struct Volume<D> {
    device: D,
    geometry: Geometry,
}

fn later<T>() -> Result<T> {
    Err(Error::unsupported(Layer::Ntfs, "this operation is not built yet"))
}

#[allow(unused_variables, clippy::unused_self)]
impl<D: VolumeRead> Volume<D> {
    /// Opens the volume on `device`.
    ///
    /// # Errors
    /// Refused for states in which an edit would do harm; unsupported for other versions; damaged.
    pub fn open(device: D, options: &OpenOptions) -> Result<Self> {
        later()
    }

    /// The geometry.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The device below. What is not flushed is not there yet.
    #[must_use]
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The file at a path (`/` or `\` between names, case ignored); `None` if there is none.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn find(&self, path: &str) -> Result<Option<FileId>> {
        later()
    }

    /// The file called `name` in a directory.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn find_in(&self, dir: FileId, name: &NtfsName) -> Result<Option<FileId>> {
        later()
    }

    /// All names in a directory, in its order.
    ///
    /// # Errors
    /// Damaged, no directory, or the device cannot be read.
    pub fn entries(&self, dir: FileId) -> Result<Vec<Entry>> {
        later()
    }

    /// Facts about a file.
    ///
    /// # Errors
    /// Damaged, no such file, or the device cannot be read.
    pub fn stat(&self, file: FileId) -> Result<Stat> {
        later()
    }

    /// The whole content, decompressed; refused when it is longer than `limit`.
    ///
    /// # Errors
    /// Damaged, encrypted, too long, or the device cannot be read.
    pub fn read(&self, file: FileId, limit: u64) -> Result<Vec<u8>> {
        later()
    }

    /// Reads from a stream (`""`: the content) at `offset`; returns how many bytes there were.
    ///
    /// # Errors
    /// Damaged, encrypted, no such stream, or the device cannot be read.
    pub fn read_at(&self, file: FileId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        later()
    }

    /// Bytes in free clusters.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn free_space(&self) -> Result<u64> {
        later()
    }

    /// Gives the device back. What is not flushed is lost.
    #[must_use]
    pub fn into_device(self) -> D {
        self.device
    }
}

#[allow(unused_variables, clippy::unused_self, clippy::needless_pass_by_ref_mut)]
impl<D: VolumeWrite> Volume<D> {
    /// Creates a directory.
    ///
    /// # Errors
    /// Refused when the name exists or is not allowed, or there is no space; then nothing has changed.
    pub fn create_dir(&mut self, parent: FileId, name: &str, how: &New) -> Result<FileId> {
        later()
    }

    /// Creates a directory and its missing parents; returns the existing one if it is there.
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir).
    pub fn create_dir_all(&mut self, path: &str, how: &New) -> Result<FileId> {
        later()
    }

    /// Creates a file with this content.
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir).
    pub fn create_file(&mut self, parent: FileId, name: &str, data: &[u8], how: &New) -> Result<FileId> {
        later()
    }

    /// Puts a new file in the place of the one at `path`: other hard links keep the old content; security id,
    /// attributes, creation time and DOS name are taken over. Creates the file if it is absent (its directory must be
    /// there).
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir); refused for directories.
    pub fn replace_file(&mut self, path: &str, data: &[u8], how: &New) -> Result<FileId> {
        later()
    }

    /// Changes the content of a file in place, for all its hard links. Only clusters that differ are written.
    ///
    /// # Errors
    /// Refused when there is no space or the file is encrypted or system metadata; then nothing has changed.
    pub fn overwrite(&mut self, file: FileId, data: &[u8]) -> Result<()> {
        later()
    }

    /// Removes a name, and the file with its last name. Directories must be empty.
    ///
    /// # Errors
    /// Refused for system files and directories with entries.
    pub fn delete(&mut self, path: &str) -> Result<()> {
        later()
    }

    /// Moves or renames a file or directory; `to` must not exist (a change of case only is allowed).
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir).
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        later()
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir); refused for directories.
    pub fn link(&mut self, file: FileId, parent: FileId, name: &str) -> Result<()> {
        later()
    }

    /// Writes a named stream (creating or replacing it).
    ///
    /// # Errors
    /// As [`overwrite`](Self::overwrite).
    pub fn write_stream(&mut self, file: FileId, stream: &str, data: &[u8]) -> Result<()> {
        later()
    }

    /// Removes a named stream.
    ///
    /// # Errors
    /// Refused when it is not there.
    pub fn delete_stream(&mut self, file: FileId, stream: &str) -> Result<()> {
        later()
    }

    /// Sets the four times.
    ///
    /// # Errors
    /// Damaged, or no such file.
    pub fn set_times(&mut self, file: FileId, times: &Times) -> Result<()> {
        later()
    }

    /// Sets the DOS attributes that a user may set (read-only, hidden, system, archive …).
    ///
    /// # Errors
    /// Damaged, or no such file.
    pub fn set_attributes(&mut self, file: FileId, attributes: u32) -> Result<()> {
        later()
    }

    /// Sets the security id, which must be in `$Secure`.
    ///
    /// # Errors
    /// Refused when the file has a descriptor of its own or the id does not exist.
    pub fn set_security(&mut self, file: FileId, id: u32) -> Result<()> {
        later()
    }

    /// Writes everything that is still in memory to the device.
    ///
    /// # Errors
    /// When the device does.
    pub fn flush(&mut self) -> Result<()> {
        later()
    }
}
