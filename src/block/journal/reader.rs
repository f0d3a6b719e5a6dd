//! Reading a journal that an interrupted run left.

use std::io;
use std::sync::Arc;

use super::owner::Owner;
use super::pending::UNUSABLE_HINT;
use super::record::{
    BUFFER_BYTES, FILES_MAX, FLAG_SWITCH, IDENTITIES, JournalFile, KIND_HOLE, MAGIC, PATH_BYTES_MAX, PIECE_MAX, Record,
    SECTOR, TAG_END, TAG_RECORD, VARIANTS_MAX, VERSION, is_unused,
};
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{FileIdentity, Storage, StorageExt};

/// A journal that an earlier run left.
#[derive(Debug)]
pub(crate) struct Journal {
    storage: Arc<dyn Storage>,
    pub is_switch: bool,
    pub files: Vec<JournalFile>,
    /// The process that wrote it.
    pub owner: Owner,
    records_at: u64,
    length: u64,
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

fn damaged(what: &str) -> Error {
    Error::new(Kind::Pending, Layer::Block, format!("the undo journal of an interrupted run is damaged: {what}"))
        .hint(UNUSABLE_HINT)
}

fn unreadable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        damaged("it is truncated")
    } else {
        Error::new(Kind::Pending, Layer::Block, "cannot read the undo journal of an interrupted run")
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
            return Err(damaged("not a journal"));
        }
        let mut reader = JournalReader::new(&*storage, MAGIC.len() as u64, length);
        let version = reader.u32().map_err(unreadable)?;
        if version != VERSION {
            return Err(Error::new(
                Kind::Pending,
                Layer::Block,
                format!("the undo journal has version {version}, this winject knows version {VERSION}"),
            )
            .hint("use the version of winject that was interrupted: winject recover IMAGE"));
        }
        let flags = reader.u32().map_err(unreadable)?;
        let count = reader.u32().map_err(unreadable)?;
        if count == 0 || count > FILES_MAX {
            return Err(damaged("impossible number of files"));
        }
        let owner = reader.take(Owner::BYTES).map_err(unreadable)?;
        let owner = Owner::from_bytes(&owner).ok_or_else(|| damaged("it is truncated"))?;
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
        let mut reader = JournalReader::new(&*self.storage, self.records_at, self.length);
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
        let mut reader = JournalReader::new(&*self.storage, self.records_at, self.length);
        while let Some(record) = self.next(&mut reader)? {
            take(record)?;
        }
        Ok(())
    }

    fn next(&self, reader: &mut JournalReader<'_>) -> Result<Option<Record>> {
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
