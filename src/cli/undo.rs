//! `winject undo`: takes the last edit in place back.

use std::path::PathBuf;

use serde::Serialize;

use super::Ui;
use super::execute::Watcher;
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

/// The answer in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Answer<'a> {
    /// Path of the image, as it was given.
    image: String,
    /// What was done, or found.
    outcome: Outcome,
    /// Whether nothing was to be written.
    dry_run: bool,
    /// Bytes that got (for a dry run: would get) their old content back.
    bytes_restored: u64,
    /// What the user should know.
    warnings: &'a [String],
}

/// What became of the last edit.
#[derive(Debug, Clone, Copy, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It was taken back; for a dry run: it can be.
    Undone,
    /// All that it wrote was as before already.
    UndoneAlready,
    /// It can no longer be undone, as was asked for.
    Forgotten,
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
        if ui.is_json() {
            let outcome = Outcome::Forgotten;
            let answer = Answer { image: shown.to_string(), outcome, dry_run, bytes_restored: 0, warnings: &[] };
            ui.json_answer("undo", &answer)?;
        }
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
    let done = job::undo(&image, &options, &Watcher::new(ui))?;
    done.warnings.iter().for_each(|warning| ui.warn(warning));
    let bytes = done.bytes_restored;
    if ui.is_json() {
        let outcome = if done.was_undone { Outcome::UndoneAlready } else { Outcome::Undone };
        let warnings = &done.warnings;
        let answer = Answer { image: shown.to_string(), outcome, dry_run, bytes_restored: bytes, warnings };
        ui.json_answer("undo", &answer)?;
    }
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
