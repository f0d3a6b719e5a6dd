//! What it costs that a change can be reviewed and taken back, as ratios in the same run:
//!
//! | ratio | limit |
//! |---|---|
//! | `plan` and `apply`, against `inject`: whole processes that write an overlay of the sample disk | 1.3 |
//! | a commit in place that keeps its undo record, against one that keeps none | 1.15 |
//! | an undo, against the commit that it takes back | 1.0 |
//!
//! Commits are those of an injection, into a raw and a qcow2 image. Runs alternate; the median counts. A disk in memory
//! hides what a flush costs: `TMPDIR` says where the images go. `WINJECT_BENCH_RUNS` (default 15) changes the effort,
//! `WINJECT_BENCH_IMAGE` and `WINJECT_BENCH_DRIVERS` name another guest than the sample.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use winject::internals::block::commit::{CommitOptions, UndoOptions, commit_in_place, undo};
use winject::internals::block::convert::{ConvertOptions, convert};
use winject::internals::block::{self, Format, OpenOptions, Stage, StageOptions};
use winject::internals::clock::FileTime;
use winject::internals::drivers::{Policy, SignatureLevel};
use winject::internals::job::{self, Destination, InjectRequest, Report, Silent};

const WINJECT: &str = env!("CARGO_BIN_EXE_winject");

fn main() {
    // `cargo test --benches` runs this too: nothing to do there.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let runs = std::env::var("WINJECT_BENCH_RUNS").ok().and_then(|v| v.parse().ok()).unwrap_or(15);
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("test-images");
    let named = |name: &str, sample: &str| std::env::var_os(name).map_or_else(|| samples.join(sample), PathBuf::from);
    let guest = Guest {
        image: named("WINJECT_BENCH_IMAGE", "win10.qcow2"),
        drivers: named("WINJECT_BENCH_DRIVERS", "drivers"),
    };
    let folder = tempfile::tempdir().unwrap();
    println!("medians of {runs} runs");
    guest.compare_plan_and_apply(folder.path(), runs);
    for format in [Format::Raw, Format::Qcow2] {
        guest.compare_commits(folder.path(), format, runs);
    }
}

/// A time against another one.
fn print(title: &str, time: Duration, other: Duration, limit: f64) {
    let ratio = time.as_secs_f64() / other.as_secs_f64();
    println!("  {title:<44} {time:>9.1?} / {other:>9.1?} = {ratio:.2} (limit {limit})");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

struct Guest {
    image: PathBuf,
    drivers: PathBuf,
}

impl Guest {
    fn compare_plan_and_apply(&self, folder: &Path, runs: usize) {
        let (overlay, saved) = (folder.join("overlay.qcow2"), folder.join("plan.json"));
        let run = |arguments: &[&OsStr]| {
            let mut command = Command::new(WINJECT);
            command.arg("--quiet").args(arguments).arg("--drivers").arg(&self.drivers);
            let output = command.stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let (image, policy) = (self.image.as_os_str(), ["--signature-policy", "warn"].map(OsStr::new));
        let (mut inject, mut both) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let _ = std::fs::remove_file(&overlay);
            inject.push(timed(|| {
                run(&["inject".as_ref(), image, policy[0], policy[1], "--overlay".as_ref(), overlay.as_os_str()]);
            }));
            let _ = (std::fs::remove_file(&overlay), std::fs::remove_file(&saved));
            both.push(timed(|| {
                run(&["plan".as_ref(), image, policy[0], policy[1], "-o".as_ref(), saved.as_os_str()]);
                run(&[
                    "apply".as_ref(),
                    saved.as_os_str(),
                    "--image".as_ref(),
                    image,
                    "--overlay".as_ref(),
                    overlay.as_os_str(),
                ]);
            }));
        }
        print("plan and apply / inject", median(both), median(inject), 1.3);
    }

    fn compare_commits(&self, folder: &Path, format: Format, runs: usize) {
        let original = folder.join(format!("original.{format}"));
        let image = folder.join(format!("image.{format}"));
        let source = block::open(&self.image, &OpenOptions::default()).unwrap();
        let options = ConvertOptions { format, ..ConvertOptions::default() };
        convert(&Stage::new(source, StageOptions::default()), &original, &options).unwrap();
        let (mut kept, mut not_kept, mut undone) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            not_kept.push(self.timed_commit(&original, &image, false));
            kept.push(self.timed_commit(&original, &image, true));
            undone.push(timed(|| drop(undo(&image, &UndoOptions::default()).unwrap())));
        }
        let (kept, not_kept, undone) = (median(kept), median(not_kept), median(undone));
        print(&format!("commit with undo record / without, {format}"), kept, not_kept, 1.15);
        print(&format!("undo / commit, {format}"), undone, kept, 1.0);
        std::fs::remove_file(&original).unwrap();
    }

    /// Stages an injection into a fresh copy of the image; the time that its commit takes.
    fn timed_commit(&self, original: &Path, image: &Path, keep_undo: bool) -> Duration {
        let _ = std::fs::remove_file(image);
        let copied = Command::new("cp").arg("--sparse=always").arg(original).arg(image).status().unwrap();
        assert!(copied.success() && Command::new("sync").arg(image).status().unwrap().success());
        let clock = FileTime::from_date(2024, 1, 2).unwrap();
        let drivers = vec![self.drivers.clone()];
        let mut request = InjectRequest::new(image, drivers, Destination::InPlace, clock);
        request.policy = Policy { signature: SignatureLevel::Warn };
        let mut staged = job::prepare(&request, &Silent, &mut Report::of_request(&request)).unwrap();
        let options = CommitOptions { keep_undo, ..CommitOptions::default() };
        timed(|| drop(commit_in_place(&mut staged.stage, image, &options).unwrap()))
    }
}
