//! The whole job: once through Criterion on the sample disk, and as a ratio against the manual pipeline that needs root
//! (`ntfs-3g` mount, `cp`, `hivexregedit --merge`, unmount) on a 20 GiB guest, in the same run.
//!
//! The second part needs root, the makers in `../shared/judges`, ntfs-3g, hivexregedit and qemu-img; without them it says
//! so. The peer works on the bare volume in a file of its own, which saves it the way through a partitioned disk.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WINJECT: &str = env!("CARGO_BIN_EXE_winject");
const ROUNDS: usize = 5;

fn main() {
    sample();
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    match Tools::find() {
        Ok(tools) => ratios(&tools),
        Err(why) => eprintln!("SKIPPED: the ratios against the manual pipeline: {why}"),
    }
}

/// Criterion on the sample that comes with the source.
fn sample() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("test-images");
    let folder = tempfile::tempdir().unwrap();
    let mut criterion = criterion::Criterion::default().sample_size(20).configure_from_args();
    criterion.bench_function("inject the sample disk into an overlay, whole process", |b| {
        b.iter(|| {
            let out = folder.path().join("out.qcow2");
            let _ = std::fs::remove_file(&out);
            inject(&root.join("win10.qcow2"), &root.join("drivers"), &["--overlay", out.to_str().unwrap()]);
        });
    });
    criterion.final_summary();
}

fn inject(image: &Path, drivers: &Path, more: &[&str]) {
    run(Command::new(WINJECT)
        .args(["inject", "--quiet", "--signature-policy", "warn"])
        .arg(image)
        .arg("--drivers")
        .arg(drivers)
        .args(more));
}

/// Runs a command; its output only when it fails.
fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

struct Tools {
    judges: PathBuf,
}

impl Tools {
    fn find() -> Result<Self, String> {
        let shared = std::env::var_os("WINJECT_SHARED")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
        let judges = shared.join("judges");
        if !judges.join("make-guest.py").exists() {
            return Err(format!("no makers in {}", judges.display()));
        }
        for tool in ["ntfs-3g", "hivexregedit", "qemu-img", "umount"] {
            let found = Command::new("sh").arg("-c").arg(format!("command -v {tool}")).output();
            if !found.is_ok_and(|o| o.status.success()) {
                return Err(format!("{tool} is not installed"));
            }
        }
        Ok(Self { judges })
    }

    /// A guest, and the byte offset of its Windows volume.
    fn guest(&self, path: &Path, size: &str, files: u32) -> u64 {
        let output = Command::new(self.judges.join("make-guest.py"))
            .arg(path)
            .args(["--size", size, "--files", &files.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "make-guest.py needs root: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|l| l.starts_with("windows")).unwrap();
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    }
}

fn ratios(tools: &Tools) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(Command::new(tools.judges.join("make-virtio-win.py")).arg(at("media")));
    // the driver medium of the comparison: eight packages, both storage drivers among them
    let wanted = ["viostor", "vioscsi", "NetKVM", "Balloon", "vioserial", "viorng", "vioinput", "viofs"];
    std::fs::create_dir(at("eight")).unwrap();
    for name in wanted {
        std::fs::rename(at("media").join(name), at("eight").join(name)).unwrap();
    }
    let offset = tools.guest(&at("guest.raw"), "20G", 20_000);
    run(Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(at("guest.raw")).arg(at("guest.qcow2")));

    let raw = winject_times(&at("guest.raw"), &at("eight"), &at("work.raw"));
    let qcow2 = winject_times(&at("guest.qcow2"), &at("eight"), &at("work.qcow2"));
    let manual = manual_times(&at("guest.raw"), offset, &at("eight"), folder.path());
    let floor = floor_times(folder.path());
    println!("20 GiB guest, 20 000 files, eight packages; medians of {ROUNDS}");
    println!("  manual pipeline     {manual:>10.1?}");
    for (name, time) in [("raw in place", raw), ("qcow2 in place", qcow2), ("cp + fsync (floor)", floor)] {
        println!(
            "  {name:<19} {time:>10.1?}   {:.3} of the manual pipeline",
            time.as_secs_f64() / manual.as_secs_f64()
        );
    }
    growth(tools, &at("eight"), folder.path());
}

fn winject_times(guest: &Path, drivers: &Path, work: &Path) -> Duration {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        run(Command::new("cp").arg("--sparse=always").arg(guest).arg(work));
        run(&mut Command::new("sync"));
        times.push(timed(|| inject(work, drivers, &["--in-place"])));
    }
    median(times)
}

/// Cost against the size of the disk and the number of files: time, bytes read, memory.
fn growth(tools: &Tools, drivers: &Path, folder: &Path) {
    println!("growth (in place, raw): disk, files, time, kB read, peak memory in kB");
    for (size, files) in [("20G", 2_000), ("200G", 2_000), ("20G", 100_000)] {
        let guest = folder.join("growth.raw");
        tools.guest(&guest, size, files);
        let work = folder.join("growth-work.raw");
        let time = winject_times(&guest, drivers, &work);
        run(Command::new("cp").arg("--sparse=always").arg(&guest).arg(&work));
        let report = folder.join("growth.json");
        let output = Command::new("/usr/bin/time")
            .args(["-f", "%M", WINJECT, "inject", "--quiet", "--signature-policy", "warn", "--in-place", "--report"])
            .arg(&report)
            .arg("--drivers")
            .arg(drivers)
            .arg(&work)
            .output()
            .unwrap();
        let memory = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        let read = json.pointer("/run/bytes_read").and_then(serde_json::Value::as_u64).unwrap_or(0) / 1024;
        println!("  {size:>5} {files:>7} {time:>10.1?} {read:>9} {memory:>9}");
    }
}

