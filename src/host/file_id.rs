//! Identity of a file, whatever name it is reached by.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{Error, Layer};
use crate::escape::shell_argument;

/// Device and inode number: equal for all names of a file, different for any two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file at `path`, symbolic links followed; `None` if there is no such file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|meta| Self::from(&meta))
    }
}

/// Whether two paths lead to one file.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other || FileId::of(one).is_some_and(|id| FileId::of(other) == Some(id))
}

/// The refusal to edit a file that has several names; `why` says what would be wrong under the others.
pub(crate) fn several_names(path: &Path, why: &str) -> Error {
    let file = shell_argument(path, "FILE");
    Error::refused(Layer::Host, format!("the file has several names (hard links); {why}"))
        .path(path.display().to_string())
        .hint(format!("edit a copy of the file, or remove the other names, which this shows: find / -samefile {file}"))
}

impl From<&std::fs::Metadata> for FileId {
    fn from(meta: &std::fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}
