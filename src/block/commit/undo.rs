//! Taking the last edit in place back, from the undo record that it left next to the image.
//!
//! Everything is checked first, under the lock for writing: the record is whole and this file's, and every place that
//! the edit wrote, or that the old tables need, is as the edit left it. Then the record is turned round and becomes the
//! journal again: from here on every other command refuses the image, and a recovery finishes the undo.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compare::{Differences, differences};
use super::data_file::open_data_file;
use super::meter::{JournalPass, Meter, OnJournalProgress};
use super::restore::{lost_reference, put_back};
use super::space::Reservation;
use super::targets::{owner_of, refuse_other_names};
use crate::block::journal::{
    self, Entry, Journal, JournalWriter, RecoveryState, journal_of_real_path, record_of_real_path, turn_back,
};
use crate::block::{HostFiles, HostRun, Locking, PathPolicy, Storage};
use crate::cancel::{Cancel, Reached};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// What an undo is told.
#[derive(Debug, Clone, Default)]
pub struct UndoOptions {
    /// How to treat other processes that have the image open.
    pub locking: Locking,
    /// Which external data file may be written to.
    pub path_policy: PathPolicy,
    /// Asks the undo to stop, which it does only before it begins to write.
    pub cancel: Cancel,
    /// Accept a record that was made for another file, because image and record were copied together.
    pub is_copied: bool,
    /// Check everything, and write nothing.
    pub is_dry_run: bool,
}

/// What an undo did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Undone {
    /// Bytes of the image's files that got their old content.
    pub bytes_restored: u64,
    /// Length of the image's file now, in bytes.
    pub length: u64,
    /// Whether everything was as before the edit already, so that only the record was removed.
    pub was_undone: bool,
    /// Things the user should know.
    pub warnings: Vec<String>,
}

/// [`undo`](fn@super::undo) on any host.
///
/// # Errors
/// Those of [`undo`](fn@super::undo).
pub fn undo(host: &dyn HostFiles, path: &Path, options: &UndoOptions) -> Result<Undone> {
    undo_with_progress(host, path, options, &|_, _, _| ())
}

/// Like [`undo`], and tells how far it is.
///
/// # Errors
/// Those of [`undo`].
pub(super) fn undo_with_progress(
    host: &dyn HostFiles,
    path: &Path,
    options: &UndoOptions,
    on_progress: OnJournalProgress<'_>,
) -> Result<Undone> {
    // Held until it is known how far the undo came.
    let _hold = options.cancel.hold_through();
    let result = write_undo(host, path, options, on_progress);
    options.cancel.reach_by(&result, |_| if options.is_dry_run { Reached::Start } else { Reached::Undone });
    result
}

fn write_undo(
    host: &dyn HostFiles,
    path: &Path,
    options: &UndoOptions,
    on_progress: OnJournalProgress<'_>,
) -> Result<Undone> {
    let undo = Undo::open(host, path, options, on_progress)?;
    let found = differences(&undo.journal, &undo.files, on_progress)?;
    let length = undo.journal.files.first().map_or(0, |file| file.old_length);
    let mut done = Undone { bytes_restored: undo.journal.ranges.overwritten, length, ..Undone::default() };
    if !found.is_none() {
        if !found.is_old {
            return Err(undo.changed(&found));
        }
        done = Undone { bytes_restored: 0, was_undone: true, ..done };
    } else {
        undo.refuse_lost_references()?;
    }
    if options.is_dry_run {
        return Ok(done);
    }
    let _hold = options.cancel.hold()?;
    if done.was_undone {
        journal::remove(host, &undo.record)
            .map_err(|e| undo.host_error("cannot remove the undo record", e).path(undo.record.display().to_string()))?;
        return Ok(done);
    }
    undo.refuse_changed_files()?;
    let reserved = undo.reserve()?;
    undo.begin(options.is_copied, on_progress).inspect_err(|error| {
        if error.kind() != Kind::Pending {
            give_back(&reserved);
        }
    })?;
    put_back(&undo.journal, &undo.files, path, on_progress).map_err(|e| undo.unfinished(e))?;
    done.warnings.extend(undo.end()?);
    Ok(done)
}

