//! Exports of NBD servers that are edited in place: the edit of a file, on a host whose image is the export and whose journal is
//! in a folder of this machine.

use std::path::Path;

use super::meter::OnJournalProgress;
use super::options::{CommitOptions, Committed};
use super::other_name::find_place;
use super::recover::{InterruptedRun, Recovered};
use super::targets::editable_format;
use super::{export_mark, in_place, recover};
use crate::block::formats::qcow2;
use crate::block::journal::{self, RecoveryState, journal_of_real_path};
use crate::block::{Format, HostFiles, Locking, PathPolicy, Stage};
use crate::error::{Error, Layer, Result};
use crate::nbd::{ExportHost, NbdOptions, NbdStorage};

/// Note on every edit: a client cannot find out whether a server stores its writes.
pub(crate) const SERVER_NOTE: &str = "written to the server, flushed and read back; whether the server keeps it is up to the server (nbdkit's \
                           filter cow and qemu-nbd -s do not)";

/// [`super::commit_in_place`] for an export.
pub(super) fn commit(stage: &mut Stage, name: &Path, options: &CommitOptions) -> Result<Committed> {
    let host = host_of(stage, name)?;
    let _alone = host.lock_export()?;
    let place = host.real_path(name);
    if journal::recovery_state(&host, &place, None)? == RecoveryState::Unused {
        // One that was never completed: nothing was written for it.
        let removed = journal::remove(&host, &journal_of_real_path(&place));
        removed.map_err(|e| Error::io(Layer::Host, "cannot remove an unused journal", e))?;
    }
    host.hold_connection()?;
    let disk = host.open(name, Locking::Ignore)?;
    let _disk_alone = host.lock_disk(&export_mark::mark(&*disk)?);
    if find_place(&host, &disk)?.is_some() {
        // Begun and interrupted under another URI since this run opened the disk.
        return Err(journal::pending(&host, name));
    }
    // The record of an edit would say nothing of what the server did since.
    let options = CommitOptions { keep_undo: false, ..options.clone() };
    let mut committed = in_place::in_place(&host, stage, name, &options)?;
    if committed.bytes_written > 0 {
        committed.notes.push(SERVER_NOTE.to_owned());
    }
    Ok(committed)
}

/// [`super::check_in_place`] for an export.
pub(super) fn check(stage: &Stage, name: &Path) -> Result<()> {
    let format = editable_format(stage, name)?;
    let host = host_of(stage, name)?;
    drop(host.lock_export()?);
    if format == Format::Qcow2 {
        qcow2::refuse_corrupt(host.open(name, Locking::Ignore)?, name)?;
    }
    Ok(())
}

/// The host on which the export is edited through the connection of the stage.
fn host_of(stage: &Stage, name: &Path) -> Result<ExportHost> {
    let file = stage.image().parts().map(|parts| parts.file);
    let storage = file.and_then(|file| file.as_any()).and_then(|any| any.downcast_ref::<NbdStorage>());
    let storage = storage.ok_or_else(|| Error::bug(Layer::Block, "an export that is not one"))?;
    storage.edit_host().map_err(|error| error.path(name.display().to_string()))
}

/// [`super::recover_with_progress()`] for an export.
///
/// # Errors
/// Those of [`super::recover()`], and those of a connection.
pub fn recover_export(name: &Path, options: &NbdOptions, on_progress: OnJournalProgress<'_>) -> Result<Recovered> {
    let mut host = ExportHost::new(name, options)?;
    let mut alone = host.lock_export()?;
    // A server that is not there would pass for one without a journal.
    host.hold_connection()?;
    let mark = export_mark::mark(&*host.open(name, Locking::Ignore)?)?;
    let _disk_alone = host.lock_disk(&mark);
    if adopt_other_name(&mut host, name)? {
        drop(alone);
        alone = host.lock_export()?;
    }
    let recovery = recover::run_recovery(&host, name, Locking::Ignore, &PathPolicy::default(), on_progress);
    drop(alone);
    recovery
}

/// The command that recovers an export, with a verb before it, as a hint says it.
///
/// # Errors
/// Those of [`NbdUri::parse`](crate::nbd::NbdUri::parse); [`Kind::Refused`](crate::Kind::Refused) without a folder for journals.
pub fn recover_export_hint(name: &Path, options: &NbdOptions) -> Result<String> {
    Ok(journal::recover_hint(&ExportHost::new(name, options)?, name, None))
}

/// Lets the host use the journal that an edit of the same disk left under another URI, if it has none of its own; whether it
/// does so.
fn adopt_other_name(host: &mut ExportHost, name: &Path) -> Result<bool> {
    if host.exists(&journal_of_real_path(&host.real_path(name))) {
        return Ok(false);
    }
    let place = find_place(host, &host.open(name, Locking::Ignore)?)?;
    let is_found = place.is_some();
    place.into_iter().for_each(|place| host.adopt(place));
    Ok(is_found)
}

/// [`super::find_interrupted()`] for an export.
///
/// # Errors
/// Those of [`super::find_interrupted()`].
pub fn find_interrupted_export(name: &Path, options: &NbdOptions) -> Result<Option<InterruptedRun>> {
    let mut host = ExportHost::new(name, options)?;
    host.refuse_edited()?;
    adopt_other_name(&mut host, name)?;
    recover::find_interrupted(&host, name, None)
}
