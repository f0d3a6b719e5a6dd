//! `winject recover`: completes an interrupted edit in place, or rolls it back.

use std::path::PathBuf;

use serde::Serialize;

use super::Ui;
use super::signals::{self, Subject};
use crate::block::PathPolicy;
use crate::block::commit::Recovery;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::job::{self, UNDO_GIVEN_UP};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  winject recover win.qcow2
  winject recover win.qcow2 --allow-path win-data.raw")]
pub struct Args {
    /// Disk image whose edit in place was interrupted: raw, qcow2 or a block device
    image: PathBuf,

    /// Let this file be written: the data file of a qcow2 has to be named itself; repeatable
    #[arg(long, value_name = "FILE")]
    allow_path: Vec<PathBuf>,
}

/// The answer in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Answer {
    /// Path of the image, as it was given.
    image: String,
    /// What was found and done.
    recovery: Recovery,
}

/// Runs the command.
///
/// # Errors
/// Those of [`job::recover`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let Args { image, allow_path } = args;
    let policy = allow_path.into_iter().fold(PathPolicy::default(), PathPolicy::allow);
    signals::set_subject(Subject::InPlace(image.clone()));
    let progress = ui.phase("recover", "Recovering the image");
    let recovery = job::recover(&image, &policy, &signals::cancel())?;
    drop(progress);
    let image = image.display();
    if ui.is_json() {
        ui.json_answer("recover", &Answer { image: image.to_string(), recovery })?;
    }
    ui.done(&match recovery {
        Recovery::Nothing => format!("Nothing to recover: no run was interrupted while it changed {image}."),
        Recovery::Restored => {
            format!("Recovered: the interrupted run was rolled back; {image} holds nothing of it.")
        }
        Recovery::Completed => {
            format!("Recovered: the interrupted run had written everything; {image} holds its changes.")
        }
        Recovery::Undone => {
            format!("Recovered: the interrupted undo was finished; {image} holds nothing of the edit.")
        }
        Recovery::GivenUp => format!("Not undone: {image}: {UNDO_GIVEN_UP}."),
    });
    Ok(ExitCode::Done)
}

/// Says what a command that changes an image has done first about an earlier, interrupted run.
pub(super) fn show_recovery(recovery: Recovery, ui: &Ui) {
    match recovery {
        Recovery::Nothing => {}
        Recovery::Restored => ui.note("an earlier run was interrupted; the image was restored first"),
        Recovery::Undone => ui.note("an undo was interrupted; it was finished first"),
        Recovery::GivenUp => ui.warn(UNDO_GIVEN_UP),
        Recovery::Completed => {
            ui.note("an earlier run was interrupted when it had written everything; it was completed first");
        }
    }
}
