//! The undo journal: what an in-place run is going to overwrite, written and flushed before the first write.
//!
//! Layout, little endian. Header: magic (zeros until the journal is complete), version, flags, number of files, the
//! process that writes (version 2), and for each file its length before, the length that it may reach, which file it is
//! (version 3), and (for a data file) the name that the image gives it, so that the journal is good in whatever folder
//! both are. Then records: the
//! old content of a range of at most 1 MiB (or that it was a hole), and the checksums that its sectors will have after
//! each phase of the run. Then an end mark with the number of records and a checksum over everything.
//!
//! The checksums of the new content tell an interrupted run from a file that somebody else changed in the meantime:
//! every sector must be what it was or what the run made of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::owner::Owner;
use crate::block::{FileIdentity, HostFiles, Storage, StorageExt};
use crate::error::{Error, Kind, Layer, Result};
use crate::host::PRIVATE;

const MAGIC: &[u8; 8] = b"WINJUNDO";
const VERSION: u32 = 3;
const FLAG_SWITCH: u32 = 1;
const TAG_RECORD: u32 = u32::from_le_bytes(*b"RECO");
const TAG_END: u32 = u32::from_le_bytes(*b"ENDJ");
const KIND_HOLE: u32 = 1;
/// Old content is recorded in pieces of at most this size.
pub(super) const PIECE_MAX: u64 = 1 << 20;
const VARIANTS_MAX: u32 = 8;
const FILES_MAX: u32 = 2;
pub(super) const PATH_BYTES_MAX: u32 = 4096;
/// What a file is: unknown, a regular file, a block device.
const IDENTITIES: [u32; 3] = [0, 1, 2];
/// Whether something is old or new is decided for each sector.
pub(super) const SECTOR: usize = 512;
const BUFFER_BYTES: usize = 1 << 20;

/// A file that the run changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalFile {
    pub old_length: u64,
    pub new_length: u64,
    /// Which file it is; `None` only where files have no identity (in tests).
    pub identity: Option<FileIdentity>,
    /// Name of the data file as the image records it; empty for the image itself.
    pub name: String,
}

/// The old content of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Index of the file.
    pub file: usize,
    pub offset: u64,
    pub length: u64,
    /// `None`: it was a hole.
    pub old: Option<Vec<u8>>,
    /// For each phase that writes the range, the checksums of its sectors afterwards.
    pub variants: Vec<Vec<u32>>,
}

/// The checksums of a range's sectors.
pub(super) fn sector_sums(content: &[u8]) -> Vec<u32> {
    content.chunks(SECTOR).map(crc32fast::hash).collect()
}

/// A journal that is being written.
pub(super) struct JournalWriter<'a> {
    host: &'a dyn HostFiles,
    path: PathBuf,
    storage: Arc<dyn Storage>,
    buffer: Vec<u8>,
    written: u64,
    sum: crc32fast::Hasher,
    records: u64,
}

impl<'a> JournalWriter<'a> {
    /// Creates the journal and reserves `expected` bytes for it.
    pub fn create(
        host: &'a dyn HostFiles,
        path: &Path,
        is_switch: bool,
        files: &[JournalFile],
        expected: u64,
    ) -> Result<Self> {
        let failed = |e: io::Error| {
            let error = Error::io(Layer::Host, "the undo journal cannot be created", e);
            error.path(path.display().to_string()).hint("the image's folder must be writable and have space")
        };
        let storage = host.create(path, PRIVATE).map_err(failed)?;
        let mut journal = Self {
            host,
            path: path.to_owned(),
            storage,
            buffer: Vec::new(),
            written: 0,
            sum: crc32fast::Hasher::new(),
            records: 0,
        };
        let begun = journal.begin(is_switch, files, expected);
        match begun {
            Ok(()) => Ok(journal),
            Err(error) => {
                journal.abandon();
                Err(failed(error))
            }
        }
    }

