//! Random edits against a model, judged by foreign readers and checkers.

use std::collections::BTreeMap;
use std::process::Command;

use winject::internals::clock::FileTime;
use winject::internals::hive::check::check;
use winject::internals::hive::{Hive, KeyId, Name, RegistryData, ValueType};
use winject::internals::random::Random;

use super::foreign::{self, Listing, assert_same};
use super::support::{NOW, assert_clean};
use crate::support;

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[random.index(from.len())]
}

/// What names may hold: everything, or what all foreign readers can express.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    Wild,
    Tame,
}

fn unit(random: &mut Random, names: Names) -> u16 {
    loop {
        let unit = match random.index(6) {
            0..=2 => b"abcXYZ_019 [^`{~"[random.index(16)].into(),
            3 => random.index(0x100) as u16,
            4 => *pick(random, &[0xB5, 0xDF, 0xFF, 0x131, 0x178, 0x17F, 0x1C5, 0x3C2, 0x3A3, 0x10D0, 0xFB00, 0xFF21]),
            _ => random.number() as u16,
        };
        let tame = unit >= 0x20 && !(0x7F..0xA0).contains(&unit) && !(0xD800..0xE000).contains(&unit) && unit < 0xFFF0;
        if unit != 0 && unit != u16::from(b'\\') && (names == Names::Wild || tame) {
            return unit;
        }
    }
}

fn name(random: &mut Random, names: Names) -> Name {
    let length = match random.index(20) {
        0 => 255,
        1..=3 => 1,
        4..=6 => 20 + random.index(40),
        _ => 2 + random.index(6),
    };
    Name::from_units((0..length).map(|_| unit(random, names)).collect())
}

#[derive(Default)]
struct ModelKey {
    /// As created, from the root.
    path: Vec<Name>,
    values: Vec<(Name, u32, Vec<u8>)>,
    class: Option<Name>,
}

/// The model: keys by folded path.
struct Model {
    keys: BTreeMap<Vec<Vec<u16>>, ModelKey>,
    names: Names,
    minor: u32,
}

fn folded(path: &[Name]) -> Vec<Vec<u16>> {
    path.iter().map(Name::folded).collect()
}

impl Model {
    fn new(minor: u32, names: Names) -> Self {
        Self { keys: BTreeMap::from([(Vec::new(), ModelKey::default())]), names, minor }
    }

    fn any_path(&self, random: &mut Random) -> Vec<Name> {
        let skip = random.index(self.keys.len());
        self.keys.values().nth(skip).unwrap().path.clone()
    }

    fn listing(&self) -> Listing {
        let mut lines = Vec::new();
        for key in self.keys.values() {
            let path = key.path.iter().fold(String::new(), |path, name| foreign::join(&path, name.units()));
            lines.push(foreign::key_line(&path));
            for (name, kind, data) in &key.values {
                lines.push(foreign::value_line(&path, name.units(), *kind, data));
            }
        }
        lines.sort();
        lines
    }

    fn create(&mut self, hive: &mut Hive, random: &mut Random, now: FileTime) {
        let mut path = self.any_path(random);
        if path.len() > 12 {
            path.truncate(2);
        }
        let key = find(hive, &path);
        path.push(name(random, self.names));
        let name = path.last().unwrap();
        hive.create_subkey(key, name, now).unwrap();
        self.keys.entry(folded(&path)).or_insert_with(|| ModelKey { path, ..ModelKey::default() });
    }

    fn set(&mut self, hive: &mut Hive, random: &mut Random, now: FileTime) {
        let path = self.any_path(random);
        let key = find(hive, &path);
        let model = self.keys.get_mut(&folded(&path)).unwrap();
        let name = match random.index(4) {
            0 => Name::default(),
            1 if !model.values.is_empty() => pick(random, &model.values).0.clone(),
            _ => name(random, self.names),
        };
        let kind = *pick(random, &[0, 1, 2, 3, 4, 7, 11, 0xFFFF_0012, 0x8000_0000]);
        let length = match random.index(40) {
            0 => *pick(random, &[16343, 16344, 16345, 32688, 32689, 49033]),
            1 if random.index(10) == 0 => random.index(1 << 20),
            1 => random.index(if self.minor < 4 { 40_000 } else { 200_000 }),
            2 => 1000 + random.index(7000),
            3..=12 => random.index(6),
            _ => random.index(200),
        };
        let data = random.bytes(length);
        hive.set_value_named(key, &name, &RegistryData::new(ValueType(kind), data.clone()), now).unwrap();
        match model.values.iter_mut().find(|v| v.0.is_same(&name)) {
            Some(value) => (value.1, value.2) = (kind, data),
            None => model.values.push((name, kind, data)),
        }
    }

