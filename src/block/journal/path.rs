//! Names of journals and undo records.

use std::path::{Path, PathBuf};

use crate::host::{HostFiles, JOURNAL_ENDING, RealHost, UNDO_RECORD_ENDING};

/// Path of the undo journal of the image at `path`: in the folder of the file itself, whatever symbolic links `path`
/// contains.
#[must_use]
pub fn journal_path(path: &Path) -> PathBuf {
    journal_of_real_path(&RealHost.real_path(path))
}

/// Path of the undo record of the image at `path`: in the folder of the file itself, whatever symbolic links `path`
/// contains.
#[must_use]
pub fn undo_path(path: &Path) -> PathBuf {
    record_of_real_path(&RealHost.real_path(path))
}

/// Path of the journal of a file whose path has no symbolic links.
pub(crate) fn journal_of_real_path(real_path: &Path) -> PathBuf {
    next_to(real_path, JOURNAL_ENDING)
}

/// Path of the undo record of a file whose path has no symbolic links.
pub(crate) fn record_of_real_path(real_path: &Path) -> PathBuf {
    next_to(real_path, UNDO_RECORD_ENDING)
}

fn next_to(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The file whose journal has this path; `None` for the path of something else.
pub(crate) fn file_of_journal(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(JOURNAL_ENDING)?;
    Some(path.with_file_name(name))
}
