//! Conversions against qemu-img and `cp`, on the same files in the same run.
//!
//! `cargo bench --bench convert` makes a disk of 2 GiB, half of it data, and prints for every conversion how long
//! winject and qemu-img take, the ratio, the sizes, and winject's memory. A conversion counts until the output is
//! flushed: winject flushes itself, qemu-img and `cp` are followed by `sync FILE`. Runs alternate; the median counts.
//!
//! `WINJECT_BENCH_RUNS` (default 3) and `WINJECT_BENCH_MIB` (default 2048) change the effort; `WINJECT_BENCH_DIR` says
//! where the files go, and keeps the inputs there for the next run. Words given after `--` choose the conversions whose
//! titles hold one of them: `cargo bench --bench convert -- zlib`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use winject::internals::block::commit::{CommitOptions, commit_in_place};
use winject::internals::block::{self, Stage, StageOptions};
use winject::internals::clock::FileTime;
use winject::internals::job;
use winject::internals::ntfs::{self, CreateOptions, Volume};
use winject::internals::partition::{self, PartitionView};

fn main() {
    // `cargo test --benches` runs this too: nothing to do there.
    if std::env::args().any(|a| a == "--test") || Command::new("qemu-img").arg("--version").output().is_err() {
        println!("SKIPPED: qemu-img is not installed, or this is no benchmark run");
        return;
    }
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (runs, mib) = (number("WINJECT_BENCH_RUNS", 3), number("WINJECT_BENCH_MIB", 2048));
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_chosen = |case: &&Case| words.is_empty() || words.iter().any(|word| case.title.contains(word.as_str()));
    let cases: Vec<&Case> = CASES.iter().filter(is_chosen).collect();
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = std::env::var_os("WINJECT_BENCH_DIR").map_or(temporary.path().to_owned(), PathBuf::from);
    let files = Files { folder };
    make_once(&files.at("disk.raw"), |path| make_disk(path, mib));
    for (name, arguments) in [
        ("disk.vmdk", "-O vmdk -o subformat=streamOptimized"),
        ("disk.qcow2", "-O qcow2"),
        ("disk-zlib.qcow2", "-O qcow2 -c"),
        ("disk-zstd.qcow2", "-O qcow2 -c -o compression_type=zstd"),
    ] {
        if cases.iter().all(|case| case.input != name) {
            continue;
        }
        make_once(&files.at(name), |path| {
            let mut make = Command::new("qemu-img");
            make.args(["convert", "-W", "-f", "raw"]).args(arguments.split(' ')).arg(files.at("disk.raw")).arg(path);
            run(&mut make);
        });
    }
    println!(
        "{mib} MiB disk, {} MiB data, {runs} runs, medians; times include the flush",
        allocated(&files.at("disk.raw")) >> 20
    );
    println!(
        "{:34} {:>9} {:>9} {:>7} {:>7} {:>8} {:>8}  memory",
        "conversion", "winject", "peer", "ratio", "limit", "size", "peer"
    );
    for case in cases {
        measure(&files, case, runs);
    }
    if words.is_empty() || words.iter().any(|word| "injection".contains(word.as_str())) {
        match make_guest(&files, mib) {
            Ok(()) => INJECTIONS.iter().for_each(|case| measure_injection(&files, case, runs)),
            Err(why) => println!("SKIPPED: conversion with injection: {why}"),
        }
    }
}

/// One line of the table: input, winject's and qemu-img's arguments, and the ratio that is promised.
struct Case {
    title: &'static str,
    input: &'static str,
    format: &'static str,
    ours: &'static str,
    peer: &'static str,
    limit: f64,
}

const CASES: &[Case] = &[
    Case {
        title: "raw -> qcow2, against cp",
        input: "disk.raw",
        format: "raw",
        ours: "-O qcow2",
        peer: "cp",
        limit: 1.3,
    },
    Case { title: "raw -> qcow2", input: "disk.raw", format: "raw", ours: "-O qcow2", peer: "-O qcow2", limit: 1.0 },
    Case {
        title: "streamOptimized -> qcow2",
        input: "disk.vmdk",
        format: "vmdk",
        ours: "-O qcow2",
        peer: "-O qcow2",
        limit: 0.33,
    },
    Case {
        title: "qcow2 -> qcow2 zlib",
        input: "disk.qcow2",
        format: "qcow2",
        ours: "-O qcow2 --compress zlib",
        peer: "-O qcow2 -c",
        limit: 0.5,
    },
    Case {
        title: "qcow2 -> qcow2 zstd",
        input: "disk.qcow2",
        format: "qcow2",
        ours: "-O qcow2 --compress zstd",
        peer: "-O qcow2 -c -o compression_type=zstd",
        limit: 0.75,
    },
    Case {
        title: "qcow2 zlib -> raw",
        input: "disk-zlib.qcow2",
        format: "qcow2",
        ours: "-O raw",
        peer: "-O raw",
        limit: 0.6,
    },
    Case {
        title: "qcow2 zstd -> raw",
        input: "disk-zstd.qcow2",
        format: "qcow2",
        ours: "-O raw",
        peer: "-O raw",
        limit: 1.0,
    },
    Case { title: "qcow2 -> raw", input: "disk.qcow2", format: "qcow2", ours: "-O raw", peer: "-O raw", limit: 1.0 },
];

