//! Recovery from the journal of an interrupted run: restore the old content, or complete the run. An interrupted undo is
//! finished.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compare::{Examined, State, differences, examine, first_changed_witness};
use super::data_file::foreign_data_file;
use super::restore::{self, cut_unused_end, has_old_tables, lost_reference, put_back, sync_header};
use super::settle::settle;
use crate::block::journal::{self, Entry, Journal, RecoveryState, journal_of_real_path, record_of_real_path};
use crate::block::{FileIdentity, HostFiles, Locking, PathPolicy, Storage, StorageExt, qcow2};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;

/// State of the image after a journal was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It holds its old content.
    Restored,
    /// It holds the new content: the run had passed the point at which it counts.
    Completed,
    /// It holds the old content again, and that is what the run was for.
    Undone,
    /// It holds the new content, and what something else wrote to it since: the undo of the run was given up.
    GivenUp,
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
    /// An interrupted undo was given up, because something else has written to the image since: the image holds the edit
    /// still, and what was written since.
    GivenUp,
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
        if policy.allows_any() {
            remove_stale_marker(host, path, &host.open(&real_path, locking)?, locking, policy)?;
        }
        return Ok(Recovery::Nothing);
    }
    let pending = |error: Error| {
        if error.kind() == Kind::Refused {
            return error;
        }
        let hint = match (error.hint_text(), error.kind()) {
            (Some(hint), _) => hint.to_owned(),
            // The journal does not count.
            (None, Kind::Pending) => journal::unusable_hint(&real_path),
            (None, _) => journal::retry_hint(path, None),
        };
        Error::new(Kind::Pending, Layer::Block, "cannot recover from an interrupted run")
            .path(path.display().to_string())
            .hint(hint)
            .source_error(error)
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
        RecoveryState::DataFileOf(image) => return Err(journal::pending_data_file(host, path, &image)),
        RecoveryState::Clear => return Ok(Recovery::Nothing),
        RecoveryState::Unused => {
            remove_journal(host, journal_file)?;
            remove_stale_marker(host, path, &image, locking, policy)?;
            return Ok(Recovery::Nothing);
        }
        RecoveryState::Journal => {}
    }
    let storage = host.open_journal(journal_file, owner)?;
    let record = &record_of_real_path(real_path);
    let mut recovery = Recovery::Nothing;
    let mut data_path = None;
    let mut is_kept = false;
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
            let (storage, path) = open_data_file(host, path, &files, &file.name, locking, policy, "recover")?;
            files.push(storage);
            data_path = Some(path);
        }
        if journal.is_undo {
            // The undo that gave the record this name may have been stopped before the name was durable. While the
            // image is half written, no power cut may take the journal away from it.
            host.sync_folder_of(journal_file)
                .map_err(|e| Error::io(Layer::Host, "cannot make the name of the undo journal durable", e))?;
        }
        let outcome = apply(&journal, &files, path, Caller::NextRun)?;
        tracing::info!(path = %path.display(), ?outcome, "an interrupted run was dealt with");
        recovery = match outcome {
            Outcome::Restored => Recovery::Restored,
            Outcome::Completed => {
                is_kept = can_be_kept(&journal, &files);
                Recovery::Completed
            }
            Outcome::Undone => Recovery::Undone,
            Outcome::GivenUp => Recovery::GivenUp,
        };
    }
    match recovery {
        Recovery::Completed | Recovery::GivenUp => settle(host, journal_file, record, is_kept, owner)
            .map(drop)
            .map_err(|error| error.hint(journal::retry_hint(path, None)))?,
        Recovery::Undone if host.exists(record) => {
            // It was copied for the undo, and is of no more use.
            remove_journal(host, record)?;
            remove_journal(host, journal_file)?;
        }
        _ => remove_journal(host, journal_file)?,
    }
    if let Some(data_path) = data_path {
        journal::remove_marker(host, &data_path);
    }
    Ok(recovery)
}

