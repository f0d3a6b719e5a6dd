//! The NTFS logs of a disk: what they say, and their replay alone, with or without a Windows.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::explain::explain;
use super::locate::no_ntfs_volume;
use super::log_replay::LogReplayRecord;
use super::outputs::{add_output, check_destination, refuse_misnamed_overlay};
use super::recover::recover_first;
use super::request::{Destination, Observer};
use super::step::Step;
use super::volume_check::{check_replayed, observe_check};
use super::write_stage::{commit_stage, convert_stage};
use crate::block::commit::{CommitOptions, Recovery};
use crate::block::convert::ConvertOptions;
use crate::block::{self, Stage, StageOptions};
use crate::cancel::Cancel;
use crate::clock::FileTime;
use crate::error::{DEFECT_HINT, Error, Kind, Layer, Result};
use crate::host::RunFiles;
use crate::ntfs::log::{
    LOG_FILE, LogSummary, PendingRecord, PendingState, PendingTransaction, TransactionState, summarize,
};
use crate::ntfs::{OpenOptions, Overlaid, RecordNumber, Replay, Volume};
use crate::partition::{BitLockerKeys, Content, Disk, Partition, PartitionTable, PartitionView};

/// The NTFS log of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct VolumeLog {
    /// Number of the partition, as Linux counts; 0 for a volume without a partition table.
    pub partition: u32,
    /// Version of the log: 1.1 after a clean shutdown, 2.0 while Windows 8 and later have the volume mounted; `null` if the
    /// log is empty or cannot be read.
    pub version: Option<String>,
    /// `closed`, `empty`, `nothing_pending` (open, but all that it holds is on the volume), `pending` or `unreadable`.
    pub state: &'static str,
    /// Why it cannot be replayed; left out if it can, or need not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The last log sequence number, in hexadecimal.
    pub last_lsn: String,
    /// Records that a replay has to look at.
    pub records: u64,
    /// Transactions that were unfinished when the log ended: a replay takes them back.
    pub open_transactions: u64,
    /// The transactions with records that are pending; left out of `inspect`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transactions: Vec<LogTransaction>,
}

/// A transaction with records that are pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct LogTransaction {
    /// Its id in the log, which later transactions use again.
    pub id: u32,
    /// Whether it ended; if not, a replay takes it back.
    pub finished: bool,
    /// All its records, also those that are not listed.
    pub record_count: u64,
    /// Its records in the order of the log, the first hundred.
    pub records: Vec<LogRecord>,
}

/// A record that is pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct LogRecord {
    /// Log sequence number, in hexadecimal.
    pub lsn: String,
    /// Operation that a replay does, by its name in descriptions of the format: `AddIndexEntryAllocation`.
    pub redo: &'static str,
    /// Operation that takes it back.
    pub undo: &'static str,
    /// The redo operation in words.
    pub text: &'static str,
    /// The attribute that it changes, with the path of its file: `/Windows $INDEX_ALLOCATION $I30`; `null` if the log does
    /// not tell.
    pub target: Option<String>,
    /// Path of the file whose record it changes; `null` for other operations.
    pub file: Option<String>,
}

impl VolumeLog {
    /// The log of a partition's volume; without its transactions if they are not `wanted`.
    ///
    /// # Errors
    /// When the disk cannot be read, or the partition holds no `$LogFile`.
    pub(super) fn read<D: Disk>(disk: &D, partition: &Partition, wanted: bool) -> Result<Self> {
        let view = PartitionView::new(disk, partition)?;
        let summary = summarize(&view).map_err(|error| error.path(partition.label()))?;
        // Names are those after the replay: a file that a pending record creates has one only then.
        let volume = Volume::open_shared(view, &partition.replay, &OpenOptions::read_only());
        let name = |record: RecordNumber| {
            let path = volume.as_ref().ok().and_then(|volume| volume.path_of(record));
            path.unwrap_or_else(|| format!("file record {record}"))
        };
        let failure = match &volume {
            Ok(volume) => volume.device().replay_failure().map(str::to_owned),
            Err(error) => Some(error.text_within(Layer::Ntfs, LOG_FILE)),
        };
        let is_open = matches!(summary.state, PendingState::NothingPending | PendingState::Pending);
        let (state, reason) = match &summary.state {
            PendingState::Closed => ("closed", None),
            PendingState::Empty => ("empty", None),
            PendingState::NothingPending => ("nothing_pending", failure),
            PendingState::Pending => ("pending", failure),
            PendingState::Unreadable(reason) => ("unreadable", Some(reason.clone())),
        };
        let LogSummary { version, last_lsn, records, transactions, pending, .. } = summary;
        let pending = pending.into_iter().filter(|_| wanted && is_open);
        Ok(Self {
            partition: partition.number,
            version: version.map(|(major, minor)| format!("{major}.{minor}")),
            state,
            reason,
            last_lsn: format!("{last_lsn:#x}"),
            records,
            open_transactions: transactions,
            transactions: pending.map(|transaction| LogTransaction::of(transaction, &name)).collect(),
        })
    }

