//! The open volume: its public face.

use sha2::{Digest, Sha256};

use super::content;
use super::core::Core;
use super::create::{Content, FileContent, create, create_dir_all};
use super::directory::{Directory, DirectoryEntry, components, find_in, find_path};
use super::format::boot::Geometry;
use super::format::file_name::Times;
use super::format::name::NtfsName;
use super::format::units::{FileId, RecordNumber};
use super::link_target::link_target;
use super::log::{Admission, LogPosition};
use super::metadata::{self, OpaqueAttributes, Stat};
use super::open_content::OpenContent;
use super::options::{CreateOptions, OpenOptions};
use super::overlaid::Overlaid;
use super::path_of::path_of;
use super::security::{self, Lookup, Protected};
use super::shared_replay::SharedReplay;
use super::{links, open, overrides, set_metadata};
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::units::VolumeOffset;

/// Bytes of changed blocks in memory after which they are written to the device.
const DIRTY_MAX: usize = 512 << 10;
/// Bytes of a file that are read at once to hash them.
const HASHED_AT_ONCE: usize = 1 << 20;
/// The smallest file, in bytes, that is written in parts: no file record is as large.
const LARGE: u64 = 1 << 16;

/// An open NTFS volume.
///
/// Reading works on `&self`. Every changing call either succeeds or leaves the volume as it was. Changed metadata is
/// kept in memory until [`flush`](Self::flush); file content goes straight to the device, into clusters that were free.
///
/// ```
/// # use std::io::Read;
/// # let packed = std::fs::File::open("test-images/ntfs/small.img.gz")?;
/// # let mut image = Vec::new();
/// # flate2::read::GzDecoder::new(packed).read_to_end(&mut image)?;
/// use winject::internals::clock::FileTime;
/// use winject::internals::io::MemoryVolume;
/// use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, Volume};
///
/// let options = OpenOptions::new(FileTime::from_unix_seconds(1_700_000_000).unwrap());
/// let mut volume = Volume::open(MemoryVolume(image), &options)?;
///
/// let folder = volume.create_dir_all("/new/folder", &CreateOptions::default())?;
/// let file = volume.create_file(folder, "hello.txt", b"Hello", &CreateOptions::default())?;
/// volume.replace_file("/new/folder/hello.txt", b"Hello again", &CreateOptions::default())?;
/// volume.rename("/new/folder/hello.txt", "/greeting.txt")?;
///
/// for entry in volume.entries(FileId::ROOT)? {
///     println!("{:>8}  {}", entry.size, entry.name);
/// }
/// let file = volume.find("/GREETING.TXT")?.expect("names ignore case");
/// assert_eq!(volume.read(file, 1 << 20)?, b"Hello again");
/// volume.delete("/greeting.txt")?;
/// volume.flush()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Volume<D> {
    core: Core<Overlaid<D>>,
    read_only: bool,
    /// What must be done before the first edit, because of the volume's state.
    admission: Admission,
}

impl<D> Volume<D> {
    /// Sizes and places from the boot sector.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.core.pager.geometry
    }

    /// The device below, as it is after the replay of the log. What is not flushed is not there yet.
    #[must_use]
    pub fn device(&self) -> &Overlaid<D> {
        self.core.pager.device()
    }

    /// Gives the device back. What is not flushed is lost; so is the replay of the log before the first edit.
    #[must_use]
    pub fn into_device(self) -> D {
        self.core.pager.into_device().into_below()
    }
}

impl<D: VolumeRead> Volume<D> {
    /// Opens the volume on `device`.
    ///
    /// # Errors
    /// Refused for states in which an edit would do harm; unsupported for other versions; damaged.
    pub fn open(device: D, options: &OpenOptions) -> Result<Self> {
        Self::open_overlaid(Overlaid::open(device, options.replay)?, options)
    }

