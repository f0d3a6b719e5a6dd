//! What became of an item, before it is a record.

use super::outcome::Outcome;

/// Warnings of an item that are recorded.
pub(super) const WARNINGS_MAX: usize = 20;

/// Characters of a message that are recorded.
pub(super) const MESSAGE_MAX: usize = 2000;

/// What became of an item, from all that its worker told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conclusion {
    /// What became of it; `None` stands for done.
    pub outcome: Option<Outcome>,
    /// Stable code of the error.
    pub reason: Option<String>,
    /// The error, or the outcome in one sentence.
    pub message: String,
    /// What the user can do next.
    pub hint: Option<String>,
    /// Warnings, the first of them.
    pub warnings: Vec<String>,
    /// Bytes read from the image's files.
    pub bytes_read: u64,
    /// Bytes that changed or were written.
    pub bytes_written: u64,
    /// The file that holds the changed disk.
    pub output: Option<String>,
}
