//! `winject inspect`: which Windows an image holds, and its state.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::Ui;
use super::args::{ImageArgs, ReplayArgs};
use super::bitlocker_args::BitLockerArgs;
use super::network_page::write_network;
use crate::error::Result;
use crate::escape::{EscapedLines, shorten};
use crate::exit::ExitCode;
use crate::job::{self, Inspection, Step};
use crate::partition::Encryption;
use crate::windows::{FirstBootOutcome, FirstBootState, RecoveryEnvironment};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Disk image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI; several are shown one after the other
    #[arg(required = true, value_name = "IMAGE")]
    image: Vec<PathBuf>,

    #[command(flatten)]
    bitlocker: BitLockerArgs,

    #[command(flatten)]
    replay: ReplayArgs,

    #[command(flatten)]
    source: ImageArgs,
}

/// The answer in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Answer<'a> {
    /// The disks in the order in which they were given.
    disks: &'a [Inspection],
}

/// Runs the command.
///
/// # Errors
/// When a disk cannot be read, or none holds a Windows (after showing what they hold).
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let options = args.source.open_options();
    let keys = args.bitlocker.keys()?;
    let progress = ui.phase(Step::Inspect.name(), Step::Inspect.title());
    let mut inspections = job::inspect_disks(&args.image, &options, &keys, args.replay.into())?;
    drop(progress);
    inspections.iter_mut().for_each(|disk| disk.complete_commands(&|text| ui.complete(text).into_owned()));
    if ui.is_json() {
        ui.json_answer("inspect", &Answer { disks: &inspections })?;
    } else {
        ui.answer(&inspections.iter().map(page).collect::<Vec<_>>().join("\n"));
    }
    job::no_windows_in(inspections).map_or(Ok(ExitCode::Done), Err)
}

fn page(inspection: &Inspection) -> String {
    let mut out = EscapedLines::new(String::new());
    // Writing to a String cannot fail.
    let _ = write_page(&mut out, inspection);
    out.into_inner()
}

fn write_page(out: &mut EscapedLines<String>, inspection: &Inspection) -> std::fmt::Result {
    writeln!(out, "Image:     {} ({}, {} bytes)", inspection.image, inspection.format, inspection.size)?;
    writeln!(out, "Disk:      {}, sectors of {} bytes", inspection.disk.scheme, inspection.disk.sector)?;
    for partition in &inspection.disk.partitions {
        let name = partition.name.as_deref().map(|name| format!(", \"{name}\"")).unwrap_or_default();
        writeln!(
            out,
            "           {}: {}, {} bytes at {}{name}",
            partition.label(),
            partition.content,
            partition.length,
            partition.start.0
        )?;
        if let Some(encryption) = &partition.bitlocker {
            write_encryption(out, encryption)?;
        }
    }
    for found in &inspection.windows {
        write_windows(out, found)?;
    }
    for fault in &inspection.faults {
        match fault.partition {
            0 => writeln!(out, "Not read:  {}", fault.message)?,
            number => writeln!(out, "Partition {number}: {}", fault.message)?,
        }
        if let Some(hint) = fault.hint.as_ref().filter(|_| !inspection.windows.is_empty()) {
            writeln!(out, "           {hint}")?;
        }
    }
    for warning in &inspection.disk.warnings {
        writeln!(out, "Warning:   {warning}")?;
    }
    Ok(())
}

/// What is known of a BitLocker volume: cipher, state, what opened it, and all that would.
fn write_encryption(out: &mut EscapedLines<String>, encryption: &Encryption) -> std::fmt::Result {
    writeln!(out, "             BitLocker: {}", job::describe_encryption(encryption))?;
    let Some(metadata) = &encryption.metadata else { return Ok(()) };
    if let Some(description) = &metadata.description {
        writeln!(out, "             {description}")?;
    }
    for protector in &metadata.protectors {
        let description = protector.description.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        writeln!(out, "             protector: {protector}{description}")?;
    }
    Ok(())
}