    fn delete_value(&mut self, hive: &mut Hive, random: &mut Random, now: FileTime) {
        let path = self.any_path(random);
        let key = find(hive, &path);
        let model = self.keys.get_mut(&folded(&path)).unwrap();
        if !model.values.is_empty() {
            let (name, ..) = model.values.remove(random.index(model.values.len()));
            assert!(hive.delete_value_named(key, &name, now).unwrap());
        }
    }

    fn delete_key(&mut self, hive: &mut Hive, random: &mut Random, now: FileTime) {
        let path = self.any_path(random);
        if !path.is_empty() {
            hive.delete_key(find(hive, &path), now).unwrap();
            let top = folded(&path);
            self.keys.retain(|key, _| !key.starts_with(&top));
        }
    }

    fn set_class(&mut self, hive: &mut Hive, random: &mut Random, now: FileTime) {
        let path = self.any_path(random);
        let key = find(hive, &path);
        let class = (random.index(3) > 0).then(|| name(random, self.names));
        hive.set_class(key, class.as_ref(), now).unwrap();
        self.keys.get_mut(&folded(&path)).unwrap().class = class;
    }

    fn step(&mut self, hive: &mut Hive, random: &mut Random) {
        let now = FileTime(NOW.0 + random.index(1000) as u64);
        match random.index(100) {
            0..40 => self.create(hive, random, now),
            40..80 => self.set(hive, random, now),
            80..90 => self.delete_value(hive, random, now),
            90..95 if self.keys.len() < 500 || random.index(20) == 0 => self.delete_key(hive, random, now),
            _ => self.set_class(hive, random, now),
        }
    }

    fn assert_classes(&self, hive: &Hive) {
        for key in self.keys.values() {
            assert_eq!(hive.class(find(hive, &key.path)).unwrap(), key.class);
        }
    }
}

fn find(hive: &Hive, path: &[Name]) -> KeyId {
    path.iter().fold(hive.root(), |key, name| hive.subkey(key, name).unwrap().expect("the model's key is there"))
}

/// One sequence of edits in several sittings; returns the file and what must be in it.
fn sequence(seed: u64, steps: usize, names: Names) -> (u32, Vec<u8>, Listing) {
    let mut random = Random::new(seed);
    let minor = 3 + (seed % 4) as u32;
    let mut model = Model::new(minor, names);
    let mut bytes = Hive::create_version("ROOT", minor, NOW).finish(&[]).unwrap();
    for _ in 0..3 {
        let mut hive = Hive::open(bytes).unwrap();
        for _ in 0..steps / 3 {
            model.step(&mut hive, &mut random);
        }
        model.assert_classes(&hive);
        bytes = hive.finish(&[]).unwrap();
        assert_eq!(check(&bytes), [], "seed {seed}");
        assert_same(&format!("our reader, seed {seed}"), &model.listing(), &foreign::our_reader(&bytes));
    }
    (minor, bytes, model.listing())
}

fn random_edits_with_tame_names_are_seen_by_all_readers() {
    let count = support::rounds(40, 120);
    for batch in 0..count.div_ceil(20) {
        let hives: Vec<(u32, Vec<u8>, Listing)> =
            (batch * 20..count.min(batch * 20 + 20)).map(|seed| sequence(seed, 240, Names::Tame)).collect();
        judge_batch(&hives);
        for reader in READERS {
            // Each reader gets the versions whose large values it understands.
            let fits = |minor: u32| match reader {
                "hivex" | "regipy" => true,
                "pyreg" => minor >= 4,
                _ => minor >= 5,
            };
            let chosen: Vec<_> = hives.iter().filter(|h| fits(h.0)).collect();
            let folder = tempfile::tempdir().unwrap();
            let paths: Vec<_> = (0..chosen.len()).map(|i| folder.path().join(i.to_string())).collect();
            paths.iter().zip(&chosen).for_each(|(path, hive)| std::fs::write(path, &hive.1).unwrap());
            let Some(listings) = foreign::python(reader, &paths) else { continue };
            for (i, (listing, hive)) in listings.iter().zip(&chosen).enumerate() {
                assert_same(&format!("{reader}, hive {i} of batch {batch}"), &hive.2, listing);
            }
        }
    }
}

