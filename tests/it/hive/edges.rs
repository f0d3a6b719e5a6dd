//! The sizes and counts at which the format changes its shape.

use winject::Kind;
use winject::internals::hive::check::check;
use winject::internals::hive::reader::Reader;
use winject::internals::hive::{Hive, Name, RegistryData, ValueType};

use super::support::{NOW, assert_clean, word};

fn clean(hive: Hive) -> Vec<u8> {
    let bytes = hive.finish(&[]).unwrap();
    assert_eq!(check(&bytes), []);
    bytes
}

/// The kinds of all lists of subkeys and their sizes, in the order of the file.
fn lists(bytes: &[u8]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut bin = 4096;
    while bin < 4096 + word(bytes, 40) as usize {
        let next = bin + word(bytes, bin + 8) as usize;
        let mut at = bin + 32;
        while at < next {
            let size = word(bytes, at) as i32;
            let kind = String::from_utf8_lossy(&bytes[at + 4..at + 6]).into_owned();
            if size < 0 && ["li", "lf", "lh", "ri"].contains(&kind.as_str()) {
                found.push((kind, u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]).into()));
            }
            at += size.unsigned_abs() as usize;
        }
        bin = next;
    }
    found.sort();
    found
}

fn with_subkeys(minor: u32, count: usize) -> Vec<(String, usize)> {
    let mut hive = Hive::create_version("ROOT", minor, NOW);
    for i in 0..count {
        hive.create_key(hive.root(), &format!("K{i:05}"), NOW).unwrap();
    }
    lists(&clean(hive))
}

fn lists_of_subkeys_split_as_those_of_live_kernels() {
    let one = |kind: &str, n| vec![(kind.to_owned(), n)];
    for (minor, count, expected) in [
        (5, 1, one("lh", 1)),
        (3, 1, one("lf", 1)),
        (3, 507, one("lf", 507)),
        (3, 508, one("li", 508)),
        (4, 508, one("li", 508)),
        (5, 508, one("lh", 508)),
        (5, 1013, one("lh", 1013)),
        (3, 1013, one("li", 1013)),
        (5, 1014, vec![("lh".into(), 506), ("lh".into(), 508), ("ri".into(), 2)]),
        (3, 1014, vec![("li".into(), 506), ("li".into(), 508), ("ri".into(), 2)]),
        (6, 1600, vec![("lh".into(), 506), ("lh".into(), 506), ("lh".into(), 588), ("ri".into(), 3)]),
    ] {
        assert_eq!(with_subkeys(minor, count), expected, "1.{minor}, {count} subkeys");
    }
}

fn no_empty_list_stays_behind() {
    let mut hive = Hive::create("ROOT", NOW);
    for i in 0..1014 {
        hive.create_key(hive.root(), &format!("K{i:05}"), NOW).unwrap();
    }
    // All of the second leaf, then of the first, from the front and from the back.
    for (order, left) in [((506..1014).collect::<Vec<_>>(), 506), ((0..506).rev().collect(), 0)] {
        for i in order {
            let key = hive.find(hive.root(), &format!("K{i:05}")).unwrap().unwrap();
            hive.delete_key(key, NOW).unwrap();
        }
        let bytes = clean(hive);
        let expected = if left == 0 { vec![] } else { vec![("lh".to_owned(), left), ("ri".to_owned(), 1)] };
        assert_eq!(lists(&bytes), expected);
        hive = Hive::open(bytes).unwrap();
    }
    let root = 4096 + word(&clean(hive), 36) as usize;
    assert_ne!(root, 0);
}

fn data_are_stored_by_their_size() {
    for minor in [3, 4, 5, 6] {
        for size in [0, 1, 4, 5, 8, 16343, 16344, 16345, 32687, 32688, 32689] {
            let data: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            let mut hive = Hive::create_version("ROOT", minor, NOW);
            assert!(hive.set_value(hive.root(), "v", &RegistryData::binary(data.clone()), NOW).unwrap());
            let bytes = clean(hive);
            let big = bytes[4096..].windows(2).any(|w| w == b"db") && size > 1000;
            assert_eq!(big && data.len() > 16344, minor >= 4 && size > 16344, "1.{minor}, {size} bytes");
            assert_eq!(Reader::open(&bytes).unwrap().root().unwrap().value("V").unwrap().unwrap().bytes, data);
        }
    }
}

