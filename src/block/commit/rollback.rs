//! Recovery from the journal of an interrupted run: restore the old content, or complete the run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_file::foreign_data_file;
use crate::block::journal::{self, Journal, Record, RecoveryState, SECTOR, journal_of_real_path, sector_sums};
use crate::block::{FileIdentity, HostFiles, Locking, PathPolicy, Storage, StorageExt, is_zero, qcow2};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;
use crate::units::HostOffset;

/// State of the image after a journal was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It holds its old content.
    Restored,
    /// It holds the new content: the run had passed the point at which it counts.
    Completed,
}

/// What [`super::recover`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recovery {
    /// No run had been interrupted while it wrote.
    #[default]
    Nothing,
    /// The image holds its old content again.
    Restored,
    /// The interrupted run had written everything; it was completed.
    Completed,
    /// An interrupted undo was finished: the image holds what it held before the run that was undone.
    Undone,
}

/// [`super::recover`] on any host.
///
/// # Errors
/// Those of [`super::recover`].
pub fn recover(host: &dyn HostFiles, path: &Path, locking: Locking, policy: &PathPolicy) -> Result<Recovery> {
    let real_path = host.real_path(path);
    if let Some(image) = journal::file_of_journal(&real_path) {
        return Err(Error::new(Kind::Usage, Layer::Block, "cannot recover a journal: it belongs to an image")
            .path(path.display().to_string())
            .hint(journal::recover_hint(&image, None)));
    }
    if !host.exists(&journal_of_real_path(&real_path)) {
        return Ok(Recovery::Nothing);
    }
    let pending = |error: Error| {
        if error.kind() == Kind::Refused {
            return error;
        }
        let hint = match error.hint_text() {
            Some(hint) => hint.to_owned(),
            None => format!("when the cause is gone, {}", journal::recover_hint(path, None)),
        };
        Error::new(Kind::Pending, Layer::Block, format!("cannot recover from an interrupted run: {error}"))
            .path(path.display().to_string())
            .hint(hint)
    };
    recover_pending(host, path, &real_path, locking, policy).map_err(pending)
}

fn recover_pending(
    host: &dyn HostFiles,
    path: &Path,
    real_path: &Path,
    locking: Locking,
    policy: &PathPolicy,
) -> Result<Recovery> {
    // The image first: its lock keeps a run that is still going from being undone.
    let image = host.open(path, locking)?;
    let owner = image.identity().map(|identity| identity.owner);
    let journal_file = &journal_of_real_path(real_path);
    match journal::recovery_state(host, real_path, owner)? {
        RecoveryState::DataFileOf(image) => return Err(journal::pending_data_file(path, &image)),
        RecoveryState::Clear => return Ok(Recovery::Nothing),
        RecoveryState::Unused => {
            remove_journal(host, journal_file)?;
            return Ok(Recovery::Nothing);
        }
        RecoveryState::Journal => {}
    }
    let storage = host.open_journal(journal_file, owner)?;
    let mut recovery = Recovery::Nothing;
    let mut data_path = None;
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
            let (storage, path) = open_data_file(host, path, &files, &file.name, locking, policy)?;
            files.push(storage);
            data_path = Some(path);
        }
        let outcome = apply(&journal, &files, path, Caller::NextRun)?;
        tracing::info!(path = %path.display(), ?outcome, "an interrupted run was dealt with");
        recovery = match outcome {
            Outcome::Restored => Recovery::Restored,
            Outcome::Completed => Recovery::Completed,
        };
    }
    remove_journal(host, journal_file)?;
    if let Some(data_path) = data_path {
        journal::remove_marker(host, &data_path);
    }
    Ok(recovery)
}

fn remove_journal(host: &dyn HostFiles, path: &Path) -> Result<()> {
    journal::remove(host, path).map_err(|e| Error::io(Layer::Host, "cannot remove the undo journal", e))
}

