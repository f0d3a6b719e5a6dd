//! Names of journals.

use std::path::{Path, PathBuf};

use crate::host::{HostFiles, RealHost};

/// Path of the undo journal of the image at `path`: in the folder of the file itself, whatever symbolic links `path`
/// contains.
#[must_use]
pub fn journal_path(path: &Path) -> PathBuf {
    journal_of_real_path(&RealHost.real_path(path))
}

/// What a journal's name ends with, after that of its file.
const ENDING: &str = ".winject-journal";

/// Path of the journal of a file whose path has no symbolic links.
pub(crate) fn journal_of_real_path(real_path: &Path) -> PathBuf {
    let mut name = real_path.as_os_str().to_owned();
    name.push(ENDING);
    PathBuf::from(name)
}

/// The file whose journal has this path; `None` for the path of something else.
pub(crate) fn file_of_journal(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    Some(path.with_file_name(name))
}
