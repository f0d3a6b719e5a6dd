//! The replay of a log: what a volume would hold if Windows had mounted it.

use super::refusal::refuse;
use super::summary::{LogSummary, PendingState, Replayed};
use crate::error::Result;
use crate::io::VolumeRead;

/// Replays the log of the volume on `device` in memory, and closes it.
///
/// # Errors
/// Refused, with the reason, when anything in the log cannot be understood or contradicts the volume; the volume cannot
/// be read.
pub fn replay<D: VolumeRead>(_device: &D) -> Result<Replayed> {
    Err(refuse("not implemented"))
}

/// Tells what is waiting in the log of the volume on `device`.
///
/// # Errors
/// The volume cannot be read, or holds no `$LogFile`. A log that makes no sense is a state, not an error.
pub fn summarize<D: VolumeRead>(_device: &D) -> Result<LogSummary> {
    Ok(LogSummary {
        version: None,
        state: PendingState::Unreadable("not implemented".into()),
        last_lsn: 0,
        records: 0,
        transactions: 0,
        pending: Vec::new(),
    })
}