/// [`super::forget`] on any host.
///
/// # Errors
/// Those of [`super::forget`].
pub fn forget(host: &dyn HostFiles, path: &Path, locking: Locking) -> Result<()> {
    let real_path = host.real_path(path);
    // The lock keeps the record of a run that is about to be undone.
    let image = host.lock(path, locking)?;
    let record = record_of_real_path(&real_path);
    if !host.exists(&record) {
        return Err(no_record(path));
    }
    journal::refuse_foreign_record(host, &record, owner_of(&*image))?;
    journal::remove(host, &record).map_err(|e| {
        Error::io(Layer::Host, "cannot remove the undo record", e)
            .path(record.display().to_string())
            .hint("the image's folder must be writable")
    })
}

/// What to do about a record that is of no use.
fn forget_hint(path: &Path) -> String {
    format!("the image stays as it is; to remove the record: {}", journal::command_on("undo --forget", path, None))
}

fn no_record(path: &Path) -> Error {
    Error::refused(Layer::Block, "the image has no undo record: no edit in place to take back")
        .with_code(ErrorCode::NoUndoRecord)
        .path(path.display().to_string())
        .hint("only an edit with --in-place keeps one, until the next edit; an overlay is undone by deleting it")
}

/// An image, locked for writing, and its undo record.
struct Undo<'a> {
    host: &'a dyn HostFiles,
    path: &'a Path,
    real_path: PathBuf,
    record: PathBuf,
    storage: Arc<dyn Storage>,
    journal: Journal,
    /// The image, and its data file.
    files: Vec<Arc<dyn Storage>>,
    data_path: Option<PathBuf>,
}

impl<'a> Undo<'a> {
    fn open(
        host: &'a dyn HostFiles,
        path: &'a Path,
        options: &UndoOptions,
        on_progress: OnJournalProgress<'_>,
    ) -> Result<Self> {
        let real_path = host.real_path(path);
        let image = host.open(path, options.locking)?;
        refuse_other_names(&*image, path)?;
        let owner = owner_of(&*image);
        match journal::recovery_state(host, &real_path, owner)? {
            RecoveryState::Clear | RecoveryState::Unused => {}
            RecoveryState::Journal => return Err(journal::pending(host, path)),
            RecoveryState::DataFileOf(image) => return Err(journal::pending_data_file(host, path, &image)),
        }
        let record = record_of_real_path(&real_path);
        if !host.exists(&record) {
            return Err(no_record(path));
        }
        // Such a file is not forgotten either.
        journal::refuse_foreign_record(host, &record, owner)?;
        let storage = host.open_record(&record, owner)?;
        let unusable = |reason: Error| {
            Error::refused(Layer::Block, "cannot use the undo record")
                .with_code(ErrorCode::UndoRecordUnusable)
                .path(record.display().to_string())
                .hint(forget_hint(path))
                .source_error(reason)
        };
        let other = || Error::refused(Layer::Block, "it is the journal of a run that keeps none");
        let on_read = |done, total| on_progress(JournalPass::Read, done, total);
        let journal = Journal::open_with_progress(Arc::clone(&storage), &on_read).map_err(unusable)?;
        let journal = journal.filter(|journal| journal.purpose.is_kept).ok_or_else(|| unusable(other()))?;
        let mut files = vec![image];
        let mut data_path = None;
        if let Some(file) = journal.files.get(1) {
            let opened = open_data_file(host, path, &files, &file.name, options.locking, &options.path_policy, "undo");
            let (storage, path) = opened.map_err(|e| if e.kind() == Kind::Pending { unusable(e) } else { e })?;
            refuse_other_names(&*storage, &path)?;
            journal::clear(host, &path, owner_of(&*storage))?;
            files.push(storage);
            data_path = Some(path);
        }
        let undo = Self { host, path, real_path, record, storage, journal, files, data_path };
        if !options.is_copied && !undo.is_of_these_files() {
            return Err(Error::refused(Layer::Block, "the undo record was made for another file")
                .with_code(ErrorCode::UndoRecordUnusable)
                .path(undo.record.display().to_string())
                .hint(format!(
                    "if image and record were copied together, say so: {}",
                    journal::command_on("undo --copied", path, undo.data_path.as_deref())
                )));
        }
        Ok(undo)
    }