/// Opens the image's data file for writing. Which one that is the image says, and the policy must allow it; what the
/// journal says has to be the same. A journal may come from anywhere, and must not make other files be written.
fn open_data_file(
    host: &dyn HostFiles,
    path: &Path,
    image: &[Arc<dyn Storage>],
    recorded: &str,
    locking: Locking,
    policy: &PathPolicy,
) -> Result<(Arc<dyn Storage>, PathBuf)> {
    let other = |what: String| {
        Error::new(Kind::Pending, Layer::Block, format!("the journal is not this image's: {what}"))
            .hint(journal::UNUSABLE_HINT)
    };
    let image = image.first().ok_or_else(|| Error::bug(Layer::Block, "a journal without files"))?;
    let Some(name) = qcow2::data_file_name(image)? else {
        return Err(other("the image has no data file, but the journal has one".to_owned()));
    };
    if name != recorded {
        return Err(other(format!("it goes with the data file {}", escape(recorded))));
    }
    let (read, data_path) = policy.open(path, &name)?;
    if !policy.allows_writing(&data_path) {
        let command = journal::recover_hint(path, Some(&data_path));
        return Err(foreign_data_file(path, &data_path).hint(format!("if that file is this guest's own, {command}")));
    }
    let storage = host.open(&data_path, locking)?;
    let id = |storage: &dyn Storage| storage.fingerprint().map(|print| (print.device, print.inode));
    if id(&*storage) != id(&read) {
        return Err(
            Error::refused(Layer::Block, "the path leads to another file now").path(data_path.display().to_string())
        );
    }
    Ok((storage, data_path))
}

/// Applies a journal to files that are open already.
pub(super) fn undo(journal: Arc<dyn Storage>, files: &[Arc<dyn Storage>], path: &Path) -> Result<Outcome> {
    match Journal::open(journal)? {
        Some(journal) => apply(&journal, files, path, Caller::SameRun),
        None => Ok(Outcome::Restored),
    }
}

fn io(error: std::io::Error) -> Error {
    Error::io(Layer::Block, "cannot restore the old content", error)
}

/// The run that applies a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// The run that wrote the journal, because of an error.
    SameRun,
    /// A run of another process, after the first one was interrupted.
    NextRun,
}

