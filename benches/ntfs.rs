//! The NTFS layer against its peers, as ratios in one run.
//!
//! Needs mkntfs and ntfs-3g (with FUSE) for the first ratio and Python with dissect (`WINJECT_JUDGES`) for the last;
//! what is missing is left out.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use winject::block::{Stage, StageOptions};
use winject::clock::FileTime;
use winject::error::Result;
use winject::io::{VolumeRead, VolumeWrite};
use winject::ntfs::{New, OpenOptions, Volume};
use winject::units::{ImageOffset, VolumeOffset};

/// The whole stage as one volume.
struct Staged(Stage);

impl VolumeRead for Staged {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(ImageOffset(offset.0), buf)
    }
}

impl VolumeWrite for Staged {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        self.0.write_at(ImageOffset(offset.0), data)
    }
}

fn options() -> OpenOptions {
    OpenOptions::new(FileTime::from_date(2024, 1, 2).unwrap())
}

fn staged(path: &Path) -> Volume<Staged> {
    let image = winject::block::open(path, &winject::block::OpenOptions::default()).unwrap();
    Volume::open(Staged(Stage::new(image, StageOptions::default())), &options()).unwrap()
}

fn make(folder: &Path, name: &str, size: u64) -> Option<PathBuf> {
    let path = folder.join(name);
    File::create(&path).unwrap().set_len(size).unwrap();
    let done = Command::new("mkntfs").args(["-F", "-q", "-f"]).arg(&path).env("PATH", path_with_sbin()).output();
    done.is_ok_and(|o| o.status.success()).then_some(path)
}

fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Peak memory of this process in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn ratio(what: &str, ours: Duration, theirs: Duration, aim: &str) {
    println!(
        "{what}: {:.3} s against {:.3} s = {:.3} of it (aim: {aim})",
        ours.as_secs_f64(),
        theirs.as_secs_f64(),
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
}

fn create(volume: &mut Volume<Staged>, directory: &str, count: u64) {
    let dir = volume.create_dir_all(directory, &New::default()).unwrap();
    let data = [0x5A; 4096];
    for n in 0..count {
        volume.create_file(dir, &format!("file {n:07}.bin"), &data, &New::default()).unwrap();
    }
    volume.flush().unwrap();
}

/// 10,000 files of 4 KiB into one directory of an 8 GiB volume, against `cp` into an ntfs-3g mount.
fn creating(folder: &Path) {
    let Some(path) = make(folder, "create.raw", 8 << 30) else { return println!("creating: mkntfs is missing") };
    let mut volume = staged(&path);
    let ((), ours) = timed(|| create(&mut volume, "/one directory", 10_000));
    println!("creating: peak memory {} MiB", peak());
    drop(volume);
    let (source, mount) = (folder.join("source"), folder.join("mnt"));
    std::fs::create_dir_all(&source).unwrap();
    std::fs::create_dir_all(&mount).unwrap();
    for n in 0..10_000 {
        std::fs::write(source.join(format!("file {n:07}.bin")), [0x5A; 4096]).unwrap();
    }
    if !Command::new("ntfs-3g").arg(&path).arg(&mount).status().is_ok_and(|s| s.success()) {
        return println!("creating: {:.3} s; ntfs-3g does not mount here", ours.as_secs_f64());
    }
    let (_, theirs) = timed(|| Command::new("cp").arg("-r").arg(&source).arg(&mount).status());
    let _ = Command::new("umount").arg(&mount).status();
    ratio("creating 10,000 files of 4 KiB, against cp into ntfs-3g", ours, theirs, "at most 0.1");
}

/// How the time for a file grows with the number of entries.
fn growth(folder: &Path) {
    for exponent in 3..=if std::env::var_os("WINJECT_BENCH_LONG").is_some() { 6 } else { 5 } {
        let count = 10u64.pow(exponent);
        let Some(path) = make(folder, "growth.raw", 8 << 30) else { return };
        let mut volume = staged(&path);
        let dir = volume.create_dir_all("/dir", &New::default()).unwrap();
        let ((), time) = timed(|| {
            for n in 0..count {
                // a permutation of the numbers, so that every part of the tree grows
                let n = n.wrapping_mul(7_368_787) % count;
                volume.create_file(dir, &format!("file {n:07}.bin"), b"", &New::default()).unwrap();
            }
            volume.flush().unwrap();
        });
        println!(
            "creating 10^{exponent} empty files: {:.2} µs each, peak memory {} MiB",
            time.as_secs_f64() * 1e6 / count as f64,
            peak()
        );
    }
}

/// 10,000 paths in a volume of 200,000 files, against the crate `ntfs` and dissect.
fn looking_up(folder: &Path) {
    let Some(path) = make(folder, "lookup.raw", 2 << 30) else { return };
    {
        let mut volume =
            Volume::open(RawFile(File::options().read(true).write(true).open(&path).unwrap()), &options()).unwrap();
        for d in 0..200 {
            let dir = volume.create_dir_all(&format!("/dir {}/sub {d}", d % 10), &New::default()).unwrap();
            for n in 0..1000 {
                volume.create_file(dir, &format!("file {n:04} of {d}"), b"x", &New::default()).unwrap();
            }
        }
        volume.flush().unwrap();
    }
    let paths: Vec<String> = (0..10_000u64)
        .map(|n| {
            let (d, f) = (n.wrapping_mul(7919) % 200, n.wrapping_mul(104_729) % 1000);
            format!("/dir {}/sub {d}/file {f:04} of {d}", d % 10)
        })
        .collect();
    let volume = staged(&path);
    let (found, ours) = timed(|| paths.iter().filter(|p| volume.find(p).unwrap().is_some()).count());
    assert_eq!(found, paths.len());
    println!("looking up: peak memory {} MiB", peak());
    let mut file = File::open(&path).unwrap();
    let (found, theirs) = timed(|| look_up_by_crate(&mut file, &paths));
    assert_eq!(found, paths.len());
    ratio("looking up 10,000 paths among 200,000 files, against the crate ntfs", ours, theirs, "at most 1");
    let judges = std::env::var_os("WINJECT_JUDGES").map_or_else(|| PathBuf::from("../.judges"), PathBuf::from);
    let list = folder.join("paths");
    std::fs::write(&list, paths[..1000].join("\n")).unwrap();
    let script = "import sys\nfrom dissect.ntfs import NTFS\nv=NTFS(open(sys.argv[1],'rb'))\n\
                  import time; t=time.time()\nfor p in open(sys.argv[2]).read().split('\\n'): v.mft.get(p[1:])\nprint(time.time()-t)";
    let output = Command::new(judges.join("venv/bin/python")).args(["-c", script]).arg(&path).arg(&list).output();
    match output.ok().and_then(|o| String::from_utf8_lossy(&o.stdout).trim().parse::<f64>().ok()) {
        Some(seconds) => ratio(
            "looking up, against dissect.ntfs (a tenth of the paths, times 10)",
            ours,
            Duration::from_secs_f64(seconds * 10.0),
            "at most 0.1",
        ),
        None => println!("looking up: dissect is not installed"),
    }
}

fn look_up_by_crate(file: &mut (impl Read + Seek), paths: &[String]) -> usize {
    let mut volume = ntfs::Ntfs::new(file).unwrap();
    volume.read_upcase_table(file).unwrap();
    let root = volume.root_directory(file).unwrap();
    let find = |file: &mut _, path: &str| -> Option<u64> {
        let mut dir = root.clone();
        let mut number = 0;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            let index = dir.directory_index(file).ok()?;
            let mut finder = index.finder();
            let entry = ntfs::indexes::NtfsFileNameIndex::find(&mut finder, &volume, file, name)?.ok()?;
            number = entry.file_reference().file_record_number();
            dir = entry.file_reference().to_file(&volume, file).ok()?;
        }
        Some(number)
    };
    paths.iter().filter(|p| find(file, p).is_some()).count()
}

struct RawFile(File);

impl VolumeRead for RawFile {
    fn len(&self) -> u64 {
        self.0.metadata().map_or(0, |m| m.len())
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buf, offset.0).unwrap();
        Ok(())
    }
}

impl VolumeWrite for RawFile {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, data, offset.0).unwrap();
        Ok(())
    }
}

/// A full check of the volume with 200,000 files, against `ntfscheck.py`.
fn checking(folder: &Path) {
    let path = folder.join("lookup.raw");
    if !path.exists() {
        return;
    }
    let device = RawFile(File::open(&path).unwrap());
    let (report, ours) =
        timed(|| winject::ntfs::check::check(&device, &winject::ntfs::check::CheckOptions::default()).unwrap());
    println!("checking: clean {}, peak memory {} MiB", report.is_clean(), peak());
    let shared = std::env::var_os("WINJECT_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let script = shared.join("judges/ntfscheck.py");
    if !script.exists() {
        return println!("checking: {:.3} s; ntfscheck.py is not here", ours.as_secs_f64());
    }
    let (_, theirs) = timed(|| Command::new("python3").arg(script).arg(&path).output());
    ratio("checking 200,000 records, against ntfscheck.py", ours, theirs, "at most 0.05");
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    creating(folder.path());
    looking_up(folder.path());
    checking(folder.path());
    growth(folder.path());
}