    /// Whether nothing is to be done to it: it was closed or emptied.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, "closed" | "empty")
    }

    /// Its state in a sentence.
    #[must_use]
    pub fn text(&self) -> String {
        let version = self.version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
        let reason = self.reason.as_deref().unwrap_or("it cannot be read");
        let Self { records, open_transactions, .. } = self;
        let pending = format!("open{version}: {records} records pending, {open_transactions} transactions unfinished");
        match (self.state, &self.reason) {
            ("closed", _) => format!("closed{version}"),
            ("empty", _) => "empty, as a formatter or a driver without a log leaves it".to_owned(),
            ("nothing_pending", None) => {
                format!("open{version}, with nothing pending: an edit closes it as Windows closes it")
            }
            ("nothing_pending", Some(reason)) => format!("open{version}; {reason}"),
            ("pending", None) => format!("{pending}; an edit replays them first, if the replayed volume is sound"),
            ("pending", Some(reason)) => format!("{pending}; {reason}"),
            _ => format!("not closed: {}", reason.trim_start_matches("ntfs: ")),
        }
    }
}

impl LogTransaction {
    fn of(transaction: PendingTransaction, name: &dyn Fn(RecordNumber) -> String) -> Self {
        let PendingTransaction { id, state, records, record_count } = transaction;
        let record = |record: PendingRecord| LogRecord {
            lsn: format!("{:#x}", record.lsn),
            redo: record.redo.name(),
            undo: record.undo.name(),
            text: record.redo.words(),
            target: record.target.map(|target| {
                format!("{} {} {}", name(target.file.record), target.kind, target.name).trim_end().to_owned()
            }),
            file: record.record.map(|number| name(RecordNumber(number))),
        };
        let records = records.into_iter().map(record).collect();
        Self { id, finished: state == TransactionState::Finished, record_count, records }
    }
}

/// The logs of all NTFS volumes in an image, or of the partition of this number. Writes nothing.
///
/// # Errors
/// When the image cannot be opened or read, or holds no NTFS volume.
pub fn read_logs(
    image: &Path,
    options: &block::OpenOptions,
    number: Option<u32>,
    keys: &BitLockerKeys,
) -> Result<Vec<VolumeLog>> {
    let read = || -> Result<Vec<VolumeLog>> {
        let image = block::open(image, options)?;
        let disk: &dyn block::Image = &*image;
        let table = keys.read_partitions(disk)?;
        volumes(&table, number)?.into_iter().map(|partition| VolumeLog::read(&disk, partition, true)).collect()
    };
    read().map_err(|error| explain(error.path(image.display().to_string())))
}

/// The NTFS volumes of a disk, or the one of this number.
fn volumes(table: &PartitionTable, number: Option<u32>) -> Result<Vec<&Partition>> {
    let wanted = match number {
        Some(number) => vec![table.partition(number)?],
        None => table.partitions.iter().collect(),
    };
    let is_ntfs = |partition: &&Partition| partition.content == Content::Ntfs;
    if !wanted.iter().any(is_ntfs) {
        return Err(no_ntfs_volume(&wanted));
    }
    Ok(wanted.into_iter().filter(is_ntfs).collect())
}

/// A replay of the NTFS logs of an image, without any other edit.
#[derive(Debug, Clone)]
pub struct LogReplayRequest {
    /// Path of the image.
    pub image: PathBuf,
    /// How the image is opened: format, disk of an OVA, files that it may refer to.
    pub options: block::OpenOptions,
    /// Number of the partition whose log is replayed; `None`: all NTFS volumes.
    pub partition: Option<u32>,
    /// Keys of BitLocker volumes.
    pub bitlocker: BitLockerKeys,
    /// Where the changed disk is written.
    pub destination: Destination,
    /// Of a dry run: where the run would write. What a run refuses about it is refused, too.
    pub rehearsed: Option<Destination>,
    /// Whether an existing output file is replaced.
    pub overwrite_output: bool,
    /// Whether an edit in place keeps what it overwrites, so that [`undo`](super::undo()) can take it back.
    pub keep_undo: bool,
    /// Replay the log of a volume that is marked dirty, too; the mark stays.
    pub allow_dirty: bool,
    /// Stops the job when another thread requests it.
    pub cancel: Cancel,
}

