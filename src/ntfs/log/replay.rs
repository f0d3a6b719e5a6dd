//! The replay of a log: what a volume would hold if Windows had mounted it.
//!
//! Three passes, as Windows makes them: [analysis](Analysis), redo of everything that the pages on the volume may
//! lack, open transactions included, and undo of those. All of it happens in memory.

use std::collections::BTreeMap;

use super::LogState;
use super::analysis::Analysis;
use super::blocks::{Blocks, Direction};
use super::checkpoint::OpenAttribute;
use super::close::close;
use super::logfile::{LogFile, update_mirror};
use super::overlay::Changes;
use super::reader::Log;
use super::record::{Half, LogRecord, RecordKind, Update};
use super::refusal::{LOG_FILE, REFUSAL, refuse, refuse_damage};
use super::summary::{ReplayReport, Replayed};
use super::undo::{UndoChains, update_to_undo};
use super::view::View;
use super::work::ClusterCount;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::units::FileId;

/// Replays the log of the volume on `device` in memory, and closes it as Windows does; `None` if it is closed, or empty.
///
/// # Errors
/// Refused, with the reason, when anything in the log cannot be understood or contradicts the volume; not an NTFS volume;
/// the volume cannot be read.
pub fn replay<D: VolumeRead>(device: &D) -> Result<Option<Replayed>> {
    let file = LogFile::open(device)?;
    run(device, &file).map_err(refuse_damage)
}

fn run(device: &dyn VolumeRead, file: &LogFile<'_>) -> Result<Option<Replayed>> {
    if LogState::read(file.size, |at, buf| file.read(at, buf))?.is_clean() {
        return Ok(None);
    }
    let log = Log::open(file.size, |at, buf| file.read(at, buf))?;
    let report = ReplayReport {
        version: log.area.page.version,
        redone: 0,
        skipped: 0,
        undone: 0,
        transactions: 0,
        files: Vec::new(),
        file_count: 0,
    };
    let analysis = Analysis::run(&log, file.geometry.cluster_size)?;
    let blocks = Blocks::new(Changes::new(device), &file.geometry, analysis.last_lsn);
    let mut replay = Replay { log: &log, analysis: &analysis, blocks, report };
    replay.redo()?;
    replay.check_data(file)?;
    replay.undo()?;
    replay.check_data(file)?;
    let Replay { blocks, mut report, .. } = replay;
    let mut changes = blocks.changes;
    {
        let view = View::new(&changes, &file.geometry)?;
        blocks.touched.check_clusters(&view)?;
        report.file_count = blocks.files.len() as u64;
        for &number in blocks.files.iter().take(ReplayReport::FILES_MAX) {
            let sequence = view.record(number)?.map_or(0, |record| record.sequence());
            report.files.push(FileId { record: number, sequence });
        }
    }
    update_mirror(&mut changes, &file.geometry)?;
    for (at, bytes) in close(&log, analysis.last_lsn, &analysis.extra)? {
        file.write(&mut changes, at, &bytes)?;
    }
    Ok(Some(Replayed { overlay: changes.into_overlay()?, report }))
}

struct Replay<'a> {
    log: &'a Log<'a>,
    analysis: &'a Analysis,
    blocks: Blocks<'a>,
    report: ReplayReport,
}

