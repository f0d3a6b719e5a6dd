//! `winject apply`: does exactly what a saved plan says.

use std::path::PathBuf;

use super::args::{ImageArgs, NewImageArgs, StateArgs, VolumeCheckArgs, split_disks};
use super::bitlocker_args::BitLockerArgs;
use super::execute::carry_out;
use super::request::{no_destination, output_format, refuse_needless_no_undo};
use super::{Ui, environment, signals};
use crate::error::{Kind, Result};
use crate::exit::ExitCode;
use crate::job::{self, Destination, InjectRequest, SavedPlan};

#[derive(Debug, clap::Args)]
#[command(
    mut_arg("allow_dirty", |argument| argument.help("Edit a volume although it is marked dirty, as the plan does")),
    mut_arg("discard_ntfs_log", |argument| argument.help("Discard an open NTFS log, as the plan does")),
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

    /// Change the image itself; a journal in its folder makes an interrupted run undoable
    #[arg(long, conflicts_with_all = ["overlay", "to_output", "dry_run"])]
    in_place: bool,

    /// Keep no undo record after --in-place, and remove an earlier one if anything is changed
    #[arg(long)]
    no_undo: bool,

    /// Write the changes to a small new qcow2 file that is backed by the untouched image
    #[arg(long, value_name = "NEW.qcow2", conflicts_with_all = ["to_output", "dry_run"])]
    overlay: Option<PathBuf>,

    /// Write a whole new image with the changes
    #[arg(short = 'o', long, value_name = "NEW", conflicts_with = "dry_run")]
    to_output: Option<PathBuf>,

    /// Compare the plan with the image, verify what it would write, and write nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    new_image: NewImageArgs,

    /// Replace an output file that exists
    #[arg(long)]
    overwrite: bool,

    /// Use this many worker threads [default: as many as are useful]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    #[command(flatten)]
    source: ImageArgs,

    /// Write a report: FILE.json is JSON, FILE.md is Markdown and writes FILE.json, too; repeatable
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
        let destination = self.destination()?;
        refuse_needless_no_undo(self.no_undo, &destination)?;
        Ok(InjectRequest {
            other_disks,
            format: self.source.format,
            path_policy: self.source.path_policy(),
            disk: self.source.disk.clone(),
            overwrite_output: self.overwrite,
            threads: self.threads,
            bitlocker: self.bitlocker.keys()?,
            other_inputs: self.bitlocker.inputs().cloned().collect(),
            state: self.state.overrides(),
            skip_volume_check: self.check.skip_volume_check,
            keep_undo: !self.no_undo,
            cancel: signals::cancel(),
            ..InjectRequest::new(image, self.drivers.clone(), destination, environment::clock()?)
        })
    }

    /// Nothing is changed by surprise: a destination has to be given.
    fn destination(&self) -> Result<Destination> {
        match (self.dry_run, self.in_place, &self.overlay, &self.to_output) {
            (true, ..) => Ok(Destination::DryRun),
            (_, true, ..) => Ok(Destination::InPlace),
            (_, _, Some(path), _) => Ok(Destination::Overlay(path.clone())),
            (_, _, _, Some(path)) => Ok(Destination::Standalone {
                path: path.clone(),
                format: output_format(&self.new_image, path),
                compression: self.new_image.compression(),
                checksum: self.new_image.checksum,
            }),
            _ => Err(no_destination(Kind::Refused)
                .hint("--overlay NEW.qcow2 keeps the image as it is; --in-place changes it; --dry-run only compares")),
        }
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
