//! Recovery from the journal that an interrupted run left next to its image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_file::open_data_file;
use super::kept;
use super::meter::{JournalPass, OnJournalProgress};
use super::rollback::{Outcome, apply_of_other_run, can_be_kept};
use super::settle::settle;
use super::targets::owner_of;
use crate::block::journal::{self, Journal, RecoveryState, journal_of_real_path, record_of_real_path};
use crate::block::{HostFiles, Locking, PathPolicy, RealHost, Storage, qcow2};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// What [`super::recover()`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
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
    /// The NBD export holds nothing of the interrupted run: nothing of it had been written, or the export is another disk now,
    /// which begins like the one that was edited.
    NotWritten,
    /// An interrupted undo was given up, because something else has written to the image since: the image holds the edit
    /// still, and what was written since.
    GivenUp,
}

/// What a recovery did, and what it leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// What was found and done.
    pub recovery: Recovery,
    /// The journal of an NBD export, which is not removed: a copy or a clone of the disk passes for the disk.
    pub kept_journal: Option<PathBuf>,
}

impl From<Recovery> for Recovered {
    fn from(recovery: Recovery) -> Self {
        Self { recovery, kept_journal: None }
    }
}

/// A run that was interrupted while it wrote, see [`super::find_interrupted()`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum InterruptedRun {
    /// An edit in place.
    Edit,
    /// An undo.
    Undo,
}

/// [`super::find_interrupted()`] on any host, for an image of the user `owner`.
///
/// # Errors
/// Those of [`super::find_interrupted()`].
pub fn find_interrupted(host: &dyn HostFiles, path: &Path, owner: Option<u32>) -> Result<Option<InterruptedRun>> {
    let real_path = host.real_path(path);
    refuse_journal(path, &real_path)?;
    match journal::recovery_state(host, &real_path, owner)? {
        RecoveryState::DataFileOf(image) => return Err(journal::pending_data_file(host, path, &image)),
        RecoveryState::Clear | RecoveryState::Unused => return Ok(None),
        RecoveryState::Journal => {}
    }
    let journal = Journal::open(host.open_journal(&journal_of_real_path(&real_path), owner)?)?;
    journal.map_or(Ok(None), |journal| {
        refuse_running(&journal, path)?;
        Ok(Some(if journal.is_undo { InterruptedRun::Undo } else { InterruptedRun::Edit }))
    })
}

/// Refuses a journal in place of its image.
fn refuse_journal(path: &Path, real_path: &Path) -> Result<()> {
    let Some(image) = journal::file_of_journal(real_path) else { return Ok(()) };
    Err(Error::new(Kind::Usage, Layer::Block, "cannot recover a journal: it belongs to an image")
        .path(path.display().to_string())
        .hint(journal::recover_hint(&RealHost, &image, None)))
}

/// Refuses the journal of a run that is still going.
fn refuse_running(journal: &Journal, path: &Path) -> Result<()> {
    if !journal.owner.is_another_alive() {
        return Ok(());
    }
    let what = format!("process {} is writing to the image", journal.owner.process);
    Err(Error::refused(Layer::Block, what)
        .with_code(ErrorCode::ImageInUse)
        .path(path.display().to_string())
        .hint("wait until it ends, or stop it, and try again"))
}

/// [`super::recover()`] on any host.
///
/// # Errors
/// Those of [`super::recover()`].
pub fn recover(host: &dyn HostFiles, path: &Path, locking: Locking, policy: &PathPolicy) -> Result<Recovery> {
    run_recovery(host, path, locking, policy, &|_, _, _| ()).map(|recovered| recovered.recovery)
}

