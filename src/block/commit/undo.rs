//! Dealing with the journal of a run that did not end: restore the old content, or complete.

use std::path::Path;
use std::sync::Arc;

use super::journal::{Journal, Record, SECTOR, sector_sums};
use super::{journal, journal_beside};
use crate::block::policy::escape;
use crate::block::{HostFiles, Locking, PathPolicy, Storage, StorageExt, is_zero, qcow2};
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
pub fn recover(host: &dyn HostFiles, path: &Path, locking: Locking, policy: &PathPolicy) -> Result<bool> {
    let journal_file = journal_beside(&host.real_path(path));
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
    recover_pending(host, path, &journal_file, locking, policy).map_err(pending)?;
    Ok(true)
}

fn recover_pending(
    host: &dyn HostFiles,
    path: &Path,
    journal_file: &Path,
    locking: Locking,
    policy: &PathPolicy,
) -> Result<()> {
    // The image first: its lock keeps a run that is still going from being undone.
    let image = host.open(path, locking)?;
    let storage = host.open(journal_file, Locking::Ignore)?;
    if let Some(journal) = Journal::open(Arc::clone(&storage))? {
        // Where the file system knows locks, the image's lock has said so already.
        if !image.is_locked() && journal.owner.is_another_alive() {
            let what = format!("process {} is writing to the image", journal.owner.process);
            return Err(Error::refused(Layer::Block, what)
                .path(path.display().to_string())
                .hint("wait until it ends, or stop it, and try again"));
        }
        let mut files = vec![image];
        if let Some(file) = journal.files.get(1) {
            files.push(open_data_file(host, path, &files, &file.path, locking, policy)?);
        }
        let outcome = apply(&journal, &files, path)?;
        tracing::info!(path = %path.display(), ?outcome, "an interrupted run was dealt with");
    }
    journal::remove(host, journal_file).map_err(|e| Error::io(Layer::Host, "the undo journal cannot be removed", e))
}

/// Opens the image's data file for writing. Which one that is the image says, and the policy must allow it; what the
/// journal says has to be the same. A journal may come from anywhere, and must not make other files be written.
fn open_data_file(
    host: &dyn HostFiles,
    path: &Path,
    image: &[Arc<dyn Storage>],
    recorded: &Path,
    locking: Locking,
    policy: &PathPolicy,
) -> Result<Arc<dyn Storage>> {
    let other = |what: String| {
        Error::new(Kind::Pending, Layer::Block, format!("the journal is not this image's: {what}"))
            .hint("if the image is good as it is, remove the file IMAGE.winject-journal beside it")
    };
    let image = image.first().ok_or_else(|| Error::bug(Layer::Block, "a journal without files"))?;
    let Some(name) = qcow2::data_file_name(image)? else {
        return Err(other("the image has no data file, but the journal has one".to_owned()));
    };
    let (read, data_path) = policy.open(path, &name)?;
    if data_path != recorded {
        return Err(other(format!("it goes with the data file {}", escape(&recorded.display().to_string()))));
    }
    let storage = host.open(&data_path, locking)?;
    let id = |storage: &dyn Storage| storage.fingerprint().map(|print| (print.device, print.inode));
    if id(&*storage) != id(&read) {
        return Err(Error::refused(Layer::Block, "another file is there now").path(data_path.display().to_string()));
    }
    Ok(storage)
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
    let mut state = examine(journal, files)?;
    if journal.is_switch
        && state == State::Ours
        && let Some(image) = files.first()
        && let Some(offset) = lost_reference(journal, image, path)?
    {
        state = State::Changed(offset);
    }
    match state {
        State::Changed(_) | State::Switched if journal.is_switch => {
            // The image is whole, whoever wrote to it since; at most some clusters are unused.
            let image = files.first().ok_or_else(|| Error::bug(Layer::Block, "a journal without files"))?;
            settle(image)?;
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
            if journal.is_switch
                && let (Some(image), Some(file)) = (files.first(), journal.files.first())
            {
                cut_unused_end(image, file.old_length, path)?;
            }
            Ok(Outcome::Restored)
        }
    }
}

/// Makes the header durable as it reads now. The flush that should have done so may have failed, and after that the
/// host shows what it never stored, as if it were clean; so it is written again. Only then may anything be given up
/// that another header's tables use.
fn settle(image: &Arc<dyn Storage>) -> Result<()> {
    let mut sector = [0; SECTOR];
    image.read_exact_at(0, &mut sector).map_err(io)?;
    image.write_at(0, &sector).map_err(io)?;
    image.flush().map_err(io)
}

/// Cuts off what the interrupted run added behind the old end, unless something refers to it: a guest may have run in
/// the meantime, whose new clusters are there.
fn cut_unused_end(image: &Arc<dyn Storage>, old_length: u64, path: &Path) -> Result<()> {
    let length = image.len().map_err(io)?;
    if length <= old_length {
        return Ok(());
    }
    let (used, cluster_size) = match qcow2::end_in_use(image, path) {
        Ok(end) => end,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the file stays longer than it needs to be");
            return Ok(());
        }
    };
    let mut end = used.clamp(old_length, length);
    // The last cluster may have been cut short before. What is missing of it is zeros, unless a guest wrote there.
    if end - old_length < cluster_size {
        let mut rest = vec![0; usize::try_from(end - old_length).unwrap_or(0)];
        image.read_exact_at(old_length, &mut rest).map_err(io)?;
        if is_zero(&rest) {
            end = old_length;
        }
    }
    if end < length {
        image.set_len(end).map_err(io)?;
        image.flush().map_err(io)?;
    }
    Ok(())
}

/// Whether the old refcounts would be too low: a guest that ran after the interruption may have taken the very clusters
/// that the run wanted, and then its refcounts look like the run's. Returns where.
fn lost_reference(journal: &Journal, image: &Arc<dyn Storage>, path: &Path) -> Result<Option<u64>> {
    let blocks = match qcow2::refcount_blocks(image, path) {
        Ok(blocks) => blocks,
        // An image that is damaged otherwise is at least given back as it was.
        Err(error) if error.kind() != Kind::Io => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut old = Vec::new();
    journal.for_each(|record| {
        let end = record.offset.saturating_add(record.length);
        let first = blocks.partition_point(|block| block.end <= record.offset);
        if record.file == 0 && blocks.get(first).is_some_and(|block| block.start < end) {
            let zeros = || vec![0; usize::try_from(record.length).unwrap_or(0)];
            old.push((record.offset, record.old.unwrap_or_else(zeros)));
        }
        Ok(())
    })?;
    match qcow2::first_lost_reference(image, path, &old) {
        Err(error) if error.kind() != Kind::Io => Ok(None),
        result => result,
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
        if !journal.is_switch && storage.len().map_err(io)? != file.old_length {
            storage.set_len(file.old_length).map_err(io)?;
            storage.flush().map_err(io)?;
        }
    }
    Ok(())
}
