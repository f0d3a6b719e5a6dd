//! Real hives: opened, edited, put back.

use std::collections::BTreeMap;

use winject::internals::hive::check::{Severity, check};
use winject::internals::hive::reader::Reader;
use winject::internals::hive::reg_file::{Document, KeyPath, Section, apply, export};
use winject::internals::hive::{Hive, RegistryData, ValueType};

use super::support::{DIRTY, HIVES, NOW, assert_clean, clean_hive, real_hives};
use crate::support;

/// The allocated cells of a hive that begins with bins: offset and content.
fn allocated_cells(bytes: &[u8]) -> BTreeMap<usize, &[u8]> {
    let end = 4096 + super::support::word(bytes, 40) as usize;
    let mut cells = BTreeMap::new();
    let mut bin = 4096;
    while bin < end {
        let next = bin + super::support::word(bytes, bin + 8) as usize;
        let mut at = bin + 32;
        while at < next {
            let size = super::support::word(bytes, at) as i32;
            if size < 0 {
                cells.insert(at, &bytes[at..at + size.unsigned_abs() as usize]);
            }
            at += size.unsigned_abs() as usize;
        }
        bin = next;
    }
    cells
}

fn real_hives_are_clean_for_the_checker() {
    for (path, bytes) in real_hives() {
        assert_eq!(check(&bytes), [], "{path}");
    }
}

fn unchanged_hives_come_out_as_they_went_in() {
    for (path, bytes) in real_hives() {
        let mut hive = Hive::open(bytes.clone()).unwrap();
        hive.ensure_editable().unwrap();
        assert_eq!(hive.create_key(hive.root(), "", NOW).unwrap(), hive.root());
        assert!(!hive.is_changed());
        assert!(hive.finish(&[]).unwrap() == bytes, "{path}");
    }
}

fn both_readers_see_the_same_tree() {
    for (path, bytes) in real_hives() {
        let hive = Hive::open(bytes.clone()).unwrap();
        let mut keys = 0;
        let mut pending = vec![hive.root()];
        let mut ours = BTreeMap::new();
        while let Some(key) = pending.pop() {
            keys += 1;
            let contents = (hive.values(key).unwrap(), hive.class(key).unwrap(), hive.key_time(key).unwrap());
            assert!(ours.insert(hive.key_path(key), contents).is_none());
            pending.extend(hive.subkeys(key).unwrap());
        }
        let mut seen = 0;
        let reader = Reader::open(&bytes).unwrap();
        reader
            .walk(&mut |path, node| {
                seen += 1;
                let (values, class, time) = &ours[path];
                assert_eq!(&node.values()?, values);
                assert_eq!(node.class()?, class.clone().unwrap_or_default());
                assert_eq!(node.last_written()?, time.0);
                Ok(())
            })
            .unwrap();
        assert_eq!(keys, seen, "{path}");
        assert_eq!(reader.reach_all().unwrap(), seen, "{path}");
    }
}

fn keys_are_found_by_their_path() {
    let Some(bytes) = clean_hive("hives/win10-1909/SYSTEM.xz") else { return };
    let hive = Hive::open(bytes).unwrap();
    let current = hive.find(hive.root(), "select").unwrap().unwrap();
    assert_eq!(hive.value(current, "CURRENT").unwrap().unwrap().as_u32(), Some(1));
    let services = hive.find(hive.root(), r"ControlSet001\SERVICES").unwrap().unwrap();
    for key in hive.subkeys(services).unwrap() {
        let name = hive.key_name(key).unwrap();
        assert_eq!(hive.subkey(services, &name).unwrap(), Some(key), "{name}");
    }
    assert_eq!(hive.find(services, "no such service").unwrap(), None);
}

/// What an injection writes, and more: many keys and values of every kind.
fn put_in(hive: &mut Hive) {
    put_in_version(hive, hive.minor_version());
}

fn put_in_version(hive: &mut Hive, minor: u32) {
    let top = hive.create_key(hive.root(), r"winject test\Ünïcode\Ω", NOW).unwrap();
    for i in 0..120 {
        let key = hive.create_key(top, &format!("Service {i}"), NOW).unwrap();
        for (name, data) in [
            ("", RegistryData::sz("default")),
            ("Start", RegistryData::dword(i)),
            ("ImagePath", RegistryData::expand_sz(r"\SystemRoot\System32\drivers\viostor.sys")),
            ("Group", RegistryData::multi_sz(&["SCSI miniport", "Ωmega"])),
            ("Nothing", RegistryData::none()),
            ("Blob", RegistryData::binary(vec![i as u8; i as usize * 7])),
        ] {
            assert!(hive.set_value(key, name, &data, NOW).unwrap());
        }
    }
    let largest = if minor < 4 { (1 << 20) - 4 } else { 1 << 20 };
    for size in [4, 5, 16343, 16344, 16345, 32688, 32689, 100_000, largest] {
        let name = format!("size {size}");
        hive.set_value(top, &name, &RegistryData::new(ValueType(0xFFFF_0012), vec![0xAB; size]), NOW).unwrap();
    }
}

