//! Replays the logs of raw NTFS volumes, and damages them at random: the campaign of `ntfs::log`.
//!
//! `ntfs_log summary FILE…` tells what is waiting; `ntfs_log replay FILE…` writes the replayed state into the files, which
//! must be copies; `ntfs_log check FILE…` runs the checker; `ntfs_log mutate FILE --count N --seed S` damages the log in
//! memory N times, and demands that the replay either refuses it or gives a result that the checker can judge.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/it/ntfs/log_damage.rs"]
mod log_damage;

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use log_damage::damage;
use winject::internals::error::{Error, Layer, Result};
use winject::internals::io::VolumeRead;
use winject::internals::ntfs::check::{CheckOptions, check};
use winject::internals::ntfs::log::{replay, summarize};
use winject::internals::units::VolumeOffset;

#[derive(Debug, Parser)]
#[command(about = "Replay and damage the logs of raw NTFS volumes")]
struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print what is waiting
    Summary { files: Vec<PathBuf> },
    /// Write the replayed state into the files
    Replay { files: Vec<PathBuf> },
    /// Run the checker
    Check { files: Vec<PathBuf> },
    /// Damage the log in memory, replay, and check
    Mutate {
        file: PathBuf,
        /// Damage it this many times
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// Begin the random choices with this number
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

struct Disk(std::fs::File, u64);

impl Disk {
    fn open(path: &PathBuf) -> Self {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        Self(file, length)
    }
}

impl VolumeRead for Disk {
    fn len(&self) -> u64 {
        self.1
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(buf, offset.0).map_err(|e| Error::io(Layer::Block, "read", e))
    }
}

fn mutate(file: &PathBuf, count: u64, seed: u64) -> bool {
    let outcome = damage(&Disk::open(file), count, seed);
    println!("{}: {count} damaged logs: {outcome:?}", file.display());
    true
}

fn write_back(path: &PathBuf) -> bool {
    let disk = Disk::open(path);
    let start = Instant::now();
    let replayed = match replay(&disk) {
        Ok(Some(replayed)) => replayed,
        Ok(None) => {
            println!("{}: closed", path.display());
            return true;
        }
        Err(e) => {
            println!("{}: refused: {e}", path.display());
            return false;
        }
    };
    let time = start.elapsed();
    for (at, data) in replayed.overlay.writes() {
        disk.0.write_all_at(data, at.0).unwrap();
    }
    let bytes: usize = replayed.overlay.writes().map(|(_, data)| data.len()).sum();
    let r = replayed.report;
    println!(
        "{}: replayed: {} redone, {} skipped, {} undone, {} transactions, {} files, {bytes} bytes, {time:?}",
        path.display(),
        r.redone,
        r.skipped,
        r.undone,
        r.transactions,
        r.file_count
    );
    assert_eq!(replay(&disk).unwrap(), None, "a second replay finds something to do");
    true
}

fn print_summary(path: &PathBuf) -> bool {
    let summary = summarize(&Disk::open(path)).unwrap();
    println!("{}: {:?} {:?}", path.display(), summary.version, summary.state);
    println!("  last {:#x}, {} records, {} open transactions", summary.last_lsn, summary.records, summary.transactions);
    for transaction in &summary.pending {
        println!("  transaction {:#x} {:?}, {} records", transaction.id, transaction.state, transaction.record_count);
        for record in &transaction.records {
            let target = record.target.as_ref().map(|t| format!("{} {} {}", t.file, t.kind, t.name));
            println!("    {:#x} {} / {} {target:?} {:?}", record.lsn, record.redo, record.undo, record.record);
        }
    }
    true
}

fn check_file(path: &PathBuf) -> bool {
    let report = check(&Disk::open(path), &CheckOptions::default()).unwrap();
    println!("{}: {} errors", path.display(), report.errors);
    if report.errors > 0 {
        println!("{report}");
    }
    report.errors == 0
}

fn main() -> ExitCode {
    let all = |files: &[PathBuf], act: fn(&PathBuf) -> bool| files.iter().filter(|file| !act(file)).count() == 0;
    let good = match Options::parse().action {
        Action::Summary { files } => all(&files, print_summary),
        Action::Replay { files } => all(&files, write_back),
        Action::Check { files } => all(&files, check_file),
        Action::Mutate { file, count, seed } => mutate(&file, count, seed),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