impl Replay<'_> {
    /// Does again, in the order of the log, what the pages on the volume may lack.
    fn redo(&mut self) -> Result<()> {
        let (log, analysis) = (self.log, self.analysis);
        if analysis.redo_lsn == 0 {
            return Ok(());
        }
        let mut clusters = ClusterCount::default();
        let end = log.walk(analysis.redo_lsn, |record| {
            if record.kind()? != RecordKind::Update {
                return Ok(());
            }
            let update = record.update()?;
            clusters.add(&update)?;
            let Some(lcns) = clusters_to_redo(analysis, &update)? else { return Ok(()) };
            if lcns.iter().all(|&lcn| lcn == 0) {
                self.report.skipped += 1;
                return Ok(());
            }
            let attribute = attribute_of(analysis, &update)?;
            let done = self.blocks.apply(&update, &update.redo, attribute, &lcns, Direction::Redo);
            if done.map_err(|e| name_record(e, "redo", &update, &update.redo))? {
                self.report.redone += 1;
            } else {
                self.report.skipped += 1;
            }
            Ok(())
        })?;
        if end.lsn <= analysis.last_lsn {
            return Err(refuse("it ends earlier when it is read a second time"));
        }
        Ok(())
    }

    /// Takes back, newest first, what the transactions did that were open at the end of the log.
    fn undo(&mut self) -> Result<()> {
        // the next record of each transaction, by its LSN
        let mut next = BTreeMap::new();
        for (id, lsn) in UndoChains::starts(self.analysis)? {
            if next.insert(lsn, (id, false)).is_some() {
                return Err(refuse("two transactions have the same record"));
            }
        }
        let mut chains = UndoChains::new(self.log);
        while let Some((lsn, (id, mut counted))) = next.pop_last() {
            let record = chains.record(id, lsn)?;
            if self.undo_record(&record)? && !counted {
                self.report.transactions += 1;
                counted = true;
            }
            let before = record.undo_next;
            if before != 0 && next.insert(before, (id, counted)).is_some() {
                return Err(refuse("two transactions have the same record"));
            }
        }
        Ok(())
    }

    /// Takes a record back; whether that is something to do.
    fn undo_record(&mut self, record: &LogRecord) -> Result<bool> {
        let Some(update) = update_to_undo(record)? else { return Ok(false) };
        let mut lcns = Vec::with_capacity(update.lcns.len());
        for (vcn, &lcn) in update.clusters()? {
            lcns.push(self.analysis.pages.cluster(update.target, vcn).map_or(lcn, |(lcn, _)| lcn));
        }
        let attribute = attribute_of(self.analysis, &update)?;
        let done = self.blocks.apply(&update, &update.undo, attribute, &lcns, Direction::Undo);
        if done.map_err(|e| name_record(e, "undo", &update, &update.undo))? {
            self.report.undone += 1;
        }
        Ok(true)
    }

    fn check_data(&self, file: &LogFile<'_>) -> Result<()> {
        let view = View::new(&self.blocks.changes, &file.geometry)?;
        self.blocks.touched.check_data(&view)
    }
}

/// The clusters to which an update may have to be applied again, 0 for those that need it no more; `None` when it changes
/// nothing.
pub(super) fn clusters_to_redo(analysis: &Analysis, update: &Update<'_>) -> Result<Option<Vec<u64>>> {
    if update.lcns.is_empty() || !update.redo.operation.is_update() {
        return Ok(None);
    }
    let clusters = update.clusters()?.map(|(vcn, _)| match analysis.pages.cluster(update.target, vcn) {
        Some((lcn, oldest)) if update.lsn >= oldest => lcn,
        _ => 0,
    });
    Ok(Some(clusters.collect()))
}

/// The attribute whose clusters an update changes.
pub(super) fn attribute_of<'a>(analysis: &'a Analysis, update: &Update<'_>) -> Result<&'a OpenAttribute> {
    let attribute = analysis.attributes.at(update.target, update.lsn);
    attribute.ok_or_else(|| {
        refuse(format!("the record {:#x} names an attribute ({:#x}) that is not open", update.lsn, update.target))
    })
}

fn name_record(error: Error, direction: &str, update: &Update<'_>, half: &Half<'_>) -> Error {
    match error.kind() {
        crate::error::Kind::Io => error,
        _ => {
            let text = error.text_within(Layer::Ntfs, LOG_FILE);
            let reason = text.trim_start_matches(REFUSAL);
            refuse(format!("{direction} of the record {:#x} ({}): {reason}", update.lsn, half.operation))
        }
    }
}