    /// Opens the volume on `device`, and shares the replay of its log with all who open it; the options' own
    /// [`replay`](OpenOptions::replay) does not count.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_shared(device: D, replay: &SharedReplay, options: &OpenOptions) -> Result<Self> {
        Self::open_overlaid(Overlaid::open_shared(device, replay)?, options)
    }

    /// Opens the volume on a device whose log was looked at already; the options' own [`replay`](OpenOptions::replay) does
    /// not count.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub(crate) fn open_overlaid(device: Overlaid<D>, options: &OpenOptions) -> Result<Self> {
        let (core, admission) = open::open(device, options)?;
        Ok(Self { core, read_only: options.read_only, admission })
    }

    /// How far the volume's log has come, by which a volume shows that something has written to it since.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn log_position(&self) -> Result<LogPosition> {
        open::log_position(&self.core.pager)
    }

    /// Whether the first edit empties a log that was not replayed, as the user allows.
    #[must_use]
    pub fn discards_log(&self) -> bool {
        self.admission.empty_log
    }

    /// Bytes in free clusters.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn free_space(&self) -> Result<u64> {
        let free = self.core.clusters.bitmap().count_clear(&self.core.pager)?;
        Ok(self.core.pager.geometry.bytes_in(free))
    }

    /// The file at a path (`/` or `\` between names, case ignored); `None` if there is none.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn find(&self, path: &str) -> Result<Option<FileId>> {
        find_path(&self.core.pager, path)
    }

    /// The file of this name in a folder, case ignored; `None` if the folder has no such name.
    ///
    /// # Errors
    /// Damaged, not a directory, or the device cannot be read.
    pub fn find_in(&self, folder: FileId, name: &str) -> Result<Option<FileId>> {
        find_in(&self.core.pager, folder, &name.into())
    }

    /// The path that a symbolic link or a junction leads to, as Windows shows it; `None` for every other file.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn link_target(&self, file: FileId) -> Result<Option<String>> {
        link_target(&self.core.pager, file)
    }

    /// Whether a path leads to something.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(components(path).next().is_none() || self.find(path)?.is_some())
    }

    /// The path of the file in this record by its first long name; `None` if it has none, or one of its folders cannot be read.
    #[must_use]
    pub fn path_of(&self, record: RecordNumber) -> Option<String> {
        path_of(&self.core.pager, record)
    }

    /// All names in a directory, in its order.
    ///
    /// # Errors
    /// Damaged, not a directory, or the device cannot be read.
    pub fn entries(&self, dir: FileId) -> Result<Vec<DirectoryEntry>> {
        Directory::open(&self.core.pager, dir)?.entries()
    }

    /// Metadata of a file.
    ///
    /// # Errors
    /// Damaged, no such file, or the device cannot be read.
    pub fn stat(&self, file: FileId) -> Result<Stat> {
        metadata::stat(&self.core.pager, file)
    }

    /// Reparse point, extended attributes and object id of a file, as they are stored.
    ///
    /// # Errors
    /// Damaged, no such file, or the device cannot be read.
    pub fn opaque_attributes(&self, file: FileId) -> Result<OpaqueAttributes> {
        metadata::opaque_attributes(&self.core.pager, file)
    }

    /// The whole content, decompressed; refused when it is longer than `limit`.
    ///
    /// # Errors
    /// Damaged, encrypted, too long, or the device cannot be read.
    pub fn read(&self, file: FileId, limit: u64) -> Result<Vec<u8>> {
        content::read(&self.core.pager, file, limit)
    }

    /// Reads from a stream (`""`: the content) at `offset`; returns how many bytes there were.
    ///
    /// # Errors
    /// Damaged, encrypted, no such stream, or the device cannot be read.
    pub fn read_at(&self, file: FileId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        content::read_at(&self.core.pager, file, stream, offset, buf)
    }

    /// Opens a stream (`""`: the content), to be read piece by piece without looking for it each time.
    ///
    /// # Errors
    /// Damaged, encrypted, no such stream, or the device cannot be read.
    pub fn open_content(&self, file: FileId, stream: &str) -> Result<OpenContent> {
        OpenContent::open(&self.core.pager, file, stream)
    }

    /// Reads from an open stream at `offset`; returns how many bytes there were.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn read_content(&self, content: &OpenContent, offset: u64, buf: &mut [u8]) -> Result<usize> {
        content.read_at(&self.core.pager, offset, buf)
    }

    /// Where the data of an open stream go on at or after `offset`: what lies before it is a hole, which reads as zeros. The
    /// length of the stream if no data follow.
    #[must_use]
    pub fn next_data(&self, content: &OpenContent, offset: u64) -> u64 {
        content.next_data(self.geometry(), offset)
    }

    /// Length and SHA-256 of the whole content, decompressed.
    ///
    /// # Errors
    /// Damaged, encrypted, or the device cannot be read.
    pub fn hash(&self, file: FileId) -> Result<(u64, [u8; 32])> {
        let mut hash = Sha256::new();
        let mut piece = vec![0; HASHED_AT_ONCE];
        let mut offset = 0;
        loop {
            let got = self.read_at(file, "", offset, &mut piece)?;
            hash.update(piece.get(..got).unwrap_or_default());
            offset += got as u64;
            if got < piece.len() {
                return Ok((offset, hash.finalize().into()));
            }
        }
    }

    /// Where a file's content lies, whole clusters, in the order of the content; empty for content that is resident or not
    /// stored as it is.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn extents(&self, file: FileId) -> Result<Vec<(VolumeOffset, u64)>> {
        content::extents(&self.core.pager, file)
    }

    /// The security descriptor that an id in `$Secure` stands for; `None` if there is no such id.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn security_descriptor(&self, id: u32) -> Result<Option<Vec<u8>>> {
        security::security_descriptor(&self.core.pager, id)
    }
}

