//! Dirty hives inside an image: replayed without being asked, and refused where that is not safe.

use std::path::Path;
use std::process::Output;

use winject::internals::block::{self, Format, Stage, StageOptions, commit};
use winject::internals::clock::FileTime;
use winject::internals::hive::check::check;
use winject::internals::hive::{Hive, RegistryData};
use winject::internals::ntfs::{CreateOptions, OpenOptions, Volume};
use winject::internals::partition::{PartitionView, read};

use super::logs_made::{dirty, new_log, old_log, put as number};
use super::support::{NOW, assert_clean, hivereplay, word};
use crate::inject::{fixture_drivers, sha256, winject, writable_fixture};

const SYSTEM: &str = "/Windows/System32/config/SYSTEM";
const LOG1: &str = "/Windows/System32/config/SYSTEM.LOG1";
const LOG2: &str = "/Windows/System32/config/SYSTEM.LOG2";
const LOG: &str = "/Windows/System32/config/SYSTEM.LOG";

fn has(image: &Path, path: &str) -> bool {
    let stage = Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = read(&stage).unwrap().partition(3).unwrap().clone();
    let view = PartitionView::new(&stage, &partition).unwrap();
    Volume::open(view, &OpenOptions::read_only()).unwrap().find(path).unwrap().is_some()
}

fn get(image: &Path, path: &str) -> Vec<u8> {
    let stage = Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = read(&stage).unwrap().partition(3).unwrap().clone();
    let view = PartitionView::new(&stage, &partition).unwrap();
    let volume = Volume::open(view, &OpenOptions::read_only()).unwrap();
    let file = volume.find(path).unwrap().unwrap();
    volume.read(file, 1 << 30).unwrap()
}

pub(super) fn put(image: &Path, files: &[(&str, &[u8])]) {
    change(image, |volume| {
        for (path, data) in files {
            volume.replace_file(path, data, &CreateOptions::default()).unwrap();
        }
    });
}

fn change(image: &Path, change: impl FnOnce(&mut Volume<PartitionView<&mut Stage>>)) {
    let mut stage = Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = read(&stage).unwrap().partition(3).unwrap().clone();
    let view = PartitionView::new(&mut stage, &partition).unwrap();
    let clock = FileTime::from_unix_seconds(1_600_000_000).unwrap();
    let mut volume = Volume::open(view, &OpenOptions::new(clock)).unwrap();
    change(&mut volume);
    volume.flush().unwrap();
    drop(volume);
    commit::commit_in_place(&mut stage, image, &commit::CommitOptions::default()).unwrap();
}

fn run(arguments: &[&str], image: &Path, more: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = winject().args(arguments).arg(image).args(more).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// How Windows keeps its logs: since 8.1 in the new format, in a pair of files; XP had one in the old format.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Logs {
    Pair,
    Single,
}

/// Puts a SYSTEM hive into the image whose last change, the key `FromLog`, is only in its log; returns the log.
fn make_dirty(image: &Path, logs: Logs) -> (&'static str, Vec<u8>) {
    let base = get(image, SYSTEM);
    let mut hive = Hive::open(base.clone()).unwrap();
    let key = hive.create_key(hive.root(), "FromLog", NOW).unwrap();
    hive.set_value(key, "Large", &RegistryData::binary(vec![7; 50_000]), NOW).unwrap();
    let next = hive.finish(&[]).unwrap();
    let (path, log) = match logs {
        Logs::Pair => (LOG1, new_log(&[base.clone(), next], word(&base, 4))),
        Logs::Single => (LOG, old_log(&base, &next)),
    };
    if logs == Logs::Single {
        change(image, |volume| [LOG1, LOG2].iter().for_each(|path| volume.delete(path).unwrap()));
    }
    put(image, &[(SYSTEM, &dirty(&base)), (path, &log)]);
    (path, log)
}

