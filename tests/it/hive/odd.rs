//! Hives that other programs left odd: edited all the same where that is sound, never trusted where it is not.

use winject::Kind;
use winject::internals::hive::check::{Code, FAULTS_MAX, Fault, Severity, check};
use winject::internals::hive::reader::Reader;
use winject::internals::hive::{Hive, Name, RegistryData, ValueType};

use super::support::{NOW, assert_clean, seal, word};

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Where the data of each allocated cell with this signature begin in the file.
fn cells(bytes: &[u8], signature: &[u8]) -> Vec<usize> {
    let (mut found, mut bin) = (Vec::new(), 4096);
    while bin < 4096 + word(bytes, 40) as usize {
        let (next, mut at) = (bin + word(bytes, bin + 8) as usize, bin + 32);
        while at < next {
            let size = word(bytes, at) as i32;
            if size < 0 && bytes[at + 4..].starts_with(signature) {
                found.push(at + 4);
            }
            at += size.unsigned_abs() as usize;
        }
        bin = next;
    }
    found
}

fn key(bytes: &[u8], name: &str) -> usize {
    let has_name = |&at: &usize| bytes[at + 76..].starts_with(name.as_bytes()) && bytes[at + 72] == name.len() as u8;
    cells(bytes, b"nk").into_iter().find(has_name).unwrap()
}

/// A hive with more warnings than a report names: keys whose cached maxima are too small.
fn neglected() -> Vec<u8> {
    let mut hive = Hive::create("ROOT", NOW);
    for i in 0..6000 {
        let key = hive.create_key(hive.root(), &format!("Key {i:05}"), NOW).unwrap();
        hive.set_value(key, "value", &RegistryData::binary([1; 9]), NOW).unwrap();
    }
    let mut bytes = hive.finish(&[]).unwrap();
    for at in cells(&bytes, b"nk") {
        put(&mut bytes, at + 60, 0);
        put(&mut bytes, at + 64, 0);
    }
    bytes
}

/// How many faults are counted, but not named.
fn unnamed(faults: &[Fault]) -> usize {
    faults.iter().filter_map(|f| f.text().strip_suffix(" more")?.parse::<usize>().ok()).sum()
}

fn warnings_do_not_hide_errors() {
    let mut bytes = neglected();
    let faults = check(&bytes);
    assert!(faults.iter().all(|f| f.severity() == Severity::Warning));
    assert!((FAULTS_MAX..FAULTS_MAX + 10).contains(&faults.len()), "{}", faults.len());
    assert_eq!(unnamed(&faults), 2000, "two for each of the 6000 keys");

    // Edits that move the named warnings around are possible, and add none.
    let mut hive = Hive::open(bytes.clone()).unwrap();
    let first = hive.find(hive.root(), "Key 00000").unwrap().unwrap();
    hive.delete_key(first, NOW).unwrap();
    hive.create_key(hive.root(), "A new one", NOW).unwrap();
    let after = hive.finish(&[]).unwrap();
    assert_eq!(unnamed(&check(&after)), 1998, "one such key is gone");

    // An error behind the warnings: the last key's parent is wrong.
    let last = key(&bytes, "Key 05999");
    put(&mut bytes, last + 16, 0x28);
    assert!(check(&bytes).iter().any(|f| f.code() == Code::NkParent));
    let mut hive = Hive::open(bytes).unwrap();
    let error = hive.create_key(hive.root(), "new", NOW).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(error.to_string().contains("NK-PARENT"), "{error}");
}

fn reports_on_deep_hives_stay_small() {
    let mut hive = Hive::create("ROOT", NOW);
    let mut at = hive.root();
    for i in 0..500u16 {
        // Control characters take the most room in a report.
        let units = (0..255).map(|n| if n < 4 { 0x41 + (i >> (4 * n) & 15) } else { 1 }).collect();
        at = hive.create_subkey(at, &Name::from_units(units), NOW).unwrap();
    }
    for i in 0..3000 {
        hive.set_value(at, &format!("value {i}"), &RegistryData::binary([1]), NOW).unwrap();
    }
    let mut bytes = hive.finish(&[]).unwrap();
    for at in cells(&bytes, b"vk") {
        bytes[at + 16] |= 4;
    }
    let faults = check(&bytes);
    assert_eq!(faults.len(), 3000);
    assert!(faults.iter().all(|f| f.code() == Code::VkFlags && f.place().len() < 8192));
    let mut places: Vec<_> = faults.iter().map(|f| f.place()).collect();
    places.dedup();
    assert_eq!(places.len(), 3000, "each is told from the others");
}

/// A hive in which keys without subkeys and values still point to lists, as hivex leaves them. `share`: both to one.
fn with_stale_lists(share: bool) -> Vec<u8> {
    let mut hive = Hive::create("ROOT", NOW);
    for name in ["Class 1", "Class 2"] {
        let key = hive.create_key(hive.root(), name, NOW).unwrap();
        hive.set_class(key, Some(&Name::from("class")), NOW).unwrap();
    }
    for name in ["Left 1", "Left 2", "Owned"] {
        hive.create_key(hive.root(), name, NOW).unwrap();
    }
    let mut bytes = hive.finish(&[]).unwrap();
    // The cells of the class names become lists that nobody else uses.
    let mut lists = Vec::new();
    for name in ["Class 1", "Class 2"] {
        let at = key(&bytes, name);
        lists.push(word(&bytes, at + 48));
        put(&mut bytes, at + 48, u32::MAX);
        bytes[at + 74..at + 76].fill(0);
    }
    if share {
        lists[1] = lists[0];
    }
    let (left1, left2) = (key(&bytes, "Left 1"), key(&bytes, "Left 2"));
    put(&mut bytes, left1 + 28, lists[0]);
    put(&mut bytes, left1 + 40, lists[1]);
    put(&mut bytes, left2 + 40, lists[1]);
    // One points to a list that is in use: the root's.
    let (owned, root) = (key(&bytes, "Owned"), key(&bytes, "ROOT"));
    let list = word(&bytes, root + 28);
    put(&mut bytes, owned + 28, list);
    seal(&mut bytes);
    bytes
}

