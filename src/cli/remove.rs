//! `winject remove`: takes out of a guest what winject put into it.

use std::path::PathBuf;

use super::Ui;
use super::args::{
    ChosenDiskArgs, GuestArgs, ImageArgs, PartitionArgs, StateArgs, ThreadArgs, VolumeCheckArgs, split_disks,
};
use super::bitlocker_args::BitLockerArgs;
use super::execute::carry_out;
use super::output_args::OutputArgs;
use super::request::InjectSpec;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::job::{self, RemoveOptions};

#[derive(Debug, clap::Args)]
#[command(
    mut_arg("dry_run", |argument| argument.help("Show what would be removed and what would be left, and write nothing")),
)]
#[command(after_help = "\
The manifest in the guest says what winject put there. Each item goes only if it is still as winject wrote it and nothing \
else in the guest uses it; the output lists what is left, with the reasons. A guest without a manifest is left as it is \
(exit code 0). As long as the guest has not run, winject undo IMAGE gives the image back byte for byte.

Examples:
  winject remove win.qcow2 --dry-run
  winject remove win.qcow2 --in-place --report report.md
  winject remove win.vmdk -o win-clean.qcow2")]
pub struct Args {
    /// Disk image of a Windows that is shut down: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI; give all disks of a machine that
    /// has several, in any order: only the one with Windows is changed
    #[arg(required = true, value_name = "IMAGE")]
    image: Vec<PathBuf>,

    #[command(flatten)]
    chosen: ChosenDiskArgs,

    #[command(flatten)]
    output: OutputArgs,

    /// Remove even if the guest then boots from no disk that a host can offer
    #[arg(long)]
    allow_unbootable: bool,

    #[command(flatten)]
    workers: ThreadArgs,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten)]
    windows: PartitionArgs,

    /// Write a report: FILE.html is a page, FILE.json is JSON, FILE.md is Markdown and writes FILE.json, too; repeatable
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,

    #[command(flatten)]
    bitlocker: BitLockerArgs,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    check: VolumeCheckArgs,
}

impl From<Args> for InjectSpec {
    fn from(args: Args) -> Self {
        let Args { image, chosen, output, workers, source, .. } = args;
        let guest = GuestArgs {
            windows: args.windows,
            bitlocker: args.bitlocker,
            report: args.report,
            state: args.state,
            check: args.check,
            ..GuestArgs::default()
        };
        let (image, other_disks) = split_disks(image);
        Self {
            image,
            other_disks,
            windows_disk: chosen.windows_disk,
            output,
            threads: workers.threads,
            source,
            guest,
            ..Self::default()
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What is wrong with the request, and those of [`job::remove`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let options = RemoveOptions { allow_unbootable: args.allow_unbootable };
    let spec = InjectSpec::from(args);
    let request = spec.request()?;
    let reports = &spec.guest.report;
    job::check_outputs(&request, reports)?;
    carry_out(&request, reports, ui, |observer, report| job::remove_into(&request, &options, observer, report))
}
