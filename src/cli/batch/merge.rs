//! `winject batch merge`: the results of several shards and runs as one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::{Ui, signals};
use crate::error::Result;
use crate::escape::shell_argument;
use crate::exit::ExitCode;
use crate::fleet::files::{self, PAGE_FILE};
use crate::fleet::list;
use crate::fleet::merge::Merged;
use crate::fleet::record::EVENTS_FILE;
use crate::fleet::summary::summary;
use crate::fleet::tally::Tally;
use crate::host::folder_of;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Of each item the last attempt that came to it counts. Every item has to be there exactly once: it is an error when a shard \
or an item is missing, or when two shards have the same item.

Exit codes: 0 the results are whole; 1 something is missing or double; 2 usage. What became of the items does not count.

Examples:
  winject batch merge results
  winject batch merge results/shard-* -o merged")]
pub(super) struct Args {
    /// Results folders of winject batch --results; patterns in quotes are expanded, too
    #[arg(value_name = "FOLDER", required = true)]
    folders: Vec<PathBuf>,

    /// Write items.jsonl, fleet.html, junit.xml and winject.prom into this folder
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// The answer in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct Answer {
    /// `inspect`, `check`, `inject` or `convert`.
    job: String,
    /// Whether the job wrote nothing.
    dry_run: bool,
    /// How many shards there are.
    shards: u32,
    /// How many items all shards have together.
    expected: u64,
    /// How many items have a result.
    items: u64,
    /// Number of items by the outcome of their last attempt.
    outcomes: BTreeMap<String, u64>,
    /// Items for which a further attempt can succeed.
    retryable: u64,
    /// Whether every item is there exactly once.
    is_whole: bool,
    /// What is missing, double or does not belong together, a sentence each.
    faults: Vec<String>,
    /// Shards without results, counted from 0; the first hundred.
    missing_shards: Vec<u32>,
    /// How many items are missing.
    missing_items: u64,
    /// Items that are missing; the first hundred whose ids are known.
    missing: Vec<String>,
    /// Items that are there twice; the first hundred.
    double: Vec<String>,
    /// Files that were written.
    files: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// For folders without results, or of different jobs, and when a file cannot be read or written.
pub(super) fn run(args: &Args, ui: &Ui) -> Result<ExitCode> {
    let folders = folders(args)?;
    let mut merged = Merged::read(&folders)?;
    let tally = merged.tally()?;
    let written = match &args.output {
        Some(folder) => files::write(&mut merged, &tally, folder, &folders, &signals::cancel())?,
        None => Vec::new(),
    };
    if ui.is_json() {
        ui.json_answer("batch-merge", &answer(&merged, &tally, &written))?;
    } else {
        let page = args.output.as_ref().map(|folder| shell_argument(&folder.join(PAGE_FILE), PAGE_FILE));
        for line in summary(&tally, None, page.as_deref()).lines() {
            ui.done(line);
        }
        merged.faults.sentences().iter().for_each(|fault| ui.warn(fault));
        if merged.unread > 0 {
            ui.note(&format!("lines that were cut off or are of another kind: {}", merged.unread));
        }
    }
    Ok(if merged.faults.is_empty() { ExitCode::Done } else { ExitCode::No })
}

/// The results folders. A pattern stands for those that have results: an image without a shell has nothing else to expand it.
fn folders(args: &Args) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for folder in &args.folders {
        let files = list::expand(&folder.join(EVENTS_FILE), Path::new(""))?;
        folders.extend(files.iter().map(|file| folder_of(file).to_owned()));
    }
    Ok(folders)
}

fn answer(merged: &Merged, tally: &Tally, written: &[PathBuf]) -> Answer {
    let faults = &merged.faults;
    Answer {
        job: merged.job.clone(),
        dry_run: merged.dry_run,
        shards: merged.shards,
        expected: merged.expected,
        items: tally.items(),
        outcomes: tally.outcomes.iter().map(|(outcome, count)| (outcome.name().to_owned(), *count)).collect(),
        retryable: tally.retryable,
        is_whole: faults.is_empty(),
        faults: faults.sentences(),
        missing_shards: faults.missing_shards.clone(),
        missing_items: faults.missing_items(),
        missing: faults.missing.named.clone(),
        double: faults.double.named.clone(),
        files: written.iter().map(|path| path.display().to_string()).collect(),
    }
}
