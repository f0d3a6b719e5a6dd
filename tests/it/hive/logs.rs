//! Replaying logs.

use winject::Kind;
use winject::internals::hive::{Hive, Replay};

use super::support::{DIRTY, NOW, assert_clean, folder, hivereplay, seal, word};
use crate::support;

struct Dirty {
    name: &'static str,
    hive: Vec<u8>,
    log1: Vec<u8>,
    log2: Vec<u8>,
    recovered: Vec<u8>,
}

fn load(folder: &'static str, file: &str) -> Option<Dirty> {
    let get = |name: &str| support::corpus_bytes(&format!("hives/{folder}/{name}.xz"));
    let (hive, recovered) = (get(file)?, get("recovered")?);
    Some(Dirty {
        name: folder,
        hive,
        log1: get(&format!("{file}.LOG1"))?,
        log2: get(&format!("{file}.LOG2"))?,
        recovered,
    })
}

fn open(set: &Dirty) -> (Hive, Replay) {
    let (hive, replay) = Hive::open_with_logs(set.hive.clone(), Some(&set.log1), Some(&set.log2)).unwrap();
    (hive, replay.unwrap())
}

fn a_dirty_hive_is_refused_with_that_word() {
    let Some(set) = load("usrclass-dirty", "UsrClass.dat") else { return };
    let error = Hive::open(set.hive).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("dirty"), "{error}");
    assert!(error.hint_text().is_some());
}

fn replays_equal_the_recovered_hives() {
    for (folder, file) in DIRTY {
        let Some(set) = load(folder, file) else { return };
        let (hive, replay) = open(&set);
        assert!(!hive.is_changed());
        let mut ours = hive.finish(&[]).unwrap();
        assert_eq!(word(&ours, 4), replay.sequence + 1, "finishing takes the next number");
        // The recovered hives still carry the base block of the dirty ones: unequal sequence numbers, and the length of
        // the bins from before the replay. In win10-1709, ntuser and amcache-server2022 the logs made the hive longer,
        // so a checker that believes the recovered file's length takes the new bins for cut off, and every reference
        // into them for damage. With the right length all five are clean, which `hivecheck.py --strict` confirms here
        // and in `replays_are_edited_and_stay_clean`: none of them lost log entries.
        let length = word(&ours, 40);
        let mut recovered = set.recovered.clone();
        recovered[40..44].copy_from_slice(&length.to_le_bytes());
        recovered.copy_within(4..8, 8);
        seal(&mut recovered);
        assert_clean(&recovered, None);
        for field in [4..12, 40..44, 508..512] {
            ours[field.clone()].copy_from_slice(&set.recovered[field]);
        }
        let first = ours.iter().zip(&set.recovered).position(|(a, b)| a != b);
        assert_eq!((ours.len(), first), (set.recovered.len(), None), "{}: {replay:?}", set.name);
    }
}

fn the_order_in_which_logs_are_given_does_not_matter() {
    for (folder, file) in DIRTY {
        let Some(set) = load(folder, file) else { return };
        let turned = Hive::open_with_logs(set.hive.clone(), Some(&set.log2), Some(&set.log1)).unwrap();
        assert!(turned.0.finish(&[]).unwrap() == open(&set).0.finish(&[]).unwrap(), "{}", set.name);
    }
}

fn replays_are_edited_and_stay_clean() {
    for (folder, file) in DIRTY {
        let Some(set) = load(folder, file) else { return };
        let (hive, _) = open(&set);
        assert_clean(&hive.finish(&[]).unwrap(), None);
        let (mut hive, replay) = open(&set);
        hive.create_key(hive.root(), r"winject\test", NOW).unwrap();
        let bytes = hive.finish(&[&set.log1, &set.log2]).unwrap();
        assert_clean(&bytes, None);
        assert!(word(&bytes, 4) > replay.sequence);
        // The logs that are still there cannot undo the edit: not while the hive is clean, and not when it is dirty
        // again before Windows has written its own logs (the first thing that it does).
        let again = Hive::open_with_logs(bytes.clone(), Some(&set.log1), Some(&set.log2)).unwrap();
        assert_eq!(again.1, None);
        let mut dirty = bytes.clone();
        dirty[4..8].copy_from_slice(&(word(&bytes, 8) + 1).to_le_bytes());
        seal(&mut dirty);
        let error = Hive::open_with_logs(dirty.clone(), Some(&set.log1), Some(&set.log2)).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused, "{}: {error}", set.name);
        for hive in [&bytes, &dirty] {
            let Some(foreign) = hivereplay(hive, [Some(&set.log1), Some(&set.log2)]) else { continue };
            assert!(foreign.is_none_or(|foreign| foreign[4096..] == bytes[4096..]), "{}: undone", set.name);
        }
    }
}

