//! Replaying logs.

use winject::Kind;
use winject::hive::{Hive, Replay};

use super::support::{NOW, assert_clean, seal, word};
use crate::support;

struct Dirty {
    name: &'static str,
    hive: Vec<u8>,
    log1: Vec<u8>,
    log2: Vec<u8>,
    recovered: Vec<u8>,
}

const SETS: [(&str, &str); 5] = [
    ("win10-1709-dirty", "SYSTEM"),
    ("usrclass-dirty", "UsrClass.dat"),
    ("ntuser-dirty", "NTUSER.DAT"),
    ("amcache-win10-dirty", "Amcache.hve"),
    ("amcache-server2022-dirty", "Amcache.hve"),
];

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

#[test]
fn a_dirty_hive_is_refused_with_that_word() {
    let Some(set) = load("usrclass-dirty", "UsrClass.dat") else { return };
    let error = Hive::open(set.hive).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("dirty"), "{error}");
    assert!(error.hint_text().is_some());
}

#[test]
fn replays_equal_the_recovered_hives() {
    for (folder, file) in SETS {
        let Some(set) = load(folder, file) else { return };
        let (hive, replay) = open(&set);
        assert!(!hive.is_changed());
        let mut ours = hive.finish(&[]).unwrap();
        assert_eq!(word(&ours, 4), replay.sequence + 1, "finishing takes the next number");
        // The recovered hives still carry the base block of the dirty ones: unequal sequence numbers, and the length
        // from before the replay.
        for field in [4..12, 40..44, 508..512] {
            ours[field.clone()].copy_from_slice(&set.recovered[field]);
        }
        let first = ours.iter().zip(&set.recovered).position(|(a, b)| a != b);
        assert_eq!((ours.len(), first), (set.recovered.len(), None), "{}: {replay:?}", set.name);
    }
}

#[test]
fn the_order_in_which_logs_are_given_does_not_matter() {
    for (folder, file) in SETS {
        let Some(set) = load(folder, file) else { return };
        let turned = Hive::open_with_logs(set.hive.clone(), Some(&set.log2), Some(&set.log1)).unwrap();
        assert!(turned.0.finish(&[]).unwrap() == open(&set).0.finish(&[]).unwrap(), "{}", set.name);
    }
}

#[test]
fn replays_are_edited_and_stay_clean() {
    for (folder, file) in SETS {
        let Some(set) = load(folder, file) else { return };
        let (hive, _) = open(&set);
        assert_clean(&hive.finish(&[]).unwrap(), None);
        let (mut hive, replay) = open(&set);
        hive.create_key(hive.root(), r"winject\test", NOW).unwrap();
        let bytes = hive.finish(&[&set.log1, &set.log2]).unwrap();
        assert_clean(&bytes, None);
        assert!(word(&bytes, 4) > replay.sequence);
        // Even when the base block breaks later, the logs are older than the hive.
        let again = Hive::open_with_logs(bytes.clone(), Some(&set.log1), Some(&set.log2)).unwrap();
        assert_eq!(again.1, None);
    }
}

#[test]
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
