//! What a log says of itself, and what a replay did, in the words of reports.

use super::operation::Operation;
use super::overlay::Overlay;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::units::FileId;

/// Whether operations are waiting in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PendingState {
    /// Closed by a clean dismount.
    Closed,
    /// All 0xFF: emptied by a formatter or a driver that keeps no log.
    Empty,
    /// Not closed, but everything that it holds is on the volume: only the log itself has to be closed.
    NothingPending,
    /// Operations are waiting, and the log can be read to its end.
    Pending,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// What a log says: for `inspect` and `ntfs-log show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Major and minor version; `None` for an empty log and one without a readable restart page.
    pub version: Option<(u16, u16)>,
    /// Whether something is waiting.
    pub state: PendingState,
    /// The last log sequence number; 0 where `version` is `None`.
    pub last_lsn: u64,
    /// Operations that a replay has to look at.
    pub records: u64,
    /// Transactions that were open at the end of the log: a replay takes them back.
    pub transactions: u64,
    /// The transactions whose operations a replay has to look at, in the order of their first one; at most
    /// [`TRANSACTIONS_MAX`](Self::TRANSACTIONS_MAX).
    pub pending: Vec<PendingTransaction>,
}

impl LogSummary {
    /// Transactions that a summary lists.
    pub const TRANSACTIONS_MAX: usize = 1000;
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionState {
    /// It ended: what it did stays.
    Finished,
    /// It was open at the end of the log: what it did is taken back.
    Open,
}

/// A transaction with operations that a replay has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingTransaction {
    /// Its id in the log, which later transactions use again.
    pub id: u32,
    /// How it ended.
    pub state: TransactionState,
    /// Its operations in the order of the log; at most [`RECORDS_MAX`](Self::RECORDS_MAX).
    pub records: Vec<PendingRecord>,
    /// All its operations, also those that are not listed.
    pub record_count: u64,
}

impl PendingTransaction {
    /// Operations that a summary lists for one transaction.
    pub const RECORDS_MAX: usize = 100;
}

/// One operation that is waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRecord {
    /// Log sequence number.
    pub lsn: u64,
    /// What it does.
    pub redo: Operation,
    /// What takes it back.
    pub undo: Operation,
    /// The attribute in whose clusters it does so; `None` if the log does not tell.
    pub target: Option<Target>,
    /// The file whose record it changes, for an operation on a file record.
    pub record: Option<u64>,
}

/// An attribute that the log names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The file.
    pub file: FileId,
    /// Type of the attribute.
    pub kind: AttributeType,
    /// Its name, empty for the unnamed attribute.
    pub name: NtfsName,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayReport {
    /// Major and minor version of the log.
    pub version: (u16, u16),
    /// Operations that were done again.
    pub redone: u64,
    /// Operations that were on the volume already, or whose clusters had been freed since.
    pub skipped: u64,
    /// Operations that were taken back.
    pub undone: u64,
    /// Transactions that were open at the end of the log, and were taken back.
    pub transactions: u64,
    /// Files whose records or attributes were changed, by record number; at most [`FILES_MAX`](Self::FILES_MAX).
    pub files: Vec<FileId>,
    /// All such files, also those that are not listed.
    pub file_count: u64,
}

impl ReplayReport {
    /// Files that a report lists.
    pub const FILES_MAX: usize = 1000;
}

/// A replayed volume: what has to be written, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// All that changes, the closed log and `$MFTMirr` included.
    pub overlay: Overlay,
    /// What was done.
    pub report: ReplayReport,
}
