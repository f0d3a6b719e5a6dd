//! The NTFS layer against its peers, as ratios in one run; and how its cost grows.
//!
//! Every part runs in a process of its own, so that the peak memory it prints is its own. A part's name (`creating`,
//! `lookup`, `growth`, `large`) as argument runs that part alone. Needs mkntfs; ntfs-3g (with FUSE) for the first ratio
//! and Python with dissect (`WINJECT_JUDGES`) for the last; what is missing is left out. `WINJECT_BENCH_LONG` adds the
//! longest row of the growth table.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use winject::internals::block::{Stage, StageOptions};
use winject::internals::clock::FileTime;
use winject::internals::error::Result;
use winject::internals::io::{VolumeRead, VolumeWrite};
use winject::internals::ntfs::{CreateOptions, OpenOptions, Volume};
use winject::internals::units::{ImageOffset, VolumeOffset};

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

/// A volume on a stage, as a job has it.
fn staged(path: &Path) -> Volume<Staged> {
    let image = winject::internals::block::open(path, &winject::internals::block::OpenOptions::default()).unwrap();
    let spill_folder = path.parent().map(Path::to_owned);
    let stage = Stage::new(image, StageOptions { spill_folder, ..StageOptions::default() });
    Volume::open(Staged(stage), &options()).unwrap()
}

/// A fresh volume in a sparse file; `None` without mkntfs.
fn make(folder: &Path, name: &str, size: u64, cluster: u32) -> Option<PathBuf> {
    let path = folder.join(name);
    File::create(&path).unwrap().set_len(size).unwrap();
    let mut mkntfs = Command::new("mkntfs");
    mkntfs.args(["-F", "-q", "-f", "-p", "0", "-H", "0", "-S", "0", "-c"]).arg(cluster.to_string()).arg(&path);
    mkntfs.env("PATH", path_with_sbin()).output().is_ok_and(|o| o.status.success()).then_some(path)
}

fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Peak memory of this process in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
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
    let dir = volume.create_dir_all(directory, &CreateOptions::default()).unwrap();
    let data = [0x5A; 4096];
    for n in 0..count {
        volume.create_file(dir, &format!("file {n:07}.bin"), &data, &CreateOptions::default()).unwrap();
    }
    volume.flush().unwrap();
}

/// 10,000 files of 4 KiB into one directory of an 8 GiB volume, against `cp` into an ntfs-3g mount.
fn creating(folder: &Path) {
    let Some(path) = make(folder, "create.raw", 8 << 30, 4096) else { return println!("creating: mkntfs is missing") };
    let mut volume = staged(&path);
    let ((), ours) = timed(|| create(&mut volume, "/one directory", 10_000));
    println!(
        "creating 10,000 files of 4 KiB: {:.3} s, peak memory {} KiB (aim: under 62500)",
        ours.as_secs_f64(),
        peak()
    );
    // its lock on the image goes, too
    drop(volume);
    let source = folder.join("source");
    std::fs::create_dir_all(&source).unwrap();
    for n in 0..10_000 {
        std::fs::write(source.join(format!("file {n:07}.bin")), [0x5A; 4096]).unwrap();
    }
    let Some(mut mount) = Mount::new(&path, &folder.join("mnt")) else {
        return println!("creating: {:.3} s; ntfs-3g does not mount here", ours.as_secs_f64());
    };
    let (copied, copy) = timed(|| Command::new("cp").arg("-r").arg(&source).arg(&mount.point).status());
    assert!(copied.is_ok_and(|s| s.success()), "cp failed");
    let ((), unmount) = timed(|| mount.unmount());
    ratio("creating 10,000 files of 4 KiB, against cp into ntfs-3g", ours, copy, "at most 0.1");
    ratio("  the same, with ntfs-3g's unmount", ours, copy + unmount, "none: for comparison");
}

/// An ntfs-3g mount and its process, which stays in the foreground so that its end can be waited for.
struct Mount {
    point: PathBuf,
    process: Option<Child>,
}

