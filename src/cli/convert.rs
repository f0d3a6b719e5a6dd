//! `winject convert`: writes a new image in one pass, on request with drivers injected.

use std::path::PathBuf;

use serde::Serialize;

use super::Ui;
use super::args::{GuestArgs, ImageArgs, NewImageArgs};
use super::execute::execute;
use super::output::size;
use super::request::{InjectSpec, output_format};
use super::signals::{self, Subject};
use crate::block::convert::{ConvertOptions, ConvertProgress, Converted, convert};
use crate::block::{self, Stage, StageOptions};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;
use crate::exit::ExitCode;
use crate::job::Step;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The input is never changed. The output gets its name when it is complete and on stable storage."
)]
pub struct Args {
    /// Disk image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI
    input: PathBuf,

    /// File to write the new image to
    output: PathBuf,

    #[command(flatten)]
    new_image: NewImageArgs,

    /// Replace an output file that exists
    #[arg(long)]
    overwrite: bool,

    /// Use this many worker threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Inject drivers from this folder or ISO image on the way (see winject inject); repeatable
    #[arg(long, value_name = "DRIVERS")]
    inject: Vec<PathBuf>,

    /// With --inject: look for boot files on this other disk of the same machine, too, which is only read; repeatable
    #[arg(long, value_name = "DISK", requires = "inject")]
    other_disk: Vec<PathBuf>,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten, next_help_heading = "With --inject")]
    guest: GuestArgs,
}

impl From<Args> for InjectSpec {
    fn from(args: Args) -> Self {
        let Args { input, output, new_image, overwrite, threads, inject, other_disk, source, guest } = args;
        Self {
            windows_disk: (!other_disk.is_empty()).then(|| input.clone()),
            other_disks: other_disk,
            image: input,
            drivers: inject,
            to_output: Some(output),
            new_image,
            overwrite,
            threads,
            source,
            guest,
            ..Self::default()
        }
    }
}

/// The answer in JSON, of a conversion without drivers.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Answer<'a> {
    /// Path of the image that was read, as it was given.
    image: String,
    /// Its format.
    format: String,
    /// Path of the new image, as it was given.
    output: String,
    /// Its format.
    output_format: String,
    /// Length of the disk in bytes.
    virtual_size: u64,
    /// Bytes of the disk that were read, holes left out.
    bytes_read: u64,
    /// Bytes of data that were written, after compression.
    bytes_written: u64,
    /// Length of the new file in bytes.
    file_length: u64,
    /// SHA-256 of the new file, in hexadecimal; left out unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
}

/// Runs the command.
///
/// # Errors
/// See [`convert`] and [`block::open`]; with `--inject`, those of [`execute`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    if !args.inject.is_empty() {
        // The same conversion as a job of `inject`: the changes are merged in the same pass.
        return execute(&args.into(), ui);
    }
    if args.guest != GuestArgs::default() {
        let message = "an option for the injection of drivers is given, but no drivers are";
        return Err(Error::new(Kind::Usage, Layer::Cli, message).hint("add --inject DRIVERS, or leave the option out"));
    }
    let compression = args.new_image.compression();
    let options = ConvertOptions {
        format: output_format(&args.new_image, &args.output),
        compression: compression.map(|(kind, _)| kind),
        level: compression.and_then(|(_, level)| level),
        threads: args.threads,
        checksum: args.new_image.checksum,
        overwrite: args.overwrite,
        cancel: signals::cancel(),
        ..ConvertOptions::default()
    };
    signals::set_subject(Subject::Output(args.output.clone()));
    let image = block::open(&args.input, &args.source.open_options())?;
    let input = image.format();
    for warning in block::use_notes(&*image) {
        ui.warn(&warning);
    }
    let stage = Stage::new(image, StageOptions::default());
    let done = with_progress(&stage, &args, &options, ui)?;
    if ui.is_json() {
        let answer = Answer {
            image: args.input.display().to_string(),
            format: input.to_string(),
            output: args.output.display().to_string(),
            output_format: options.format.to_string(),
            virtual_size: done.virtual_size,
            bytes_read: done.bytes_read,
            bytes_written: done.bytes_written,
            file_length: done.file_length,
            sha256: done.sha256.as_deref(),
        };
        ui.json_answer("convert", &answer)?;
    }
    ui.done(&format!(
        "{} ({input}) -> {} ({}): {} of {} read, {} written",
        args.input.display(),
        args.output.display(),
        options.format,
        size(done.bytes_read),
        size(done.virtual_size),
        size(done.bytes_written),
    ));
    if let Some(sum) = &done.sha256 {
        ui.answer(&escape(&format!("{sum}  {}", args.output.display())));
    }
    Ok(ExitCode::Done)
}

fn with_progress(stage: &Stage, args: &Args, options: &ConvertOptions<'_>, ui: &Ui) -> Result<Converted> {
    let bar = ui.phase(Step::Copy.name(), "Converting");
    let report = |p: ConvertProgress| bar.set(p.done, p.total);
    convert(stage, &args.output, &ConvertOptions { progress: Some(&report), ..options.clone() })
}
