//! Replays the logs of raw NTFS volumes, and damages them at random: the campaign of `ntfs::log`.
//!
//! `ntfs_log summary FILE…` tells what is waiting; `ntfs_log replay FILE…` writes the replayed state into the files, which
//! must be copies; `ntfs_log check FILE…` runs the checker; `ntfs_log mutate FILE --count N --seed S` damages the log in
//! memory N times, and demands that the replay either refuses it or gives a result that the checker can judge.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use winject::internals::error::{Error, Kind, Layer, Result};
use winject::internals::io::VolumeRead;
use winject::internals::ntfs::boot::Geometry;
use winject::internals::ntfs::check::{CheckOptions, check};
use winject::internals::ntfs::log::{Overlay, Replayed, replay, summarize};
use winject::internals::ntfs::{attribute::AttributeType, fixup, record::Record, runlist::Runlist};
use winject::internals::random::Random;
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

/// A volume with bytes replaced, first those of the damaged log, then those of the replay.
struct Patched<'a> {
    disk: &'a Disk,
    log: Vec<(u64, Vec<u8>)>,
    overlay: Overlay,
}

impl VolumeRead for Patched<'_> {
    fn len(&self) -> u64 {
        self.disk.1
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.disk.read_at(offset, buf)?;
        let end = offset.0 + buf.len() as u64;
        for (at, data) in &self.log {
            let (from, to) = (offset.0.max(*at), end.min(at + data.len() as u64));
            if from < to {
                let part = &data[(from - at) as usize..(to - at) as usize];
                buf[(from - offset.0) as usize..(to - offset.0) as usize].copy_from_slice(part);
            }
        }
        self.overlay.patch(offset, buf);
        Ok(())
    }
}

fn errors(device: &impl VolumeRead) -> u64 {
    check(device, &CheckOptions::default()).unwrap().errors
}

/// Offsets of the log's pages on the volume.
fn log_pages(disk: &Disk) -> Vec<u64> {
    let mut boot = vec![0; 512];
    disk.read_at(VolumeOffset(0), &mut boot).unwrap();
    let geometry = Geometry::parse(&boot).unwrap();
    let mut raw = vec![0; geometry.record_size as usize];
    let offset = geometry.bytes_in(geometry.mft.0) + 2 * u64::from(geometry.record_size);
    disk.read_at(VolumeOffset(offset), &mut raw).unwrap();
    let record = Record::parse(raw).unwrap();
    let data = record.find(AttributeType::DATA, "").unwrap();
    let runs: Runlist = data.runlist(geometry.cluster_count).unwrap();
    let mut pages = Vec::new();
    for (lcn, count) in runs.real() {
        pages.extend((0..geometry.bytes_in(count) / 4096).map(|n| geometry.bytes_in(lcn.0) + n * 4096));
    }
    pages
}

fn page(disk: &Disk, at: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    disk.read_at(VolumeOffset(at), &mut page).unwrap();
    page
}

/// Changes bytes of a page, behind its fix-up.
fn damage_inside(page: &mut [u8], random: &mut Random) {
    let magic = *page.first_chunk().unwrap();
    let sealed = fixup::unseal(page, magic).is_ok();
    for _ in 0..1 + random.index(3) {
        let at = match random.index(3) {
            0 => random.index(0x100),
            _ => random.index(4096),
        };
        match random.index(4) {
            0 => page[at] = random.byte(),
            1 => page[at] ^= 1 << random.index(8),
            2 => page[at] = page[at].wrapping_add(1),
            _ => page[at] = [0, 0xFF, 0x7F, 0x80][random.index(4)],
        }
    }
    if sealed {
        let _ = fixup::seal(page);
    }
}

fn mutate(file: &PathBuf, count: u64, seed: u64) -> bool {
    let disk = Disk::open(file);
    let pages = log_pages(&disk);
    let used: Vec<u64> = pages.iter().copied().filter(|&at| page(&disk, at).starts_with(b"RCRD")).collect();
    // the newest quarter holds what the replay reads
    let mut newest = used.clone();
    newest.sort_by_key(|&at| u64::from_le_bytes(page(&disk, at)[0x20..0x28].try_into().unwrap()));
    let newest = newest.split_off(newest.len() * 3 / 4);
    let sound: Replayed = replay(&disk).unwrap();
    let clean = Patched { disk: &disk, log: Vec::new(), overlay: sound.overlay.clone() };
    assert_eq!(errors(&clean), 0, "the volume itself is not clean");
    let outside = |overlay: &Overlay| -> Vec<(u64, Vec<u8>)> {
        let blocks = overlay.writes().flat_map(|(at, data)| {
            data.chunks(512).enumerate().map(move |(n, block)| (at.0 + 512 * n as u64, block.to_vec()))
        });
        blocks.filter(|(at, _)| !pages.contains(&(at & !4095))).collect()
    };
    let want = outside(&sound.overlay);
    let (mut equal, mut refused, mut other, mut dirty) = (0u64, 0u64, 0u64, 0u64);
    for number in 0..count {
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let mut log: Vec<(u64, Vec<u8>)> = Vec::new();
        for _ in 0..1 + random.index(2) {
            let at = match random.index(8) {
                0 => pages[random.index(2)],
                1 => used[random.index(used.len())],
                _ => newest[random.index(newest.len())],
            };
            let mut bytes = page(&disk, at);
            match random.index(8) {
                0 => bytes[random.index(4096)] ^= 1 << random.index(8),
                1 => bytes = vec![[0, 0xFF][random.index(2)]; 4096],
                2 => bytes = page(&disk, newest[random.index(newest.len())]),
                3 => bytes[512 * random.index(8)..].fill(0xFF),
                _ => damage_inside(&mut bytes, &mut random),
            }
            log.push((at, bytes));
        }
        let damaged = Patched { disk: &disk, log: log.clone(), overlay: Overlay::default() };
        summarize(&damaged).unwrap_or_else(|e| panic!("{number}: {e}"));
        match replay(&damaged) {
            Err(e) if e.kind() == Kind::Refused => refused += 1,
            Err(e) => panic!("mutation {number}: {e}"),
            Ok(replayed) if outside(&replayed.overlay) == want => equal += 1,
            Ok(replayed) => match errors(&Patched { disk: &disk, log, overlay: replayed.overlay }) {
                0 => other += 1,
                _ => dirty += 1,
            },
        }
    }
    println!(
        "{}: {count} damaged logs: {equal} equal, {refused} refused, {other} different and clean, {dirty} refused by the checker",
        file.display()
    );
    true
}

fn write_back(path: &PathBuf) -> bool {
    let disk = Disk::open(path);
    let start = Instant::now();
    let replayed = match replay(&disk) {
        Ok(replayed) => replayed,
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
    let again = replay(&disk).unwrap();
    assert!(again.overlay.is_empty(), "a second replay finds something to do");
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
    let all = |files: &[PathBuf], act: fn(&PathBuf) -> bool| files.iter().fold(true, |good, file| act(file) && good);
    let good = match Options::parse().action {
        Action::Summary { files } => all(&files, print_summary),
        Action::Replay { files } => all(&files, write_back),
        Action::Check { files } => all(&files, check_file),
        Action::Mutate { file, count, seed } => mutate(&file, count, seed),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