/// Removes the marker of the data file of an image that has no journal: a run was stopped before its journal was whole,
/// or after it had removed it. Only a file that the policy allows to be written loses its marker.
fn remove_stale_marker(
    host: &dyn HostFiles,
    path: &Path,
    image: &Arc<dyn Storage>,
    locking: Locking,
    policy: &PathPolicy,
) -> Result<()> {
    // An image that is not a qcow2, or whose header is damaged, names no file that could be written.
    let Some(name) = qcow2::data_file_name(image).ok().flatten() else { return Ok(()) };
    let Ok((_, data_path)) = policy.open(path, &name) else { return Ok(()) };
    if !policy.allows_writing(&data_path) || !host.exists(&journal_of_real_path(&data_path)) {
        return Ok(());
    }
    let data_file = host.open(&data_path, locking)?;
    journal::clear(host, &data_path, data_file.identity().map(|identity| identity.owner))
}

fn remove_journal(host: &dyn HostFiles, path: &Path) -> Result<()> {
    journal::remove(host, path).map_err(|e| Error::io(Layer::Host, "cannot remove the undo journal", e))
}

/// Opens the image's data file for writing. Which one that is the image says, and the policy must allow it; what the
/// journal says has to be the same. A journal may come from anywhere, and must not make other files be written. `verb` is
/// the command that a refusal names.
pub(super) fn open_data_file(
    host: &dyn HostFiles,
    path: &Path,
    image: &[Arc<dyn Storage>],
    recorded: &str,
    locking: Locking,
    policy: &PathPolicy,
    verb: &str,
) -> Result<(Arc<dyn Storage>, PathBuf)> {
    let other =
        |what: String| Error::new(Kind::Pending, Layer::Block, format!("the journal is not this image's: {what}"));
    let image = image.first().ok_or_else(|| Error::bug(Layer::Block, "a journal without files"))?;
    let Some(name) = qcow2::data_file_name(image)? else {
        return Err(other("the image has no data file, but the journal has one".to_owned()));
    };
    if name != recorded {
        return Err(other(format!("it goes with the data file {}", escape(recorded))));
    }
    let (read, data_path) = policy.open(path, &name)?;
    if !policy.allows_writing(&data_path) {
        let command = journal::command_on(verb, path, Some(&data_path));
        return Err(foreign_data_file(path, &data_path)
            .hint(format!("if that file is this guest's own, allow it by name: {command}")));
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

/// Applies a journal to files that are open already. `is_first_phase`: the run did not get beyond its first phase.
pub(super) fn undo(
    journal: Arc<dyn Storage>,
    files: &[Arc<dyn Storage>],
    path: &Path,
    is_first_phase: bool,
) -> Result<RolledBack> {
    let Some(journal) = Journal::open(journal)? else {
        return Ok(RolledBack { outcome: Outcome::Restored, is_kept: false });
    };
    let outcome = apply(&journal, files, path, Caller::SameRun { is_first_phase })?;
    let is_kept = outcome == Outcome::Completed && can_be_kept(&journal, files);
    Ok(RolledBack { outcome, is_kept })
}

/// What came of a run that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RolledBack {
    pub outcome: Outcome,
    /// Whether its journal can be kept as the undo record.
    pub is_kept: bool,
}

/// The run that applies a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// The run that wrote the journal, because of an error.
    SameRun { is_first_phase: bool },
    /// A run of another process, after the first one was interrupted.
    NextRun,
}

fn apply(journal: &Journal, files: &[Arc<dyn Storage>], path: &Path, caller: Caller) -> Result<Outcome> {
    let mut examined = examine(journal, files)?;
    if !is_of(journal, files, examined.state, examined.is_half_written) {
        return Err(Error::new(Kind::Pending, Layer::Block, "the undo journal was made for another file"));
    }
    if examined.is_complete && caller == Caller::NextRun && !journal.is_undo {
        rewrite_content(journal, files)?;
        return Ok(Outcome::Completed);
    }
    if journal.purpose.is_switch
        && examined.state == State::Ours
        && let Some(image) = files.first()
        && let Some(offset) = lost_reference(journal, image, path)?
    {
        examined.state = State::Changed(offset);
    }
    if journal.is_undo {
        return finish_undo(journal, files, path, &examined);
    }
    match examined.state {
        State::Changed(_) | State::Switched if journal.purpose.is_switch => {
            let is_completed = examined.state == State::Switched && !holds_old(journal, files)?;
            keep_image(files, path)?;
            Ok(if is_completed { Outcome::Completed } else { Outcome::Restored })
        }
        State::Changed(offset) => Err(changed(offset)),
        State::Ours | State::Switched => {
            match caller {
                Caller::SameRun { is_first_phase: true } => restore::restore_first_phase(journal, files)?,
                _ => restore::restore(journal, files)?,
            }
            if journal.purpose.is_switch
                && let (Some(image), Some(file)) = (files.first(), journal.files.first())
            {
                cut_unused_end(image, file.old_length, path)?;
            }
            Ok(Outcome::Restored)
        }
    }
}

