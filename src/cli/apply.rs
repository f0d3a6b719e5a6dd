//! `winject apply`: does exactly what a saved plan says.

use std::path::PathBuf;

use super::args::{ImageArgs, StateArgs, ThreadArgs, VolumeCheckArgs, split_disks};
use super::bitlocker_args::BitLockerArgs;
use super::execute::carry_out;
use super::output_args::OutputArgs;
use super::{Ui, environment, signals};
use crate::error::Result;
use crate::exit::ExitCode;
use crate::job::{self, InjectRequest, SavedPlan};

#[derive(Debug, clap::Args)]
#[command(
    mut_arg("allow_dirty", |argument| argument.help("Edit a volume although it is marked dirty, as the plan does")),
    mut_arg("discard_ntfs_log", |argument| argument.help("Discard an open NTFS log, as the plan does")),
    mut_arg("dry_run", |argument| argument.help("Compare the plan with the image, verify what it would write, and write nothing")),
    mut_arg("no_replay", |argument| argument.help("Do not replay an open NTFS log, as the plan does not")),
    mut_arg("discard_hibernation", |argument| argument.help("Discard a hibernated session, as the plan does")),
)]
#[command(after_help = "\
Examples:
  winject apply plan.json --drivers virtio-win.iso --in-place
  winject apply plan.json --overlay win-virtio.qcow2
  winject apply plan.json --image /vms/win.vmdk -o win-virtio.qcow2

The plan is done as it is, or refused: exit code 9 says that the image has changed since the plan was made. Undo an overlay by deleting it.")]
pub struct Args {
    /// Plan that winject plan has written; with its bundle, the folder PLAN.files next to it, no drivers are needed
    plan: PathBuf,

    /// Apply it to this disk image; repeatable, for all disks of the plan in any order [default: the images that the plan
    /// names, in the folder of the plan]
    #[arg(long, value_name = "IMAGE")]
    image: Vec<PathBuf>,

    /// Find the plan's files in this folder or ISO image, by their path or their hash; repeatable
    #[arg(long, value_name = "PATH")]
    drivers: Vec<PathBuf>,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    workers: ThreadArgs,

    #[command(flatten)]
    source: ImageArgs,

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

impl Args {
    fn request(&self, disks: Vec<PathBuf>) -> Result<InjectRequest> {
        let (image, other_disks) = split_disks(disks);
        let destination = self.output.destination()?;
        Ok(InjectRequest {
            other_disks,
            format: self.source.format,
            path_policy: self.source.path_policy(),
            disk: self.source.disk.clone(),
            nbd: self.source.nbd_options(),
            rehearsed: self.output.named()?,
            overwrite_output: self.output.overwrite,
            threads: self.workers.threads,
            bitlocker: self.bitlocker.keys()?,
            other_inputs: self.bitlocker.inputs().cloned().collect(),
            state: self.state.overrides(),
            skip_volume_check: self.check.skip_volume_check,
            keep_undo: !self.output.no_undo,
            cancel: signals::cancel(),
            ..InjectRequest::new(image, self.drivers.clone(), destination, environment::clock()?)
        })
    }
}

/// Runs the command.
///
/// # Errors
/// Those of [`job::apply`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let plan = SavedPlan::read(&args.plan)?;
    let disks = if args.image.is_empty() { plan.disks_in_its_folder()? } else { args.image.clone() };
    let request = args.request(disks)?;
    job::check_apply_outputs(&plan, &request, &args.report)?;
    carry_out(&request, &args.report, ui, |observer, report| job::apply_into(&plan, &request, observer, report))
}
