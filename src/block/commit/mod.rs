//! Making a stage real.
//!
//! Three ways, each all or nothing: [`commit_overlay`] (a small qcow2 over the untouched original),
//! [`write_standalone`] (a whole new image), [`commit_in_place`] (the file itself, with an undo journal beside it).

use std::path::{Path, PathBuf};

mod data_file;
mod in_place;
mod output;
mod undo;
mod whole;

pub use output::Output;
pub(crate) use output::{lock_target, refuse_own_files};
pub use undo::Recovery;

pub use super::journal::journal_path;
use super::{Format, PathPolicy, RealHost, Stage};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::host::Target;

/// How to commit.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Replace an output file that already exists.
    pub overwrite: bool,
    /// How to treat other processes that have the image open.
    pub locking: super::Locking,
    /// Which external data file an edit in place may write to.
    pub path_policy: PathPolicy,
    /// Asks the commit to stop. In place it then leaves the image as it was, unless it has passed its commit point.
    pub cancel: Cancel,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The file that now holds the changed disk.
    pub path: PathBuf,
    /// Bytes of guest data that were written (whole clusters counted as such).
    pub bytes_written: u64,
    /// Things the user should know (a VM state in a snapshot, bitmaps marked inconsistent, …).
    pub warnings: Vec<String>,
}

/// Writes the stage's changes into the file at `path`, from which the stage was opened.
///
/// # Errors
/// As for the whole module: on any error the file holds its old content, or a journal lies beside it and the next run
/// (or [`recover`]) restores the old content.
pub fn commit_in_place(stage: &mut Stage, path: &Path, options: &CommitOptions) -> Result<Committed> {
    in_place::in_place(&RealHost, stage, path, options)
}

/// Finds out early, before the work, whether [`commit_in_place`] can write to the file at `path` at all.
///
/// # Errors
/// [`Kind::Io`] for a read-only file or folder, [`Kind::Unsupported`] for
/// a container that is never written, [`Kind::Refused`] for an image that is marked corrupt, or that keeps its data in
/// another file which the policy does not [allow to be written](PathPolicy::allows_writing).
pub fn check_in_place(stage: &Stage, path: &Path, policy: &PathPolicy) -> Result<()> {
    in_place::check(stage, path, policy)
}

/// Writes the stage's changes as a new qcow2 file `out` whose backing file is `original`.
///
/// # Errors
/// [`Kind::Usage`] when `out` exists (unless [`CommitOptions::overwrite`]) or is the original.
pub fn commit_overlay(stage: &mut Stage, original: &Path, out: &Path, options: &CommitOptions) -> Result<Committed> {
    let target = resolve(out)?;
    let committed = whole::overlay(&RealHost, stage, original, target.path(), options)?;
    Ok(Committed { path: out.to_owned(), ..committed })
}

/// Finds out early whether [`commit_overlay`] can lay an overlay over the image: QEMU, which is to run it, must find the
/// same disk in the image's file as winject does.
///
/// # Errors
/// [`Kind::Unsupported`], for instance for a disk inside an OVA.
pub fn check_overlay(stage: &Stage) -> Result<()> {
    whole::backing_format(stage.image()).map(drop)
}

/// Writes the whole disk, with its changes, as a new image `out` of the given format (raw or qcow2).
///
/// # Errors
/// As [`commit_overlay`].
pub fn write_standalone(stage: &Stage, out: &Path, format: Format, options: &CommitOptions) -> Result<Committed> {
    let target = resolve(out)?;
    let committed = whole::standalone(&RealHost, stage, target.path(), format, options)?;
    Ok(Committed { path: out.to_owned(), ..committed })
}

/// The file that the name of a new image leads to: a link stays a link.
fn resolve(out: &Path) -> Result<Target> {
    let target = Target::resolve(out, "the output")?;
    target.refuse_stream()?;
    Ok(target)
}

/// Deals with the journal of an interrupted in-place run: completes the run if it had written everything, and rolls the
/// image at `path` back otherwise. Every command that is to edit an image in place calls this first, and no other does.
/// `policy` says whether the image's data file may be written, as for the edit itself: a journal alone makes nothing be
/// written to another file.
///
/// # Errors
/// [`Kind::Pending`] when there is a journal that does not count or cannot be applied; nothing is touched then.
/// [`Kind::Refused`] when the policy does not allow the data file to be written.
pub fn recover(path: &Path, policy: &PathPolicy) -> Result<Recovery> {
    undo::recover(&RealHost, path, super::Locking::default(), policy)
}

/// The same commits on a host of one's own, for tests that record writes and inject faults.
pub mod on {
    pub use super::in_place::in_place;
    pub use super::undo::recover;
    pub use super::whole::{overlay, standalone};
}
