//! A batch as it was asked for, typed or in a document.

use std::path::PathBuf;

use super::args::BatchArgs;
use super::gather::Entry;
use super::job::JobKind;

/// A batch as it was asked for.
pub(super) struct Asked {
    pub(super) job: JobKind,
    /// The folder that its paths are relative to; `None`: that of this process.
    pub(super) folder: Option<PathBuf>,
    pub(super) entries: Vec<Entry>,
    pub(super) batch: BatchArgs,
    pub(super) warnings: Vec<String>,
}
