//! `winject undo`: takes the last edit in place back.

use std::path::PathBuf;

use super::Ui;
use super::signals::{self, Subject};
use crate::block::PathPolicy;
use crate::block::commit::UndoOptions;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::job;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
An edit in place keeps what it overwrites in IMAGE.winject-undo, unless it is told --no-undo. The next edit in place \
that changes anything replaces that record. Writing a new image or an overlay changes no image: it is undone by deleting the new file.

Examples:
  winject undo win.qcow2
  winject undo win.qcow2 --dry-run
  winject undo win.qcow2 --forget")]
pub struct Args {
    /// Disk image that was edited in place: raw, qcow2 or a block device
    image: PathBuf,

    /// Check whether the edit can be undone, and write nothing
    #[arg(short = 'n', long, conflicts_with = "forget")]
    dry_run: bool,

    /// Remove the undo record, and leave the image as it is
    #[arg(long)]
    forget: bool,

    /// Accept a record of another file: image and record were copied together
    #[arg(long, conflicts_with = "forget")]
    copied: bool,

    /// Let this file be written: the data file of a qcow2 has to be named itself; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "forget")]
    allow_path: Vec<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Those of [`job::undo`] and [`job::forget_undo`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let Args { image, dry_run, forget, copied, allow_path } = args;
    let shown = image.display();
    if forget {
        job::forget_undo(&image)?;
        ui.done(&format!("Forgotten: the last edit of {shown} can no longer be undone."));
        return Ok(ExitCode::Done);
    }
    let options = UndoOptions {
        path_policy: allow_path.into_iter().fold(PathPolicy::default(), PathPolicy::allow),
        cancel: signals::cancel(),
        is_copied: copied,
        is_dry_run: dry_run,
        ..UndoOptions::default()
    };
    if !dry_run {
        signals::set_subject(Subject::InPlace(image.clone()));
    }
    let done = job::undo(&image, &options)?;
    done.warnings.iter().for_each(|warning| ui.warn(warning));
    let bytes = done.bytes_restored;
    ui.done(&match (done.was_undone, dry_run) {
        // What something else wrote elsewhere stays, and is not known.
        (true, true) => {
            format!(
                "Undone already: all that the edit wrote to {shown} is as it was before; only its undo record is left."
            )
        }
        (true, false) => {
            format!(
                "Undone already: all that the edit wrote to {shown} is as it was before; its undo record was removed."
            )
        }
        (false, true) => format!("Can be undone: {bytes} bytes of {shown} would get their old content back."),
        (false, false) => {
            format!("Undone: all that the edit wrote to {shown} is as it was before ({bytes} bytes restored).")
        }
    });
    Ok(ExitCode::Done)
}
