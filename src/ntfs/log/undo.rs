//! The records of open transactions, which are taken back from the last to the first.

use super::analysis::Analysis;
use super::checkpoint::ACTIVE;
use super::reader::Log;
use super::record::{LogRecord, RecordKind, Update};
use super::refusal::refuse;
use crate::error::Result;

/// The update that is taken back with a record; `None` if the record changes nothing that could be.
///
/// # Errors
/// Refused, when the record cannot be read.
pub(super) fn update_to_undo(record: &LogRecord) -> Result<Option<Update<'_>>> {
    if record.kind()? != RecordKind::Update {
        return Ok(None);
    }
    let update = record.update()?;
    Ok((!update.lcns.is_empty() && update.undo.operation.is_update()).then_some(update))
}

/// Goes from record to record of the transactions that were open at the end of a log. A record is of one transaction, and
/// each chain leads towards the start of the log: none is met twice.
pub(super) struct UndoChains<'a> {
    log: &'a Log<'a>,
    /// Bytes of records that may still be met: records that overlap each other would make more than the log has.
    bytes: u64,
}

impl<'a> UndoChains<'a> {
    pub fn new(log: &'a Log<'a>) -> Self {
        Self { log, bytes: log.size() }
    }

    /// The transactions with something to take back, and the last record of each.
    ///
    /// # Errors
    /// Refused, when a transaction is decided, but not ended.
    pub fn starts(analysis: &Analysis) -> Result<Vec<(u32, u64)>> {
        let mut starts = Vec::new();
        for (&id, transaction) in &analysis.transactions {
            if transaction.state != ACTIVE {
                return Err(refuse(format!("the transaction {id:#x} is decided, but not ended")));
            }
            if transaction.undo_next != 0 {
                starts.push((id, transaction.undo_next));
            }
        }
        Ok(starts)
    }

    /// The record `lsn` of the transaction `id`; its [`undo_next`](LogRecord::undo_next) leads on.
    ///
    /// # Errors
    /// Refused, when it cannot be read, is of another transaction, or does not lead towards the start of the log.
    pub fn record(&mut self, id: u32, lsn: u64) -> Result<LogRecord> {
        let record = self.log.require(lsn, "a record to take back")?.record;
        if record.transaction != id {
            return Err(refuse(format!(
                "two transactions have the same record: {lsn:#x} is of the transaction {:#x}, not of {id:#x}",
                record.transaction
            )));
        }
        if record.undo_next >= lsn {
            return Err(refuse(format!("the records to take back before {lsn:#x} make no chain")));
        }
        let left = self.bytes.checked_sub(record.length as u64);
        self.bytes = left.ok_or_else(|| refuse("the records to take back overlap each other"))?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::log::testing::LogWriter;

    #[test]
    fn records_that_overlap_are_refused_before_they_are_all_read() {
        let mut log = LogWriter::new();
        let first = log.operation(0x18, 0, 0, 0, &[]);
        let second = log.operation(0x18, first, 0, 0, &[]);
        let log = log.open();
        let mut chains = UndoChains { log: &log, bytes: 0x40 };
        assert_eq!(chains.record(0x18, second).unwrap().undo_next, first);
        assert!(chains.record(0x18, first).unwrap_err().to_string().contains("overlap"));
    }
}
