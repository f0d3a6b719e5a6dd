//! `winject ntfs-log`: shows and replays the logs of NTFS volumes.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::Ui;
use super::args::{ImageArgs, QuestionArgs};
use super::bitlocker_args::BitLockerArgs;
use super::execute::Watcher;
use super::numbers::parse_partition;
use super::output_args::OutputArgs;
use super::recover::show_recovery;
use super::signals::{self, Subject};
use crate::block::commit::Recovery;
use crate::error::Result;
use crate::escape::{EscapedLines, escape};
use crate::exit::ExitCode;
use crate::job::{self, Destination, LogReplayOutcome, LogReplayRecord, LogReplayRequest, VolumeLog};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[command(defer = true)]
enum Command {
    /// Show version and state of each log, and the records that are pending, by transaction
    Show(Show),
    /// Replay the open logs as Windows would do it at its next start, and close them
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 if all logs are closed, 1 if one is open or cannot be read.")]
struct Show {
    #[command(flatten)]
    question: QuestionArgs,

    #[command(flatten)]
    volume: VolumeArgs,
}

// The volume to work on
#[derive(Debug, clap::Args)]
struct VolumeArgs {
    /// Use only the volume in the partition of this number, counted as Linux does (0: the image is a volume without a
    /// partition table)
    #[arg(long, value_name = "NUMBER", value_parser = parse_partition)]
    partition: Option<u32>,

    #[command(flatten)]
    bitlocker: BitLockerArgs,
}

#[derive(Debug, clap::Args)]
#[command(mut_arg("dry_run", |argument| argument.help("Replay in memory, check the volume, and write nothing")))]
#[command(after_help = "\
The replay is computed in memory, and the replayed volume is checked as winject fsck does it, before anything is written: \
all of it is written or nothing. A volume that is hibernated, or whose log is torn, is refused.

Examples:
  winject ntfs-log replay data.vmdk -o data-replayed.qcow2
  winject ntfs-log replay data.qcow2 --in-place --partition 2")]
struct Replay {
    /// Disk image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI; a file, a block device or an NBD URI
    image: PathBuf,

    #[command(flatten)]
    volume: VolumeArgs,

    #[command(flatten)]
    output: OutputArgs,

    /// Replay the log of a volume although it is marked dirty (Windows wants to check it)
    #[arg(long)]
    allow_dirty: bool,

    #[command(flatten)]
    source: ImageArgs,
}

/// Runs the command.
///
/// # Errors
/// Those of [`job::read_logs`] and [`job::replay_logs`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    match args.command {
        Command::Show(args) => show(args, ui),
        Command::Replay(args) => replay(args, ui),
    }
}

/// The answer of `show` in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct ShowAnswer<'a> {
    /// The logs of the NTFS volumes, in the order of the partition table.
    volumes: &'a [VolumeLog],
}

fn show(Show { question, volume }: Show, ui: &Ui) -> Result<ExitCode> {
    let options = question.source.open_options();
    let logs = job::read_logs(&question.image, &options, volume.partition, &volume.bitlocker.keys()?)?;
    if ui.is_json() {
        ui.json_answer("ntfs-log-show", &ShowAnswer { volumes: &logs })?;
    } else {
        let mut out = EscapedLines::new(String::new());
        for log in &logs {
            // Writing to a String cannot fail.
            let _ = write_log(&mut out, log);
        }
        ui.answer(&out.into_inner());
    }
    Ok(if logs.iter().all(VolumeLog::is_closed) { ExitCode::Done } else { ExitCode::No })
}

fn write_log(out: &mut EscapedLines<String>, log: &VolumeLog) -> std::fmt::Result {
    writeln!(out, "Partition {}: {}", log.partition, log.text())?;
    writeln!(out, "  last log sequence number: {}", log.last_lsn)?;
    for transaction in &log.transactions {
        let end = if transaction.finished { "finished" } else { "unfinished, is taken back" };
        writeln!(out, "  transaction {:#x}, {end}: {} records", transaction.id, transaction.record_count)?;
        for record in &transaction.records {
            let of = record.file.as_deref().or(record.target.as_deref());
            let of = of.map(|of| format!(" ({of})")).unwrap_or_default();
            writeln!(out, "    {}: {}{of}", record.lsn, record.text)?;
        }
        let hidden = transaction.record_count.saturating_sub(transaction.records.len() as u64);
        if hidden > 0 {
            writeln!(out, "    and {hidden} more")?;
        }
    }
    Ok(())
}

