//! What the replay of a volume's NTFS log means, for reports and messages.

use std::fmt;

use serde::Serialize;

use crate::io::VolumeRead;
use crate::ntfs::{FileId, Volume};
use crate::partition::Partition;

/// Files that are named in a record of a replay.
const FILES_NAMED_MAX: usize = 100;

/// The replay of a volume's NTFS log. Windows does the same at the first start after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct LogReplayRecord {
    /// Number of the partition, as Linux counts; 0 for a volume without a partition table.
    pub partition: u32,
    /// Version of the log as it was found: 1.1, or 2.0 while Windows 8 and later have the volume mounted.
    pub version: String,
    /// Records whose change was not on the volume yet, and was made.
    pub records_redone: u64,
    /// Records whose change was on the volume already.
    pub records_skipped: u64,
    /// Records of unfinished transactions whose change was taken back.
    pub records_undone: u64,
    /// Transactions that were unfinished, and were taken back.
    pub transactions_undone: u64,
    /// Paths of the files whose metadata the replay changed, the first hundred.
    pub files: Vec<String>,
    /// How many files that are.
    pub files_total: u64,
}

/// A warning, if an open volume is shown as it lies on the disk because its log cannot be replayed.
pub(super) fn unreplayed<D>(volume: &Volume<D>, partition: &Partition) -> Option<String> {
    let reason = volume.device().replay_failure()?;
    Some(format!(
        "{} is shown as it lies on the disk, without the changes that wait in its log: {reason}",
        partition.label()
    ))
}

impl LogReplayRecord {
    /// The record of an open volume; `None` if its log was closed, or not replayed.
    pub(super) fn of<D: VolumeRead>(volume: &Volume<D>, partition: &Partition) -> Option<Self> {
        let replay = volume.device().replay()?;
        let name = |file: &FileId| {
            volume.path_of(file.record).unwrap_or_else(|| format!("file record {}, which has no name now", file.record))
        };
        Some(Self {
            partition: partition.number,
            version: format!("{}.{}", replay.version.0, replay.version.1),
            records_redone: replay.redone,
            records_skipped: replay.skipped,
            records_undone: replay.undone,
            transactions_undone: replay.transactions,
            files: replay.files.iter().take(FILES_NAMED_MAX).map(name).collect(),
            files_total: replay.file_count,
        })
    }

    /// What it means, line by line, for people who read a report.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            self.to_string(),
            "Windows would have done the same at its next start: what finished transactions did is on the volume, what \
             unfinished ones did is taken back; file content that had not reached the disk is not in the log"
                .to_owned(),
        ];
        lines.extend(self.files.iter().map(|file| format!("affected: {file}")));
        let hidden = self.files_total.saturating_sub(self.files.len() as u64);
        if hidden > 0 {
            lines.push(format!("affected: {hidden} more"));
        }
        lines
    }

    /// Whether no record had to be redone or undone: only the log itself is closed.
    #[must_use]
    pub fn is_closing_only(&self) -> bool {
        self.records_redone == 0 && self.records_undone == 0
    }
}

impl fmt::Display for LogReplayRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, records_redone, records_undone, transactions_undone, files_total, .. } = self;
        if self.is_closing_only() {
            return write!(f, "version {version}, open with nothing pending: closed as Windows closes it");
        }
        write!(f, "version {version}, replayed as Windows would do it: {records_redone} records redone, ")?;
        if *transactions_undone > 0 {
            write!(f, "{records_undone} records of {transactions_undone} unfinished transactions undone, ")?;
        }
        write!(f, "{files_total} files affected")
    }
}