/// Finishes an undo that was interrupted. If something else wrote to the image since, a switched image stays as it is.
fn finish_undo(journal: &Journal, files: &[Arc<dyn Storage>], path: &Path, examined: &Examined) -> Result<Outcome> {
    let is_switched = examined.state == State::Switched;
    let foreign = match examined.state {
        State::Changed(offset) => Some(offset),
        // As long as the new tables count, the clusters that only they use may have been written to.
        State::Switched => match examined.changed {
            None => first_changed_witness(journal, files)?,
            changed => changed,
        },
        State::Ours => None,
    };
    match foreign {
        None => {
            put_back(journal, files, path)?;
            Ok(Outcome::Undone)
        }
        Some(_) if journal.purpose.is_switch => {
            let is_undone = !is_switched || holds_old(journal, files)?;
            keep_image(files, path)?;
            Ok(if is_undone { Outcome::Undone } else { Outcome::GivenUp })
        }
        Some(offset) => Err(changed(offset)),
    }
}

/// Whether an image that switches by its header holds the old content, although the header is not the old one.
fn holds_old(journal: &Journal, files: &[Arc<dyn Storage>]) -> Result<bool> {
    files.first().map_or(Ok(false), |image| has_old_tables(journal, image))
}

/// Leaves an image that switches by its header as it is: it is consistent even if another program wrote to it since. At
/// most some clusters are unused; they are freed.
fn keep_image(files: &[Arc<dyn Storage>], path: &Path) -> Result<()> {
    let image = files.first().ok_or_else(|| Error::bug(Layer::Block, "a journal without files"))?;
    sync_header(image)?;
    if let Err(error) = qcow2::repair_leaks(image, path) {
        tracing::warn!(path = %path.display(), %error, "unused clusters may remain");
    }
    Ok(())
}

fn changed(offset: u64) -> Error {
    Error::new(Kind::Pending, Layer::Block, "the image was changed by something else after the interruption").at(offset)
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

/// Whether the journal of a run that was completed can be its undo record: everything is as the run leaves it, and durable.
fn can_be_kept(journal: &Journal, files: &[Arc<dyn Storage>]) -> bool {
    let is_whole = || differences(journal, files).is_ok_and(|found| found.is_none());
    journal.purpose.is_kept && !journal.is_undo && is_whole() && rewrite_content(journal, files).is_ok()
}

/// Writes and flushes once more what the run wrote: see [`sync_header`].
fn rewrite_content(journal: &Journal, files: &[Arc<dyn Storage>]) -> Result<()> {
    journal.for_each_entry(|entry| {
        let old_length = |file: usize| journal.files.get(file).map_or(0, |file| file.old_length);
        let (file, offset, length) = match entry {
            Entry::Overwritten(record) => (record.file, record.offset, record.length),
            // What is new beyond the old end; the rest was not written.
            Entry::Witness { file, offset, length, .. } if offset >= old_length(file) => (file, offset, length),
            Entry::Witness { .. } | Entry::Between { .. } => return Ok(()),
        };
        let Some(storage) = files.get(file) else { return Ok(()) };
        let mut content = vec![0; usize::try_from(length).unwrap_or(0)];
        storage.read_exact_at(offset, &mut content).map_err(restore::io)?;
        storage.write_at(offset, &content).map_err(restore::io)
    })?;
    files.iter().try_for_each(|storage| storage.flush().map_err(restore::io))
}
