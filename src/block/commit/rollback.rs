//! What is done with the journal of an interrupted run: restore the old content, or complete the run. An interrupted undo is
//! finished.

use std::path::Path;
use std::sync::Arc;

use super::compare::{Examined, State, differences, examine, first_changed_witness};
use super::export_mark;
use super::meter::{JournalPass, Meter, OnJournalProgress};
use super::restore::{self, cut_unused_end, has_old_tables, lost_reference, put_back, restore_meter, sync_header};
use crate::block::journal::{Entry, Journal};
use crate::block::{FileIdentity, Storage, StorageExt, qcow2};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// State of the image after a journal was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It holds its old content.
    Restored,
    /// It holds the new content: the run had passed the point at which it counts.
    Completed,
    /// It holds the old content again, and that is what the run was for.
    Undone,
    /// It holds the old content, and held it before: nothing was put back.
    NotWritten,
    /// It holds the new content, and what something else wrote to it since: the undo of the run was given up.
    GivenUp,
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
    // The commit that failed goes on telling its own bytes.
    let silent = &|_, _, _| ();
    let outcome = apply(&journal, files, path, Caller::SameRun { is_first_phase }, silent)?;
    let is_kept = outcome == Outcome::Completed && can_be_kept(&journal, files, silent);
    Ok(RolledBack { outcome, is_kept })
}

/// Applies the journal of a run of another process, which was interrupted.
pub(super) fn apply_of_other_run(
    journal: &Journal,
    files: &[Arc<dyn Storage>],
    path: &Path,
    on_progress: OnJournalProgress<'_>,
) -> Result<Outcome> {
    apply(journal, files, path, Caller::NextRun, on_progress)
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

fn apply(
    journal: &Journal,
    files: &[Arc<dyn Storage>],
    path: &Path,
    caller: Caller,
    on_progress: OnJournalProgress<'_>,
) -> Result<Outcome> {
    let compared = Meter::of_pass(on_progress, JournalPass::Compare, journal.ranges.overwritten);
    let mut examined = examine(journal, files, &compared)?;
    if !is_of(journal, files, examined.state, examined.is_half_written) || !export_mark::is_of(journal, files)? {
        return Err(Error::new(Kind::Pending, Layer::Block, "the undo journal was made for another file")
            .with_code(ErrorCode::JournalUnusable));
    }
    if examined.is_complete && caller == Caller::NextRun && !journal.is_undo {
        rewrite_content(journal, files, on_progress)?;
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
        return finish_undo(journal, files, path, &examined, &compared, on_progress);
    }
    if caller == Caller::NextRun && examined.state == State::Ours && !examined.has_new && is_remote(files) {
        // It may be a clone: it is not written to.
        files.iter().try_for_each(|storage| storage.flush().map_err(restore::io))?;
        return Ok(Outcome::NotWritten);
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
                _ => restore::restore(journal, files, &restore_meter(journal, on_progress))?,
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

fn is_remote(files: &[Arc<dyn Storage>]) -> bool {
    files.first().is_some_and(|image| image.is_remote())
}

/// Finishes an undo that was interrupted. If something else wrote to the image since, a switched image stays as it is.
fn finish_undo(
    journal: &Journal,
    files: &[Arc<dyn Storage>],
    path: &Path,
    examined: &Examined,
    compared: &Meter<'_>,
    on_progress: OnJournalProgress<'_>,
) -> Result<Outcome> {
    let is_switched = examined.state == State::Switched;
    let foreign = match examined.state {
        State::Changed(offset) => Some(offset),
        // As long as the new tables count, the clusters that only they use may have been written to.
        State::Switched => match examined.changed {
            None => first_changed_witness(journal, files, compared)?,
            changed => changed,
        },
        State::Ours => None,
    };
    match foreign {
        None => {
            put_back(journal, files, path, on_progress)?;
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
    Error::new(Kind::Pending, Layer::Block, "the image was changed by something else after the interruption")
        .with_code(ErrorCode::JournalUnusable)
        .at(offset)
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
pub(super) fn can_be_kept(journal: &Journal, files: &[Arc<dyn Storage>], on_progress: OnJournalProgress<'_>) -> bool {
    let is_whole = || differences(journal, files, on_progress).is_ok_and(|found| found.is_none());
    journal.purpose.is_kept && !journal.is_undo && is_whole() && rewrite_content(journal, files, on_progress).is_ok()
}

/// Writes and flushes once more what the run wrote: see [`sync_header`].
fn rewrite_content(journal: &Journal, files: &[Arc<dyn Storage>], on_progress: OnJournalProgress<'_>) -> Result<()> {
    let written = journal.ranges.overwritten.saturating_add(journal.ranges.appended);
    let meter = Meter::of_pass(on_progress, JournalPass::Complete, written);
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
        storage.write_at(offset, &content).map_err(restore::io)?;
        meter.add(length);
        Ok(())
    })?;
    files.iter().try_for_each(|storage| storage.flush().map_err(restore::io))
}