    fn begin(&mut self, is_switch: bool, files: &[JournalFile], expected: u64) -> io::Result<()> {
        match self.storage.reserve(0, expected.max(1)) {
            Err(e) if e.kind() != io::ErrorKind::Unsupported => return Err(e),
            _ => {}
        }
        self.put(&[0; MAGIC.len()])?;
        self.put(&VERSION.to_le_bytes())?;
        self.put(&if is_switch { FLAG_SWITCH } else { 0 }.to_le_bytes())?;
        self.put(&(files.len() as u32).to_le_bytes())?;
        self.put(&Owner::this().to_bytes())?;
        for file in files {
            self.put(&file.old_length.to_le_bytes())?;
            self.put(&file.new_length.to_le_bytes())?;
            let [unknown, regular, device] = IDENTITIES;
            let kind = file.identity.map_or(unknown, |identity| if identity.is_device { device } else { regular });
            self.put(&kind.to_le_bytes())?;
            self.put(&file.identity.map_or(0, |identity| identity.inode).to_le_bytes())?;
            self.put(&file.identity.map_or(0, |identity| identity.created).to_le_bytes())?;
            self.put(&file.identity.map_or(0, |identity| identity.modified).to_le_bytes())?;
            if file.name.len() > PATH_BYTES_MAX as usize {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.put(&(file.name.len() as u32).to_le_bytes())?;
            self.put(file.name.as_bytes())?;
        }
        Ok(())
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        self.put(&TAG_RECORD.to_le_bytes())?;
        self.put(&(record.file as u32).to_le_bytes())?;
        self.put(&record.offset.to_le_bytes())?;
        self.put(&record.length.to_le_bytes())?;
        self.put(&if record.old.is_none() { KIND_HOLE } else { 0 }.to_le_bytes())?;
        self.put(&(record.variants.len() as u32).to_le_bytes())?;
        if let Some(old) = &record.old {
            self.put(old)?;
        }
        for sum in record.variants.iter().flatten() {
            self.put(&sum.to_le_bytes())?;
        }
        self.records += 1;
        Ok(())
    }

    /// Completes the journal and makes it durable, its name included.
    pub fn seal(&mut self) -> io::Result<()> {
        self.put(&TAG_END.to_le_bytes())?;
        self.put(&self.records.to_le_bytes())?;
        let sum = self.sum.clone().finalize();
        self.put(&sum.to_le_bytes())?;
        self.write_out()?;
        self.storage.set_len(self.written)?;
        self.storage.flush()?;
        self.host.sync_folder_of(&self.path)?;
        self.storage.write_at(0, MAGIC)?;
        self.storage.flush()
    }

    /// The finished journal's file.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Removes a journal before anything has been written to the image. Returns whether none is left that counts: one
    /// that was never completed may stay.
    pub fn abandon(&self) -> bool {
        let Err(error) = self.host.remove(&self.path) else { return true };
        tracing::warn!(path = %self.path.display(), %error, "cannot remove an unused journal");
        is_unused(&*self.storage).unwrap_or(false)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.storage.write_at(self.written, &self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Removes a journal, durably.
pub(super) fn remove(host: &dyn HostFiles, path: &Path) -> io::Result<()> {
    host.remove(path)?;
    host.sync_folder_of(path)
}

/// Whether a journal was never completed, so that its image is as it was.
pub(super) fn is_unused(journal: &dyn Storage) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    journal.read_or_zeros_at(0, &mut magic)?;
    Ok(magic == [0; MAGIC.len()])
}

/// A journal that an earlier run left.
#[derive(Debug)]
pub(super) struct Journal {
    storage: Arc<dyn Storage>,
    pub is_switch: bool,
    pub files: Vec<JournalFile>,
    /// The process that wrote it.
    pub owner: Owner,
    records_at: u64,
    length: u64,
}

/// Reads through a storage, in order, counting a checksum.
struct Reader<'a> {
    storage: &'a dyn Storage,
    at: u64,
    length: u64,
    buffer: Vec<u8>,
    taken: usize,
    sum: crc32fast::Hasher,
}

impl<'a> Reader<'a> {
    fn new(storage: &'a dyn Storage, at: u64, length: u64) -> Self {
        Self { storage, at, length, buffer: Vec::new(), taken: 0, sum: crc32fast::Hasher::new() }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        if self.buffer.len() - self.taken < count {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let missing = count.max(BUFFER_BYTES) - self.buffer.len();
            let available = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let mut more = vec![0; missing.min(available)];
            self.storage.read_exact_at(self.at, &mut more)?;
            self.at += more.len() as u64;
            self.buffer.extend_from_slice(&more);
        }
        let bytes = self.buffer.get(self.taken..self.taken + count).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec();
        self.taken += count;
        self.sum.update(&bytes);
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?))
    }

    fn i128(&mut self) -> io::Result<i128> {
        Ok(i128::from_le_bytes(self.take(16)?.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?))
    }

    fn place(&self) -> u64 {
        self.at - (self.buffer.len() - self.taken) as u64
    }
}

fn damaged(what: &str) -> Error {
    Error::new(Kind::Pending, Layer::Block, format!("the undo journal of an interrupted run is damaged: {what}"))
}

fn unreadable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        damaged("cut off")
    } else {
        Error::new(Kind::Pending, Layer::Block, "the undo journal of an interrupted run cannot be read")
            .source_error(error)
    }
}

