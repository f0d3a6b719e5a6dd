//! The replay of the volume's NTFS log that precedes the edits of a plan.

use serde::{Deserialize, Serialize};

use crate::ntfs::log::ReplayReport;

/// What is replayed. By it the person who reviews a plan sees that the image was not shut down cleanly; that the log is the
/// same when the plan is applied follows from the read set, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogReplayFacts {
    /// Version of the log as it was found: `1.1`, `2.0`.
    pub version: String,
    /// Records that are redone.
    pub records_redone: u64,
    /// Records that are undone.
    pub records_undone: u64,
    /// Files whose metadata the replay changes.
    pub files: u64,
}

impl LogReplayFacts {
    /// The facts of a replay.
    #[must_use]
    pub fn of(replay: &ReplayReport) -> Self {
        Self {
            version: format!("{}.{}", replay.version.0, replay.version.1),
            records_redone: replay.redone,
            records_undone: replay.undone,
            files: replay.file_count,
        }
    }

    /// The facts in a sentence, for a review.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { version, records_redone, records_undone, files, .. } = self;
        format!(
            "version {version}, replayed before the edits as Windows would do it: {records_redone} records redone, \
             {records_undone} undone, {files} files affected"
        )
    }
}