fn apply(journal: &Journal, files: &[Arc<dyn Storage>], path: &Path, caller: Caller) -> Result<Outcome> {
    let Examined { mut state, is_half_written, is_complete } = examine(journal, files)?;
    if !is_of(journal, files, state, is_half_written) {
        return Err(Error::new(Kind::Pending, Layer::Block, "the undo journal was made for another file")
            .hint(journal::UNUSABLE_HINT));
    }
    if is_complete && caller == Caller::NextRun {
        rewrite_content(journal, files)?;
        return Ok(Outcome::Completed);
    }
    if journal.is_switch
        && state == State::Ours
        && let Some(image) = files.first()
        && let Some(offset) = lost_reference(journal, image, path)?
    {
        state = State::Changed(offset);
    }
    match state {
        State::Changed(_) | State::Switched if journal.is_switch => {
            // The image is consistent even if another program wrote to it since; at most some clusters are unused.
            let image = files.first().ok_or_else(|| Error::bug(Layer::Block, "a journal without files"))?;
            sync_header(image)?;
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
            "if the image is good as it is, remove the file IMAGE.winject-journal next to it; otherwise restore a copy",
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

/// Whether the journal was made for these files. They are known by their inode numbers. Copied together to another file
/// system they have others; then they are known by being half written exactly as the journal says, or as they were to
/// the nanosecond. A whole image, old or new, to which a journal was copied from its like is not.
fn is_of(journal: &Journal, files: &[Arc<dyn Storage>], state: State, is_half_written: bool) -> bool {
    let is_content_known = is_half_written && !matches!(state, State::Changed(_));
    let is_same = |recorded: Option<FileIdentity>, now: Option<FileIdentity>| match (recorded, now) {
        (Some(recorded), Some(now)) => {
            let is_untouched = recorded.modified == now.modified && !recorded.is_device && !now.is_device;
            recorded.is_same_file(&now) || is_content_known || (is_untouched && state == State::Ours)
        }
        (None, None) => true,
        _ => false,
    };
    files.len() == journal.files.len()
        && files.iter().zip(&journal.files).all(|(file, recorded)| is_same(recorded.identity, file.identity()))
}

/// Writes and flushes once more what the run wrote: see [`sync_header`].
fn rewrite_content(journal: &Journal, files: &[Arc<dyn Storage>]) -> Result<()> {
    journal.for_each(|record| {
        let Some(storage) = files.get(record.file) else { return Ok(()) };
        let mut content = vec![0; usize::try_from(record.length).unwrap_or(0)];
        storage.read_exact_at(record.offset, &mut content).map_err(io)?;
        storage.write_at(record.offset, &content).map_err(io)
    })?;
    files.iter().try_for_each(|storage| storage.flush().map_err(io))
}

/// Writes the header that the host shows once more, and flushes it. The flush that should have stored it may have
/// failed; after a failed flush Linux shows the pages as clean although they were never stored. Only when the header is
/// durable may clusters be freed that the tables of another header use.
fn sync_header(image: &Arc<dyn Storage>) -> Result<()> {
    let mut sector = [0; SECTOR];
    image.read_exact_at(0, &mut sector).map_err(io)?;
    image.write_at(0, &sector).map_err(io)?;
    image.flush().map_err(io)
}

/// Cuts off what the interrupted run added after the old end, unless something refers to it: a guest may have run in
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
    let mut end = used.0.clamp(old_length, length);
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
        let first = blocks.partition_point(|block| block.end.0 <= record.offset);
        if record.file == 0 && blocks.get(first).is_some_and(|block| block.start.0 < end) {
            let zeros = || vec![0; usize::try_from(record.length).unwrap_or(0)];
            old.push((HostOffset(record.offset), record.old.unwrap_or_else(zeros)));
        }
        Ok(())
    })?;
    match qcow2::first_lost_reference(image, path, &old) {
        Err(error) if error.kind() != Kind::Io => Ok(None),
        result => Ok(result?.map(u64::from)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Every sector is old or what the run made of it.
    Ours,
    /// Like `Ours`, and the header is the new one.
    Switched,
    /// Another program wrote to the file; offset of the first foreign sector.
    Changed(u64),
}

struct Examined {
    state: State,
    /// Some sectors are old and some are new.
    is_half_written: bool,
    /// Every byte is what the run was to make of it, and that can be told (nothing was added at the end of a file,
    /// which the journal does not cover). A run with a switch is complete when it has [switched](State::Switched).
    is_complete: bool,
}

fn examine(journal: &Journal, files: &[Arc<dyn Storage>]) -> Result<Examined> {
    let (mut has_old, mut has_new) = (false, false);
    let mut is_complete = !journal.is_switch && journal.files.iter().all(|file| file.new_length == file.old_length);
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
            has_old |= is_old && !is_new;
            has_new |= is_new && !is_old;
            is_complete &= record.variants.last().is_some_and(|v| v.get(index) == Some(sum));
            if !is_old && !is_new {
                changed.get_or_insert(record.offset + (index * SECTOR) as u64);
            }
            is_switched |= journal.is_switch && record.file == 0 && record.offset == 0 && index == 0 && !is_old;
        }
        Ok(())
    })?;
    let state = match (is_switched, changed) {
        (true, _) => State::Switched,
        (false, Some(offset)) => State::Changed(offset),
        (false, None) => State::Ours,
    };
    let is_complete = is_complete && has_new && state == State::Ours;
    Ok(Examined { state, is_half_written: has_old && has_new, is_complete })
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
