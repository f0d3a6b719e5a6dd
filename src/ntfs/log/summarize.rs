//! What is waiting in a log, without changing anything.

use std::collections::BTreeMap;

use super::LogState;
use super::analysis::Analysis;
use super::logfile::LogFile;
use super::operation::{Operation, Subject};
use super::reader::Log;
use super::record::{LogRecord, RecordKind, Update};
use super::refusal::refuse_damage;
use super::replay::clusters_to_redo;
use super::restart::{PAGE, RestartPage};
use super::summary::{LogSummary, PendingRecord, PendingState, PendingTransaction, TransactionState};
use super::undo::{UndoChains, update_to_undo};
use super::work::ClusterCount;
use crate::error::{Kind, Result};
use crate::io::VolumeRead;
use crate::ntfs::boot::Geometry;

/// Tells what is waiting in the log of the volume on `device`.
///
/// # Errors
/// Not an NTFS volume; the volume cannot be read. A log that makes no sense is a state, not an error.
pub fn summarize<D: VolumeRead>(device: &D) -> Result<LogSummary> {
    let mut summary = LogSummary {
        version: None,
        state: PendingState::Empty,
        last_lsn: 0,
        records: 0,
        transactions: 0,
        pending: Vec::new(),
    };
    let found = LogFile::open(device).and_then(|file| fill(&mut summary, &file)).map_err(refuse_damage);
    match found {
        Ok(()) => Ok(summary),
        Err(e) if e.kind() == Kind::Refused => {
            summary.state = PendingState::Unreadable(e.to_string());
            Ok(summary)
        }
        Err(e) => Err(e),
    }
}

fn fill(summary: &mut LogSummary, file: &LogFile<'_>) -> Result<()> {
    match LogState::read(file.size, |at, buf| file.read(at, buf))? {
        LogState::Empty => return Ok(()),
        LogState::Clean => {
            summary.state = PendingState::Closed;
            let mut head = vec![0; 2 * PAGE];
            file.read(0, &mut head)?;
            if let Some(page) = RestartPage::current_in(&head) {
                (summary.version, summary.last_lsn) = (Some(page.version), page.current_lsn);
            }
            return Ok(());
        }
        LogState::Unclean { version } | LogState::InUse { version } => summary.version = Some(version),
        LogState::Damaged { .. } => {}
    }
    let log = Log::open(file.size, |at, buf| file.read(at, buf))?;
    summary.last_lsn = log.area.page.current_lsn;
    let analysis = Analysis::run(&log, file.geometry.cluster_size)?;
    summary.last_lsn = analysis.last_lsn;
    let (running, clusters) = (BTreeMap::new(), ClusterCount::default());
    Pending { analysis: &analysis, geometry: &file.geometry, running, clusters, summary }.collect(&log)
}

/// The transactions with operations that are waiting, as they are met.
struct Pending<'a> {
    analysis: &'a Analysis,
    geometry: &'a Geometry,
    /// Where the transaction that now has an id stands in the summary; `None` for one that is not listed.
    running: BTreeMap<u32, Option<usize>>,
    clusters: ClusterCount,
    summary: &'a mut LogSummary,
}

impl Pending<'_> {
    fn collect(mut self, log: &Log<'_>) -> Result<()> {
        if self.analysis.redo_lsn != 0 {
            log.walk(self.analysis.redo_lsn, |record| match record.kind()? {
                RecordKind::Update => self.add(record),
                RecordKind::Restart => Ok(()),
            })?;
        }
        for number in self.running.values().flatten() {
            if let Some(transaction) = self.summary.pending.get_mut(*number) {
                transaction.state = TransactionState::Open;
            }
        }
        self.summary.transactions = count_open(log, self.analysis)?;
        let waits = self.summary.records > 0 || self.summary.transactions > 0;
        self.summary.state = if waits { PendingState::Pending } else { PendingState::NothingPending };
        Ok(())
    }

    fn add(&mut self, record: &LogRecord) -> Result<()> {
        let update = record.update()?;
        self.clusters.add(&update)?;
        if update.redo.operation == Operation::ForgetTransaction {
            self.running.remove(&record.transaction);
        }
        let waits = clusters_to_redo(self.analysis, &update)?.is_some_and(|lcns| lcns.iter().any(|&lcn| lcn != 0));
        if !waits {
            return Ok(());
        }
        self.summary.records += 1;
        let pending = &mut self.summary.pending;
        let number = *self.running.entry(record.transaction).or_insert_with(|| {
            (pending.len() < LogSummary::TRANSACTIONS_MAX).then(|| {
                pending.push(PendingTransaction {
                    id: record.transaction,
                    state: TransactionState::Finished,
                    records: Vec::new(),
                    record_count: 0,
                });
                pending.len() - 1
            })
        });
        if let Some(transaction) = number.and_then(|number| self.summary.pending.get_mut(number)) {
            transaction.record_count += 1;
            if transaction.records.len() < PendingTransaction::RECORDS_MAX {
                transaction.records.push(describe(self.analysis, self.geometry, &update));
            }
        }
        Ok(())
    }
}

fn describe(analysis: &Analysis, geometry: &Geometry, update: &Update<'_>) -> PendingRecord {
    let offset = geometry.bytes_in(update.vcn).saturating_add(update.block as u64);
    let is_record = [&update.redo, &update.undo].iter().any(|half| half.operation.subject() == Subject::Record);
    PendingRecord {
        lsn: update.lsn,
        redo: update.redo.operation,
        undo: update.undo.operation,
        target: analysis.attributes.at(update.target, update.lsn).map(|attribute| attribute.target.clone()),
        record: is_record.then(|| offset / u64::from(geometry.record_size)),
    }
}

/// The transactions with something to take back.
fn count_open(log: &Log<'_>, analysis: &Analysis) -> Result<u64> {
    let mut chains = UndoChains::new(log);
    let mut count = 0;
    for (id, mut lsn) in UndoChains::starts(analysis)? {
        while lsn != 0 {
            let record = chains.record(id, lsn)?;
            if update_to_undo(&record)?.is_some() {
                count += 1;
                break;
            }
            lsn = record.undo_next;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::log::testing::LogWriter;

    #[test]
    fn transactions_that_share_a_record_are_refused_as_the_replay_does() {
        for shared in [false, true] {
            let mut log = LogWriter::new();
            let first = log.operation(0x18, 0, 0, 0, &[]);
            let before = log.operation(0x40, 0, 0, 3, &[9]);
            log.operation(0x40, if shared { first } else { before }, 0, 0, &[]);
            let log = log.open();
            let analysis = Analysis::run(&log, 4096).unwrap();
            let counted = count_open(&log, &analysis);
            match shared {
                false => assert_eq!(counted.unwrap(), 1),
                true => assert!(counted.unwrap_err().to_string().contains("two transactions have the same record")),
            }
        }
    }
}
