//! External data files: which of them an edit in place may write.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::journal;
use crate::block::{HostFiles, Locking, PathPolicy, Storage, qcow2};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::{escape, shell_argument};

/// Refuses a data file that the user has not allowed to be written: an image may come from an attacker and name the
/// disk of another guest.
pub(super) fn refuse_foreign_data_file(policy: &PathPolicy, image: &Path, data_file: &Path) -> Result<()> {
    if policy.allows_writing(data_file) {
        return Ok(());
    }
    let allowed = shell_argument(data_file, "FILE");
    Err(foreign_data_file(image, data_file)
        .hint(format!("if that file is this guest's own, allow it by name: --allow-path {allowed}")))
}

/// The refusal of a data file, without a hint.
fn foreign_data_file(image: &Path, data_file: &Path) -> Error {
    let data_file = data_file.display();
    Error::refused(Layer::Block, format!("the image keeps its data in another file: {data_file}"))
        .with_code(ErrorCode::OutsideReference)
        .path(image.display().to_string())
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
    let other = |what: String| {
        Error::new(Kind::Pending, Layer::Block, format!("the journal is not this image's: {what}"))
            .with_code(ErrorCode::JournalUnusable)
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
        let command = journal::command_on(verb, path, Some(&data_path));
        return Err(foreign_data_file(path, &data_path)
            .hint(format!("if that file is this guest's own, allow it by name: {command}")));
    }
    let storage = host.open(&data_path, locking)?;
    let id = |storage: &dyn Storage| storage.fingerprint().map(|print| (print.device, print.inode));
    if id(&*storage) != id(&read) {
        return Err(Error::refused(Layer::Block, "the path leads to another file now")
            .with_code(ErrorCode::FileChanged)
            .path(data_path.display().to_string()));
    }
    Ok((storage, data_path))
}
