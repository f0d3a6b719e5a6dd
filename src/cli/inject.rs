//! `winject inject`, and `winject --config`, which runs the same job from a document.

use std::path::{Path, PathBuf};

use super::Ui;
use super::args::{
    ChosenDiskArgs, DriverArgs, GuestArgs, ImageArgs, ThreadArgs, refuse_needless_requests, split_disks,
};
use super::document::RunDocument;
use super::execute::execute;
use super::output_args::OutputArgs;
use super::request::InjectSpec;
use crate::error::{Error, Layer, Result};
use crate::exit::ExitCode;

#[derive(Debug, clap::Args)]
#[command(mut_arg("drivers", |argument| argument.required(true)))]
#[command(after_help = "\
Examples:
  winject inject win.vmdk --drivers virtio-win.iso -o win-virtio.qcow2
  winject inject win.qcow2 --drivers virtio-win.iso --overlay win-virtio.qcow2
  winject inject win.qcow2 --drivers virtio-win.iso --in-place --report report.md
  winject inject system.vmdk boot.vmdk --drivers virtio-win.iso -o win-virtio.qcow2
  winject inject win.qcow2 --drivers /usr/share/virtio-win --dry-run")]
pub struct Args {
    /// Disk image of a Windows that is shut down: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI; give all disks of a machine that
    /// has several, in any order: only the one with Windows is changed
    #[arg(required = true, value_name = "IMAGE")]
    image: Vec<PathBuf>,

    #[command(flatten)]
    media: DriverArgs,

    #[command(flatten)]
    chosen: ChosenDiskArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    workers: ThreadArgs,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten)]
    guest: GuestArgs,
}

impl From<Args> for InjectSpec {
    fn from(args: Args) -> Self {
        let Args { image, chosen, media, output, workers, source, guest } = args;
        let (image, other_disks) = split_disks(image);
        Self {
            image,
            other_disks,
            windows_disk: chosen.windows_disk,
            drivers: media.drivers,
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
/// Those of [`execute`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    execute(&args.into(), ui)
}

/// The injection that a document describes.
///
/// # Errors
/// What is wrong with the document.
pub fn spec_of_document(path: &Path) -> Result<InjectSpec> {
    Ok(RunDocument::load(path)?.spec)
}

/// Runs `winject --config FILE.yaml`.
///
/// # Errors
/// Those of [`execute`], and what is wrong with the document.
pub fn run_document(path: &Path, ui: &Ui) -> Result<ExitCode> {
    let document = RunDocument::load(path)?;
    for warning in &document.warnings {
        ui.warn(warning);
    }
    // Other readers of such documents create the output folder; users rely on it.
    if let (Some(folder), false) = (&document.output_dir, document.spec.output.dry_run) {
        std::fs::create_dir_all(folder).map_err(|error| {
            Error::io(Layer::Host, "cannot create the output folder", error)
                .path(folder.display().to_string())
                .hint("name another output_dir, or check the permissions")
        })?;
    }
    let spec = &document.spec;
    let names = spec.other_disks.iter().chain([&spec.image]).chain(&spec.source.allow_path);
    let names = names.map(PathBuf::as_path).chain(spec.output.new_file());
    refuse_needless_requests(spec.source.nbd_requests, names)?;
    execute(spec, ui)
}
