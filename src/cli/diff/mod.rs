//! `winject diff`: what differs between two images, or what a saved plan changes in one.
//!
//! `answer` prints the differences as they are found: `listing` for people, `json` for programs.

mod answer;
mod json;
mod listing;

pub use json::{Item as DiffItem, Summary as DiffSummary};

use std::path::PathBuf;

use answer::Answer;

use super::args::{ImageArgs, OverrideArgs, StateArgs, VolumeCheckArgs, split_disks};
use super::bitlocker_args::BitLockerArgs;
use super::execute::Watcher;
use super::numbers::parse_partition;
use super::{Ui, environment, reg, signals};
use crate::error::{Error, Kind, Layer, Result};
use crate::exit::ExitCode;
use crate::hive::reg_file::KeyPath;
use crate::job::diff::{
    Change, CompareOptions, Compared, DiffRequest, Difference, Scope, See, diff_images, diff_with_plan,
};
use crate::job::{Destination, InjectRequest, SavedPlan};
use crate::nbd::network_notes;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  winject diff before.qcow2 after.qcow2
  winject diff before.qcow2 after.qcow2 --reg --utf8
  winject diff win.qcow2 --plan plan.json --drivers virtio-win.iso
  winject diff win.qcow2 win-virtio.qcow2 --quick --partition 3")]
pub struct Args {
    /// Disk image before the change, and the one after it; with --plan the image of the plan, of a plan for several disks all
    /// of them [default with --plan: the images that the plan names, in its folder]
    #[arg(required_unless_present = "plan", value_name = "OLD NEW")]
    images: Vec<PathBuf>,

    /// Compare the image with what this saved plan makes of it; nothing is written
    #[arg(long, value_name = "PLAN.json")]
    plan: Option<PathBuf>,

    /// Find the plan's files in this folder or ISO image, by their path or their hash; repeatable
    #[arg(long, value_name = "PATH", requires = "plan")]
    drivers: Vec<PathBuf>,

    /// Compare only the partition of this number, counted as Linux does (0: the image is a volume without a partition table)
    #[arg(long, value_name = "NUMBER", value_parser = parse_partition)]
    partition: Option<u32>,

    /// Take files of the same size and time of the last change for the same, and do not read them
    #[arg(long, conflicts_with = "reg")]
    quick: bool,

    /// Compare the registry alone, and print a .reg file that makes the old one the new one
    #[arg(long)]
    reg: bool,

    /// Write UTF-8 instead of UTF-16, in the form that `hivexregedit --merge` takes
    #[arg(long, requires = "reg")]
    utf8: bool,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten)]
    bitlocker: BitLockerArgs,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    check: VolumeCheckArgs,
}

/// Runs the command.
///
/// # Errors
/// When an image cannot be read, a plan does not fit it, or files could not be compared and no difference was found.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let compared = if args.reg { args.print_reg(ui)? } else { args.print_differences(ui)? };
    let notes = network_notes(&args.images);
    compared.warnings.iter().chain(&notes).for_each(|warning| ui.warn(warning));
    let Some(unread) = &compared.unread else {
        return Ok(if compared.is_same() { ExitCode::Done } else { ExitCode::No });
    };
    let files = if unread.count == 1 { "a file" } else { &format!("{} files, the first one", unread.count) };
    let error = Error::new(unread.first.kind(), Layer::Cli, format!("cannot compare {files}: {}", unread.first))
        .hint("--quick compares files by size and time, and does not read those for which both are the same");
    if compared.is_same() {
        return Err(error);
    }
    ui.warn(&error.to_string());
    Ok(ExitCode::No)
}

impl Args {
    fn print_differences(&self, ui: &Ui) -> Result<Compared> {
        let mut answer = Answer::begin(ui)?;
        let compared = self.compare(Scope::All, ui, &mut |difference| answer.add(difference))?;
        answer.finish(&compared)?;
        Ok(compared)
    }

    fn print_reg(&self, ui: &Ui) -> Result<Compared> {
        if ui.is_json() {
            return Err(Error::new(Kind::Usage, Layer::Cli, "cannot print a .reg file as JSON")
                .hint("leave out --reg: --json prints the differences of the registry, too"));
        }
        let mut compared = Compared::default();
        reg::write_reg(None, self.utf8, None, ui, &mut |sink| {
            let mut last: Option<KeyPath> = None;
            compared = self.compare(Scope::Registry, ui, &mut |difference| match difference {
                Difference::Key { change, key } => {
                    last = Some((*key).clone());
                    sink.key(key, *change == Change::Removed)
                }
                Difference::Value { key, name, new, .. } => {
                    if last.as_ref() != Some(key) {
                        last = Some((*key).clone());
                        sink.key(key, false)?;
                    }
                    sink.value(name, *new)
                }
                Difference::Volume(_) | Difference::File(_) => Ok(()),
            })?;
            Ok(())
        })?;
        Ok(compared)
    }

    fn compare(&self, scope: Scope, ui: &Ui, see: &mut See<'_>) -> Result<Compared> {
        let options = CompareOptions {
            scope,
            partition: self.partition,
            replay: self.state.replay.into(),
            is_quick: self.quick,
            cancel: signals::cancel(),
        };
        match &self.plan {
            Some(path) => self.compare_with_plan(&SavedPlan::read(path)?, &options, ui, see),
            None => {
                let request = self.images_request(options)?;
                diff_images(&request, see)
            }
        }
    }

    fn images_request(&self, compare: CompareOptions) -> Result<DiffRequest> {
        let usage = |what: &str, hint: &str| Err(Error::new(Kind::Usage, Layer::Cli, what).hint(hint));
        let [old, new] = self.images.as_slice() else {
            return usage(
                "cannot compare the images: not two of them",
                "name the one before the change and the one after it: winject diff OLD NEW",
            );
        };
        if self.state.overrides != OverrideArgs::default() || self.check.skip_volume_check {
            return usage(
                "cannot use --allow-dirty, --discard-… and --skip-volume-check: they repeat what a plan was made with",
                "leave them out, or name the plan: --plan PLAN.json",
            );
        }
        Ok(DiffRequest {
            old: old.clone(),
            new: new.clone(),
            options: self.source.open_options(),
            bitlocker: self.bitlocker.keys()?,
            compare,
        })
    }

    fn compare_with_plan(
        &self,
        plan: &SavedPlan,
        options: &CompareOptions,
        ui: &Ui,
        see: &mut See<'_>,
    ) -> Result<Compared> {
        let disks = if self.images.is_empty() { plan.disks_in_its_folder()? } else { self.images.clone() };
        let (image, other_disks) = split_disks(disks);
        let (drivers, clock) = (self.drivers.clone(), environment::clock()?);
        let request = InjectRequest {
            other_disks,
            format: self.source.format,
            path_policy: self.source.path_policy(),
            disk: self.source.disk.clone(),
            nbd: self.source.nbd_options(),
            bitlocker: self.bitlocker.keys()?,
            other_inputs: self.bitlocker.inputs().cloned().collect(),
            state: self.state.overrides(),
            skip_volume_check: self.check.skip_volume_check,
            cancel: signals::cancel(),
            ..InjectRequest::new(image, drivers, Destination::DryRun, clock)
        };
        let watcher = Watcher::new(ui);
        // A progress line and the differences do not share the terminal.
        diff_with_plan(plan, &request, &watcher, options, &mut |difference| {
            watcher.pause();
            see(difference)
        })
    }
}
