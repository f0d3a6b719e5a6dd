//! Reading a journal that an interrupted run left.

use std::io;
use std::sync::Arc;

use super::owner::Owner;
use super::record::{
    BUFFER_BYTES, Entry, FILES_MAX, FLAG_KEEP, FLAG_SWITCH, IDENTITIES, JournalFile, KIND_BETWEEN, KIND_HOLE, KIND_OLD,
    KIND_WITNESS, MAGIC, MAGIC_BACK, OWNER_AT, PATH_BYTES_MAX, PIECE_MAX, Purpose, Record, SECTOR, TAG_END, TAG_RECORD,
    VARIANTS_MAX, VERSION, VERSION_OLDEST, is_unused,
};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host::{FileIdentity, Storage, StorageExt};

/// A journal that an earlier run left.
#[derive(Debug)]
pub(crate) struct Journal {
    storage: Arc<dyn Storage>,
    pub purpose: Purpose,
    /// Whether the old content is being put back, instead of new content written.
    pub is_undo: bool,
    pub files: Vec<JournalFile>,
    /// The process that wrote it.
    pub owner: Owner,
    /// Bytes of the image that its records are about.
    pub ranges: RangeBytes,
    version: u32,
    records_at: u64,
    length: u64,
}

/// How many bytes of an image the records of a journal are about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RangeBytes {
    /// What the run overwrites.
    pub overwritten: u64,
    /// What only an undo needs to be as the run left it.
    pub witnessed: u64,
    /// The part of that which lies beyond the old ends of the files.
    pub appended: u64,
    /// What an undo writes on its way.
    pub between: u64,
}

impl RangeBytes {
    /// The bytes that all records are about.
    pub fn all(&self) -> u64 {
        self.overwritten.saturating_add(self.witnessed).saturating_add(self.between)
    }

    fn add(&mut self, entry: &Entry, files: &[JournalFile]) {
        let old_length = |file: usize| files.get(file).map_or(0, |file| file.old_length);
        let sum = match entry {
            Entry::Overwritten(_) => &mut self.overwritten,
            Entry::Witness { file, offset, length, .. } => {
                if *offset >= old_length(*file) {
                    self.appended = self.appended.saturating_add(*length);
                }
                &mut self.witnessed
            }
            Entry::Between { .. } => &mut self.between,
        };
        *sum = sum.saturating_add(entry.bytes());
    }
}

/// Reads through a storage, in order, counting a checksum.
struct JournalReader<'a> {
    storage: &'a dyn Storage,
    at: u64,
    length: u64,
    buffer: Vec<u8>,
    taken: usize,
    sum: crc32fast::Hasher,
}

impl<'a> JournalReader<'a> {
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

/// The hint is the caller's, who knows whether it is the journal or the undo record of an image.
fn damaged(what: &str) -> Error {
    Error::new(Kind::Pending, Layer::Block, format!("the undo journal is damaged: {what}"))
        .with_code(ErrorCode::JournalUnusable)
}

fn unreadable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        damaged("it is truncated")
    } else {
        Error::io(Layer::Block, "cannot read the undo journal", error)
    }
}

/// Reads what the header says of a file.
fn read_file(reader: &mut JournalReader<'_>) -> Result<JournalFile> {
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
    Ok(JournalFile { old_length, new_length, identity, name })
}

impl Journal {
    /// Opens a journal; `None` if it was never completed (then nothing was written to the image).
    pub fn open(storage: Arc<dyn Storage>) -> Result<Option<Self>> {
        Self::open_if(storage, |_| true)
    }

    /// Like [`open`](Self::open), and tells how many of its bytes are read.
    pub fn open_with_progress(storage: Arc<dyn Storage>, on_read: &dyn Fn(u64, u64)) -> Result<Option<Self>> {
        Self::open_and_verify(storage, |_| true, on_read)
    }

    /// Like [`open`](Self::open); `None`, too, if the journal is not wanted by what it says of its files: then it is not read
    /// to its end.
    pub fn open_if(storage: Arc<dyn Storage>, is_wanted: impl FnOnce(&[JournalFile]) -> bool) -> Result<Option<Self>> {
        Self::open_and_verify(storage, is_wanted, &|_, _| ())
    }

