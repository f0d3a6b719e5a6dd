//! Names of journals and undo records.

use std::io;
use std::path::{Path, PathBuf};

use crate::escape::shell_argument;
use crate::host::{HostFiles, JOURNAL_ENDING, RealHost, UNDO_RECORD_ENDING, next_to};

/// Longest name of a file on the usual file systems.
const NAME_BYTES_MAX: usize = 255;

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

/// What to do about a journal, or the marker of a data file, that cannot be created because of `error`. `file` is what
/// the file that it belongs to is called.
pub(crate) fn creation_hint(error: &io::Error, file: &str) -> String {
    use io::ErrorKind::{InvalidFilename, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        InvalidFilename => format!(
            "give {file} a shorter name: its journal is named like it, with the ending {JOURNAL_ENDING}, and file systems \
             limit names to {NAME_BYTES_MAX} bytes"
        ),
        PermissionDenied | ReadOnlyFilesystem => format!("make the folder of {file} writable"),
        StorageFull | QuotaExceeded => format!("free some space on the file system of {file}"),
        _ => format!("the folder of {file} must be writable and have space"),
    }
}

/// The same for a journal on this host, of the image.
pub(crate) fn journal_hint(error: &io::Error, host: &dyn HostFiles) -> String {
    match host.journal_folder() {
        None => creation_hint(error, "the image"),
        Some(folder) => format!(
            "free some space in the folder of journals and make it writable: {}; or name another one, and keep it: \
             WINJECT_JOURNALS=FOLDER",
            shell_argument(folder, "FOLDER")
        ),
    }
}

/// The file whose journal has this path; `None` for the path of something else.
pub(crate) fn file_of_journal(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(JOURNAL_ENDING)?;
    Some(path.with_file_name(name))
}
