//! `winject convert`: writes a new image in one pass, on request with drivers injected.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Ui;
use super::args::{DriverArgs, GuestArgs, ImageArgs, ThreadArgs};
use super::execute::execute;
use super::output::size;
use super::output_args::{NewImageArgs, OutputArgs};
use super::request::InjectSpec;
use super::signals::{self, Subject};
use super::worker;
use crate::block::commit;
use crate::block::convert::{ConvertOptions, ConvertProgress, Converted, ExportCopy, Inputs, convert};
use crate::block::{self, Stage, StageOptions};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;
use crate::exit::ExitCode;
use crate::host::is_nbd_name;
use crate::job::{self, Destination, FinishedOutput, Step};

#[derive(Debug, clap::Args)]
#[command(
    mut_arg("drivers", |argument| argument.help("Inject drivers from this folder or ISO image on the way (see winject inject); repeatable")),
    after_help = "\
The input is never changed. The output gets its name when it is complete and on stable storage; an \
export is overwritten where it is. With --drivers this is the same as winject inject IMAGE --drivers PATH -o NEW.

Examples:
  winject convert win.vmdk win.qcow2
  winject convert -f vmdk -O raw win.vmdk /vms/win.img
  winject convert win.vmdk win.qcow2 --compress zstd --drivers virtio-win.iso"
)]
pub struct Args {
    /// Disk image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI; a file, a block device or an NBD URI
    #[arg(value_name = "IMAGE")]
    input: PathBuf,

    /// File to write the new image to, or the NBD URI of an export to overwrite
    #[arg(value_name = "NEW")]
    output: PathBuf,

    #[command(flatten)]
    new_image: NewImageArgs,

    /// Show what would be written, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Replace an output file that exists
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    workers: ThreadArgs,

    #[command(flatten)]
    media: DriverArgs,

    /// With --drivers: look for boot files on this other disk of the same machine, too, which is only read; repeatable
    #[arg(long, value_name = "IMAGE", requires = "drivers")]
    other_disk: Vec<PathBuf>,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten, next_help_heading = "With --drivers")]
    guest: GuestArgs,
}

impl From<Args> for InjectSpec {
    fn from(args: Args) -> Self {
        let Args { input, output, new_image, dry_run, overwrite, workers, media, other_disk, source, guest } = args;
        let output = OutputArgs { output: Some(output), new_image, dry_run, overwrite, ..OutputArgs::default() };
        Self {
            windows_disk: (!other_disk.is_empty()).then(|| input.clone()),
            other_disks: other_disk,
            image: input,
            drivers: media.drivers,
            output,
            threads: workers.threads,
            source,
            guest,
            ..Self::default()
        }
    }
}

/// The answer in JSON, of a conversion without drivers.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Answer {
    /// Path of the image that was read, as it was given.
    image: String,
    /// Its format.
    format: String,
    /// Path of the new image, as it was given.
    output: String,
    /// Its format.
    output_format: String,
    /// Whether nothing was to be written.
    dry_run: bool,
    /// Length of the disk in bytes.
    virtual_size: u64,
    /// What was written; left out for a dry run.
    #[serde(flatten)]
    written: Option<Written>,
}