    fn open_and_verify(
        storage: Arc<dyn Storage>,
        is_wanted: impl FnOnce(&[JournalFile]) -> bool,
        on_read: &dyn Fn(u64, u64),
    ) -> Result<Option<Self>> {
        let length = storage.len().map_err(unreadable)?;
        if is_unused(&*storage).map_err(unreadable)? {
            return Ok(None);
        }
        let mut magic = [0; MAGIC.len()];
        storage.read_or_zeros_at(0, &mut magic).map_err(unreadable)?;
        if magic != *MAGIC && magic != *MAGIC_BACK {
            return Err(damaged("not a journal"));
        }
        let mut reader = JournalReader::new(&*storage, MAGIC.len() as u64, length);
        let version = reader.u32().map_err(unreadable)?;
        if !(VERSION_OLDEST..=VERSION).contains(&version) {
            return Err(Error::new(
                Kind::Pending,
                Layer::Block,
                format!(
                    "the undo journal has version {version}, this winject knows version {VERSION_OLDEST} to {VERSION}"
                ),
            )
            .hint("use the version of winject that wrote it"));
        }
        let flags = reader.u32().map_err(unreadable)?;
        let count = reader.u32().map_err(unreadable)?;
        if count == 0 || count > FILES_MAX {
            return Err(damaged("impossible number of files"));
        }
        let owner = reader.take(Owner::BYTES).map_err(unreadable)?;
        let owner = Owner::from_bytes(&owner).ok_or_else(|| damaged("it is truncated"))?;
        let files = (0..count).map(|_| read_file(&mut reader)).collect::<Result<Vec<_>>>()?;
        if !is_wanted(&files) {
            return Ok(None);
        }
        let records_at = reader.place();
        drop(reader);
        let is_undo = magic == *MAGIC_BACK;
        let is_kept = version > VERSION_OLDEST && flags & FLAG_KEEP != 0;
        let purpose = Purpose { is_switch: flags & FLAG_SWITCH != 0, is_kept };
        let ranges = RangeBytes::default();
        let mut journal = Self { storage, purpose, is_undo, files, owner, ranges, version, records_at, length };
        journal.ranges = journal.verify(on_read)?;
        Ok(Some(journal))
    }

    /// Reads everything once: nothing is restored from a journal that is not whole. Returns what its records are about.
    fn verify(&self, on_read: &dyn Fn(u64, u64)) -> Result<RangeBytes> {
        let mut sum = crc32fast::Hasher::new();
        let mut head = vec![0; usize::try_from(self.records_at).unwrap_or(0)];
        self.storage.read_exact_at(0, &mut head).map_err(unreadable)?;
        // What turns a journal round counts as zeros.
        let is_turned = |at: &usize| {
            *at < MAGIC.len() || (self.version > VERSION_OLDEST && (OWNER_AT..OWNER_AT + Owner::BYTES).contains(at))
        };
        head.iter_mut().enumerate().filter(|(at, _)| is_turned(at)).for_each(|(_, byte)| *byte = 0);
        sum.update(&head);
        let mut reader = JournalReader::new(&*self.storage, self.records_at, self.length);
        reader.sum = sum;
        let (mut records, mut ranges) = (0u64, RangeBytes::default());
        while let Some(entry) = self.next(&mut reader)? {
            records += 1;
            ranges.add(&entry, &self.files);
            on_read(reader.place(), self.length);
        }
        if reader.u64().map_err(unreadable)? != records {
            return Err(damaged("wrong number of records"));
        }
        let expected = reader.sum.clone().finalize();
        if reader.u32().map_err(unreadable)? != expected {
            return Err(damaged("wrong checksum"));
        }
        // A journal gets its length before its magic; what was reserved for it is cut off then.
        if reader.place() != self.length {
            return Err(damaged("there is something after its end"));
        }
        on_read(self.length, self.length);
        Ok(ranges)
    }

    /// Calls `take` with everything that the run overwrites.
    pub fn for_each(&self, mut take: impl FnMut(Record) -> Result<()>) -> Result<()> {
        self.for_each_entry(|entry| match entry {
            Entry::Overwritten(record) => take(record),
            Entry::Witness { .. } | Entry::Between { .. } => Ok(()),
        })
    }

    /// Calls `take` with every record.
    pub fn for_each_entry(&self, mut take: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut reader = JournalReader::new(&*self.storage, self.records_at, self.length);
        while let Some(entry) = self.next(&mut reader)? {
            take(entry)?;
        }
        Ok(())
    }

    /// Length of its file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn next(&self, reader: &mut JournalReader<'_>) -> Result<Option<Entry>> {
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
        let is_known = match kind {
            KIND_OLD | KIND_HOLE => true,
            KIND_WITNESS => self.version > VERSION_OLDEST && variants == 1,
            KIND_BETWEEN => self.version > VERSION_OLDEST && variants == 0 && file == 0,
            _ => false,
        };
        if !is_known || file >= self.files.len() || length == 0 || length > PIECE_MAX || variants > VARIANTS_MAX {
            return Err(damaged("impossible record"));
        }
        let count = usize::try_from(length).unwrap_or(0);
        let has_bytes = matches!(kind, KIND_OLD | KIND_BETWEEN);
        let bytes = if has_bytes { Some(reader.take(count).map_err(unreadable)?) } else { None };
        let sectors = count.div_ceil(SECTOR);
        let mut sums = Vec::new();
        for _ in 0..variants {
            let raw = reader.take(sectors * 4).map_err(unreadable)?;
            sums.push(raw.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect());
        }
        Ok(Some(match kind {
            KIND_WITNESS => Entry::Witness { file, offset, length, sums: sums.pop().unwrap_or_default() },
            KIND_BETWEEN => Entry::Between { offset, bytes: bytes.unwrap_or_default() },
            _ => Entry::Overwritten(Record { file, offset, length, old: bytes, variants: sums }),
        }))
    }
}
