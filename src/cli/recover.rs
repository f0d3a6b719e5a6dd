//! `winject recover`: completes an interrupted edit in place, or rolls it back.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Ui;
use super::environment;
use super::execute::Watcher;
use super::progress::connection_status;
use super::signals::{self, Subject};
use crate::block::PathPolicy;
use crate::block::commit::{InterruptedRun, Recovery};
use crate::error::Result;
use crate::exit::ExitCode;
use crate::host::is_nbd_name;
use crate::job::{self, UNDO_GIVEN_UP};
use crate::nbd::NbdOptions;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  winject recover win.qcow2
  winject recover win.qcow2 --dry-run
  winject recover win.qcow2 --allow-path win-data.raw")]
pub struct Args {
    /// Disk image whose edit in place was interrupted: raw, qcow2, a block device or an NBD URI
    image: PathBuf,

    /// Show whether an edit was interrupted, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Let this file be written: the data file of a qcow2 has to be named itself; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    allow_path: Vec<PathBuf>,
}

/// The answer in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Answer {
    /// Path of the image, as it was given.
    image: String,
    /// Whether nothing was to be written.
    dry_run: bool,
    /// For a dry run what was interrupted; `null` if nothing was, and for other runs.
    interrupted: Option<InterruptedRun>,
    /// What was found and done; left out for a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery: Option<Recovery>,
    /// The journal of an NBD export, which is kept when it has been used; left out for files.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_journal: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Those of [`job::recover_image`].
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let Args { image, dry_run, allow_path } = args;
    // What was begun is finished, whatever signals come.
    let nbd =
        NbdOptions { journals: environment::journal_folder(), status: connection_status(), ..NbdOptions::default() };
    if dry_run {
        let shown = image.display();
        let interrupted = job::find_interrupted(&image, &nbd)?;
        if ui.is_json() {
            ui.json_answer(
                "recover",
                &Answer { image: shown.to_string(), dry_run, interrupted, recovery: None, kept_journal: None },
            )?;
        }
        ui.done(&match interrupted {
            None => nothing(&image, &nbd),
            Some(InterruptedRun::Edit) => {
                format!("Can be recovered: an edit of {shown} was interrupted, and is completed or rolled back.")
            }
            Some(InterruptedRun::Undo) => {
                format!("Can be recovered: an undo of {shown} was interrupted, and is finished.")
            }
        });
        return Ok(ExitCode::Done);
    }
    let policy = allow_path.into_iter().fold(PathPolicy::default(), PathPolicy::allow);
    signals::set_subject(Subject::InPlace(image.clone()));
    let recovered = job::recover_image(&image, &policy, &nbd, &signals::cancel(), &Watcher::new(ui))?;
    let (name, image, recovery) = (&image, image.display(), recovered.recovery);
    let kept_journal = recovered.kept_journal.map(|path| path.display().to_string());
    if ui.is_json() {
        ui.json_answer(
            "recover",
            &Answer {
                image: image.to_string(),
                dry_run,
                interrupted: None,
                recovery: Some(recovery),
                kept_journal: kept_journal.clone(),
            },
        )?;
    }
    ui.done(&match recovery {
        Recovery::Nothing => nothing(name, &nbd),
        Recovery::Restored => {
            format!("Recovered: the interrupted run was rolled back; {image} holds nothing of it.")
        }
        Recovery::Completed => {
            format!("Recovered: the interrupted run had written everything; {image} holds its changes.")
        }
        Recovery::Undone => {
            format!("Recovered: the interrupted undo was finished; {image} holds nothing of the edit.")
        }
        Recovery::NotWritten => format!(
            "Nothing rolled back: {image} holds nothing of the interrupted run. The run had not written to it, or it is another \
             disk, which begins like the one that was edited."
        ),
        Recovery::GivenUp => format!("Not undone: {image}: {UNDO_GIVEN_UP}."),
    });
    if let Some(journal) = kept_journal {
        ui.note(&format!(
            "the journal is kept: {journal}; remove it when neither the edited disk nor a copy of it is half written any more"
        ));
    }
    Ok(ExitCode::Done)
}

/// What is said when no journal is found. That of an export is looked for in one folder.
fn nothing(image: &Path, nbd: &NbdOptions) -> String {
    let shown = image.display();
    match nbd.journals.as_ref().filter(|_| is_nbd_name(image)) {
        None => format!("Nothing to recover: no run was interrupted while it changed {shown}."),
        Some(folder) => format!(
            "Nothing to recover: no journal in {} is of an interrupted run on {shown}. Other users and machines, and runs with \
             another WINJECT_JOURNALS, have theirs elsewhere.",
            folder.display()
        ),
    }
}

/// Says what a command that changes an image has done first about an earlier, interrupted run.
pub(super) fn show_recovery(recovery: Recovery, ui: &Ui) {
    match recovery {
        Recovery::Nothing | Recovery::NotWritten => {}
        Recovery::Restored => ui.note("an earlier run was interrupted; the image was restored first"),
        Recovery::Undone => ui.note("an undo was interrupted; it was finished first"),
        Recovery::GivenUp => ui.warn(UNDO_GIVEN_UP),
        Recovery::Completed => {
            ui.note("an earlier run was interrupted when it had written everything; it was completed first");
        }
    }
}