/// Conversions of a guest, with drivers injected on the way and without: title, input and output.
const INJECTIONS: &[(&str, &str, &str)] = &[
    ("injection: raw -> qcow2", "guest.raw", "-O qcow2"),
    ("injection: streamOptimized -> qcow2", "guest.vmdk", "-O qcow2"),
    ("injection: raw -> qcow2 zlib", "guest.raw", "-O qcow2 --compress zlib"),
];

/// What injection may cost on top.
const INJECTION_LIMIT: f64 = 1.1;

struct Files {
    folder: PathBuf,
}

impl Files {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn measure(files: &Files, case: &Case, runs: u64) {
    let (input, ours, theirs) = (files.at(case.input), files.at("ours.out"), files.at("theirs.out"));
    let (mut our_times, mut their_times, mut memory) = (Vec::new(), Vec::new(), 0);
    for _ in 0..runs {
        let _ = std::fs::remove_file(&ours);
        let _ = std::fs::remove_file(&theirs);
        warm(&input);
        let start = Instant::now();
        let mut convert = Command::new(env!("CARGO_BIN_EXE_winject"));
        convert.args(["convert", "--quiet", "--format", case.format]).args(case.ours.split(' ')).arg(&input).arg(&ours);
        memory = memory.max(run_watched(&mut convert));
        our_times.push(start.elapsed());

        warm(&input);
        let start = Instant::now();
        if case.peer == "cp" {
            run(Command::new("cp").arg("--sparse=auto").arg(&input).arg(&theirs));
        } else {
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-f", case.format]).args(case.peer.split(' ')).arg(&input).arg(&theirs);
            run(&mut convert);
        }
        run(Command::new("sync").arg(&theirs));
        their_times.push(start.elapsed());
    }
    let (our_time, their_time) = (median(&mut our_times), median(&mut their_times));
    let ratio = our_time.as_secs_f64() / their_time.as_secs_f64();
    println!(
        "{:34} {:>8.2}s {:>8.2}s {:>7.2} {:>7.2} {:>7}M {:>7}M  {} MiB{}",
        case.title,
        our_time.as_secs_f64(),
        their_time.as_secs_f64(),
        ratio,
        case.limit,
        allocated(&ours) >> 20,
        allocated(&theirs) >> 20,
        memory >> 10,
        if ratio > case.limit { "  MISSED" } else { "" }
    );
    if case.peer != "cp" {
        let format = if case.ours.contains("raw") { "raw" } else { "qcow2" };
        run(Command::new("qemu-img").args(["compare", "-q", "-f", format, "-F", format]).arg(&ours).arg(&theirs));
    }
}

/// A Windows guest, half of its disk data (20,000 files of Windows, and some large ones), as raw and as VMDK; and a
/// driver medium.
fn make_guest(files: &Files, mib: u64) -> Result<(), String> {
    let shared = std::env::var_os("WINJECT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let judges = shared.join("judges");
    if !judges.join("make-guest.py").exists() {
        return Err(format!("no makers in {}", judges.display()));
    }
    make_once(&files.at("media"), |path| run(Command::new(judges.join("make-virtio-win.py")).arg(path)));
    let mut made = Ok(());
    make_once(&files.at("guest.raw"), |path| {
        let mut make = Command::new(judges.join("make-guest.py"));
        let output = make.arg(path).args(["--files", "20000", "--size"]).arg(format!("{mib}M")).output().unwrap();
        if output.status.success() {
            fill_guest(path, mib / 2);
        } else {
            let _ = std::fs::remove_file(path);
            made = Err(format!("make-guest.py needs root: {}", String::from_utf8_lossy(&output.stderr)));
        }
    });
    made?;
    make_once(&files.at("guest.vmdk"), |path| {
        let mut make = Command::new("qemu-img");
        make.args(["convert", "-W", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]);
        run(make.arg(files.at("guest.raw")).arg(path));
    });
    println!("guest: {mib} MiB, {} MiB data; limit {INJECTION_LIMIT}", allocated(&files.at("guest.raw")) >> 20);
    Ok(())
}

/// Injection against the same conversion without it.
fn measure_injection(files: &Files, (title, input, output): &(&str, &str, &str), runs: u64) {
    let (input, out) = (files.at(input), files.at("ours.out"));
    let (mut with, mut without, mut memory) = (Vec::new(), Vec::new(), 0);
    // Runs of one kind follow each other, after one that does not count: they find the memory that such a run leaves.
    for is_with in [false, true] {
        for run in 0..=runs {
            let _ = std::fs::remove_file(&out);
            warm(&input);
            let mut convert = Command::new(env!("CARGO_BIN_EXE_winject"));
            convert.args(["convert", "--quiet"]).args(output.split(' ')).arg(&input).arg(&out);
            if is_with {
                convert.args(["--signature-policy", "warn", "--inject"]).arg(files.at("media"));
            }
            let start = Instant::now();
            let peak = run_watched(&mut convert);
            let time = start.elapsed();
            if run == 0 {
                continue;
            }
            if is_with {
                memory = memory.max(peak);
                with.push(time);
            } else {
                without.push(time);
            }
        }
    }
    let (with, without) = (median(&mut with).as_secs_f64(), median(&mut without).as_secs_f64());
    let ratio = with / without;
    println!(
        "{title:34} {with:>8.2}s {without:>8.2}s {ratio:>7.2} {INJECTION_LIMIT:>7.2} {:>7}M {:>8}  {} MiB{}",
        allocated(&out) >> 20,
        "",
        memory >> 10,
        if ratio > INJECTION_LIMIT { "  MISSED" } else { "" }
    );
}

/// Makes an input unless it is there from an earlier run; one that was only half made never gets the name.
fn make_once(path: &Path, make: impl FnOnce(&Path)) {
    if !path.exists() {
        let partial = path.with_extension("partial");
        let _ = std::fs::remove_file(&partial);
        make(&partial);
        // What could not be made says so by itself.
        let _ = std::fs::rename(partial, path);
    }
}

/// What disks hold: programs, text, noise.
struct Material {
    binary: Vec<u8>,
    text: Vec<u8>,
    seed: u64,
}

impl Material {
    fn new() -> Self {
        let binary = std::fs::read(env!("CARGO_BIN_EXE_winject")).unwrap();
        Self { binary, text: include_str!("convert.rs").repeat(200).into_bytes(), seed: 1 }
    }

    fn next(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    /// Fills the piece with one of four kinds.
    fn fill(&mut self, kind: u64, piece: &mut [u8]) {
        match kind {
            0 | 1 => {
                let from = self.next() as usize % self.binary.len();
                let byte = |i: usize| self.binary[(from + i) % self.binary.len()];
                piece.iter_mut().enumerate().for_each(|(i, b)| *b = byte(i));
            }
            2 => {
                // Text whose repeats are far apart, so that it compresses like text.
                let from = self.next() as usize % self.text.len();
                let salt = self.next();
                piece.iter_mut().enumerate().for_each(|(i, b)| {
                    let word = (i / 24) as u64;
                    let jump = (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt) as usize;
                    *b = self.text[(from + jump % 9000 + i % 24) % self.text.len()];
                });
            }
            _ => piece.chunks_mut(8).for_each(|c| c.copy_from_slice(&self.next().to_le_bytes()[..c.len()])),
        }
    }
}

/// Half data, half holes, in runs of 64 KiB to 4 MiB.
fn make_disk(path: &Path, mib: u64) {
    let file = File::create(path).unwrap();
    let size = mib << 20;
    file.set_len(size).unwrap();
    let mut material = Material::new();
    let mut at = 0;
    let mut buf = vec![0u8; 4 << 20];
    while at < size {
        let length = ((64 << 10) << (material.next() % 7)).min(size - at) as usize;
        // Four of eight are holes.
        if let Some(kind) = (material.next() % 8).checked_sub(4) {
            material.fill(kind, &mut buf[..length]);
            file.write_all_at(&buf[..length], at).unwrap();
        }
        at += length as u64;
    }
    file.sync_all().unwrap();
}

/// Puts files into the guest until its disk holds so much.
fn fill_guest(path: &Path, mib: u64) {
    const FILE: u64 = 32 << 20;
    let mut material = Material::new();
    let mut number = 0;
    while allocated(path) + FILE < mib << 20 {
        let mut stage = Stage::new(block::open(path, &block::OpenOptions::default()).unwrap(), StageOptions::default());
        let table = partition::read(&stage).unwrap();
        let windows = job::search_installations(&stage, &table).found.remove(0).partition;
        let options = ntfs::OpenOptions::new(FileTime::from_date(2024, 1, 2).unwrap());
        let mut volume = Volume::open(PartitionView::new(&mut stage, &windows).unwrap(), &options).unwrap();
        let mut content = vec![0; FILE as usize];
        for piece in content.chunks_mut(1 << 20) {
            let kind = material.next() % 4;
            material.fill(kind, piece);
        }
        volume.replace_file(&format!("/large {number}"), &content, &CreateOptions::default()).unwrap();
        volume.flush().unwrap();
        drop(volume);
        commit_in_place(&mut stage, path, &CommitOptions::default()).unwrap();
        number += 1;
    }
}

/// Reads the input once, so that both sides find it in memory.
fn warm(path: &Path) {
    run(Command::new("cat").arg(path).stdout(Stdio::null()));
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// Runs the command; answers with its largest resident set in KiB.
fn run_watched(command: &mut Command) -> u64 {
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Ok(text) = std::fs::read_to_string(&status) {
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            peak = peak.max(line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0));
        }
        if let Some(code) = child.try_wait().unwrap() {
            assert!(code.success(), "{command:?}: {code}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn allocated(path: &Path) -> u64 {
    path.metadata().map_or(0, |m| m.blocks() * 512)
}
