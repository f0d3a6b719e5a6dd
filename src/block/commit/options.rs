//! What a commit is told, and what it tells.

use std::fmt;
use std::path::PathBuf;

use crate::block::{Locking, PathPolicy};
use crate::cancel::Cancel;

/// What all kinds of commit are told.
#[derive(Clone, Default)]
pub struct CommitOptions<'a> {
    /// Replace an output file that already exists.
    pub overwrite: bool,
    /// How to treat other processes that have the image open.
    pub locking: Locking,
    /// Which external data file an edit in place may write to.
    pub path_policy: PathPolicy,
    /// Asks the commit to stop. In place it then leaves the image as it was, unless it has passed its commit point.
    pub cancel: Cancel,
    /// Keep what an edit in place overwrites as the undo record next to the image.
    pub keep_undo: bool,
    /// Called on the thread of the commit with the bytes that are written, and all of them: the journal and the image count.
    pub progress: Option<&'a dyn Fn(u64, u64)>,
}

impl fmt::Debug for CommitOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { overwrite, locking, path_policy, keep_undo, .. } = self;
        f.debug_struct("CommitOptions")
            .field("overwrite", overwrite)
            .field("locking", locking)
            .field("path_policy", path_policy)
            .field("keep_undo", keep_undo)
            .finish_non_exhaustive()
    }
}

/// What a commit did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The file that now holds the changed disk.
    pub path: PathBuf,
    /// Bytes of guest data that were written (whole clusters counted as such).
    pub bytes_written: u64,
    /// Things the user should know (a VM state in a snapshot, bitmaps marked inconsistent, …).
    pub warnings: Vec<String>,
    /// Notes that hold for every commit of this kind.
    pub notes: Vec<String>,
    /// The undo record, if one was kept.
    pub undo_record: Option<PathBuf>,
    /// The command that takes the edit back by that record, as it is typed into a shell.
    pub undo_command: Option<String>,
}
