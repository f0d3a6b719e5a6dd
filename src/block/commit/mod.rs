//! Commits: the changes of a stage are made permanent.
//!
//! Two ways, each all or nothing: [`commit_overlay`] (a small qcow2 over the untouched original) and [`commit_in_place`]
//! (the file itself, with an undo journal next to it). A whole new image is a conversion of the stage.

use std::path::Path;

mod compare;
mod data_file;
mod export;
mod export_mark;
mod in_place;
mod kept;
mod meter;
mod options;
pub(super) mod other_name;
mod output;
mod overlay;
mod recover;
mod restore;
mod rollback;
mod run_journal;
mod settle;
mod space;
mod targets;
mod undo;

pub(crate) use export::SERVER_NOTE;
pub use export::{find_interrupted_export, recover_export, recover_export_hint};
pub use meter::{JournalPass, OnJournalProgress};
pub use options::{CommitOptions, Committed};
pub(crate) use output::{Output, refuse_own_files, resolve_output};
pub use recover::{InterruptedRun, Recovered, Recovery};
pub use undo::{UndoOptions, Undone};

pub use super::journal::{journal_path, undo_path};
use super::{PathPolicy, RealHost, Stage};
use crate::error::Result;
use crate::host::is_nbd_name;

/// Writes the stage's changes into the file at `path`, or the NBD export of that URI, from which the stage was opened.
///
/// # Errors
/// On any error the file holds its old content, or there is a journal next to it from which [`recover()`] restores the old
/// content.
pub fn commit_in_place(stage: &mut Stage, path: &Path, options: &CommitOptions) -> Result<Committed> {
    if is_nbd_name(path) {
        return export::commit(stage, path, options);
    }
    in_place::in_place(&RealHost, stage, path, options)
}

/// Finds out early, before the work, whether [`commit_in_place`] can write to the file at `path` at all.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io) for a read-only file or folder, [`Kind::Unsupported`](crate::Kind::Unsupported) for a
/// container that is never written, [`Kind::Refused`](crate::Kind::Refused) for an image that is marked corrupt, or
/// that keeps its data in another file which the policy does not [allow to be written](PathPolicy::allows_writing). For
/// what only another destination helps the error has no hint: the caller knows the commands for one.
pub fn check_in_place(stage: &Stage, path: &Path, policy: &PathPolicy) -> Result<()> {
    if is_nbd_name(path) { export::check(stage, path) } else { targets::check(stage, path, policy) }
}

/// Writes the stage's changes as a new qcow2 file `out` whose backing file is `original`.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind::Usage) when `out` exists (unless [`CommitOptions::overwrite`]) or is the original.
pub fn commit_overlay(stage: &mut Stage, original: &Path, out: &Path, options: &CommitOptions) -> Result<Committed> {
    overlay::overlay(&RealHost, stage, original, out, options)
}

/// Finds out early whether [`commit_overlay`] can lay an overlay over the image: QEMU, which is to run it, must find
/// the same disk in the image's file as winject does.
///
/// # Errors
/// [`Kind::Unsupported`](crate::Kind::Unsupported), for instance for a disk inside an OVA.
pub fn check_overlay(stage: &Stage) -> Result<()> {
    overlay::backing_format(stage.image()).map(drop)
}

/// Deals with the journal of an interrupted in-place run: completes the run if it had written everything, and rolls the
/// image at `path` back otherwise. Only what is asked to write to the image calls this: an edit in place first of all, and
/// the command `recover`.
/// `policy` says whether the image's data file may be written, as for the edit itself: a journal alone makes nothing be
/// written to another file.
///
/// # Errors
/// [`Kind::Pending`](crate::Kind::Pending) when there is a journal that does not count or cannot be applied; nothing is
/// touched then. [`Kind::Refused`](crate::Kind::Refused) when the policy does not allow the data file to be written.
pub fn recover(path: &Path, policy: &PathPolicy) -> Result<Recovery> {
    recover::recover(&RealHost, path, super::Locking::default(), policy)
}

/// Like [`recover()`], and tells how far it is.
///
/// # Errors
/// Those of [`recover()`].
pub fn recover_with_progress(path: &Path, policy: &PathPolicy, on_progress: OnJournalProgress<'_>) -> Result<Recovery> {
    let recovered = recover::run_recovery(&RealHost, path, super::Locking::default(), policy, on_progress);
    recovered.map(|recovered| recovered.recovery)
}

/// Finds out, without writing, whether an edit in place of the image at `path`, or an undo of one, was interrupted, so that
/// [`recover()`] has something to do. `image` is that file, open at least for reading.
///
/// # Errors
/// [`Kind::Pending`](crate::Kind::Pending) when there is a journal that does not count;
/// [`Kind::Refused`](crate::Kind::Refused) when the run is still going.
pub fn find_interrupted(path: &Path, image: &dyn super::Storage) -> Result<Option<InterruptedRun>> {
    recover::find_interrupted(&RealHost, path, image.identity().map(|identity| identity.owner))
}

/// Takes the last edit in place of the image at `path` back, from the undo record next to it: every byte and the length
/// of its file become what they were, and the record goes. What something else has written to other places since stays.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) when there is no record, it cannot be trusted, it was made for another file,
/// or something else has written to a place that the edit wrote (with a list); nothing is touched then.
/// [`Kind::Pending`](crate::Kind::Pending) when an interrupted run has to be dealt with first, or when the undo itself
/// was interrupted by a failure: [`recover()`] finishes it.
pub fn undo(path: &Path, options: &UndoOptions) -> Result<Undone> {
    undo::undo(&RealHost, path, options)
}

/// Like [`undo()`], and tells how far it is.
///
/// # Errors
/// Those of [`undo()`].
pub fn undo_with_progress(path: &Path, options: &UndoOptions, on_progress: OnJournalProgress<'_>) -> Result<Undone> {
    undo::undo_with_progress(&RealHost, path, options, on_progress)
}

/// Removes the undo record of the image at `path`: the last edit in place can then not be taken back.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) when the image has none, or winject did not make it.
pub fn forget(path: &Path) -> Result<()> {
    undo::forget(&RealHost, path, super::Locking::default())
}

/// The same commits on a host of one's own, for tests that record writes and inject faults.
pub mod on {
    pub use super::in_place::in_place;
    pub use super::overlay::overlay;
    pub use super::recover::recover;
    pub use super::undo::{forget, undo};
}