fn replay(args: Replay, ui: &Ui) -> Result<ExitCode> {
    let destination = args.output.destination()?;
    args.volume.bitlocker.refuse_as_output(args.output.new_file())?;
    Subject::of(&destination, &args.image).into_iter().for_each(signals::set_subject);
    let request = LogReplayRequest {
        image: args.image,
        options: args.source.open_options(),
        partition: args.volume.partition,
        bitlocker: args.volume.bitlocker.keys()?,
        destination,
        rehearsed: args.output.named()?,
        overwrite_output: args.output.overwrite,
        keep_undo: !args.output.no_undo,
        allow_dirty: args.allow_dirty,
        cancel: signals::cancel(),
    };
    let done = job::replay_logs(&request, &Watcher::new(ui))?;
    if ui.is_json() {
        ui.json_answer("ntfs-log-replay", &ReplayAnswer::of(&request, &done))?;
    }
    show_outcome(&request, &done, ui);
    Ok(ExitCode::Done)
}

/// The answer of `replay` in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct ReplayAnswer<'a> {
    /// Path of the image, as it was given.
    image: String,
    /// `in_place`, `overlay`, `standalone` or `dry_run`.
    mode: &'a str,
    /// What was replayed (for a dry run: would be), volume by volume; empty if all logs were closed.
    replays: &'a [LogReplayRecord],
    /// What was done first about an earlier, interrupted run.
    recovery: Recovery,
    /// Path of the file with the changed disk; `null` if nothing was written.
    output: Option<String>,
    /// SHA-256 of that file, in hexadecimal; left out unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_sha256: Option<&'a str>,
    /// The command that takes the edit back; left out without an undo record of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    undo: Option<String>,
    /// What the user should know.
    warnings: &'a [String],
}

impl<'a> ReplayAnswer<'a> {
    fn of(request: &'a LogReplayRequest, done: &'a LogReplayOutcome) -> Self {
        let image = &request.image;
        let output = match &request.destination {
            Destination::DryRun => None,
            Destination::InPlace => (!done.replays.is_empty()).then_some(image),
            Destination::Overlay(path) | Destination::Standalone { path, .. } => Some(path),
        };
        Self {
            image: image.display().to_string(),
            mode: request.destination.mode(),
            replays: &done.replays,
            recovery: done.recovery,
            output: output.map(|path| path.display().to_string()),
            output_sha256: done.output_sha256.as_deref(),
            undo: done.undo_command.clone(),
            warnings: &done.warnings,
        }
    }
}

fn show_outcome(request: &LogReplayRequest, done: &LogReplayOutcome, ui: &Ui) {
    show_recovery(done.recovery, ui);
    done.warnings.iter().for_each(|warning| ui.warn(warning));
    for replay in &done.replays {
        ui.done(&format!("Partition {}: {replay}", replay.partition));
        replay.lines().iter().skip(1).for_each(|line| ui.done(&format!("  {line}")));
    }
    let image = request.image.display();
    ui.done(&match (&request.destination, done.replays.is_empty()) {
        (Destination::Standalone { path, .. }, true) => {
            format!("Unchanged: all NTFS logs of {image} are closed; copied to {}.", path.display())
        }
        (Destination::Overlay(path), true) => {
            format!("Unchanged: all NTFS logs of {image} are closed; the new overlay {} is empty.", path.display())
        }
        (_, true) => format!("Unchanged: all NTFS logs of {image} are closed, nothing was written."),
        (Destination::DryRun, false) => {
            "Dry run: the volume is sound after this replay; nothing was written.".to_owned()
        }
        (Destination::InPlace, false) => format!("Done: {image} is as after a clean shutdown."),
        (Destination::Overlay(path) | Destination::Standalone { path, .. }, false) => {
            format!("Done: {} is as after a clean shutdown.", path.display())
        }
    });
    if let (Some(sum), Destination::Standalone { path, .. }) = (&done.output_sha256, &request.destination) {
        ui.answer(&escape(&format!("{sum}  {}", path.display())));
    }
    if let Some(undo) = &done.undo_command {
        ui.done(&format!("Undo:     {undo}"));
    }
}
