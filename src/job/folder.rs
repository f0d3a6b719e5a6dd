//! The folders that output files are written to.

use std::path::Path;

use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host::{folder_of, is_nbd_name};

/// Refuses a file in a folder that does not exist; `output` names the file in the message ("the report").
///
/// # Errors
/// [`Kind::Usage`].
pub(crate) fn require_folder(path: &Path, output: &str) -> Result<()> {
    let folder = folder_of(path);
    // An NBD URI is refused by name, where the output is resolved.
    if folder.is_dir() || is_nbd_name(path) {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, Layer::Job, format!("cannot write {output}: its folder does not exist"))
        .with_code(ErrorCode::OutputName)
        .path(folder.display().to_string())
        .hint("create the folder first"))
}
