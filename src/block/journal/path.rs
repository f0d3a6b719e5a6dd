//! Names of journals.

use std::path::{Path, PathBuf};

use crate::host::{HostFiles, RealHost};

/// Path of the undo journal of the image at `path`: in the folder of the file itself, whatever symbolic links `path`
/// contains.
#[must_use]
pub fn journal_path(path: &Path) -> PathBuf {
    journal_of_real_path(&RealHost.real_path(path))
}

/// Path of the journal of a file whose path has no symbolic links.
pub(crate) fn journal_of_real_path(real_path: &Path) -> PathBuf {
    let mut name = real_path.as_os_str().to_owned();
    name.push(".winject-journal");
    PathBuf::from(name)
}
