//! Replays of `$LogFile`: logs that Windows wrote, turned back by `rewind.py` to an earlier moment, whose outcome is the
//! disk that Windows had; and a log by `make-unclean.py`, which `replay.py` replays, too. `samevol.py` compares.
//!
//! What these judges cannot see: volumes that crashed with many records behind the checkpoint in a multi-page transfer cut
//! short, transaction tables that are not empty, and 4Kn disks; no such log of Windows is at hand.

use std::io::Read;
use std::path::Path;
use std::process::Command;

use winject::internals::io::{MemoryVolume, VolumeWrite};
use winject::internals::ntfs::log::{PendingState, replay, summarize};

use super::log_damage::{damage, errors};
use super::volume::FileDevice;
use crate::support;

/// A volume of 7 MiB by Windows 7.
const TINY: &str = "ntfs/tiny-unclean-log.raw.xz";

/// Runs a script of the judges with two files at the end; whether it succeeded, and its output.
fn script(name: &str, options: &[String], files: [&Path; 2]) -> Option<(bool, String)> {
    let script = support::judge(&format!("logfile/{name}"))?;
    let output = Command::new(support::program("python3")?).arg(script).args(options).args(files).output().unwrap();
    Some((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Replays the volume in place, and demands that the result is closed, clean and final.
fn replay_file(path: &Path, what: &str) {
    let mut device = FileDevice::open(path, 0);
    let before = summarize(&device).unwrap();
    let replayed = replay(&device).unwrap_or_else(|e| panic!("{what}: {e}")).unwrap();
    assert_eq!(before.transactions, replayed.report.transactions, "{what}");
    assert!(before.records >= replayed.report.redone, "{what}");
    for (at, data) in replayed.overlay.writes() {
        device.write_at(at, data).unwrap();
    }
    let after = summarize(&device).unwrap();
    assert_eq!((after.state, after.version), (PendingState::Closed, Some((1, 1))), "{what}");
    assert!(after.last_lsn > before.last_lsn, "{what}: the log goes on");
    assert_eq!(replay(&device).unwrap(), None, "{what}: a second replay");
    assert_eq!(errors(&device), 0, "{what}");
    let script = support::judge("logfile/logdump.py").unwrap();
    support::run(Command::new("python3").arg(script).arg(path));
}

/// The comparison's verdict on a volume; resident content of files is not logged.
fn assert_same(want: &Path, got: &Path, what: &str) {
    let (same, text) = script("samevol.py", &[], [want, got]).unwrap();
    let verdict = text.lines().last().unwrap_or_default();
    assert!(same || verdict.contains("all in resident"), "{what}:\n{text}");
}

fn logs_of_windows_that_are_turned_back_replay_to_the_disk_that_windows_had() {
    let Some(bytes) = support::corpus_bytes(TINY) else { return };
    let folder = tempfile::tempdir().unwrap();
    let [clean, open] = ["clean", "open"].map(|name| folder.path().join(name));
    std::fs::write(&clean, bytes).unwrap();
    let mut replayed = 0;
    for number in 0..support::rounds(6, 20) {
        let (checkpoint, seed) = (number % 13, number / 13);
        let mut options = vec!["--checkpoint".into(), checkpoint.to_string(), "--seed".into(), seed.to_string()];
        let crash = number % 2 == 1;
        if crash {
            options.extend(["--end".into(), (17 + 11 * number % 60).to_string()]);
        }
        let Some((made, _)) = script("rewind.py", &options, [&clean, &open]) else { return };
        // not every moment can be made, see rewind.py
        if made {
            let what = format!("rewind.py {}", options.join(" "));
            replay_file(&open, &what);
            let want = if crash { folder.path().join("open.want") } else { clean.clone() };
            assert_same(&want, &open, &what);
            replayed += 1;
        }
    }
    assert!(replayed > 2, "only {replayed} moments could be made");
}

fn a_log_with_nothing_waiting_is_only_closed() {
    let Some(bytes) = support::corpus_bytes(TINY) else { return };
    let device = MemoryVolume(bytes);
    let summary = summarize(&device).unwrap();
    assert_eq!((summary.state, summary.records), (PendingState::NothingPending, 0));
    let replayed = replay(&device).unwrap().unwrap();
    assert_eq!((replayed.report.redone, replayed.report.undone, replayed.report.file_count), (0, 0, 0));
    assert!(replayed.overlay.writes().count() <= 4, "more than pages of the log");
}

/// The packed volume whose log holds 115 records that are waiting, the last transaction without its end.
fn unclean() -> Vec<u8> {
    let packed = std::fs::read(support::root().join("test-images/ntfs/unclean.img.gz")).unwrap();
    let mut image = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut image).unwrap();
    image
}

fn a_generated_log_replays_as_the_reference_replays_it() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, reference] = ["ours", "reference"].map(|name| folder.path().join(name));
    std::fs::write(&ours, unclean()).unwrap();
    std::fs::write(&reference, unclean()).unwrap();
    let Some(script) = support::judge("logfile/replay.py") else { return };
    support::run(Command::new("python3").arg(script).arg(&reference));
    let summary = summarize(&FileDevice::open(&ours, 0)).unwrap();
    assert_eq!((summary.version, summary.state, summary.transactions), (Some((2, 0)), PendingState::Pending, 1));
    replay_file(&ours, "the packed volume");
    assert_same(&reference, &ours, "the packed volume");
}

fn a_damaged_log_is_refused_or_gives_a_volume_that_can_be_judged() {
    let device = MemoryVolume(unclean());
    let outcome = damage(&device, support::rounds(100, 300), 1);
    assert!(outcome.refused > 0 && outcome.equal > 0, "{outcome:?}");
    println!("{outcome:?}");
}

tests![
    logs_of_windows_that_are_turned_back_replay_to_the_disk_that_windows_had,
    a_log_with_nothing_waiting_is_only_closed,
    a_generated_log_replays_as_the_reference_replays_it,
    a_damaged_log_is_refused_or_gives_a_volume_that_can_be_judged,
];