/// Outcome of [`replay_logs`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogReplayOutcome {
    /// What was replayed, volume by volume; empty if all logs were closed: only a new file that was asked for was written then.
    pub replays: Vec<LogReplayRecord>,
    /// What was done about an earlier, interrupted run.
    pub recovery: Recovery,
    /// Warnings of the commit.
    pub warnings: Vec<String>,
    /// SHA-256 of the new image in hexadecimal, if it was asked for.
    pub output_sha256: Option<String>,
    /// The command that takes the edit back, if an undo record was kept.
    pub undo_command: Option<String>,
}

/// Replays the open NTFS logs of an image and writes the image as the request says: all of them or nothing.
///
/// # Errors
/// [`Kind::Refused`] when a log cannot be replayed, when the volume is not sound after the replay, and when it is
/// hibernated or marked dirty; those of opening the image and of the commit. Nothing was written then.
pub fn replay_logs(request: &LogReplayRequest, observer: &dyn Observer) -> Result<LogReplayOutcome> {
    replay_image(request, observer).map_err(explain)
}

fn replay_image(request: &LogReplayRequest, observer: &dyn Observer) -> Result<LogReplayOutcome> {
    let LogReplayRequest { image, options, destination, cancel, .. } = request;
    let judged = destination.judged(request.rehearsed.as_ref());
    check_output(request, judged)?;
    let mut done = LogReplayOutcome {
        recovery: recover_first(image, &options.path_policy, destination, cancel, observer)?,
        ..LogReplayOutcome::default()
    };
    observer.step(Step::Open);
    let mut stage = Stage::new(block::open(image, options)?, StageOptions::default());
    check_destination(&stage, image, &options.path_policy, judged, |error| error)?;
    let read = request.bitlocker.read_partitions(&stage);
    let table = read.map_err(|error| error.path(image.display().to_string()))?;
    for partition in volumes(&table, request.partition)? {
        cancel.check()?;
        observer.step(Step::ReplayLog);
        let replayed = replay_volume(request, &mut stage, partition, observer);
        done.replays.extend(replayed.map_err(|error| error.within(partition.label()))?);
    }
    stage.drop_unchanged()?;
    // An output that is asked for is there afterwards, even if all logs are closed.
    if done.replays.is_empty() && destination.new_file().is_none() {
        return Ok(done);
    }
    if let Some((path, new_image)) = destination.new_image() {
        let options = ConvertOptions {
            overwrite: request.overwrite_output,
            cancel: cancel.clone(),
            nbd: options.nbd.clone(),
            ..new_image
        };
        let converted = convert_stage(&stage, path, options, observer)?;
        done.output_sha256 = converted.sha256;
        done.warnings.extend(converted.notes);
        return Ok(done);
    }
    let commit_options = CommitOptions {
        overwrite: request.overwrite_output,
        path_policy: options.path_policy.clone(),
        cancel: cancel.clone(),
        keep_undo: request.keep_undo,
        ..CommitOptions::default()
    };
    let committed = commit_stage(&mut stage, image, destination, commit_options, observer)?;
    let Some(committed) = committed else { return Ok(done) };
    done.warnings.extend(committed.warnings.into_iter().chain(committed.notes));
    done.undo_command = committed.undo_command;
    Ok(done)
}

/// Replays the log of one volume on the stage, after the replayed volume was judged; `None` if it is closed.
fn replay_volume(
    request: &LogReplayRequest,
    stage: &mut Stage,
    partition: &Partition,
    observer: &dyn Observer,
) -> Result<Option<LogReplayRecord>> {
    let options = OpenOptions { allow_dirty: request.allow_dirty, ..OpenOptions::new(FileTime(1)) };
    let device = Overlaid::open_shared(PartitionView::new(&mut *stage, partition)?, &partition.replay)?;
    if device.is_closed() {
        return Ok(None);
    }
    if let Some(refusal) = partition.write_refusal() {
        return Err(refusal);
    }
    let mut volume = Volume::open_overlaid(device, &options)?;
    check_replayed(volume.device(), request.allow_dirty, &observe_check(observer))?;
    let record = LogReplayRecord::of(&volume, partition);
    volume.apply_admission()?;
    volume.flush()?;
    drop(volume);
    // From the first sector on: another replay finds nothing.
    let view = PartitionView::new(&*stage, partition)?;
    view.check_metadata()?;
    let again = Overlaid::open(view, Replay::WhereOpen)?;
    if !again.is_closed() {
        return Err(
            Error::new(Kind::Verify, Layer::Job, "the NTFS log is not closed after its replay").hint(DEFECT_HINT)
        );
    }
    Ok(record)
}

/// Refuses an output that cannot be written, before any work is done.
fn check_output(request: &LogReplayRequest, destination: &Destination) -> Result<()> {
    let mut files = RunFiles::default();
    files.add_input("the input image", &request.image);
    add_output(&mut files, destination, [request.image.as_path()], request.overwrite_output)?;
    refuse_misnamed_overlay(destination)
}