fn take_out(hive: &mut Hive) {
    let top = hive.find(hive.root(), "WINJECT TEST").unwrap().unwrap();
    hive.delete_key(top, NOW).unwrap();
}

/// Cells of `before` that are not in `after`, or have other bytes there.
fn changed_cells(before: &[u8], after: &[u8]) -> usize {
    let new = allocated_cells(after);
    allocated_cells(before).into_iter().filter(|(at, cell)| new.get(at) != Some(cell)).count()
}

fn edits_of_real_hives_leave_everything_else_alone() {
    for (path, before) in real_hives() {
        let mut hive = Hive::open(before.clone()).unwrap();
        put_in(&mut hive);
        let after = hive.finish(&[]).unwrap();
        assert_clean(&after, Some(&before));
        // The root, its index and its security cell; what the index left behind was freed.
        let changed = changed_cells(&before, &after);
        assert!(changed <= 4, "{path}: {changed} cells changed");

        let mut hive = Hive::open(after.clone()).unwrap();
        take_out(&mut hive);
        let restored = hive.finish(&[]).unwrap();
        assert_clean(&restored, Some(&before));
        let changed = changed_cells(&before, &restored);
        assert!(changed <= 4, "{path}: {changed} cells changed after deletion");
        assert_eq!(allocated_cells(&restored).len(), allocated_cells(&before).len(), "{path}: nothing leaks");
    }
}

/// The same as a user does it: a `.reg` file imported, exported, and taken out by `[-Key]`.
fn real_hives_import_export_and_delete() {
    let mut model = Hive::create("MODEL", NOW);
    put_in_version(&mut model, 3);
    let path = KeyPath::from("winject test");
    let top = path.find(&model).unwrap().unwrap();
    let text = export(&model, top, &path).unwrap().to_bytes(&KeyPath::default()).unwrap();
    let mut delete = Document::parse(&text, &KeyPath::default()).unwrap();
    delete.sections.truncate(1);
    delete.sections[0] = Section { path: path.clone(), delete: true, values: Vec::new() };
    for (name, before) in real_hives() {
        let mut hive = Hive::open(before.clone()).unwrap();
        apply(&mut hive, &Document::parse(&text, &KeyPath::default()).unwrap(), NOW).unwrap();
        let mut hive = Hive::open(hive.finish(&[]).unwrap()).unwrap();
        let top = path.find(&hive).unwrap().unwrap();
        assert!(export(&hive, top, &path).unwrap().to_bytes(&KeyPath::default()).unwrap() == text, "{name}");
        apply(&mut hive, &delete, NOW).unwrap();
        let after = hive.finish(&[]).unwrap();
        let changed = changed_cells(&before, &after);
        assert!(changed <= 4, "{name}: {changed} cells changed");
        assert_eq!(allocated_cells(&after).len(), allocated_cells(&before).len(), "{name}: nothing leaks");
        assert_eq!(check(&after), check(&before), "{name}");
    }
}

/// No hive of the corpus is left out of these tests.
fn every_hive_of_the_corpus_is_tested() {
    let Some(folder) = support::corpus("hives") else { return };
    let known: Vec<String> = HIVES
        .iter()
        .map(|path| (*path).to_owned())
        .chain(DIRTY.iter().map(|(folder, file)| format!("hives/{folder}/{file}.xz")))
        .collect();
    for set in std::fs::read_dir(folder).unwrap() {
        let set = set.unwrap();
        for file in std::fs::read_dir(set.path()).unwrap() {
            let file = file.unwrap().file_name().into_string().unwrap();
            let path = format!("hives/{}/{file}", set.file_name().into_string().unwrap());
            let is_hive = !file.contains(".LOG") && !file.starts_with("recovered");
            assert!(!is_hive || known.contains(&path), "{path} is in no list");
        }
    }
}

fn a_length_that_cuts_bins_off_is_damage() {
    // The recovered hives of these sets keep the length from before the replay.
    for path in ["amcache-server2022-dirty", "ntuser-dirty", "win10-1709-dirty"] {
        let Some(mut bytes) = clean_hive(&format!("hives/{path}/recovered.xz")) else { return };
        super::support::seal(&mut bytes);
        assert!(check(&bytes).iter().any(|f| f.severity() == Severity::Error));
        let mut hive = Hive::open(bytes).unwrap();
        let error = hive.create_key(hive.root(), "new", NOW).unwrap_err();
        assert_eq!(error.kind(), winject::Kind::Damaged, "{path}: {error}");
    }
}

tests![
    real_hives_are_clean_for_the_checker,
    unchanged_hives_come_out_as_they_went_in,
    both_readers_see_the_same_tree,
    keys_are_found_by_their_path,
    edits_of_real_hives_leave_everything_else_alone,
    real_hives_import_export_and_delete,
    every_hive_of_the_corpus_is_tested,
    a_length_that_cuts_bins_off_is_damage,
];