    /// Whether the record was made for these very files. Their content says nothing: a twin may have another past.
    fn is_of_these_files(&self) -> bool {
        self.files.iter().zip(&self.journal.files).all(|(file, recorded)| match (recorded.identity, file.identity()) {
            (Some(recorded), Some(now)) => recorded.is_same_file(&now),
            (None, None) => true,
            _ => false,
        })
    }

    fn host_error(&self, what: &str, error: std::io::Error) -> Error {
        let hint = journal::creation_hint(&error, "the image");
        Error::io(Layer::Host, what, error).path(self.path.display().to_string()).hint(hint)
    }

    /// The refusal of an image to which something else has written.
    fn changed(&self, found: &Differences) -> Error {
        let name = |file: usize| if file == 0 { "" } else { " of the data file" };
        let shown = found.places.iter().map(|(file, at, length)| format!("{at:#x} ({length} bytes){}", name(*file)));
        let shown = shown.collect::<Vec<_>>().join(", ");
        let more = found.count.saturating_sub(found.places.len());
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        let message = format!(
            "cannot undo: something else has written to places that the edit wrote or that the undo needs: {shown}{more}"
        );
        let remove = journal::command_on("remove", self.path, None);
        let hint = format!(
            "if the guest has run since, {remove} takes out what winject put into it; {}",
            forget_hint(self.path)
        );
        Error::refused(Layer::Block, message)
            .with_code(ErrorCode::UndoConflict)
            .path(self.path.display().to_string())
            .hint(hint)
    }

    /// Refuses an undo after which a table of the image would refer to clusters that count as free: something that wrote
    /// elsewhere may have taken them. It is the last check: it reads all tables.
    fn refuse_lost_references(&self) -> Result<()> {
        let Some(image) = self.files.first().filter(|_| self.journal.purpose.is_switch) else { return Ok(()) };
        let mut sector = None;
        self.journal.for_each(|record| {
            if (record.file, record.offset) == (0, 0) {
                sector = record.old;
            }
            Ok(())
        })?;
        let view: Arc<dyn Storage> =
            Arc::new(OldHeader { file: Arc::clone(image), sector: sector.unwrap_or_default() });
        match lost_reference(&self.journal, &view, self.path)? {
            None => Ok(()),
            Some(offset) => {
                let found = Differences { places: vec![(0, offset, 1)], count: 1, is_old: false };
                Err(self.changed(&found))
            }
        }
    }

    /// Refuses files that something changed while they were checked, which takes no locks.
    fn refuse_changed_files(&self) -> Result<()> {
        if self.files.iter().all(|file| file.opened_as() == file.fingerprint()) {
            return Ok(());
        }
        Err(Error::refused(Layer::Block, "the file changed while winject worked on it")
            .with_code(ErrorCode::FileChanged)
            .path(self.path.display().to_string())
            .hint("make sure that nothing else uses the image, and run winject again"))
    }

    /// Makes sure that no write can fail for want of space: files that were copied have holes where the edit left zeros.
    fn reserve(&self) -> Result<Reservation> {
        let full = |e| {
            Error::io(Layer::Block, "cannot reserve the space for the undo", e)
                .path(self.path.display().to_string())
                .hint("nothing was changed: free space, and run the command again")
        };
        let mut reserved = Reservation::new(self.files.iter().map(Arc::clone)).map_err(full)?;
        let filled = self.journal.for_each_entry(|entry| {
            match entry {
                Entry::Overwritten(record) if record.old.is_some() => {
                    reserved.fill_holes(record.file, record.offset, record.length)
                }
                Entry::Between { offset, bytes } => reserved.fill_holes(0, offset, bytes.len() as u64),
                Entry::Overwritten(_) | Entry::Witness { .. } => Ok(()),
            }
            .map_err(full)
        });
        filled.and_then(|()| reserved.flush().map_err(full)).inspect_err(|_| give_back(&reserved))?;
        Ok(reserved)
    }

