//! Whether a file waits for a recovery: by the journal of an image, or by the marker of an external data file.

use std::io;
use std::path::{Path, PathBuf};

use super::marker;
use super::path::journal_of_real_path;
use super::record::{has_magic, is_unused};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::{shell_argument, shell_path};
use crate::host::{HostFiles, RealHost, Storage, StorageExt, folder_of, is_nbd_name};

/// The hint for a journal of the image `real_path` that does not count: one that is damaged, or was made for another file.
/// A command that obeys journals would not help.
pub(crate) fn unusable_hint(real_path: &Path) -> String {
    let journal = shell_argument(&journal_of_real_path(real_path), "IMAGE.winject-journal");
    format!(
        "find out who made {journal}; if the image is good as it is, remove that file, otherwise restore a copy of the image"
    )
}

/// The same for an export: another disk may have its URI now.
pub(crate) fn unusable_export_hint(host: &dyn HostFiles, name: &Path) -> String {
    let journal = shell_argument(&journal_of_real_path(&host.real_path(name)), "the journal");
    format!(
        "let the server export the disk that was edited under this URI, as the edit left it, then {}; only if that disk is gone \
         for good, or was restored from a copy, remove {journal}: nothing else holds what the edit overwrote",
        recover_hint(host, name, None)
    )
}

/// The hint of every message about an interrupted run: the command that completes it or rolls it back. `data_file` is
/// the data file that the command must be allowed to write to.
pub(crate) fn recover_hint(host: &dyn HostFiles, image: &Path, data_file: Option<&Path>) -> String {
    // Another user, or another shell, looks into another folder.
    let folder = host.journal_folder().and_then(shell_path);
    let folder = folder.map(|folder| format!("WINJECT_JOURNALS={folder} ")).unwrap_or_default();
    format!("complete that run or roll it back: {folder}{}", command_on("recover", image, data_file))
}

/// The same when something else is in the way.
pub(crate) fn retry_hint(host: &dyn HostFiles, image: &Path, data_file: Option<&Path>) -> String {
    format!("when the cause is gone, {}", recover_hint(host, image, data_file))
}

/// A command on an image, as it can be pasted into a shell. `data_file` is allowed to be written.
pub(crate) fn command_on(verb: &str, image: &Path, data_file: Option<&Path>) -> String {
    let pasteable = || {
        let image = shell_path(image)?;
        Some(match data_file {
            Some(data_file) => format!("winject {verb} {image} --allow-path {}", shell_path(data_file)?),
            None => format!("winject {verb} {image}"),
        })
    };
    pasteable().unwrap_or_else(|| format!("winject {verb} IMAGE"))
}

/// Recovery state of a file, by the journal or marker next to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecoveryState {
    /// There is neither a journal nor a marker.
    Clear,
    /// A journal that was never completed, or a marker whose image has no journal: nothing is half written.
    Unused,
    /// A complete journal: the image may be half written.
    Journal,
    /// The marker of a data file whose image, which is named, has a journal.
    DataFileOf(PathBuf),
}

/// Reads the journal or marker of the file `real_path`, which belongs to the user `owner`.
///
/// # Errors
/// [`Kind::Pending`] when there is something that does not count or cannot be read.
pub(crate) fn recovery_state(host: &dyn HostFiles, real_path: &Path, owner: Option<u32>) -> Result<RecoveryState> {
    let path = journal_of_real_path(real_path);
    if !host.exists(&path) {
        return Ok(RecoveryState::Clear);
    }
    let storage = host.open_journal(&path, owner)?;
    let unreadable = |e: io::Error| {
        Error::new(Kind::Pending, Layer::Host, "cannot read the undo journal")
            .path(path.display().to_string())
            .source_error(e)
            .hint(retry_hint(host, real_path, None))
    };
    if is_unused(&*storage).map_err(unreadable)? {
        return Ok(RecoveryState::Unused);
    }
    let mut magic = [0; marker::MAGIC.len()];
    storage.read_or_zeros_at(0, &mut magic).map_err(unreadable)?;
    if magic != *marker::MAGIC {
        return Ok(RecoveryState::Journal);
    }
    // The journal is completed when the marker is durable, so one that is not whole belongs to none.
    let Some(name) = marker::read(&*storage).map_err(unreadable)? else { return Ok(RecoveryState::Unused) };
    let image = host.real_path(&folder_of(real_path).join(name));
    if host.exists(&image) && !has_journal(host, &image) {
        return Ok(RecoveryState::Unused);
    }
    Ok(RecoveryState::DataFileOf(image))
}

