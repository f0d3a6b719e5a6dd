//! Writing a journal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::owner::Owner;
use super::path::journal_hint;
use super::record::{
    BUFFER_BYTES, Entry, FLAG_KEEP, FLAG_SWITCH, IDENTITIES, JournalFile, KIND_BETWEEN, KIND_HOLE, KIND_OLD,
    KIND_WITNESS, MAGIC, MAGIC_BACK, OWNER_AT, PATH_BYTES_MAX, Purpose, TAG_END, TAG_RECORD, VERSION, is_unused,
};
use crate::error::{Error, Layer, Result};
use crate::host::{HostFiles, PRIVATE, Storage, StorageExt};

/// A journal that is being written.
pub(crate) struct JournalWriter<'a> {
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
        purpose: Purpose,
        files: &[JournalFile],
        expected: u64,
    ) -> Result<Self> {
        let failed = |e: io::Error| {
            let hint = journal_hint(&e, host);
            Error::io(Layer::Host, "cannot create the undo journal", e).path(path.display().to_string()).hint(hint)
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
        let begun = journal.begin(purpose, files, expected);
        match begun {
            Ok(()) => Ok(journal),
            Err(error) => {
                journal.abandon();
                Err(failed(error))
            }
        }
    }

    fn begin(&mut self, purpose: Purpose, files: &[JournalFile], expected: u64) -> io::Result<()> {
        match self.storage.reserve(0, expected.max(1)) {
            Err(e) if e.kind() != io::ErrorKind::Unsupported => return Err(e),
            _ => {}
        }
        self.put(&[0; MAGIC.len()])?;
        self.put(&VERSION.to_le_bytes())?;
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let flags = flag(purpose.is_switch, FLAG_SWITCH) | flag(purpose.is_kept, FLAG_KEEP);
        self.put(&flags.to_le_bytes())?;
        self.put(&(files.len() as u32).to_le_bytes())?;
        self.sum.update(&[0; Owner::BYTES]);
        self.buffer.extend_from_slice(&Owner::this().to_bytes());
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

    /// Appends a record; the buffer is written out when it is full.
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let none: &[u8] = &[];
        match entry {
            Entry::Overwritten(record) => {
                let kind = if record.old.is_none() { KIND_HOLE } else { KIND_OLD };
                let variants = record.variants.len() as u32;
                self.put_head((record.file, record.offset, record.length), kind, variants)?;
                self.put(record.old.as_deref().unwrap_or(none))?;
                record.variants.iter().try_for_each(|sums| self.put_sums(sums))?;
            }
            Entry::Witness { file, offset, length, sums } => {
                self.put_head((*file, *offset, *length), KIND_WITNESS, 1)?;
                self.put_sums(sums)?;
            }
            Entry::Between { offset, bytes } => {
                self.put_head((0, *offset, bytes.len() as u64), KIND_BETWEEN, 0)?;
                self.put(bytes)?;
            }
        }
        self.records += 1;
        Ok(())
    }

    /// `place`: file, offset, length.
    fn put_head(&mut self, place: (usize, u64, u64), kind: u32, variants: u32) -> io::Result<()> {
        let (file, offset, length) = place;
        self.put(&TAG_RECORD.to_le_bytes())?;
        self.put(&(file as u32).to_le_bytes())?;
        self.put(&offset.to_le_bytes())?;
        self.put(&length.to_le_bytes())?;
        self.put(&kind.to_le_bytes())?;
        self.put(&variants.to_le_bytes())
    }

    fn put_sums(&mut self, sums: &[u32]) -> io::Result<()> {
        sums.iter().try_for_each(|sum| self.put(&sum.to_le_bytes()))
    }

    /// Completes the journal and makes it durable, its name included.
    pub fn seal(&mut self) -> io::Result<()> {
        self.seal_with(MAGIC)
    }

    /// Like [`seal`](Self::seal), for a journal from which the old content is going to be put back.
    pub fn seal_for_undo(&mut self) -> io::Result<()> {
        self.seal_with(MAGIC_BACK)
    }

    fn seal_with(&mut self, magic: &[u8]) -> io::Result<()> {
        self.put(&TAG_END.to_le_bytes())?;
        self.put(&self.records.to_le_bytes())?;
        let sum = self.sum.clone().finalize();
        self.put(&sum.to_le_bytes())?;
        self.write_out()?;
        self.storage.set_len(self.written)?;
        self.storage.flush()?;
        self.host.sync_folder_of(&self.path)?;
        self.storage.write_at(0, magic)?;
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

/// Turns a complete journal round: from now on the old content is put back from it, by the current process. Durable.
pub(crate) fn turn_back(journal: &dyn Storage) -> io::Result<()> {
    let mut head = [0; OWNER_AT + Owner::BYTES];
    journal.read_exact_at(0, &mut head)?;
    let (before, owner) = head.split_at_mut(OWNER_AT);
    owner.copy_from_slice(&Owner::this().to_bytes());
    before.iter_mut().zip(MAGIC_BACK).for_each(|(byte, magic)| *byte = *magic);
    journal.write_at(0, &head)?;
    journal.flush()
}

/// Removes a journal, durably.
pub(crate) fn remove(host: &dyn HostFiles, path: &Path) -> io::Result<()> {
    host.remove(path)?;
    host.sync_folder_of(path)
}