/// As `logs_beside_a_hive_are_replayed`, with the files of a user: what the program leaves behind is judged.
fn an_edited_file_is_not_undone_by_the_logs_beside_it() {
    for (name, file) in DIRTY {
        let Some(set) = load(name, file) else { return };
        let (log1, log2) = (format!("{file}.LOG1"), format!("{file}.LOG2"));
        let folder = folder(&[(file, &set.hive), (&log1, &set.log1), (&log2, &set.log2)]);
        let run = |arguments: &[&str]| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_winject"));
            support::run(command.arg("reg").args(arguments).current_dir(folder.path()))
        };
        run(&["set", file, "winject", "--default", "--data", "x"]);
        let after = std::fs::read(folder.path().join(file)).unwrap();
        assert_clean(&after, None);
        let (hive, replay) = Hive::open_with_logs(after.clone(), Some(&set.log1), Some(&set.log2)).unwrap();
        assert_eq!(replay, None);
        assert!(hive.find(hive.root(), "winject").unwrap().is_some());
        if let Some(foreign) = hivereplay(&after, [Some(&set.log1), Some(&set.log2)]) {
            assert!(foreign.is_none_or(|foreign| foreign[4096..] == after[4096..]), "{name}: undone");
        }
        // Without one of its logs, or with a broken one, either nothing is missing or the file stays as it is.
        std::fs::write(folder.path().join(file), &set.hive).unwrap();
        std::fs::write(folder.path().join(&log1), b"").unwrap();
        std::fs::write(folder.path().join(&log2), &set.log2[..700]).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_winject"));
        let output = command.args(["reg", "set", file, "winject"]).current_dir(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{name}: {text}");
        assert!(text.contains("log") && text.contains("Hint: "), "{text}");
        assert!(std::fs::read(folder.path().join(file)).unwrap() == set.hive);
    }
}

fn logs_that_do_not_fit_are_refused() {
    let Some(set) = load("usrclass-dirty", "UsrClass.dat") else { return };
    let refused = |log1: Option<&[u8]>, log2: Option<&[u8]>| {
        let error = Hive::open_with_logs(set.hive.clone(), log1, log2).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.hint_text().is_some());
        error.to_string()
    };
    assert!(refused(None, None).contains("there are none"));
    assert!(refused(Some(&[]), None).contains("empty"));
    assert!(refused(Some(&vec![0; 4096]), None).contains("no base block"));
    let mut broken = set.log1.clone();
    broken[4] ^= 1;
    assert!(refused(Some(&broken), None).contains("checksum"));
    broken.copy_from_slice(&set.log1);
    broken[512 + 60] ^= 1; // the first entry's data
    refused(Some(&broken), None);
    // Logs older than the hive.
    let mut newer = set.hive.clone();
    newer[8..12].copy_from_slice(&0x7000_0000u32.to_le_bytes());
    seal(&mut newer);
    assert!(Hive::open_with_logs(newer, Some(&set.log1), Some(&set.log2)).is_err());
}

tests![
    a_dirty_hive_is_refused_with_that_word,
    replays_equal_the_recovered_hives,
    the_order_in_which_logs_are_given_does_not_matter,
    replays_are_edited_and_stay_clean,
    an_edited_file_is_not_undone_by_the_logs_beside_it,
    logs_that_do_not_fit_are_refused,
];