/// Whether an image has a complete journal, or one that cannot be judged.
fn has_journal(host: &dyn HostFiles, image: &Path) -> bool {
    let path = journal_of_real_path(image);
    host.exists(&path) && host.open_journal(&path, None).map_or(true, |journal| !is_unused(&*journal).unwrap_or(false))
}

/// Removes a marker next to a data file that has no journal to refer to.
///
/// # Errors
/// [`Kind::Pending`] when its image has a journal, or the marker cannot be trusted.
pub(crate) fn clear(host: &dyn HostFiles, data_file: &Path, owner: Option<u32>) -> Result<()> {
    match recovery_state(host, data_file, owner)? {
        RecoveryState::Clear => Ok(()),
        RecoveryState::Unused => {
            marker::remove(host, data_file);
            Ok(())
        }
        RecoveryState::Journal => Err(pending(host, data_file)),
        RecoveryState::DataFileOf(image) => Err(pending_data_file(host, data_file, &image)),
    }
}

/// Refuses the place of an image's undo record when a file lies there that winject did not make: it is neither replaced
/// nor removed. The image belongs to the user `owner`.
///
/// # Errors
/// [`Kind::Refused`].
pub(crate) fn refuse_foreign_record(host: &dyn HostFiles, record: &Path, owner: Option<u32>) -> Result<()> {
    if !host.exists(record) || has_magic(&*host.open_record(record, owner)?).unwrap_or(false) {
        return Ok(());
    }
    Err(Error::refused(Layer::Host, "cannot use the undo record: winject did not make this file")
        .with_code(ErrorCode::UndoRecordUnusable)
        .path(record.display().to_string())
        .hint("find out who made that file, and remove it if it is of no use"))
}

/// Refuses a file that an interrupted run may have left half written, as its journal or marker says. Call it when the
/// file is locked: then no run is in progress any more.
///
/// # Errors
/// [`Kind::Pending`].
pub(crate) fn refuse_pending(path: &Path, file: &dyn Storage) -> Result<()> {
    let owner = file.identity().map(|identity| identity.owner);
    match recovery_state(&RealHost, &RealHost.real_path(path), owner)? {
        RecoveryState::Clear | RecoveryState::Unused => Ok(()),
        RecoveryState::Journal => Err(pending(&RealHost, path)),
        RecoveryState::DataFileOf(image) => Err(pending_data_file(&RealHost, path, &image)),
    }
}

/// The refusal of a data file whose image waits for being restored, or is not there.
pub(crate) fn pending_data_file(host: &dyn HostFiles, path: &Path, image: &Path) -> Error {
    if !host.exists(image) {
        return missing_image(host, path, image);
    }
    Error::new(
        Kind::Pending,
        Layer::Block,
        format!("an interrupted run left this file half written: it holds the data of the image {}", image.display()),
    )
    .path(path.display().to_string())
    .hint(format!("if both are this guest's own, {}", recover_hint(host, image, Some(path))))
}

/// The refusal of a data file whose marker names an image that is not there: whether a recovery is needed, only the
/// image's journal tells.
fn missing_image(host: &dyn HostFiles, path: &Path, image: &Path) -> Error {
    let message = format!(
        "an interrupted run may have left this file half written: it holds the data of the image {}, which is not there",
        image.display()
    );
    let marker = shell_argument(&journal_of_real_path(&host.real_path(path)), "FILE.winject-journal");
    Error::new(Kind::Pending, Layer::Block, message).path(path.display().to_string()).hint(format!(
        "move the image back there, with its journal if it has one, and run: {}; if the image is lost and this file is good \
         as it is, remove the mark: rm {marker}",
        command_on("recover", image, Some(path))
    ))
}

/// The refusal of a file that waits for being restored.
pub(crate) fn pending(host: &dyn HostFiles, path: &Path) -> Error {
    let place = if is_nbd_name(path) { "on this machine" } else { "next to it" };
    Error::new(
        Kind::Pending,
        Layer::Block,
        format!("an interrupted run left this image half written, and its journal {place}"),
    )
    .path(path.display().to_string())
    .hint(recover_hint(host, path, None))
}