fn stale_lists_are_freed_once_and_only_when_nobody_uses_them() {
    for share in [false, true] {
        let before = with_stale_lists(share);
        let oddities: Vec<Code> = check(&before).iter().map(|f| f.code()).collect();
        assert!(oddities.iter().all(|c| [Code::SlEmpty, Code::VlEmpty, Code::CeOrphan].contains(c)), "{oddities:?}");
        let edits: [fn(&mut Hive); 3] = [
            |hive| {
                for name in ["Left 1", "Left 2", "Owned"] {
                    let key = hive.create_key(hive.root(), &format!("{name}\\new"), NOW).unwrap();
                    hive.set_value(key, "v", &RegistryData::binary([1; 30]), NOW).unwrap();
                    let key = hive.find(hive.root(), name).unwrap().unwrap();
                    hive.set_value(key, "v", &RegistryData::binary([1; 30]), NOW).unwrap();
                }
            },
            |hive| {
                for name in ["Left 1", "Left 2", "Owned"] {
                    let key = hive.find(hive.root(), name).unwrap().unwrap();
                    hive.delete_key(key, NOW).unwrap();
                }
            },
            |hive| {
                let key = hive.create_key(hive.root(), r"Left 1\new", NOW).unwrap();
                hive.delete_key(key, NOW).unwrap();
                let key = hive.find(hive.root(), "Left 2").unwrap().unwrap();
                hive.set_value(key, "v", &RegistryData::binary([1; 30]), NOW).unwrap();
            },
        ];
        for edit in edits {
            let mut hive = Hive::open(before.clone()).unwrap();
            edit(&mut hive);
            let after = hive.finish(&[]).unwrap();
            assert!(check(&after).iter().all(|f| f.severity() == Severity::Warning));
            assert_clean(&after, Some(&before));
        }
    }
}

fn reference_counts_that_are_too_high_do_not_stop_an_edit() {
    let mut hive = Hive::create("ROOT", NOW);
    let other = {
        let mut other = hive.security(hive.root()).unwrap().to_vec();
        *other.last_mut().unwrap() = 1;
        other
    };
    for name in ["a", "b"] {
        let key = hive.create_key(hive.root(), name, NOW).unwrap();
        hive.set_security(key, &other, NOW).unwrap();
    }
    let mut bytes = hive.finish(&[]).unwrap();
    let sk = cells(&bytes, b"sk").into_iter().find(|&at| word(&bytes, at + 12) == 2).unwrap();
    put(&mut bytes, sk + 12, 5); // as Windows' own repairs leave it
    assert_eq!(check(&bytes).len(), 1);
    let mut hive = Hive::open(bytes.clone()).unwrap();
    for name in ["a", "b"] {
        let key = hive.find(hive.root(), name).unwrap().unwrap();
        hive.delete_key(key, NOW).unwrap();
    }
    let after = hive.finish(&[]).unwrap();
    assert_eq!(check(&after), [], "the last user takes the cell along");
    assert_clean(&after, Some(&bytes));
}

fn a_link_gets_no_subkeys() {
    let mut hive = Hive::create("ROOT", NOW);
    hive.create_key(hive.root(), "Link", NOW).unwrap();
    let mut bytes = hive.finish(&[]).unwrap();
    let at = key(&bytes, "Link");
    bytes[at + 2] |= 0x10;
    let mut hive = Hive::open(bytes).unwrap();
    let error = hive.create_key(hive.root(), r"Link\below", NOW).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().contains("symbolic link"), "{error}");
    let link = hive.find(hive.root(), "Link").unwrap().unwrap();
    assert!(hive.set_value(link, "SymbolicLinkValue", &RegistryData::new(ValueType::LINK, b"x\0"), NOW).unwrap());
    assert_eq!(check(&hive.finish(&[]).unwrap()), []);
}

fn a_value_that_is_listed_many_times_costs_no_memory() {
    let mut hive = Hive::create("ROOT", NOW);
    let long = "n".repeat(16_000);
    hive.set_value(hive.root(), &long, &RegistryData::binary([]), NOW).unwrap();
    for i in 0..4000 {
        hive.set_value(hive.root(), &format!("{i}"), &RegistryData::binary([]), NOW).unwrap();
    }
    let mut bytes = hive.finish(&[]).unwrap();
    let list = word(&bytes, key(&bytes, "ROOT") + 40) as usize + 4100;
    let first = word(&bytes, list);
    (0..4001).for_each(|i| put(&mut bytes, list + 4 * i, first));
    let hive = Hive::open(bytes.clone()).unwrap();
    assert_eq!(hive.values(hive.root()).unwrap_err().kind(), Kind::Damaged);
    assert_eq!(Reader::open(&bytes).unwrap().root().unwrap().values().unwrap_err().kind(), Kind::Damaged);
    assert!(check(&bytes).iter().any(|f| f.code() == Code::RfShared));
}

tests![
    warnings_do_not_hide_errors,
    reports_on_deep_hives_stay_small,
    stale_lists_are_freed_once_and_only_when_nobody_uses_them,
    reference_counts_that_are_too_high_do_not_stop_an_edit,
    a_link_gets_no_subkeys,
    a_value_that_is_listed_many_times_costs_no_memory,
];