/// The strict foreign checker over a batch, and the crate nt-hive.
fn judge_batch(hives: &[(u32, Vec<u8>, Listing)]) {
    for (minor, bytes, expected) in hives {
        if *minor >= 4 {
            assert_same("nt-hive", expected, &foreign::nt_hive(bytes));
        }
    }
    let (Some(judge), Some(python)) = (support::judge("hivecheck.py"), support::program("python3")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(python);
    command.arg(judge).arg("--strict");
    for (i, (_, bytes, _)) in hives.iter().enumerate() {
        let path = folder.path().join(i.to_string());
        std::fs::write(&path, bytes).unwrap();
        command.arg(path);
    }
    support::run(&mut command);
}

fn random_edits_with_names_over_the_whole_of_utf_16() {
    let count = support::rounds(40, 120);
    for batch in 0..count.div_ceil(20) {
        let seeds = batch * 20..count.min(batch * 20 + 20);
        let hives: Vec<_> = seeds.map(|seed| sequence(1000 + seed, 240, Names::Wild)).collect();
        judge_batch(&hives);
    }
}

fn ten_thousand_keys() {
    let (_, bytes, listing) = sequence(6, 45_000, Names::Tame);
    assert!(listing.iter().filter(|line| line.starts_with('K')).count() > 10_000, "{}", listing.len());
    assert_clean(&bytes, None);
    assert_same("nt-hive", &listing, &foreign::nt_hive(&bytes));
    if is_campaign() {
        assert_readers("ten thousand keys", &READERS, &bytes, &listing);
    }
}

const READERS: [&str; 4] = ["hivex", "pyreg", "dissect", "regipy"];

/// The slow readers see the large hives in campaigns only.
fn is_campaign() -> bool {
    std::env::var_os("WINJECT_CAMPAIGN").is_some()
}

fn assert_readers(what: &str, readers: &[&str], bytes: &[u8], expected: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hive");
    std::fs::write(&path, bytes).unwrap();
    for reader in readers {
        let Some(listings) = foreign::python(reader, std::slice::from_ref(&path)) else { continue };
        assert_same(&format!("{reader}, {what}"), expected, &listings[0]);
    }
}

fn a_hundred_thousand_subkeys_under_one_key() {
    for minor in [3, 5] {
        let mut hive = Hive::create_version("ROOT", minor, NOW);
        let mut random = Random::new(77);
        let top = hive.create_key(hive.root(), "Many", NOW).unwrap();
        let order = shuffled(100_000, &mut random);
        for i in &order {
            hive.create_key(top, &format!("Key {i:x}"), NOW).unwrap();
        }
        let bytes = hive.finish(&[]).unwrap();
        assert_eq!(check(&bytes), []);
        if minor == 5 {
            assert_clean(&bytes, None);
            let expected = foreign::our_reader(&bytes);
            assert_eq!(expected.len(), 100_002);
            assert_same("nt-hive", &expected, &foreign::nt_hive(&bytes));
            if is_campaign() {
                // hivex stops at 70,000 subkeys.
                assert_readers("a hundred thousand subkeys", &READERS[1..], &bytes, &expected);
            }
        }
        let mut hive = Hive::open(bytes).unwrap();
        let before = hive.file_size();
        for i in order.iter().filter(|i| *i % 7 != 0) {
            let key = hive.find(top, &format!("KEY {i:X}")).unwrap().unwrap();
            hive.delete_key(key, NOW).unwrap();
        }
        assert_eq!(hive.subkeys(top).unwrap().len(), 14_286);
        let bytes = hive.finish(&[]).unwrap();
        assert_eq!(check(&bytes), []);
        let mut hive = Hive::open(bytes).unwrap();
        for i in order.iter().filter(|i| *i % 7 == 0) {
            let key = hive.find(top, &format!("Key {i:x}")).unwrap().unwrap();
            hive.delete_key(key, NOW).unwrap();
        }
        assert_eq!(hive.file_size(), before, "space is reused");
        let bytes = hive.finish(&[]).unwrap();
        assert_eq!(foreign::our_reader(&bytes).len(), 2);
        assert_clean(&bytes, None);
    }
}

fn values_up_to_a_mebibyte() {
    for minor in [3, 5] {
        let mut hive = Hive::create_version("ROOT", minor, NOW);
        let mut random = Random::new(9);
        let top = hive.create_key(hive.root(), "Large", NOW).unwrap();
        let mut truth: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let sizes = [0, 1, 4, 5, 16343, 16344, 16345, 32688, 32689, 1 << 19, (1 << 20) - 4, 1 << 20];
        for round in 0..60 {
            let name = format!("v{}", round % 7);
            let size = if round % 2 == 0 { *pick(&mut random, &sizes) } else { random.index(1 << 20) };
            let size = if minor == 3 { size.min((1 << 20) - 4) } else { size };
            let data = random.bytes(size);
            hive.set_value(top, &name, &RegistryData::binary(data.clone()), NOW).unwrap();
            truth.insert(name, data);
            if round % 5 == 4 {
                let name = format!("v{}", random.index(7));
                assert_eq!(hive.delete_value(top, &name, NOW).unwrap(), truth.remove(&name).is_some());
            }
        }
        for (name, data) in &truth {
            assert!(&hive.value(top, name).unwrap().unwrap().bytes == data);
        }
        let bytes = hive.finish(&[]).unwrap();
        assert_clean(&bytes, None);
        if minor == 5 {
            let expected = foreign::our_reader(&bytes);
            for (name, data) in &truth {
                let line =
                    foreign::value_line("/4c006100720067006500", &name.encode_utf16().collect::<Vec<_>>(), 3, data);
                assert!(expected.contains(&line), "{name}");
            }
            assert_same("nt-hive", &expected, &foreign::nt_hive(&bytes));
            assert_readers("large values", &READERS, &bytes, &expected);
        }
    }
    let mut old = Hive::create_version("ROOT", 3, NOW);
    let error = old.set_value(old.root(), "x", &RegistryData::binary(vec![0; 1 << 20]), NOW).unwrap_err();
    assert_eq!(error.kind(), winject::Kind::Refused);
}

/// A key's values: in the order of its list, as the model keeps them.
type Values = Vec<(String, u32, Vec<u8>)>;

/// Random edits of keys with many values, which are found through an index: also under other spellings of their names, of
/// several keys in turns, and of keys that were deleted and made again.
fn random_edits_of_keys_with_many_values() {
    for seed in 0..support::rounds(6, 12) {
        let mut random = Random::new(3000 + seed);
        let minor = 3 + (seed % 4) as u32;
        let mut bytes = Hive::create_version("ROOT", minor, NOW).finish(&[]).unwrap();
        let mut model: [Values; 3] = Default::default();
        let mut most = 0;
        for _ in 0..4 {
            let mut hive = Hive::open(bytes).unwrap();
            for _ in 0..1500 {
                let which = random.index(3);
                let key = hive.create_key(hive.root(), &format!("Key {which}"), NOW).unwrap();
                let values = &mut model[which];
                let name = format!("Välue {}", random.index(700));
                let spelt = if random.index(2) == 0 { name.to_uppercase() } else { name.clone() };
                let at = values.iter().position(|value| value.0.to_uppercase() == name.to_uppercase());
                match random.index(4000) {
                    0 => {
                        hive.delete_key(key, NOW).unwrap();
                        values.clear();
                    }
                    1..1000 => {
                        assert_eq!(hive.delete_value(key, &spelt, NOW).unwrap(), at.is_some());
                        at.map(|at| values.remove(at));
                    }
                    _ => {
                        let length = if random.index(50) == 0 { random.index(40_000) } else { random.index(12) };
                        let (kind, data) = (random.index(12) as u32, random.bytes(length));
                        hive.set_value(key, &spelt, &RegistryData::new(ValueType(kind), data.clone()), NOW).unwrap();
                        match at {
                            Some(at) => (values[at].1, values[at].2) = (kind, data),
                            None => values.push((spelt, kind, data)),
                        }
                    }
                }
            }
            most = most.max(model.iter().map(Vec::len).max().unwrap());
            for (which, values) in model.iter().enumerate() {
                let key = hive.create_key(hive.root(), &format!("Key {which}"), NOW).unwrap();
                let found: Values = hive
                    .values(key)
                    .unwrap()
                    .into_iter()
                    .map(|v| (v.name.to_string(), v.data.kind.0, v.data.bytes))
                    .collect();
                assert!(&found == values, "seed {seed}, key {which}: the values or their order");
            }
            bytes = hive.finish(&[]).unwrap();
            assert_eq!(check(&bytes), [], "seed {seed}");
        }
        assert!(most > 250, "seed {seed}: {most} values are too few for an index");
        let listing = values_listing(model.iter().enumerate().map(|(i, values)| (format!("Key {i}"), values)));
        judge_batch(&[(minor, bytes, listing)]);
    }
}

/// What readers have to see of these keys below the root.
fn values_listing<'a>(keys: impl Iterator<Item = (String, &'a Values)>) -> Listing {
    let units = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
    let mut lines = vec![foreign::key_line("")];
    for (key, values) in keys {
        let path = foreign::join("", &units(&key));
        lines.push(foreign::key_line(&path));
        lines.extend(values.iter().map(|(name, kind, data)| foreign::value_line(&path, &units(name), *kind, data)));
    }
    lines.sort();
    lines
}