impl Mount {
    fn new(image: &Path, point: &Path) -> Option<Self> {
        std::fs::create_dir_all(point).unwrap();
        let mut command = Command::new("ntfs-3g");
        command.args(["-o", "no_detach"]).arg(image).arg(point).env("PATH", path_with_sbin());
        let process = command.stderr(std::process::Stdio::null()).spawn().ok()?;
        let mut mount = Self { point: point.to_owned(), process: Some(process) };
        for _ in 0..100 {
            if std::fs::read_to_string("/proc/mounts").is_ok_and(|m| m.contains(point.to_str().unwrap_or("?"))) {
                return Some(mount);
            }
            if !matches!(mount.process.as_mut().map(Child::try_wait), Some(Ok(None))) {
                mount.process = None;
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// Unmounts, and waits until ntfs-3g has written everything and ended.
    fn unmount(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let done = Command::new("umount").arg(&self.point).status();
        if !done.is_ok_and(|s| s.success()) {
            let _ = process.kill();
        }
        let _ = process.wait();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Files that a row of the growth table creates at least: small directories are made several times.
const GROWTH_FILES: u64 = 100_000;

/// How the time for a file grows with the number of entries of its directory.
fn growth(folder: &Path) {
    let mut first = 0.0;
    for exponent in 3..=if std::env::var_os("WINJECT_BENCH_LONG").is_some() { 6 } else { 5 } {
        let count = 10u64.pow(exponent);
        let mut rounds = Vec::new();
        for _ in 0..(GROWTH_FILES / count).max(1) {
            let Some(round) = grow(folder, count) else { return println!("growth: mkntfs is missing") };
            rounds.push(round);
        }
        let [creating, finding, deleting] = [0, 1, 2].map(|what| {
            let mut times: Vec<f64> = rounds.iter().map(|round| round[what]).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        if exponent == 3 {
            first = creating;
        }
        println!(
            "growth: a directory of 10^{exponent}: creating {creating:.1} µs each ({:.2} of the smallest; n log n would be {:.2}), \
             finding {finding:.1} µs, deleting {deleting:.1} µs, peak memory {} KiB",
            creating / first,
            f64::from(exponent) / 3.0,
            peak()
        );
    }
}

/// Microseconds for creating, finding and deleting a file in a directory of `count`; `None` without mkntfs.
fn grow(folder: &Path, count: u64) -> Option<[f64; 3]> {
    let path = make(folder, "growth.raw", 8 << 30, 4096)?;
    let mut volume = staged(&path);
    let dir = volume.create_dir_all("/dir", &CreateOptions::default()).unwrap();
    // a permutation of the numbers, so that every part of the tree grows
    let name = |n: u64| format!("file {:07}.bin", n.wrapping_mul(7_368_787) % count);
    let ((), creating) = timed(|| {
        for n in 0..count {
            volume.create_file(dir, &name(n), b"", &CreateOptions::default()).unwrap();
        }
        volume.flush().unwrap();
    });
    let some = count.min(100_000);
    let (found, finding) =
        timed(|| (0..some).filter(|&n| volume.find(&format!("/dir/{}", name(n))).unwrap().is_some()).count());
    assert_eq!(found as u64, some);
    let ((), deleting) = timed(|| {
        for n in 0..some {
            volume.delete(&format!("/dir/{}", name(n))).unwrap();
        }
        volume.flush().unwrap();
    });
    let each = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count as f64;
    Some([each(creating, count), each(finding, some), each(deleting, some)])
}

/// Memory and time on volumes that are large: 1 TiB, and clusters of 2 MiB.
fn large(folder: &Path) {
    for (size, cluster) in [(1u64 << 40, 4096), (1 << 40, 2 << 20)] {
        let Some(path) = make(folder, "large.raw", size, cluster) else {
            println!("large: mkntfs makes no volume of {size} bytes with clusters of {cluster}");
            continue;
        };
        let (mut volume, opening) = timed(|| staged(&path));
        let ((), creating) = timed(|| create(&mut volume, "/one directory", 10_000));
        let (free, counting) = timed(|| volume.free_space().unwrap());
        println!(
            "large: {} GiB, clusters of {} KiB: opening {:.1} ms, creating 10,000 files of 4 KiB {:.3} s, \
             counting {} GiB free {:.1} ms, peak memory {} KiB",
            size >> 30,
            cluster >> 10,
            opening.as_secs_f64() * 1e3,
            creating.as_secs_f64(),
            free >> 30,
            counting.as_secs_f64() * 1e3,
            peak()
        );
    }
}

/// Makes the volume of 200,000 files for [`lookup`].
fn lookup_volume(folder: &Path) {
    let Some(path) = make(folder, "lookup.raw", 2 << 30, 4096) else { return };
    let device = RawFile(File::options().read(true).write(true).open(&path).unwrap());
    let mut volume = Volume::open(device, &options()).unwrap();
    for d in 0..200 {
        let dir = volume.create_dir_all(&format!("/dir {}/sub {d}", d % 10), &CreateOptions::default()).unwrap();
        for n in 0..1000 {
            volume.create_file(dir, &format!("file {n:04} of {d}"), b"x", &CreateOptions::default()).unwrap();
        }
    }
    volume.flush().unwrap();
}

/// 10,000 paths in a volume of 200,000 files, against the crate `ntfs` and dissect.
fn lookup(folder: &Path) {
    let path = folder.join("lookup.raw");
    if !path.exists() {
        return println!("lookup: mkntfs is missing");
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
    println!("lookup: peak memory {} KiB (aim: under 62500)", peak());
    // unbuffered and buffered: the crate's better time counts
    let mut file = File::open(&path).unwrap();
    let (found, plain) = timed(|| look_up_by_crate(&mut file, &paths));
    assert_eq!(found, paths.len());
    let mut file = BufReader::new(file);
    let (found, buffered) = timed(|| look_up_by_crate(&mut file, &paths));
    assert_eq!(found, paths.len());
    let theirs = plain.min(buffered);
    ratio("looking up 10,000 paths among 200,000 files, against the crate ntfs", ours, theirs, "at most 1");
    let judges = std::env::var_os("WINJECT_JUDGES").map_or_else(|| PathBuf::from("../.judges"), PathBuf::from);
    let list = folder.join("paths");
    std::fs::write(&list, paths[..1000].join("\n")).unwrap();
    let script = "import sys, time\nfrom dissect.ntfs import NTFS\nv=NTFS(open(sys.argv[1],'rb'))\n\
                  t=time.time()\nfor p in open(sys.argv[2]).read().split('\\n'): v.mft.get(p[1:])\nprint(time.time()-t)";
    let output = Command::new(judges.join("venv/bin/python")).args(["-c", script]).arg(&path).arg(&list).output();
    match output.ok().and_then(|o| String::from_utf8_lossy(&o.stdout).trim().parse::<f64>().ok()) {
        Some(seconds) => ratio(
            "looking up, against dissect.ntfs (a tenth of the paths, times 10)",
            ours,
            Duration::from_secs_f64(seconds * 10.0),
            "at most 0.1",
        ),
        None => println!("lookup: dissect is not installed"),
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

/// A part of the benchmark: its name, and what runs in its own process.
type Part = (&'static str, fn(&Path));

fn main() {
    let parts: [Part; 5] = [
        ("creating", creating),
        ("lookup-volume", lookup_volume),
        ("lookup", lookup),
        ("growth", growth),
        ("large", large),
    ];
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    match arguments.as_slice() {
        // one part, in the folder that the process of the whole made
        [name, folder] => {
            let part = parts.iter().find(|p| p.0 == name).unwrap();
            part.1(Path::new(folder));
        }
        wanted => {
            let folder = tempfile::tempdir().unwrap();
            let is_wanted = |part: &str| wanted.first().is_none_or(|w| part.starts_with(w.as_str()));
            for (name, _) in parts.iter().filter(|p| is_wanted(p.0)) {
                let own = std::env::current_exe().unwrap();
                let status = Command::new(own).arg(name).arg(folder.path()).status().unwrap();
                assert!(status.success(), "{name} failed");
            }
        }
    }
}