fn every_change_of_size_frees_what_was_there() {
    let sizes = [0usize, 3, 4, 5, 100, 16344, 16345, 32688, 32689, 50_000];
    for minor in [3, 5] {
        for from in sizes {
            for to in sizes {
                let mut hive = Hive::create_version("ROOT", minor, NOW);
                hive.set_value(hive.root(), "v", &RegistryData::binary(vec![1; from]), NOW).unwrap();
                hive.set_value(hive.root(), "v", &RegistryData::binary(vec![2; to]), NOW).unwrap();
                assert_eq!(hive.value(hive.root(), "v").unwrap().unwrap().bytes, vec![2; to]);
                let mut hive = Hive::open(clean(hive)).unwrap();
                assert!(hive.delete_value(hive.root(), "v", NOW).unwrap());
                clean(hive);
            }
        }
    }
}

fn names_of_every_upper_casable_unit_are_found() {
    let mut hive = Hive::create("ROOT", NOW);
    let table = winject::internals::upcase::table();
    let units: Vec<u16> = (1..=u16::MAX).filter(|&u| table[usize::from(u)] != u).collect();
    for &unit in &units {
        let name = Name::from_units(vec![0x41, unit, 0x42]);
        hive.create_subkey(hive.root(), &name, NOW).unwrap();
        hive.set_value_named(hive.root(), &name, &RegistryData::new(ValueType::NONE, []), NOW).unwrap();
    }
    let bytes = clean(hive);
    assert_clean(&bytes, None);
    let reader = Reader::open(&bytes).unwrap();
    for &unit in &units {
        let upper = [0x61, table[usize::from(unit)], 0x62];
        assert!(reader.root().unwrap().subkey(&upper).unwrap().is_some(), "{unit:#x}");
    }
}

fn names_that_windows_would_not_take_are_refused() {
    let mut hive = Hive::create("ROOT", NOW);
    for bad in ["a\0b".to_owned(), "x".repeat(256), "Ω".repeat(256)] {
        let error = hive.create_subkey(hive.root(), &Name::from(bad.as_str()), NOW).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.hint_text().is_some());
    }
    assert!(hive.create_subkey(hive.root(), &Name::from("a\\b"), NOW).is_err());
    assert!(hive.create_subkey(hive.root(), &Name::default(), NOW).is_err());
    assert!(hive.set_value(hive.root(), &"x".repeat(16384), &RegistryData::new(ValueType::NONE, []), NOW).is_err());
    assert!(hive.delete_key(hive.root(), NOW).is_err());
    for good in ["x".repeat(255), "Ω".repeat(255)] {
        hive.create_key(hive.root(), &good, NOW).unwrap();
    }
    hive.set_value(hive.root(), &"Ω".repeat(16383), &RegistryData::new(ValueType::NONE, []), NOW).unwrap();
    assert_clean(&clean(hive), None);
}

fn keys_nest_as_deep_as_windows_allows() {
    let mut hive = Hive::create("ROOT", NOW);
    let path = vec!["d"; 511].join("\\");
    let deepest = hive.create_key(hive.root(), &path, NOW).unwrap();
    let error = hive.create_key(deepest, "one more", NOW).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let mut hive = Hive::open(clean(hive)).unwrap();
    let top = hive.find(hive.root(), "d").unwrap().unwrap();
    hive.delete_key(top, NOW).unwrap();
    clean(hive);
}

fn the_same_again_changes_nothing() {
    let mut hive = Hive::create("ROOT", NOW);
    let key = hive.create_key(hive.root(), r"A\B", NOW).unwrap();
    let data = RegistryData::sz("text");
    hive.set_value(key, "Name", &data, NOW).unwrap();
    let bytes = clean(hive);
    let mut hive = Hive::open(bytes.clone()).unwrap();
    let later = winject::internals::clock::FileTime(NOW.0 + 1);
    let key = hive.create_key(hive.root(), r"a\b", later).unwrap();
    assert!(!hive.set_value(key, "NAME", &data, later).unwrap());
    assert!(!hive.delete_value(key, "other", later).unwrap());
    assert!(!hive.is_changed());
    assert_eq!(hive.finish(&[]).unwrap(), bytes);
    let mut hive = Hive::open(bytes.clone()).unwrap();
    assert!(hive.set_value(key, "NAME", &RegistryData::new(ValueType::EXPAND_SZ, data.bytes.clone()), later).unwrap());
    let value = hive.value_named(key, &Name::from("name")).unwrap().unwrap();
    assert_eq!(value.name.to_string(), "Name", "the spelling stays");
    assert_eq!(hive.key_time(key).unwrap(), later);
    let after = clean(hive);
    assert_eq!(word(&after, 4), word(&bytes, 4) + 1);
}