impl<D: VolumeWrite> Volume<D> {
    /// Runs an operation so that it either succeeds or changes nothing.
    fn edit<T>(&mut self, operation: impl FnOnce(&mut Core<Overlaid<D>>) -> Result<T>) -> Result<T> {
        if self.read_only {
            return Err(Error::refused(Layer::Ntfs, "the volume was opened for reading only")
                .hint("open it with OpenOptions::new"));
        }
        if self.core.pager.dirty_bytes() > DIRTY_MAX {
            self.core.pager.flush()?;
        }
        if !self.admission.is_nothing() {
            let admission = self.admission;
            // first, because everything else was read through the replayed blocks
            self.core.pager.write_replay()?;
            // an operation of its own: it stays when the caller's is refused
            self.core.attempt(|core| overrides::apply(core, admission))?;
            self.admission = Admission::default();
        }
        self.core.attempt(operation)
    }

    /// Does now what the volume's state and the overrides of [`OpenOptions`] ask for (writing the replay of the log,
    /// emptying the log, removing the hibernation state, marking the volume to be checked), which the first changing call
    /// does otherwise. Does nothing on a volume that was dismounted cleanly.
    ///
    /// # Errors
    /// See [`create_dir`](Self::create_dir): those of any changing call.
    pub fn apply_admission(&mut self) -> Result<()> {
        if self.admission.is_nothing() { Ok(()) } else { self.edit(|_| Ok(())) }
    }

    /// Writes everything that is still in memory to the device.
    ///
    /// # Errors
    /// When the device does.
    pub fn flush(&mut self) -> Result<()> {
        self.core.pager.flush()
    }

