//! What becomes of the log of the Windows volume, for the report.

use super::log_replay::LogReplayRecord;
use super::report::Report;
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::ntfs::log::{LogSummary, PendingState, summarize};
use crate::partition::{Disk, Partition, PartitionView};

/// Adds to the report what becomes of the log of the Windows volume on `disk`: its replay, or what is lost without it.
pub(super) fn report_log<D: VolumeRead>(
    report: &mut Report,
    volume: &Volume<D>,
    disk: impl Disk,
    partition: &Partition,
) {
    report.add_log_replay(LogReplayRecord::of(volume, partition));
    if !volume.discards_log() {
        return;
    }
    let summary = PartitionView::new(disk, partition).and_then(|view| summarize(&view)).ok();
    let lost = match summary {
        Some(LogSummary { state: PendingState::NothingPending, .. }) => "nothing was pending in it".to_owned(),
        Some(LogSummary { state: PendingState::Pending, records, transactions, .. }) => {
            format!("{records} records are lost, and {transactions} unfinished transactions stay half done")
        }
        _ => "what was pending in it is lost, and cannot be told".to_owned(),
    };
    let warning = format!("the NTFS log is discarded: {lost}; Windows checks the volume at its next start");
    report.virtio.warnings.push(warning);
}