fn assert_settled(image: &Path, (path, log): (&str, &[u8])) {
    let after = get(image, SYSTEM);
    assert_eq!(check(&after), []);
    assert_clean(&after, None);
    assert!(get(image, path) == log, "the log is left alone");
    let (hive, replay) = Hive::open_with_logs(after.clone(), Some(log), None).unwrap();
    assert_eq!(replay, None);
    assert!(hive.find(hive.root(), "FromLog").unwrap().is_some());
    // Dirty again, before Windows has written a log of its own: the stale one does not fit.
    let mut again = after.clone();
    number(&mut again, 4, word(&after, 8) + 1);
    super::support::seal(&mut again);
    assert!(Hive::open_with_logs(again.clone(), Some(log), None).is_err());
    if let Some(foreign) = hivereplay(&again, [Some(log), None]) {
        assert!(foreign.is_none(), "the foreign replay would undo the edit");
    }
}

fn a_dirty_hive_inside_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let (path, log) = make_dirty(&image, Logs::Pair);
    let before = sha256(&image);
    let (code, said, noted) = run(&["reg", "query"], &image, &[r"HKLM\SYSTEM\FromLog"]);
    assert_eq!(code, 0, "{noted}");
    assert!(said.contains("(50000 bytes)") && noted.contains("1 log entries were replayed"), "{said}{noted}");
    assert_eq!(sha256(&image), before, "a query writes nothing");

    let key = r"HKLM\SYSTEM\CurrentControlSet\Services\winject";
    let (code, said, noted) = run(&["reg", "set"], &image, &[key, "--in-place"]);
    assert_eq!(code, 0, "{noted}");
    assert!(noted.contains("1 log entries were replayed"), "{said}{noted}");
    assert_settled(&image, (path, &log));
}

fn injection_replays_by_itself_and_says_so() {
    for logs in [Logs::Pair, Logs::Single] {
        let folder = tempfile::tempdir().unwrap();
        let image = writable_fixture(folder.path(), Format::Qcow2);
        let (path, log) = make_dirty(&image, logs);
        let (code, said, noted) = run(&["inspect"], &image, &[]);
        assert_eq!(code, 0, "{logs:?}: {said}{noted}");
        assert!(said.contains("SYSTEM was dirty; its logs were applied"), "{logs:?}: {said}{noted}");
        // Without the replay it is no hive at all.
        let (code, said, noted) = run(&["check"], &image, &[]);
        assert!(code <= 1 && !said.contains("cannot be read"), "{logs:?}: {code} {said}{noted}");
        let drivers = fixture_drivers();
        let drivers = drivers.to_str().unwrap();
        let report = folder.path().join("report.json");
        let more = ["--drivers", drivers, "--in-place", "--report", report.to_str().unwrap()];
        let (code, said, noted) = run(&["inject"], &image, &more);
        assert_eq!(code, 0, "{logs:?}: {said}{noted}");
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        assert!(report.to_string().contains("SYSTEM was dirty; its logs were applied"), "{report:#}");
        assert_settled(&image, (path, &log));
    }
}

fn a_single_log_beside_a_pair_is_a_relic() {
    let folder = tempfile::tempdir().unwrap();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    make_dirty(&image, Logs::Single);
    put(&image, &[(LOG1, &[])]);
    let drivers = fixture_drivers();
    let before = sha256(&image);
    let (code, _, complaint) = run(&["inject"], &image, &["--drivers", drivers.to_str().unwrap(), "--in-place"]);
    assert_eq!(code, 3, "{complaint}");
    assert!(complaint.contains("dirty") && complaint.contains("Hint: "), "{complaint}");
    assert_eq!(sha256(&image), before);
}

fn a_dirty_hive_whose_log_is_bad_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let (_, log) = make_dirty(&image, Logs::Pair);
    let mut bad = log.clone();
    bad[512 + 100] ^= 1; // in the pages of the only entry
    let drivers = fixture_drivers();
    let key = r"HKLM\SYSTEM\winject";
    for log in [&bad[..], &log[..600], &[]] {
        put(&image, &[(LOG1, log)]);
        let before = sha256(&image);
        for (command, more) in [
            (&["reg", "set"][..], &[key, "--in-place"][..]),
            (&["reg", "query"], &[r"HKLM\SYSTEM\Select"]),
            (&["inject"], &["--drivers", drivers.to_str().unwrap(), "--in-place"]),
        ] {
            let (code, _, complaint) = run(command, &image, more);
            assert_eq!(code, 3, "{command:?}: {complaint}");
            assert!(complaint.contains("dirty") && complaint.contains("Hint: "), "{complaint}");
        }
        assert_eq!(sha256(&image), before);
    }
}

