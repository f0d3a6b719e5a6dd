//! `winject check`: walks the boot chain of the Windows in an image.

use std::path::PathBuf;

use serde::Serialize;

use super::Ui;
use super::args::{ImageArgs, PartitionArgs, SignatureArg};
use crate::block::{self, Image};
use crate::clock::FileTime;
use crate::error::{Error, Kind, Layer, Result};
use crate::exit::ExitCode;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{self, Content, Partition, PartitionView};
use crate::windows::{self, BootCheck, BootDisk, Bus, CheckOptions};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The disk image
    image: PathBuf,

    /// Check for this bus of the disk [default: both]
    #[arg(long, value_parser = parse_bus, value_name = "virtio-blk|virtio-scsi")]
    bus: Option<Bus>,

    /// Require this of the driver's signature
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    signature_policy: SignatureArg,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    windows: PartitionArgs,

    #[command(flatten)]
    source: ImageArgs,
}

fn parse_bus(name: &str) -> std::result::Result<Bus, String> {
    let found = Bus::ALL.into_iter().find(|bus| bus.name() == name);
    found.ok_or_else(|| "use one of virtio-blk, virtio-scsi".to_owned())
}

/// The answer in JSON.
#[derive(Serialize)]
struct Answer {
    image: String,
    partition: u32,
    boots: bool,
    buses: Vec<BootCheck>,
    bytes_read: u64,
}

/// Runs the command.
///
/// # Errors
/// When the image cannot be read or holds no Windows. That it does not boot is an answer, not an error.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let image = block::open(&args.image, &args.source.open_options())?;
    let disk: &dyn Image = &*image;
    let table = partition::read(disk).map_err(|error| error.path(args.image.display().to_string()))?;
    let chosen = match args.windows.partition {
        Some(number) => table.partition(number)?,
        None => only_windows(&disk, &table.partitions)?,
    };
    if let Some(refusal) = chosen.refusal() {
        return Err(refusal);
    }
    let buses = args.bus.map_or_else(|| Bus::ALL.to_vec(), |bus| vec![bus]);
    let options = CheckOptions { signatures: args.signature_policy.into() };
    let on = BootDisk { disk: &disk, table: &table, partition: chosen };
    let reports = answers(&disk, &on, &buses, &options)?;
    let boots = reports.iter().any(|report| report.boots);
    if args.json {
        let answer = Answer {
            image: args.image.display().to_string(),
            partition: chosen.number,
            boots,
            buses: reports,
            bytes_read: image.bytes_read(),
        };
        ui.json(&answer)?;
    } else {
        let texts: Vec<String> = reports.iter().map(ToString::to_string).collect();
        ui.answer(&texts.join("\n"));
    }
    Ok(if boots { ExitCode::Done } else { ExitCode::No })
}

/// The partition with Windows, if there is exactly one.
fn only_windows<'a>(disk: &&dyn Image, partitions: &'a [Partition]) -> Result<&'a Partition> {
    let mut found = Vec::new();
    let mut first_error = None;
    for partition in partitions {
        if let Some(refusal) = partition.refusal().filter(|_| partition.content != Content::Fat) {
            first_error.get_or_insert(refusal);
        } else if partition.content == Content::Ntfs {
            let windows = PartitionView::new(disk, partition)
                .and_then(|view| Volume::open(view, &OpenOptions::read_only()))
                .and_then(|volume| windows::is_windows_volume(&volume));
            match windows {
                Ok(true) => found.push(partition),
                Ok(false) => {}
                Err(error) => drop(first_error.get_or_insert(error.path(partition.label()))),
            }
        }
    }
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(first_error.unwrap_or_else(|| {
            Error::new(Kind::NotWindows, Layer::Cli, "no Windows found")
                .hint("is this the disk that the guest starts from?")
        })),
        several => {
            let numbers: Vec<String> = several.iter().map(|p| p.number.to_string()).collect();
            Err(Error::refused(
                Layer::Cli,
                format!("several Windows installations found, in partitions {}", numbers.join(", ")),
            )
            .hint("choose one with --partition NUMBER"))
        }
    }
}

fn answers(disk: &&dyn Image, on: &BootDisk<'_>, buses: &[Bus], options: &CheckOptions) -> Result<Vec<BootCheck>> {
    let chosen = on.partition;
    let volume = Volume::open(PartitionView::new(disk, chosen)?, &OpenOptions::read_only())?;
    // opened as for an edit, the volume says in which state it is
    let state =
        PartitionView::new(disk, chosen).and_then(|view| Volume::open(view, &OpenOptions::new(FileTime(1)))).err();
    let mut reports = windows::boot_checks(&volume, Some(on), buses, options)?;
    for report in &mut reports {
        if let Some(state) = &state {
            report.add_state(state.to_string());
        }
    }
    Ok(reports)
}
