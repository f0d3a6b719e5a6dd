//! Dealing with the journal of a run that did not end: restore the old content, or complete.

use std::path::Path;
use std::sync::Arc;

use super::journal::{Journal, Record, SECTOR, sector_sums};
use super::{journal, journal_path};
use crate::block::{HostFiles, Locking, Storage, StorageExt, qcow2};
use crate::error::{Error, Kind, Layer, Result};

/// What became of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It holds its old content.
    Restored,
    /// It holds the new content: the run had passed the point at which it counts.
    Completed,
}

/// [`super::recover`] on any host.
///
/// # Errors
/// As there.
pub fn recover(host: &dyn HostFiles, path: &Path, locking: Locking) -> Result<bool> {
    let journal_file = journal_path(path);
    if !host.exists(&journal_file) {
        return Ok(false);
    }
    let pending = |error: Error| {
        if error.kind() == Kind::Refused {
            return error;
        }
        Error::new(Kind::Pending, Layer::Block, format!("an interrupted run cannot be undone: {error}"))
            .path(path.display().to_string())
            .hint(error.hint_text().unwrap_or("when the cause is gone, run winject again on the image").to_owned())
    };
    recover_pending(host, path, &journal_file, locking).map_err(pending)?;
    Ok(true)
}

fn recover_pending(host: &dyn HostFiles, path: &Path, journal_file: &Path, locking: Locking) -> Result<()> {
    // The image first: its lock keeps a run that is still going from being undone.
    let image = host.open(path, locking)?;
    let storage = host.open(journal_file, Locking::Ignore)?;
    if let Some(journal) = Journal::open(Arc::clone(&storage))? {
        let mut files = vec![image];
        for file in journal.files.iter().skip(1) {
            files.push(host.open(&file.path, locking)?);
        }
        let outcome = apply(&journal, &files, path)?;
        tracing::info!(path = %path.display(), ?outcome, "an interrupted run was dealt with");
    }
    journal::remove(host, journal_file).map_err(|e| Error::io(Layer::Host, "the undo journal cannot be removed", e))
}

/// Applies a journal to files that are open already.
pub(super) fn undo(journal: Arc<dyn Storage>, files: &[Arc<dyn Storage>], path: &Path) -> Result<Outcome> {
    match Journal::open(journal)? {
        Some(journal) => apply(&journal, files, path),
        None => Ok(Outcome::Restored),
    }
}

fn io(error: std::io::Error) -> Error {
    Error::io(Layer::Block, "cannot restore the old content", error)
}

fn apply(journal: &Journal, files: &[Arc<dyn Storage>], path: &Path) -> Result<Outcome> {
    let state = examine(journal, files)?;
    match state {
        State::Changed(_) | State::Switched if journal.is_switch => {
            // The image is whole, whoever wrote to it since; at most some clusters are unused.
            let image = files.first().ok_or_else(|| Error::bug(Layer::Block, "a journal without files"))?;
            if let Err(error) = qcow2::repair_leaks(image, path) {
                tracing::warn!(path = %path.display(), %error, "unused clusters may remain");
            }
            Ok(if state == State::Switched { Outcome::Completed } else { Outcome::Restored })
        }
        State::Changed(offset) => Err(Error::new(
            Kind::Pending,
            Layer::Block,
            "the image was changed by something else after the interruption",
        )
        .at(offset)
        .hint(
            "if the image is good as it is, remove the file IMAGE.winject-journal beside it; otherwise restore a copy",
        )),
        State::Ours | State::Switched => {
            restore(journal, files)?;
            Ok(Outcome::Restored)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Every sector is old or what the run made of it.
    Ours,
    /// As `Ours`, and the header is the new one.
    Switched,
    /// Something else wrote to the file; the first such place.
    Changed(u64),
}

fn examine(journal: &Journal, files: &[Arc<dyn Storage>]) -> Result<State> {
    let mut changed = None;
    for (storage, file) in files.iter().zip(&journal.files) {
        let length = storage.len().map_err(io)?;
        if length < file.old_length || length > file.new_length {
            changed.get_or_insert(length);
        }
    }
    let mut is_switched = false;
    journal.for_each(|record| {
        let Some(storage) = files.get(record.file) else { return Ok(()) };
        let mut found = vec![0; usize::try_from(record.length).unwrap_or(0)];
        storage.read_or_zeros_at(record.offset, &mut found).map_err(io)?;
        let (sums_found, sums_old) = (sector_sums(&found), old_sums(&record));
        for (index, sum) in sums_found.iter().enumerate() {
            let is_old = sums_old.get(index) == Some(sum);
            let is_new = record.variants.iter().any(|v| v.get(index) == Some(sum));
            if !is_old && !is_new {
                changed.get_or_insert(record.offset + (index * SECTOR) as u64);
            }
            is_switched |= journal.is_switch && record.file == 0 && record.offset == 0 && index == 0 && !is_old;
        }
        Ok(())
    })?;
    Ok(match (is_switched, changed) {
        (true, _) => State::Switched,
        (false, Some(offset)) => State::Changed(offset),
        (false, None) => State::Ours,
    })
}

fn old_sums(record: &Record) -> Vec<u32> {
    match &record.old {
        Some(old) => sector_sums(old),
        None => sector_sums(&vec![0; usize::try_from(record.length).unwrap_or(0)]),
    }
}

fn restore(journal: &Journal, files: &[Arc<dyn Storage>]) -> Result<()> {
    journal.for_each(|record| {
        let Some(storage) = files.get(record.file) else { return Ok(()) };
        match &record.old {
            Some(old) => storage.write_at(record.offset, old).map_err(io),
            None => match storage.punch(record.offset, record.length) {
                Ok(()) => Ok(()),
                Err(_) => {
                    let zeros = vec![0; usize::try_from(record.length).unwrap_or(0)];
                    storage.write_at(record.offset, &zeros).map_err(io)
                }
            },
        }
    })?;
    for (storage, file) in files.iter().zip(&journal.files) {
        storage.flush().map_err(io)?;
        if storage.len().map_err(io)? != file.old_length {
            storage.set_len(file.old_length).map_err(io)?;
            storage.flush().map_err(io)?;
        }
    }
    Ok(())
}
