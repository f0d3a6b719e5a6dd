//! `winject inspect`: which Windows an image holds, and its state.

use std::fmt::Write as _;

use super::Ui;
use super::args::QuestionArgs;
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::EscapedLines;
use crate::exit::ExitCode;
use crate::job::{self, Inspection};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    question: QuestionArgs,
}

/// Runs the command.
///
/// # Errors
/// When the image cannot be read, or holds no Windows (after showing what it holds).
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let args = args.question;
    let inspection = job::inspect(&args.image, &args.source.open_options())?;
    if args.json {
        ui.json(&inspection)?;
    } else {
        ui.answer(&page(&inspection));
    }
    if inspection.windows.is_empty() {
        let hint = inspection.faults.iter().find_map(|fault| fault.hint.clone());
        let is_damaged = inspection.faults.iter().any(|fault| fault.kind == Kind::Damaged);
        let kind = if is_damaged { Kind::Damaged } else { Kind::NotWindows };
        return Err(Error::new(kind, Layer::Job, "no Windows found")
            .path(inspection.image)
            .hint(hint.unwrap_or_else(|| "is this the disk that the guest starts from?".to_owned())));
    }
    Ok(ExitCode::Done)
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
    }
    for found in &inspection.windows {
        write_windows(out, found)?;
    }
    for fault in &inspection.faults {
        writeln!(out, "Partition {}: {}", fault.partition, fault.message)?;
    }
    for warning in &inspection.disk.warnings {
        writeln!(out, "Warning:   {warning}")?;
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
    match &found.refusal {
        None => writeln!(out, "State:     clean, can be edited"),
        Some(fault) => {
            writeln!(out, "State:     {}", fault.message)?;
            fault.hint.as_ref().map_or(Ok(()), |hint| writeln!(out, "           {hint}"))
        }
    }
}