fn an_interrupted_run_is_rolled_back_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let journal = commit::journal_path(&image);
    std::fs::write(&journal, b"not finished").unwrap();
    let before = sha256(&image);
    let new = folder.path().join("new.qcow2");
    let (code, _, complaint) = run(&["reg", "set"], &image, &[r"HKLM\SYSTEM\x", "--overlay", new.to_str().unwrap()]);
    assert_eq!(code, 9, "{complaint}");
    assert!(journal.exists() && !new.exists());
    assert_eq!(sha256(&image), before);
}

fn every_hive_of_the_config_folder_is_reached_by_its_place_in_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let places = [
        ("SAM", r"HKLM\SAM"),
        ("SECURITY", r"HKEY_LOCAL_MACHINE\SECURITY"),
        ("COMPONENTS", r"HKLM\COMPONENTS"),
        ("DRIVERS", r"hklm\drivers"),
        ("ELAM", r"HKLM\ELAM"),
        ("DEFAULT", r"HKU\.DEFAULT"),
        ("DEFAULT", r"HKU\S-1-5-18"),
    ];
    let (config, mut missing) = ("/Windows/System32/config", 0);
    for (file, place) in places {
        // A hive that this Windows does not have is a missing key, and is named.
        if !has(&image, &format!("{config}/{file}")) {
            for (command, more) in [(["reg", "query"], &[place][..]), (["reg", "set"], &[place, "--in-place"])] {
                let (code, _, complaint) = run(&command, &image, more);
                assert_eq!(code, 2, "{command:?} {place}: {complaint}");
                assert!(
                    complaint.contains(&format!("{config}/{file}")) && complaint.contains("no-such-key"),
                    "{complaint}"
                );
            }
            missing += 1;
        }
        let mut hive = Hive::create("ROOT", NOW);
        hive.create_key(hive.root(), &format!("of {file}"), NOW).unwrap();
        put(&image, &[(&format!("{config}/{file}"), &hive.finish(&[]).unwrap())]);
        let (code, said, noted) = run(&["reg", "query"], &image, &[place]);
        assert!(code == 0 && said.contains(&format!("of {file}")), "{place}: {said}{noted}");
    }
    assert!(missing > 0);
    // Both places of one hive in one file: both changes are made.
    let changes = folder.path().join("both.reg");
    let text = "Windows Registry Editor Version 5.00\n\n[HKEY_USERS\\.DEFAULT\\One]\n[HKEY_USERS\\S-1-5-18\\Two]\n";
    std::fs::write(&changes, text).unwrap();
    let (code, said, noted) = run(&["reg", "import"], &image, &[changes.to_str().unwrap(), "--in-place"]);
    assert_eq!(code, 0, "{said}{noted}");
    let edited = get(&image, "/Windows/System32/config/DEFAULT");
    assert_clean(&edited, None);
    let hive = Hive::open(edited).unwrap();
    let names: Vec<String> =
        hive.subkeys(hive.root()).unwrap().into_iter().map(|key| hive.key_name(key).unwrap().to_string()).collect();
    assert_eq!(names, ["of DEFAULT", "One", "Two"]);
    for place in [r"HKLM\BCD00000000\Objects", r"HKU\S-1-5-21-1-2-3-1000\Software", r"HKCU\Software", "Select"] {
        let (code, _, complaint) = run(&["reg", "query"], &image, &[place]);
        assert_eq!(code, 2, "{complaint}");
        assert!(complaint.contains("NTUSER.DAT, BCD") && complaint.contains(r"HKLM\SYSTEM"), "{complaint}");
    }
}

tests![
    a_dirty_hive_inside_an_image,
    injection_replays_by_itself_and_says_so,
    a_single_log_beside_a_pair_is_a_relic,
    a_dirty_hive_whose_log_is_bad_is_left_alone,
    an_interrupted_run_is_rolled_back_by_nobody_else,
    every_hive_of_the_config_folder_is_reached_by_its_place_in_the_registry,
];
