//! The folders that output files are written to.

use std::path::Path;

use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host::folder_of;

/// Refuses a file in a folder that does not exist; `output` names the file in the message ("the report").
///
/// # Errors
/// [`Kind::Usage`].
pub(super) fn require_folder(path: &Path, output: &str) -> Result<()> {
    let folder = folder_of(path);
    if folder.is_dir() {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, Layer::Job, format!("cannot write {output}: its folder does not exist"))
        .with_code(ErrorCode::OutputName)
        .path(folder.display().to_string())
        .hint("create the folder first"))
}