fn write_windows(out: &mut EscapedLines<String>, found: &job::FoundWindows) -> std::fmt::Result {
    let guest = &found.guest;
    writeln!(out, "Windows:   {guest}, partition {}", found.partition)?;
    let sets: Vec<String> =
        guest.control_sets.iter().map(|set| format!("{} ({})", set.name, set.roles.join(", "))).collect();
    writeln!(out, "           control sets: {}", sets.join(", "))?;
    let database = if guest.has_driver_database { "DriverDatabase" } else { "CriticalDeviceDatabase" };
    writeln!(out, "           boot drivers are bound by {database}")?;
    if let Some(fast) = guest.fast_startup {
        writeln!(out, "           fast startup: {}", if fast { "allowed" } else { "off" })?;
    }
    let clock = if guest.clock_is_utc { "UTC" } else { "local time" };
    writeln!(out, "           hardware clock: {clock}")?;
    if guest.is_server() && guest.san_policy != Some(1) {
        writeln!(out, "           new data disks: stay offline (inject --data-disks online changes that)")?;
    }
    write_first_boot(out, &guest.first_boot)?;
    for (what, list) in [
        ("pending restart", &guest.pending_reboots),
        ("foreign disk filter", &guest.disk_filters),
        ("antivirus", &guest.antivirus),
        ("device policy", &guest.device_policies),
        ("repaired in memory from its log", &guest.replayed),
        ("warning", &guest.warnings),
    ] {
        for item in list {
            writeln!(out, "           {what}: {item}")?;
        }
    }
    write_recovery(out, &found.recovery)?;
    write_network(out, &guest.network)?;
    if let Some(log) = &found.ntfs_log {
        writeln!(out, "           NTFS log: {}", log.text())?;
    }
    if let Some(start) = &found.bitlocker {
        writeln!(out, "BitLocker: {}", start.first_start)?;
    }
    match &found.refusal {
        None if found.ntfs_log.as_ref().is_some_and(|log| !log.is_closed()) => {
            writeln!(
                out,
                "State:     not shut down cleanly; an edit replays the NTFS log first, if the replayed volume is sound"
            )
        }
        None => writeln!(out, "State:     clean, can be edited"),
        Some(fault) => {
            writeln!(out, "State:     {}", fault.message)?;
            fault.hint.as_ref().map_or(Ok(()), |hint| writeln!(out, "           {hint}"))
        }
    }
}

fn write_recovery(out: &mut EscapedLines<String>, recovery: &RecoveryEnvironment) -> std::fmt::Result {
    writeln!(out, "           recovery environment: {recovery}")?;
    for fault in &recovery.faults {
        writeln!(out, "             {fault}")?;
    }
    Ok(())
}

/// How many of the log's last lines are shown of a job that failed.
const LOG_LINES: usize = 5;

/// Longest name of a step that is shown, in characters; the JSON form has it in full.
const STEP_NAME_MAX: usize = 80;
/// Longest detail of a step that is shown, in characters.
const DETAIL_MAX: usize = 200;

fn write_first_boot(out: &mut EscapedLines<String>, job: &FirstBootOutcome) -> std::fmt::Result {
    if *job == FirstBootOutcome::default() {
        return Ok(());
    }
    writeln!(out, "           first-boot job: {}", job.state.text())?;
    if let Some(result) = &job.result {
        let restart = if result.restart_needed { ", a restart is needed" } else { "" };
        writeln!(
            out,
            "             attempt {} ({} begun): {} required and {} optional steps failed{restart}",
            result.attempt, result.begun, result.failed_required, result.failed_optional
        )?;
        for step in &result.steps {
            let class = if step.required { ", required" } else { "" };
            let detail = shorten(&step.detail, DETAIL_MAX);
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            let name = shorten(&step.name, STEP_NAME_MAX);
            writeln!(out, "             {name}: {}, code {}{class}{detail}", step.result.name(), step.code)?;
        }
    }
    for fault in &job.faults {
        writeln!(out, "             {fault}")?;
    }
    if matches!(job.state, FirstBootState::Failed | FirstBootState::Retry) {
        for line in job.log.iter().skip(job.log.len().saturating_sub(LOG_LINES)) {
            writeln!(out, "             | {line}")?;
        }
    }
    Ok(())
}