    /// [`flush`](Self::flush), and lets what was freed be used again. Call it only after the device's content has been
    /// made durable: from then on the old volume no longer needs to survive.
    ///
    /// # Errors
    /// When the device does.
    pub fn forget_freed(&mut self) -> Result<()> {
        self.core.pager.flush()?;
        self.core.clusters.forget_freed();
        self.core.records.forget_freed();
        self.core.pager.forget_clean();
        Ok(())
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// Refused when the name exists or is not allowed, or there is no space; then nothing has changed.
    pub fn create_dir(&mut self, parent: FileId, name: &str, options: &CreateOptions) -> Result<FileId> {
        self.edit(|core| create(core, parent, &name.into(), Content::Directory, options, None))
            .map_err(|e| e.path(name))
    }

    /// Creates a directory and its missing parents; returns the existing one if it is there.
    ///
    /// # Errors
    /// See [`create_dir`](Self::create_dir).
    pub fn create_dir_all(&mut self, path: &str, options: &CreateOptions) -> Result<FileId> {
        self.edit(|core| create_dir_all(core, path, options)).map_err(|e| e.path(path))
    }

    /// Creates a file with this content.
    ///
    /// # Errors
    /// See [`create_dir`](Self::create_dir).
    pub fn create_file(&mut self, parent: FileId, name: &str, data: &[u8], options: &CreateOptions) -> Result<FileId> {
        let content = Content::File(FileContent::Bytes(data));
        self.edit(|core| create(core, parent, &name.into(), content, options, None)).map_err(|e| e.path(name))
    }

    /// Puts a new file in the place of the one at `path`: other hard links keep the old content; security id,
    /// attributes, creation time and DOS name are taken over. Creates the file if it is absent (its directory must be
    /// there).
    ///
    /// # Errors
    /// See [`create_dir`](Self::create_dir); also refused for directories.
    pub fn replace_file(&mut self, path: &str, data: &[u8], options: &CreateOptions) -> Result<FileId> {
        self.edit(|core| links::replace(core, path, FileContent::Bytes(data), options)).map_err(|e| e.path(path))
    }

    /// Like [`replace_file`](Self::replace_file), for a large file of `length` bytes that `fill` gives in parts, each by
    /// its offset, in order.
    ///
    /// # Errors
    /// See [`create_dir`](Self::create_dir), and those of `fill`. A file that is too small to need parts is refused as a defect.
    pub fn replace_file_from(
        &mut self,
        path: &str,
        length: u64,
        fill: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
        options: &CreateOptions,
    ) -> Result<FileId> {
        if length < LARGE {
            return Err(Error::bug(Layer::Ntfs, "a small file is written in parts").path(path));
        }
        self.edit(|core| links::replace(core, path, FileContent::Filled(length, fill), options))
            .map_err(|e| e.path(path))
    }

    /// Changes the content of a file in place, for all its hard links. Only clusters that differ are written.
    ///
    /// Compressed, sparse and WOF files become plain ones.
    ///
    /// # Errors
    /// Refused when there is no space or the file is encrypted or system metadata; then nothing has changed.
    pub fn overwrite(&mut self, file: FileId, data: &[u8]) -> Result<()> {
        self.edit(|core| content::set_content(core, file, &NtfsName::default(), data))
    }

    /// Writes a named stream (creating or replacing it).
    ///
    /// # Errors
    /// See [`overwrite`](Self::overwrite).
    pub fn write_stream(&mut self, file: FileId, stream: &str, data: &[u8]) -> Result<()> {
        let name = content::stream_name(stream)?;
        self.edit(|core| content::set_content(core, file, &name, data))
    }

    /// Removes a named stream.
    ///
    /// # Errors
    /// Refused when it is not there.
    pub fn delete_stream(&mut self, file: FileId, stream: &str) -> Result<()> {
        self.edit(|core| content::delete_stream(core, file, stream))
    }

    /// Removes a name, and the file with its last name. Directories must be empty.
    ///
    /// # Errors
    /// Refused for system files and directories with entries.
    pub fn delete(&mut self, path: &str) -> Result<()> {
        self.edit(|core| links::delete(core, path)).map_err(|e| e.path(path))
    }

    /// Moves or renames a file or directory; `to` must not exist (a change of case only is allowed).
    ///
    /// # Errors
    /// See [`create_dir`](Self::create_dir).
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.edit(|core| links::rename(core, from, to)).map_err(|e| e.path(from))
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// See [`create_dir`](Self::create_dir); also refused for directories.
    pub fn link(&mut self, file: FileId, parent: FileId, name: &str) -> Result<()> {
        self.edit(|core| links::link(core, file, parent, name)).map_err(|e| e.path(name))
    }

    /// Sets the four times.
    ///
    /// # Errors
    /// Refused for system files and for times that NTFS cannot hold; damaged.
    pub fn set_times(&mut self, file: FileId, times: &Times) -> Result<()> {
        set_metadata::check_times(times)?;
        self.edit(|core| set_metadata::set_times(core, file, times))
    }

    /// Sets the DOS attributes that a user may set (read-only, hidden, system, archive …).
    ///
    /// # Errors
    /// Refused for system files; damaged.
    pub fn set_attributes(&mut self, file: FileId, attributes: u32) -> Result<()> {
        self.edit(|core| set_metadata::set_attributes(core, file, attributes))
    }

    /// Sets the security id, which must be in `$Secure`. A descriptor of the file's own (old volumes, other drivers) is
    /// removed.
    ///
    /// # Errors
    /// Refused for system files, or when the id does not exist; damaged.
    pub fn set_security(&mut self, file: FileId, id: u32) -> Result<()> {
        self.edit(|core| set_metadata::set_security(core, file, id))
    }

    /// The security id for a protected file or directory, see [`Protected`].
    ///
    /// # Errors
    /// See [`security_id`](Self::security_id).
    pub fn protected_security(&mut self, what: Protected) -> Result<u32> {
        self.security_id(&what.descriptor())
    }

    /// The security id that a new file (or folder) in this folder inherits.
    ///
    /// # Errors
    /// See [`Self::security_id`].
    pub fn inherited_security(&mut self, folder: FileId, is_folder: bool) -> Result<u32> {
        let descriptor = security::descriptor_of(&self.core.pager, folder)?;
        self.security_id(&security::inherited(descriptor.as_deref(), is_folder))
    }

    /// The security id of a self-relative descriptor: that of an equal one, or a new one.
    ///
    /// # Errors
    /// Damaged, when the descriptor or `$Secure` is malformed; refused, when there is no space. Then nothing has
    /// changed.
    pub fn security_id(&mut self, descriptor: &[u8]) -> Result<u32> {
        match security::find_descriptor(&self.core.pager, descriptor)? {
            Lookup::Found(id) => Ok(id),
            Lookup::Missing(inventory) => self.edit(|core| security::add_descriptor(core, descriptor, &inventory)),
        }
    }
}
