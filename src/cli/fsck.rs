//! `winject fsck`: checks the NTFS volumes of an image.

use std::cell::Cell;
use std::path::PathBuf;

use serde::Serialize;

use super::args::{ImageArgs, ReplayArgs};
use super::bitlocker_args::BitLockerArgs;
use super::junit_file::{check_junit, write_junit};
use super::numbers::{parse_count, parse_partition};
use super::{Ui, explain};
use crate::block::{self, Image};
use crate::error::Result;
use crate::exit::ExitCode;
use crate::job::{self, Junit, Step};
use crate::ntfs::Overlaid;
use crate::ntfs::check::{self, CheckOptions, CheckReport, Pass};
use crate::partition::{Content, Partition, PartitionView};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 if all volumes are sound, 1 if faults were found; a volume that is hibernated, dirty \
                  or not cleanly shut down counts as faulty."
)]
pub struct Args {
    /// Disk image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI; a file, a block device or an NBD URI
    image: PathBuf,

    /// Check only the partition of this number, counted as Linux does (0: the image is a volume without a partition
    /// table)
    #[arg(long, value_name = "NUMBER", value_parser = parse_partition)]
    partition: Option<u32>,

    /// Print at most this many faults of each code
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = parse_count)]
    max: u64,

    #[command(flatten)]
    replay: ReplayArgs,

    #[command(flatten)]
    bitlocker: BitLockerArgs,

    #[command(flatten)]
    source: ImageArgs,

    /// Write the answer as JUnit XML, too, with a test for each invariant; a report of winject of that name is replaced
    #[arg(long, value_name = "FILE.xml")]
    junit: Option<PathBuf>,
}

/// The report on one volume.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct VolumeReport<'a> {
    /// The partition that it lies in.
    partition: &'a Partition,
    /// Whether it is sound, and no log had to be replayed.
    clean: bool,
    /// Whether the volume was checked as it is after the replay of its log; it counts as faulty.
    replayed: bool,
    #[serde(flatten)]
    report: CheckReport,
}

/// Runs the command.
///
/// # Errors
/// When the image cannot be read or holds no NTFS volume.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let image = || std::iter::once(&args.image);
    if let Some(path) = &args.junit {
        check_junit(path, image())?;
    }
    let mut junit = Junit::of_volumes();
    let checked = check_volumes(&args, &mut junit, ui);
    if let Some(path) = &args.junit {
        write_junit(checked.as_ref().map(|_| junit), "fsck", path, image(), ui)?;
    }
    checked
}

/// Checks the volumes, prints the answer and adds it to `junit`.
fn check_volumes(args: &Args, junit: &mut Junit, ui: &Ui) -> Result<ExitCode> {
    let keys = args.bitlocker.keys()?;
    let image = block::open(&args.image, &args.source.open_options())?;
    let image: &dyn Image = &*image;
    let table = keys.read_partitions(image)?;
    for warning in table.warnings.iter().chain(&block::use_notes(image)) {
        ui.warn(warning);
    }
    let wanted = match args.partition {
        Some(number) => vec![table.partition(number)?],
        None => table.partitions.iter().collect(),
    };
    if wanted.iter().all(|partition| partition.content != Content::Ntfs) {
        return Err(job::no_ntfs_volume(&wanted).path(args.image.display().to_string()));
    }
    for partition in wanted.iter().filter(|p| p.content == Content::BitLocker) {
        ui.warn(&format!("{} is encrypted with BitLocker and is not checked", partition.label()));
        if let Some(refusal) = partition.refusal() {
            ui.warn(&refusal.to_string());
            refusal.hint_text().into_iter().for_each(|hint| ui.note(hint));
        }
    }
    let mut reports = Vec::new();
    for &partition in wanted.iter().filter(|p| p.content == Content::Ntfs) {
        let label = partition.label();
        let progress = ui.phase(Step::CheckVolume.name(), &format!("Checking {label}"));
        let volume = Overlaid::open(PartitionView::new(image, partition)?, args.replay.into())?;
        let shown = Cell::new(Pass::Records);
        let on_progress = |pass, done, total| {
            if shown.replace(pass) != pass {
                progress.phase(Step::CheckFolders.name(), &format!("Checking the folders of {label}"));
            }
            progress.set(done, total);
        };
        let mut report = check::check_with_progress(&volume, &CheckOptions::per_code(args.max), &on_progress)?;
        let replayed = volume.replay().is_some();
        for fault in &mut report.faults {
            // in the image, as in all other messages
            fault.offset = fault.offset.map(|offset| offset.saturating_add(partition.start.0));
        }
        drop(progress);
        junit.add_volume(&partition.label(), &report, replayed);
        reports.push(VolumeReport { partition, clean: report.is_clean() && !replayed, replayed, report });
    }
    print(&reports, ui)?;
    Ok(if reports.iter().all(|r| r.clean) { ExitCode::Done } else { ExitCode::No })
}

/// The answer in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Answer<'a> {
    /// The NTFS volumes, in the order of the partition table.
    volumes: &'a [VolumeReport<'a>],
}

fn print(reports: &[VolumeReport<'_>], ui: &Ui) -> Result<()> {
    if ui.is_json() {
        return ui.json_answer("fsck", &Answer { volumes: reports });
    }
    for VolumeReport { partition, report, replayed, .. } in reports {
        ui.heading(&format!("{} at {}", partition.label(), partition.start));
        if *replayed {
            ui.answer("not shut down cleanly: checked as it is after the replay of its NTFS log");
        }
        ui.answer(&report.to_string());
    }
    if let Some(fault) = reports.iter().find_map(|volume| volume.report.faults.first()) {
        explain::note_codes(fault.code.name(), ui);
    }
    Ok(())
}