impl Journal {
    /// Opens a journal; `None` if it was never completed (then nothing was written to the image).
    pub fn open(storage: Arc<dyn Storage>) -> Result<Option<Self>> {
        let length = storage.len().map_err(unreadable)?;
        if is_unused(&*storage).map_err(unreadable)? {
            return Ok(None);
        }
        let mut magic = [0; MAGIC.len()];
        storage.read_or_zeros_at(0, &mut magic).map_err(unreadable)?;
        if magic != *MAGIC {
            return Err(damaged("not a journal of winject"));
        }
        let mut reader = Reader::new(&*storage, MAGIC.len() as u64, length);
        let version = reader.u32().map_err(unreadable)?;
        if version != VERSION {
            return Err(Error::new(
                Kind::Pending,
                Layer::Block,
                format!("the undo journal has version {version}, this winject knows version {VERSION}"),
            )
            .hint("restore the image with the winject that was interrupted"));
        }
        let flags = reader.u32().map_err(unreadable)?;
        let count = reader.u32().map_err(unreadable)?;
        if count == 0 || count > FILES_MAX {
            return Err(damaged("impossible number of files"));
        }
        let owner = reader.take(Owner::BYTES).map_err(unreadable)?;
        let owner = Owner::from_bytes(&owner).ok_or_else(|| damaged("cut off"))?;
        let mut files = Vec::new();
        for _ in 0..count {
            let old_length = reader.u64().map_err(unreadable)?;
            let new_length = reader.u64().map_err(unreadable)?;
            let kind = reader.u32().map_err(unreadable)?;
            let inode = reader.u64().map_err(unreadable)?;
            let (created, modified) = (reader.i128().map_err(unreadable)?, reader.i128().map_err(unreadable)?);
            let [unknown, _, device] = IDENTITIES;
            let is_device = kind == device;
            let known = FileIdentity { owner: 0, is_device, inode, created, modified };
            let identity = if kind == unknown { None } else { Some(known) };
            let name_length = reader.u32().map_err(unreadable)?;
            if name_length > PATH_BYTES_MAX || !IDENTITIES.contains(&kind) {
                return Err(damaged("impossible file"));
            }
            let name = reader.take(name_length as usize).map_err(unreadable)?;
            let name = String::from_utf8(name).map_err(|_| damaged("impossible name"))?;
            files.push(JournalFile { old_length, new_length, identity, name });
        }
        let records_at = reader.place();
        drop(reader);
        let journal = Self { storage, is_switch: flags & FLAG_SWITCH != 0, files, owner, records_at, length };
        journal.verify()?;
        Ok(Some(journal))
    }

    /// Reads everything once: nothing is restored from a journal that is not whole.
    fn verify(&self) -> Result<()> {
        let mut sum = crc32fast::Hasher::new();
        // The magic was zeros when the checksum was made.
        sum.update(&[0; MAGIC.len()]);
        let mut head = vec![0; usize::try_from(self.records_at).unwrap_or(0)];
        self.storage.read_exact_at(0, &mut head).map_err(unreadable)?;
        sum.update(head.get(MAGIC.len()..).unwrap_or_default());
        let mut reader = Reader::new(&*self.storage, self.records_at, self.length);
        reader.sum = sum;
        let mut records = 0u64;
        while self.next(&mut reader)?.is_some() {
            records += 1;
        }
        if reader.u64().map_err(unreadable)? != records {
            return Err(damaged("wrong number of records"));
        }
        let expected = reader.sum.clone().finalize();
        if reader.u32().map_err(unreadable)? != expected {
            return Err(damaged("wrong checksum"));
        }
        Ok(())
    }

    /// Calls `take` with every record.
    pub fn for_each(&self, mut take: impl FnMut(Record) -> Result<()>) -> Result<()> {
        let mut reader = Reader::new(&*self.storage, self.records_at, self.length);
        while let Some(record) = self.next(&mut reader)? {
            take(record)?;
        }
        Ok(())
    }

    fn next(&self, reader: &mut Reader<'_>) -> Result<Option<Record>> {
        match reader.u32().map_err(unreadable)? {
            TAG_END => return Ok(None),
            TAG_RECORD => {}
            _ => return Err(damaged("unknown record")),
        }
        let file = reader.u32().map_err(unreadable)? as usize;
        let offset = reader.u64().map_err(unreadable)?;
        let length = reader.u64().map_err(unreadable)?;
        let kind = reader.u32().map_err(unreadable)?;
        let variants = reader.u32().map_err(unreadable)?;
        if file >= self.files.len() || length == 0 || length > PIECE_MAX || variants > VARIANTS_MAX {
            return Err(damaged("impossible record"));
        }
        let bytes = usize::try_from(length).unwrap_or(0);
        let old = if kind == KIND_HOLE { None } else { Some(reader.take(bytes).map_err(unreadable)?) };
        let sectors = bytes.div_ceil(SECTOR);
        let mut sums = Vec::new();
        for _ in 0..variants {
            let raw = reader.take(sectors * 4).map_err(unreadable)?;
            sums.push(raw.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect());
        }
        Ok(Some(Record { file, offset, length, old, variants: sums }))
    }
}
