//! Folders of output files.

use std::path::Path;

use crate::error::{Error, Kind, Layer, Result};
use crate::host::folder_of;

/// Refuses a name in a folder that does not exist.
pub(super) fn require_folder(path: &Path, message: &str) -> Result<()> {
    let folder = folder_of(path);
    if folder.is_dir() {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, Layer::Job, message).path(folder.display().to_string()).hint("create it first"))
}