fn descriptors_are_shared_and_counted() {
    let mut hive = Hive::create("ROOT", NOW);
    let keys: Vec<_> = (0..10).map(|i| hive.create_key(hive.root(), &format!("K{i}"), NOW).unwrap()).collect();
    let mut other = hive.security(hive.root()).unwrap().to_vec();
    let sid = other.len() - 4;
    other[sid] = 0x21; // another group
    assert!(hive.set_security(keys[0], &[1, 2, 3], NOW).is_err());
    for &key in &keys[..5] {
        assert!(hive.set_security(key, &other, NOW).unwrap());
        assert!(!hive.set_security(key, &other, NOW).unwrap());
    }
    let mut hive = Hive::open(clean(hive)).unwrap();
    assert_eq!(hive.security(keys[4]).unwrap(), other);
    // A child takes its parent's; the root's own descriptor can be replaced too.
    let child = hive.create_key(keys[4], "child", NOW).unwrap();
    assert_eq!(hive.security(child).unwrap(), other);
    let root = hive.root();
    assert!(hive.set_security(root, &other, NOW).unwrap());
    for &key in &keys[5..] {
        assert!(hive.set_security(key, &other, NOW).unwrap());
    }
    let bytes = clean(hive);
    assert_clean(&bytes, None);
    assert_eq!(bytes[4096..].windows(4).filter(|w| w == b"sk\0\0").count(), 1 + 1, "one in use, one freed");
}

fn growth_goes_into_the_tail_of_the_file_first() {
    let mut bytes = Hive::create("ROOT", NOW).finish(&[]).unwrap();
    bytes.resize(64 * 1024, 0xEE);
    let mut hive = Hive::open(bytes).unwrap();
    hive.set_value(hive.root(), "v", &RegistryData::binary([1; 10_000]), NOW).unwrap();
    assert_eq!(hive.file_size(), 64 * 1024);
    let bytes = clean(hive);
    assert_clean(&bytes, None);
    let mut hive = Hive::open(bytes).unwrap();
    hive.set_value(hive.root(), "w", &RegistryData::binary([1; 100_000]), NOW).unwrap();
    assert_clean(&clean(hive), None);
}

fn maxima_are_kept_and_reset() {
    let mut hive = Hive::create("ROOT", NOW);
    let root = 4096 + 0x20 + 4;
    let fields = |hive: &[u8]| [52, 60, 64].map(|at| word(hive, root + at) & 0xFFFF);
    let a = hive.create_key(hive.root(), "abc", NOW).unwrap();
    hive.create_key(hive.root(), "abcdef", NOW).unwrap();
    hive.set_value(hive.root(), "name", &RegistryData::binary([1; 30]), NOW).unwrap();
    let bytes = clean(hive);
    assert_eq!(fields(&bytes), [12, 8, 30]);
    let mut hive = Hive::open(bytes).unwrap();
    let long = hive.find(hive.root(), "abcdef").unwrap().unwrap();
    hive.delete_key(long, NOW).unwrap();
    assert!(hive.delete_value(hive.root(), "name", NOW).unwrap());
    let bytes = clean(hive);
    assert_eq!(fields(&bytes), [12, 0, 0], "never lowered while something is left");
    let mut hive = Hive::open(bytes).unwrap();
    hive.delete_key(a, NOW).unwrap();
    assert_eq!(fields(&clean(hive)), [0, 0, 0]);
}

tests![
    lists_of_subkeys_split_as_those_of_live_kernels,
    no_empty_list_stays_behind,
    data_are_stored_by_their_size,
    every_change_of_size_frees_what_was_there,
    names_of_every_upper_casable_unit_are_found,
    names_that_windows_would_not_take_are_refused,
    keys_nest_as_deep_as_windows_allows,
    the_same_again_changes_nothing,
    descriptors_are_shared_and_counted,
    growth_goes_into_the_tail_of_the_file_first,
    maxima_are_kept_and_reset,
];