/// A new image.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct Written {
    /// Bytes of the disk that were read, holes left out.
    bytes_read: u64,
    /// Bytes of data that were written, after compression.
    bytes_written: u64,
    /// Length of the new file in bytes; of an export, that of the disk in it.
    file_length: u64,
    /// SHA-256 of the new file, in hexadecimal; left out unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// See [`convert`] and [`block::open`]; with `--drivers`, those of [`execute`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let spec = InjectSpec::from(args);
    if !spec.drivers.is_empty() {
        // The same conversion as a job of `inject`: the changes are merged in the same pass.
        return execute(&spec, ui);
    }
    if spec.guest != GuestArgs::default() {
        let message = "an option for the injection of drivers is given, but no drivers are";
        return Err(Error::new(Kind::Usage, Layer::Cli, message).hint("add --drivers PATH, or leave the option out"));
    }
    let request = spec.request()?;
    if worker::is_worker()
        && let Some(finished) = job::find_finished_output(&request)?
    {
        worker::note_done_before();
        return show_finished(&finished, &spec, ui).map(|()| ExitCode::Done);
    }
    job::check_outputs(&request, &[])?;
    let Some(Destination::Standalone { path, format, compression, checksum }) = &spec.output.named()? else {
        return Err(Error::bug(Layer::Cli, "a conversion without an output"));
    };
    let options = ConvertOptions {
        format: *format,
        compression: compression.map(|(kind, _)| kind),
        level: compression.and_then(|(_, level)| level),
        threads: spec.threads,
        checksum: *checksum,
        overwrite: spec.output.overwrite,
        cancel: signals::cancel(),
        nbd: spec.source.nbd_options(),
        ..ConvertOptions::default()
    };
    let mut open_options = spec.source.open_options();
    open_options.nbd.is_edited = false;
    let image = block::open(&spec.image, &open_options)?;
    let input = image.format();
    for warning in block::use_notes(&*image) {
        ui.warn(&warning);
    }
    let (from, to) = (spec.image.display(), path.display());
    let stage = Stage::new(image, StageOptions::default());
    let answer = Answer {
        image: from.to_string(),
        format: input.to_string(),
        output: to.to_string(),
        output_format: format.to_string(),
        dry_run: spec.output.dry_run,
        virtual_size: stage.image().len(),
        written: None,
    };
    if spec.output.dry_run {
        if is_nbd_name(path) {
            // Connects to the server, and writes nothing.
            drop(ExportCopy::begin(&stage, Inputs::default(), path, &options)?);
        } else {
            commit::refuse_own_files(&stage.image().files(), path)?;
        }
        if ui.is_json() {
            ui.json_answer("convert", &answer)?;
        }
        let length = size(stage.image().len());
        ui.done(&format!(
            "Dry run: {from} ({input}, {length}) would be written to {to} ({format}); nothing was written."
        ));
        return Ok(ExitCode::Done);
    }
    signals::set_subject(Subject::Output(path.clone()));
    let done = with_progress(&stage, path, &options, ui)?;
    if ui.is_json() {
        let written = Some(Written {
            bytes_read: done.bytes_read,
            bytes_written: done.bytes_written,
            file_length: done.file_length,
            sha256: done.sha256.clone(),
        });
        ui.json_answer("convert", &Answer { written, ..answer })?;
    }
    ui.done(&format!(
        "{from} ({input}) -> {to} ({format}): {} of {} read, {} written",
        size(done.bytes_read),
        size(done.virtual_size),
        size(done.bytes_written),
    ));
    done.notes.iter().for_each(|note| ui.note(note));
    if let Some(sum) = &done.sha256 {
        ui.answer(&escape(&format!("{sum}  {to}")));
    }
    Ok(ExitCode::Done)
}

/// Shows the answer for an output that an earlier run wrote.
fn show_finished(finished: &FinishedOutput, spec: &InjectSpec, ui: &Ui) -> Result<()> {
    let FinishedOutput { report, virtual_size } = finished;
    let Some(Destination::Standalone { path, format, .. }) = &spec.output.named()? else { return Ok(()) };
    let cannot = |error| Error::io(Layer::Host, "cannot find the length of the output", error);
    let file_length = if is_nbd_name(path) {
        // As the run says that writes it.
        *virtual_size
    } else {
        std::fs::metadata(path).map_err(|error| cannot(error).path(path.display().to_string()))?.len()
    };
    let sha256 = report.run.output_sha256.clone();
    let written = Written { bytes_read: report.run.bytes_read, bytes_written: 0, file_length, sha256: sha256.clone() };
    let answer = Answer {
        image: spec.image.display().to_string(),
        format: report.run.image_format.clone().unwrap_or_default(),
        output: path.display().to_string(),
        output_format: format.to_string(),
        dry_run: false,
        virtual_size: *virtual_size,
        written: Some(written),
    };
    if ui.is_json() {
        ui.json_answer("convert", &answer)?;
    }
    if let Some(sum) = sha256 {
        ui.answer(&escape(&format!("{sum}  {}", path.display())));
    }
    Ok(())
}

fn with_progress(stage: &Stage, out: &Path, options: &ConvertOptions<'_>, ui: &Ui) -> Result<Converted> {
    let bar = ui.phase(Step::Copy.name(), "Converting");
    let report = |p: ConvertProgress| bar.set(p.done, p.total);
    convert(stage, out, &ConvertOptions { progress: Some(&report), ..options.clone() })
}
