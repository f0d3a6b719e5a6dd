//! The full check of a volume with 100,000 files, against the foreign checker `ntfscheck.py` in the same run; and how
//! its time grows with the number of records.
//!
//! Needs mkntfs, and Python with the judges' folder (`WINJECT_SHARED`, else `../shared`) for the ratio.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use winject::internals::clock::FileTime;
use winject::internals::error::Result;
use winject::internals::io::{VolumeRead, VolumeWrite};
use winject::internals::ntfs::check::{CheckOptions, check};
use winject::internals::ntfs::{CreateOptions, OpenOptions, Volume};
use winject::internals::units::VolumeOffset;

struct RawFile(File);

impl VolumeRead for RawFile {
    fn len(&self) -> u64 {
        self.0.metadata().map_or(0, |m| m.len())
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(buf, offset.0).unwrap();
        Ok(())
    }
}

impl VolumeWrite for RawFile {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        self.0.write_all_at(data, offset.0).unwrap();
        Ok(())
    }
}

fn open(path: &Path) -> RawFile {
    RawFile(File::options().read(true).write(true).open(path).unwrap())
}

/// A volume with this many files, a thousand in each directory; `None` without mkntfs.
fn volume(folder: &Path, files: u64) -> Option<PathBuf> {
    let path = folder.join(format!("{files}.raw"));
    File::create(&path).unwrap().set_len(4 << 30).unwrap();
    let search = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let made = Command::new("mkntfs").args(["-qFQ"]).arg(&path).env("PATH", search).output();
    if !made.is_ok_and(|o| o.status.success()) {
        return None;
    }
    let clock = FileTime::from_date(2024, 1, 2).unwrap();
    let mut volume = Volume::open(open(&path), &OpenOptions::new(clock)).unwrap();
    for d in 0..files / 1000 {
        let dir = volume.create_dir_all(&format!("/part {}/dir {d}", d % 20), &CreateOptions::default()).unwrap();
        for n in 0..1000 {
            // a third of the files is too long for its record
            let data = vec![b'x'; if n % 3 == 0 { 3000 } else { 60 }];
            volume
                .create_file(dir, &format!("file {n:04} with a usual name.dll"), &data, &CreateOptions::default())
                .unwrap();
        }
    }
    volume.flush().unwrap();
    Some(path)
}

fn timed(path: &Path) -> (Duration, u64) {
    let start = Instant::now();
    let report = check(&open(path), &CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report}");
    (start.elapsed(), report.stats.records)
}

/// Peak memory of this process in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Checks one volume twice and prints the second time; in a process of its own, so that the peak memory is the check's.
fn measure(path: &Path) {
    timed(path);
    let (ours, records) = timed(path);
    println!(
        "fsck of {records} records: {:.3} s, {:.2} µs each, peak memory {} MiB",
        ours.as_secs_f64(),
        ours.as_secs_f64() * 1e6 / records as f64,
        peak()
    );
    if path.file_stem().is_some_and(|s| s == "100000") {
        against_the_judge(path, ours);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if let [path] = arguments.as_slice() {
        return measure(Path::new(path));
    }
    let folder = tempfile::tempdir().unwrap();
    for count in [10_000, 100_000, 500_000] {
        let Some(path) = volume(folder.path(), count) else { return println!("fsck: mkntfs is missing") };
        let status = Command::new(std::env::current_exe().unwrap()).arg(&path).status().unwrap();
        assert!(status.success(), "the check of {count} files failed");
    }
}

fn against_the_judge(path: &Path, ours: Duration) {
    let shared = std::env::var_os("WINJECT_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let judge = shared.join("judges/ntfscheck.py");
    let start = Instant::now();
    match Command::new("python3").arg(&judge).arg(path).output() {
        Ok(output) if output.status.success() => {
            let theirs = start.elapsed().as_secs_f64();
            let ratio = ours.as_secs_f64() / theirs;
            println!(
                "fsck, against ntfscheck.py: {:.3} s against {theirs:.3} s = {ratio:.4} of it (aim: at most 0.05)",
                ours.as_secs_f64()
            );
        }
        _ => println!("fsck: ntfscheck.py is not here"),
    }
}
