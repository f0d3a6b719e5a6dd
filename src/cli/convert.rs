//! `winject convert`.

use std::path::PathBuf;

use super::args::ImageArgs;
use super::inject::{GuestArgs, StateArgs, with_choices};
use super::{Ui, environment, signals};
use crate::block::convert::{Compression, ConvertOptions, ConvertProgress, Converted, convert};
use crate::block::{self, Format, Stage, StageOptions};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;
use crate::exit::ExitCode;
use crate::job::{Destination, InjectRequest};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The input is never changed. The output appears under its name when it is complete and flushed."
)]
pub struct Args {
    /// The image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI
    input: PathBuf,

    /// The new image
    output: PathBuf,

    /// Format of the new image, qcow2 or raw; by default what its name says (.raw and .img: raw), else qcow2
    #[arg(short = 'O', long, value_name = "FORMAT")]
    output_format: Option<String>,

    /// Compresses the new qcow2: zlib (every QEMU reads it) or zstd (faster; QEMU 5.1 and later)
    #[arg(long, value_name = "ALGORITHM", num_args = 0..=1, default_missing_value = "zlib")]
    compress: Option<String>,

    /// The SHA-256 of the new file is computed and printed
    #[arg(long)]
    checksum: bool,

    /// Replaces the output if it is there
    #[arg(long)]
    overwrite: bool,

    /// Worker threads; by default as many as processors
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Folder or ISO image with drivers to inject on the way (see winject inject); repeatable
    #[arg(long, value_name = "DRIVERS")]
    inject: Vec<PathBuf>,

    /// With --inject: writes a report, FILE.md (and FILE.json beside it) or FILE.json
    #[arg(long, value_name = "FILE", requires = "inject")]
    report: Vec<PathBuf>,

    /// With --inject: the partition that Windows is in, as Linux counts
    #[arg(long, value_name = "N", requires = "inject")]
    partition: Option<u32>,

    /// With --inject: driver definitions (YAML) that are merged over the built-in ones
    #[arg(long, value_name = "FILE", visible_alias = "virtio-config", requires = "inject")]
    definitions: Option<PathBuf>,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten, next_help_heading = "With --inject")]
    guest: GuestArgs,

    #[command(flatten, next_help_heading = "With --inject")]
    state: StateArgs,
}

/// Runs the command.
///
/// # Errors
/// See [`convert`] and [`block::open`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let report = args.report.clone();
    let options = ConvertOptions {
        format: match &args.output_format {
            Some(name) => format(name)?,
            None => Format::from_extension(&args.output).unwrap_or(Format::Qcow2),
        },
        compression: args.compress.as_deref().map(compression).transpose()?,
        threads: args.threads,
        checksum: args.checksum,
        overwrite: args.overwrite,
        cancel: signals::cancel(),
        ..ConvertOptions::default()
    };
    if !args.inject.is_empty() {
        return super::inject::execute(&injection(args, &options)?, &report, ui);
    }
    if args.guest != GuestArgs::default() || args.state != StateArgs::default() {
        let what = "an option was given that changes how drivers are injected, but no drivers are";
        return Err(Error::new(Kind::Usage, Layer::Cli, what).hint("add --inject DRIVERS, or leave the option out"));
    }
    let image = block::open(&args.input, &args.source.open_options())?;
    let input = image.format();
    let stage = Stage::new(image, StageOptions::default());
    let done = with_progress(&stage, &args, &options, ui)?;
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

/// The same conversion as a job of `inject`: the changes are merged in the same pass.
fn injection(args: Args, options: &ConvertOptions<'_>) -> Result<InjectRequest> {
    let destination = Destination::Standalone {
        path: args.output,
        format: options.format,
        compression: options.compression.map(|kind| (kind, options.level)),
        checksum: options.checksum,
    };
    let request = InjectRequest {
        definitions: args.definitions,
        format: args.source.format,
        path_policy: args.source.path_policy(),
        disk: args.source.disk,
        overwrite_output: args.overwrite,
        partition: args.partition,
        threads: args.threads,
        cancel: signals::cancel(),
        ..InjectRequest::new(args.input, args.inject, destination, environment::clock()?)
    };
    with_choices(request, &args.guest, args.state)
}

fn with_progress(stage: &Stage, args: &Args, options: &ConvertOptions<'_>, ui: &Ui) -> Result<Converted> {
    let bar = ui.progress("Converting", stage.len());
    let report = |p: ConvertProgress| {
        // The bar's length is the disk's; holes are passed over at once.
        let share = if p.total == 0 { 1.0 } else { p.done as f64 / p.total as f64 };
        bar.set((share * stage.len() as f64) as u64);
    };
    convert(stage, &args.output, &ConvertOptions { progress: Some(&report), ..options.clone() })
}

fn format(name: &str) -> Result<Format> {
    Format::from_name(&name.to_ascii_lowercase()).ok_or_else(|| {
        Error::new(Kind::Usage, Layer::Cli, format!("no format is called {name}"))
            .hint("raw, qcow2, vmdk, vhd, vhdx, vdi")
    })
}

fn compression(name: &str) -> Result<Compression> {
    match name.to_ascii_lowercase().as_str() {
        "zlib" => Ok(Compression::Zlib),
        "zstd" => Ok(Compression::Zstd),
        _ => Err(Error::new(Kind::Usage, Layer::Cli, format!("no compression is called {name}")).hint("zlib or zstd")),
    }
}

/// A number of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}