/// What an engineer does today, on the bare volume: mount, copy, merge, unmount.
fn manual_times(guest: &Path, offset: u64, drivers: &Path, folder: &Path) -> Duration {
    let volume = folder.join("volume.raw");
    let image = format!("driver=raw,offset={offset},file.driver=file,file.filename={}", guest.display());
    run(Command::new("qemu-img").args(["convert", "-O", "raw", "--image-opts", &image]).arg(&volume));
    prepare_payload(guest, drivers, folder);
    let mount = folder.join("mnt");
    std::fs::create_dir_all(&mount).unwrap();
    let work = folder.join("volume-work.raw");
    let script = format!(
        "set -e; cd {folder}; ntfs-3g -o big_writes,noatime volume-work.raw mnt
         cp payload/drivers/*.sys mnt/Windows/System32/drivers/
         cp -r payload/hyper2kvm mnt/
         for h in SYSTEM SOFTWARE; do
           cp mnt/Windows/System32/config/$h $h.work
           hivexregedit --merge --prefix \"HKEY_LOCAL_MACHINE\\\\$h\" $h.work $h.reg
           cp $h.work mnt/Windows/System32/config/$h
         done
         sync -f mnt; umount mnt; while pgrep -x ntfs-3g >/dev/null; do sleep 0.01; done; sync volume-work.raw",
        folder = folder.display()
    );
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        run(Command::new("cp").arg("--sparse=always").arg(&volume).arg(&work));
        run(&mut Command::new("sync"));
        times.push(timed(|| run(Command::new("bash").args(["-c", &script]))));
    }
    median(times)
}

/// The files and the keys that winject itself writes into this guest, as files and as text for `hivexregedit`.
fn prepare_payload(guest: &Path, drivers: &Path, folder: &Path) {
    let after = folder.join("after.qcow2");
    inject(guest, drivers, &["--overlay", after.to_str().unwrap()]);
    for (hive, key) in [("SYSTEM", "HKLM\\SYSTEM"), ("SOFTWARE", "HKLM\\SOFTWARE")] {
        for (image, name) in [(guest, "before"), (after.as_path(), "after")] {
            let out = folder.join(format!("{hive}.{name}.reg"));
            run(Command::new(WINJECT).args(["reg", "export"]).arg(image).arg(key).arg("-o").arg(&out));
        }
        let text = |name: &str| utf16_file(&folder.join(format!("{hive}.{name}.reg")));
        std::fs::write(folder.join(format!("{hive}.reg")), added_text(&text("before"), &text("after"))).unwrap();
    }
    let payload = folder.join("payload");
    std::fs::create_dir_all(payload.join("drivers")).unwrap();
    std::fs::create_dir_all(payload.join("hyper2kvm/drivers/virtio")).unwrap();
    let release = Path::new("w10/amd64");
    for driver in std::fs::read_dir(drivers).unwrap() {
        let driver = driver.unwrap();
        let name = driver.file_name().to_string_lossy().to_lowercase();
        let target = payload.join("hyper2kvm/drivers/virtio").join(&name);
        std::fs::create_dir_all(&target).unwrap();
        for file in std::fs::read_dir(driver.path().join(release)).unwrap() {
            let file = file.unwrap();
            let is_boot = matches!(name.as_str(), "viostor" | "vioscsi");
            let file_name = file.file_name();
            if file_name.to_string_lossy().ends_with(".pdb") {
                continue;
            }
            if is_boot && file_name.to_string_lossy().ends_with(".sys") {
                std::fs::copy(file.path(), payload.join("drivers").join(&file_name)).unwrap();
            }
            std::fs::copy(file.path(), target.join(&file_name)).unwrap();
        }
    }
    std::fs::write(payload.join("hyper2kvm/setup.cmd"), "@echo off\r\n").unwrap();
    std::fs::write(payload.join("hyper2kvm/firstboot.cmd"), "@echo off\r\n").unwrap();
}

fn utf16_file(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let units: Vec<u16> = bytes.chunks_exact(2).map(|p| u16::from_le_bytes([p[0], p[1]])).collect();
    String::from_utf16_lossy(&units).trim_start_matches('\u{feff}').replace("\r\n", "\n")
}

/// The blocks (keys with their values) of `after` that `before` does not have, with the blank lines that hivexregedit
/// wants.
fn added_text(before: &str, after: &str) -> String {
    let old: std::collections::HashSet<&str> = before.split("\n\n").collect();
    let mut out = String::from("Windows Registry Editor Version 5.00\n\n");
    for block in after.split("\n\n").filter(|b| b.starts_with('[') && !old.contains(b)) {
        out.push_str(&block.replace("\\\n  ", ""));
        out.push_str("\n\n");
    }
    out
}

/// `cp` of the payload with an fsync: nobody can be faster.
fn floor_times(folder: &Path) -> Duration {
    let script = format!(
        "set -e; cd {}; rm -rf floor; mkdir floor; cp -r payload SYSTEM.work SOFTWARE.work floor/; find floor -type f -exec sync {{}} +",
        folder.display()
    );
    median((0..ROUNDS).map(|_| timed(|| run(Command::new("bash").args(["-c", &script])))).collect())
}
