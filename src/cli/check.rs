//! `winject check`: walks the boot chain of the Windows in an image.

use std::path::PathBuf;

use clap::builder::PossibleValue;

use super::args::{ChosenDiskArgs, ImageArgs, PartitionArgs, ReplayArgs, SignatureArg, split_disks};
use super::bitlocker_args::BitLockerArgs;
use super::junit_file::{check_junit, write_junit};
use super::machine_args::MachineArgs;
use super::words::words;
use super::{Ui, explain, signals};
use crate::clock::FileTime;
use crate::error::Result;
use crate::escape::escape;
use crate::exit::ExitCode;
use crate::job::{self, Destination, InjectRequest, Junit, StateOverrides, Step};
use crate::windows::{Bus, CheckOptions};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Disk image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI; give all disks of a machine that has several, in any order
    #[arg(required = true, value_name = "IMAGE")]
    image: Vec<PathBuf>,

    #[command(flatten)]
    chosen: ChosenDiskArgs,

    /// Check whether the guest boots from a disk on this bus [default: both buses]
    #[arg(long, value_name = "virtio-blk|virtio-scsi", hide_possible_values = true,
        value_parser = words(parse_bus, || Bus::ALL.map(|bus| PossibleValue::new(bus.name())).to_vec()))]
    bus: Option<Bus>,

    /// Choose what the signature of the driver has to prove
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    signature_policy: SignatureArg,

    #[command(flatten)]
    windows: PartitionArgs,

    #[command(flatten)]
    replay: ReplayArgs,

    #[command(flatten)]
    bitlocker: BitLockerArgs,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten)]
    machine: MachineArgs,

    /// Replace a --machine-output that exists
    #[arg(long, requires = "machine_output")]
    overwrite: bool,

    /// Write the answer as JUnit XML, too, with a test for each gate; a report of winject of that name is replaced
    #[arg(long, value_name = "FILE.xml")]
    junit: Option<PathBuf>,
}

fn parse_bus(name: &str) -> std::result::Result<Bus, String> {
    let found = Bus::ALL.into_iter().find(|bus| bus.name() == name);
    found.ok_or_else(|| "use one of virtio-blk, virtio-scsi".to_owned())
}

/// Runs the command.
///
/// # Errors
/// When the image cannot be read or holds no Windows. That it does not boot is an answer, not an error.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let buses = args.bus.map_or_else(|| Bus::ALL.to_vec(), |bus| vec![bus]);
    let options = CheckOptions { signatures: args.signature_policy.into() };
    let (image, other_disks) = split_disks(args.image);
    let request = InjectRequest {
        other_disks,
        windows_disk: args.chosen.windows_disk,
        format: args.source.format,
        path_policy: args.source.path_policy(),
        nbd: args.source.nbd_options(),
        disk: args.source.disk,
        partition: args.windows.partition,
        state: StateOverrides { no_replay: args.replay.no_replay, ..StateOverrides::default() },
        other_inputs: args.bitlocker.inputs().cloned().collect(),
        bitlocker: args.bitlocker.keys()?,
        overwrite_output: args.overwrite,
        cancel: signals::cancel(),
        ..InjectRequest::new(image, Vec::new(), Destination::DryRun, FileTime(0))
    };
    args.machine.prepare(&request, ui)?;
    let texts: Vec<_> = args.machine.outputs().collect();
    job::check_text_outputs(&request, &[], &texts)?;
    if let Some(path) = &args.junit {
        check_junit(path, request.all_disks())?;
    }
    let progress = ui.phase(Step::CheckBoot.name(), Step::CheckBoot.title());
    let checked = match args.machine.machine {
        Some(_) => job::check_and_describe(&request, &buses, &options).map(|(answer, machine)| (answer, Some(machine))),
        None => job::check(&request, &buses, &options).map(|answer| (answer, None)),
    };
    drop(progress);
    if let Some(path) = &args.junit {
        let junit = checked.as_ref().map(|(answer, _)| Junit::of_boot(answer.boots, &answer.buses));
        write_junit(junit, "check", path, request.all_disks(), ui)?;
    }
    let (mut answer, machine) = checked?;
    answer.warnings.iter_mut().for_each(|warning| *warning = ui.complete(warning).into_owned());
    answer.warnings.iter().for_each(|warning| ui.warn(warning));
    if let Some(machine) = machine {
        let sources: Vec<PathBuf> = request.all_disks().cloned().collect();
        args.machine.show(|| Ok(machine), args.overwrite, &sources, ui)?;
    }
    if args.machine.is_printed() {
        // The machine is the answer; the verdict goes to standard error.
        for bus in &answer.buses {
            ui.note(bus.to_string().lines().next().unwrap_or_default());
        }
    } else if ui.is_json() {
        ui.json_answer("check", &answer)?;
    } else {
        let texts: Vec<String> = answer.buses.iter().map(ToString::to_string).collect();
        ui.answer(&texts.join("\n"));
        let mut findings = answer.buses.iter().flat_map(|answer| &answer.findings);
        if let Some(finding) = findings.find(|finding| finding.level.is_bad()) {
            explain::note_codes(finding.code.name(), ui);
        }
        if answer.recovery.image.is_some() {
            ui.answer(&format!("recovery environment: {}", escape(&answer.recovery.to_string())));
        }
    }
    Ok(if answer.boots { ExitCode::Done } else { ExitCode::No })
}