    /// Makes the record the journal of an undo that is under way. If that fails, the image and its record are as before.
    fn begin(&self, is_copied: bool, on_progress: OnJournalProgress<'_>) -> Result<()> {
        let journal = journal_of_real_path(&self.real_path);
        if self.host.exists(&journal) {
            // One that was never completed.
            journal::remove(self.host, &journal).map_err(|e| self.host_error("cannot remove an unused journal", e))?;
        }
        if let Some(data_path) = &self.data_path {
            journal::create_marker(self.host, data_path, &self.real_path)?;
        }
        let begun = if is_copied { self.copy_to(&journal, on_progress) } else { self.turn_into(&journal) };
        begun.inspect_err(|error| {
            if error.kind() != Kind::Pending {
                self.remove_marker();
            }
        })
    }

    fn turn_into(&self, journal: &Path) -> Result<()> {
        turn_back(&*self.storage).map_err(|e| self.host_error("cannot write to the undo record", e))?;
        let renamed = self.host.rename(&self.record, journal, false);
        let Err(error) = renamed.and_then(|()| self.host.sync_folder_of(journal)) else { return Ok(()) };
        if self.host.exists(journal)
            && let Err(undo_error) = self.host.rename(journal, &self.record, false)
        {
            let what = format!("cannot rename the undo record: {error}; nor back");
            return Err(self.unfinished(Error::io(Layer::Host, what, undo_error)));
        }
        Err(self.host_error("cannot rename the undo record", error))
    }

    /// Writes a journal that says the same of the files that are here now.
    fn copy_to(&self, path: &Path, on_progress: OnJournalProgress<'_>) -> Result<()> {
        let mut files = self.journal.files.clone();
        files.iter_mut().zip(&self.files).for_each(|(recorded, file)| recorded.identity = file.identity());
        let mut writer = JournalWriter::create(self.host, path, self.journal.purpose, &files, self.journal.length())?;
        let failed = |e| self.host_error("cannot write the undo journal", e);
        let meter = Meter::of_pass(on_progress, JournalPass::Copy, self.journal.ranges.all());
        let copied = self.journal.for_each_entry(|entry| {
            writer.add(&entry).map_err(failed)?;
            meter.add(entry.bytes());
            Ok(())
        });
        copied
            .and_then(|()| writer.seal_for_undo().map_err(failed))
            .map_err(|error| if writer.abandon() { error } else { self.unfinished(error) })
    }

    /// The undo counts: the journal goes, and a record that was copied. Returns a warning if that may not survive a power
    /// cut.
    fn end(&self) -> Result<Option<String>> {
        let journal = journal_of_real_path(&self.real_path);
        let pending = |e| self.unfinished(self.host_error("cannot remove the undo journal", e));
        if self.host.exists(&self.record) {
            journal::remove(self.host, &self.record).map_err(pending)?;
        }
        self.host.remove(&journal).map_err(pending)?;
        if let Err(error) = self.host.sync_folder_of(&journal) {
            return Ok(Some(format!("after a power cut the undo may have to be finished once more: {error}")));
        }
        self.remove_marker();
        Ok(None)
    }

    fn remove_marker(&self) {
        if let Some(data_path) = &self.data_path {
            journal::remove_marker(self.host, data_path);
        }
    }

    fn recover_command(&self) -> String {
        journal::command_on("recover", self.path, self.data_path.as_deref())
    }

    fn unfinished(&self, error: Error) -> Error {
        Error::new(Kind::Pending, Layer::Block, "the undo was interrupted")
            .path(self.path.display().to_string())
            .source_error(error)
            .hint(format!("when the cause is gone, finish it: {}", self.recover_command()))
    }
}

/// Gives back what an undo reserved that does not begin. The lengths are as they were.
fn give_back(reserved: &Reservation) {
    if let Err(error) = reserved.give_back() {
        tracing::warn!(%error, "cannot give the reserved space back");
    }
}

/// An image as it is, under its old header.
#[derive(Debug)]
struct OldHeader {
    file: Arc<dyn Storage>,
    sector: Vec<u8>,
}

impl Storage for OldHeader {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(offset, buf)?;
        let old = usize::try_from(offset).ok().and_then(|offset| self.sector.get(offset..)).unwrap_or_default();
        buf.iter_mut().take(count).zip(old).for_each(|(byte, old)| *byte = *old);
        Ok(count)
    }

    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn run_at(&self, offset: u64) -> std::io::Result<HostRun> {
        self.file.run_at(offset)
    }
}
