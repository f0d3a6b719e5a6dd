//! The evidence: what is left of an image, a hive or an output when a run of winject is killed, its system calls fail,
//! or the power goes. Thousands of such states are made and judged; each must be the old or the new content.
//!
//! `cargo run --release --example evidence -- --states 5000` prints one Markdown table; `--write` puts it into
//! docs/evidence.md. A state that is neither old nor new is kept, with the command that makes it again.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

#[path = "../../tests/it/block/crash_case.rs"]
mod crash_case;
#[path = "../../tests/it/block/interruption.rs"]
mod interruption;
#[path = "../../tests/it/block/made.rs"]
mod made;
#[path = "../../tests/it/support/mod.rs"]
mod support;
#[allow(dead_code)]
#[path = "../../tests/it/block/virtual_host.rs"]
mod virtual_host;

mod campaign;
mod files;
mod hold;
mod memory;
mod power;
mod process;
mod qemu;
mod row;
mod rows;
mod scene;
mod scenes;
mod short;
mod strace;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use campaign::Campaign;
use clap::Parser;
use row::Worker;
use rows::Rows;

/// Make states of interrupted runs, and count which are old, new, or mixed
#[derive(Debug, Parser)]
struct Options {
    /// Make about this many states
    #[arg(long, default_value_t = 5000)]
    states: u64,
    /// Begin the random choices with this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run only the rows whose "target: fault" contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Make only the state of this number in the row
    #[arg(long, value_name = "N", requires = "only")]
    state: Option<u64>,
    /// Put the table into docs/evidence.md
    #[arg(long, conflicts_with_all = ["only", "state"])]
    write: bool,
    /// Use this program [default: the one that cargo builds from these sources]
    #[arg(long, value_name = "FILE")]
    winject: Option<PathBuf>,
    /// Use this many threads [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Make the states in this folder, on a file system that knows holes [default: that of temporary files]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let winject = options.winject.clone().map_or_else(build, Ok)?;
    // Runs begin in other folders.
    let winject = winject.canonicalize().map_err(|error| format!("{}: {error}", winject.display()))?;
    let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("winject-evidence-").tempdir_in(parent).map_err(|e| e.to_string())?;
    let root = folder.path().canonicalize().map_err(|e| e.to_string())?;
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
    let workers: Vec<Worker> = (0..threads.max(1)).map(|index| Worker::new(&root, index)).collect();
    let rows = Rows::make(&root, &winject, options.seed, options.only.as_deref(), &workers[0])?;
    let campaign = Campaign { seed: options.seed, states: options.states, state: options.state, workers: &workers };
    let lines = campaign.run(rows);
    let table = table::markdown(&lines.done, options.seed);
    println!("{table}");
    if options.write {
        table::put(&support::root().join("docs/evidence.md"), &table)?;
    }
    Ok(if lines.has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Builds the program, in the same profile as this example.
fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(support::root()).args(["build", "--quiet", "--bin", "winject"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err("cannot build winject".into());
    }
    // Cargo puts examples into a folder next to the programs.
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = here.parent().and_then(Path::parent).ok_or("the example lies in no folder")?;
    Ok(folder.join("winject"))
}