/// Like [`recover`], and tells what became of the journal, and meanwhile how far it is.
///
/// # Errors
/// Those of [`recover`].
pub(super) fn run_recovery(
    host: &dyn HostFiles,
    path: &Path,
    locking: Locking,
    policy: &PathPolicy,
    on_progress: OnJournalProgress<'_>,
) -> Result<Recovered> {
    let real_path = host.real_path(path);
    refuse_journal(path, &real_path)?;
    if !host.exists(&journal_of_real_path(&real_path)) {
        if policy.allows_any() {
            remove_stale_marker(host, path, &host.open(&real_path, locking)?, locking, policy)?;
        }
        return Ok(Recovery::Nothing.into());
    }
    let pending = |error: Error| {
        if error.kind() == Kind::Refused {
            return error;
        }
        let hint = match (error.hint_text(), error.kind()) {
            (Some(hint), _) => hint.to_owned(),
            // The journal does not count.
            (None, Kind::Pending) => journal::unusable_hint(&real_path),
            (None, _) => journal::retry_hint(host, path, None),
        };
        Error::new(Kind::Pending, Layer::Block, "cannot recover from an interrupted run")
            .path(path.display().to_string())
            .hint(hint)
            .source_error(error)
    };
    recover_pending(host, path, &real_path, locking, policy, on_progress).map_err(pending)
}

fn recover_pending(
    host: &dyn HostFiles,
    path: &Path,
    real_path: &Path,
    locking: Locking,
    policy: &PathPolicy,
    on_progress: OnJournalProgress<'_>,
) -> Result<Recovered> {
    // The image first: its lock keeps a run that is still going from being undone.
    let image = host.open(path, locking)?;
    let owner = owner_of(&*image);
    let journal_file = &journal_of_real_path(real_path);
    match journal::recovery_state(host, real_path, owner)? {
        RecoveryState::DataFileOf(image) => return Err(journal::pending_data_file(host, path, &image)),
        RecoveryState::Clear => return Ok(Recovery::Nothing.into()),
        RecoveryState::Unused => {
            remove_journal(host, journal_file)?;
            remove_stale_marker(host, path, &image, locking, policy)?;
            return Ok(Recovery::Nothing.into());
        }
        RecoveryState::Journal => {}
    }
    let storage = host.open_journal(journal_file, owner)?;
    let record = &record_of_real_path(real_path);
    let mut recovery = Recovery::Nothing;
    let mut data_path = None;
    let mut is_kept = false;
    let on_read = |done, total| on_progress(JournalPass::Read, done, total);
    if let Some(journal) = Journal::open_with_progress(Arc::clone(&storage), &on_read)? {
        // Where the file system knows locks, the image's lock has said so already.
        if !image.is_locked() {
            refuse_running(&journal, path)?;
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
        let outcome = apply_of_other_run(&journal, &files, path, on_progress);
        let outcome = outcome.map_err(|error| match host.journal_folder() {
            // Another disk, perhaps: the journal must stay.
            Some(_) if error.kind() == Kind::Pending => error.hint(journal::unusable_export_hint(host, path)),
            _ => error,
        })?;
        tracing::info!(path = %path.display(), ?outcome, "an interrupted run was dealt with");
        recovery = match outcome {
            Outcome::Restored => Recovery::Restored,
            Outcome::Completed => {
                is_kept = can_be_kept(&journal, &files, on_progress);
                Recovery::Completed
            }
            Outcome::Undone => Recovery::Undone,
            Outcome::NotWritten => Recovery::NotWritten,
            Outcome::GivenUp => Recovery::GivenUp,
        };
    }
    if host.journal_folder().is_some() {
        return Ok(Recovered { recovery, kept_journal: Some(kept::keep(host, real_path)?) });
    }
    match recovery {
        Recovery::Completed | Recovery::GivenUp => settle(host, journal_file, record, is_kept, owner)
            .map(drop)
            .map_err(|error| error.hint(journal::retry_hint(host, path, None)))?,
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
    Ok(recovery.into())
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
    journal::clear(host, &data_path, owner_of(&*data_file))
}

fn remove_journal(host: &dyn HostFiles, path: &Path) -> Result<()> {
    journal::remove(host, path).map_err(|e| Error::io(Layer::Host, "cannot remove the undo journal", e))
}
