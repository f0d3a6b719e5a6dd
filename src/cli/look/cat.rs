//! `winject cat`: prints the content of files of an image.

use std::ffi::OsString;
use std::io::IsTerminal;

use super::place::{Place, VolumeArgs};
use crate::cli::{Ui, signals};
use crate::error::{Error, Kind, Layer, Result};
use crate::exit::ExitCode;
use crate::job::look::{read_content, select};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Disk image (raw, qcow2, VMDK, OVA, VHD, VHDX or VDI), then the paths in it; or IMAGE:PATH. PATH:STREAM is an
    /// alternate data stream
    #[arg(required = true, value_name = "IMAGE PATH")]
    image: Vec<OsString>,

    #[command(flatten)]
    volume: VolumeArgs,
}

/// Runs the command.
///
/// # Errors
/// When a file is not there or cannot be read.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let place = Place::parse(&args.image)?;
    if place.paths.is_empty() {
        return Err(Error::new(Kind::Usage, Layer::Cli, "no file named")
            .hint("name the image, then the files: winject cat IMAGE /Windows/win.ini"));
    }
    if ui.is_json() {
        return Err(Error::new(Kind::Usage, Layer::Cli, "cannot print content as JSON")
            .hint("leave --json out; winject ls --json lists the files"));
    }
    let is_terminal = std::io::stdout().is_terminal();
    let cancel = signals::cancel();
    place.look(&args.volume, ui, |files| {
        for path in &place.paths {
            for found in select(files, path)? {
                read_content(files, &found, &mut |bytes| {
                    cancel.check()?;
                    if is_terminal {
                        ui.answer_part(&String::from_utf8_lossy(bytes).replace('\r', ""));
                        Ok(())
                    } else {
                        ui.raw(bytes)
                    }
                })?;
            }
        }
        Ok(ExitCode::Done)
    })
}