/// 100,000 in a campaign, else 20,000: to be set, changed and deleted in any order, without reading all names for each.
fn very_many_values_under_one_key() {
    let count = if is_campaign() { 100_000 } else { 20_000 };
    for minor in [3, 5] {
        let mut hive = Hive::create_version("ROOT", minor, NOW);
        let mut random = Random::new(78);
        let top = hive.create_key(hive.root(), "Many", NOW).unwrap();
        let mut values: BTreeMap<usize, (u32, Vec<u8>)> = BTreeMap::new();
        for round in 0..2 {
            for i in shuffled(count, &mut random).into_iter().filter(|i| round == 0 || i % 3 == 0) {
                let value = (3, random.bytes(i % 40));
                hive.set_value(top, &format!("Value {i:x}"), &RegistryData::new(ValueType(3), value.1.clone()), NOW)
                    .unwrap();
                values.insert(i, value);
            }
        }
        assert!(hive.file_size() < count * 140, "{} bytes: outgrown lists leave holes", hive.file_size());
        let listing = |values: &BTreeMap<usize, (u32, Vec<u8>)>| {
            let named = values.iter().map(|(i, (kind, data))| (format!("Value {i:x}"), *kind, data.clone())).collect();
            values_listing(std::iter::once(("Many".to_owned(), &named)))
        };
        let bytes = hive.finish(&[]).unwrap();
        judge_values(minor, &bytes, &listing(&values));

        let mut hive = Hive::open(bytes).unwrap();
        for i in shuffled(count, &mut random).into_iter().filter(|i| i % 7 != 0) {
            assert!(hive.delete_value(top, &format!("VALUE {i:X}"), NOW).unwrap());
            values.remove(&i);
        }
        assert!(!hive.delete_value(top, "Value 1", NOW).unwrap());
        let bytes = hive.finish(&[]).unwrap();
        judge_values(minor, &bytes, &listing(&values));

        let mut hive = Hive::open(bytes).unwrap();
        let before = hive.file_size();
        for i in shuffled(count, &mut random) {
            assert_eq!(hive.delete_value(top, &format!("value {i:x}"), NOW).unwrap(), i % 7 == 0);
        }
        assert_eq!(hive.file_size(), before);
        judge_values(minor, &hive.finish(&[]).unwrap(), &listing(&BTreeMap::new()));
    }
}

fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.index(i + 1));
    }
    order
}

/// The strict checker over a hive with a very long value list, and the readers that take its version.
fn judge_values(minor: u32, bytes: &[u8], expected: &[String]) {
    assert_eq!(check(bytes), []);
    assert_clean(bytes, None);
    assert_readers("very many values", &["hivex"], bytes, expected);
    if minor == 5 {
        assert_same("nt-hive", expected, &foreign::nt_hive(bytes));
        // regipy reads the rest of the file for every value of four bytes.
        let readers = if is_campaign() { &READERS[1..] } else { &READERS[1..3] };
        assert_readers("very many values", readers, bytes, expected);
    }
}

tests![
    random_edits_with_tame_names_are_seen_by_all_readers,
    random_edits_with_names_over_the_whole_of_utf_16,
    ten_thousand_keys,
    a_hundred_thousand_subkeys_under_one_key,
    values_up_to_a_mebibyte,
    random_edits_of_keys_with_many_values,
    very_many_values_under_one_key,
];
