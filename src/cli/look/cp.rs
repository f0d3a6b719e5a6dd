//! `winject cp`: copies files out of an image.

use std::ffi::OsString;
use std::path::Path;

use super::place::{Place, VolumeArgs};
use crate::cli::output::size;
use crate::cli::{Ui, signals};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;
use crate::exit::ExitCode;
use crate::job::Step;
use crate::job::look::{Copied, CopyRequest, PlannedCopy, copy_out};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Disk image (raw, qcow2, VMDK, OVA, VHD, VHDX or VDI), the paths in it, and the destination: a folder of the host,
    /// or the name of the copy; IMAGE:PATH is understood, too
    #[arg(required = true, num_args = 2.., value_name = "IMAGE PATH DESTINATION")]
    image: Vec<OsString>,

    /// Copy folders with all that lies in them; links are left out
    #[arg(short, long)]
    recursive: bool,

    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,

    /// List what would be written, and write nothing; no content is read
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    volume: VolumeArgs,
}

/// Runs the command.
///
/// # Errors
/// When a file is not there, or cannot be read or written. What was copied before that stays.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let usage = |what: &str| {
        Error::new(Kind::Usage, Layer::Cli, what)
            .hint("name the image, the files, and where to copy them: winject cp IMAGE /Windows/win.ini .")
    };
    let Some((destination, sources)) = args.image.split_last() else { return Err(usage("no destination given")) };
    let place = Place::parse(sources)?;
    if place.paths.is_empty() {
        return Err(usage("no file to copy, or no destination given"));
    }
    let progress = ui.phase(Step::Open.name(), Step::Open.title());
    let show = |done, total| progress.set(done, total);
    let request = CopyRequest {
        paths: place.paths.clone(),
        destination: Path::new(destination),
        recursive: args.recursive,
        overwrite: args.overwrite,
        dry_run: args.dry_run,
        other_inputs: args.volume.bitlocker.inputs().cloned().collect(),
        cancel: signals::cancel(),
        progress: (progress.is_shown() && !args.dry_run).then_some(&show as &dyn Fn(u64, u64)),
    };
    let copied = place.look(&args.volume, ui, |files| {
        progress.phase("copy-files", "Copying files");
        copy_out(files, &request)
    })?;
    drop(progress);
    answer(&copied, ui)?;
    let failed: Vec<_> = copied.skipped.iter().filter(|skipped| skipped.failed).collect();
    match failed.first() {
        Some(first) => {
            let what = format!("{} files were not copied, the first one: {}", failed.len(), first.reason);
            Err(Error::new(first.kind, Layer::Job, what)
                .path(first.path.clone())
                .hint("the warnings above name each of them and the reason"))
        }
        None => Ok(ExitCode::Done),
    }
}

fn answer(copied: &Copied, ui: &Ui) -> Result<()> {
    for skipped in &copied.skipped {
        let text = format!("{} not copied: {}", skipped.path, skipped.reason);
        if skipped.failed { ui.warn(&text) } else { ui.note(&text) }
    }
    if ui.is_json() {
        return ui.json_answer("cp", copied);
    }
    let Copied { files, folders, bytes, dry_run, copies, .. } = copied;
    for PlannedCopy { path, copy, bytes, replaces } in copies {
        let note = if *replaces { ", replaces the file there" } else { "" };
        ui.answer(&escape(&format!("{path} -> {copy} ({}{note})", size(*bytes))));
    }
    let plural = |count: u64, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let folders = if *folders == 0 { String::new() } else { format!(", {}", plural(*folders, "folder")) };
    let what = format!("{}{folders}, {}", plural(*files, "file"), size(*bytes));
    ui.done(&match dry_run {
        true => format!("Dry run: {what} would be copied; nothing was written."),
        false => format!("Copied {what}"),
    });
    Ok(())
}
