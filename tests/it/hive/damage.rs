//! One damaged hive for each rule: the checker must name it, and agree with a foreign checker about everything else.

use std::collections::BTreeSet;
use std::process::Command;

use winject::internals::hive::check::{Code, check};
use winject::internals::hive::{Hive, Name, RegistryData};

use super::support::{NOW, folder, seal, word};
use crate::support;

/// A hive file under damage. Positions are bytes of the file.
#[derive(Clone)]
struct Victim(Vec<u8>);

impl Victim {
    fn put(&mut self, at: usize, number: u32) {
        self.0[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    fn put16(&mut self, at: usize, number: u16) {
        self.0[at..at + 2].copy_from_slice(&number.to_le_bytes());
    }

    fn get(&self, at: usize) -> u32 {
        word(&self.0, at)
    }

    /// The data of the cell that the reference at `at` leads to.
    fn follow(&self, at: usize) -> usize {
        self.get(at) as usize + 4100
    }

    /// Where each cell's data begin, its size, and whether it is allocated.
    fn cells(&self) -> Vec<(usize, usize, bool)> {
        let (mut all, mut bin) = (Vec::new(), 4096);
        while bin < 4096 + self.get(40) as usize {
            let (next, mut at) = (bin + self.get(bin + 8) as usize, bin + 32);
            while at < next {
                let size = self.get(at) as i32;
                all.push((at + 4, size.unsigned_abs() as usize, size < 0));
                at += size.unsigned_abs() as usize;
            }
            bin = next;
        }
        all
    }

    fn named(&self, signature: &[u8], name_at: usize, name: &[u8]) -> usize {
        let fits = |&(at, size, used): &(usize, usize, bool)| {
            let cell = &self.0[at..at + size - 4];
            used && cell.starts_with(signature) && cell.get(name_at..name_at + name.len()) == Some(name)
        };
        self.cells().into_iter().find(fits).unwrap_or_else(|| panic!("no {name:?}")).0
    }

    fn key(&self, name: &str) -> usize {
        self.named(b"nk", 76, name.as_bytes())
    }

    fn value(&self, name: &str) -> usize {
        self.named(b"vk", 20, name.as_bytes())
    }

    /// A large free cell.
    fn free(&self) -> (usize, usize) {
        let (at, size, _) = self.cells().into_iter().filter(|c| !c.2).max_by_key(|c| c.1).unwrap();
        assert!(size >= 64);
        (at, size)
    }

    /// Appends a bin with one allocated cell of this content (and `slack` more bytes); returns its reference.
    fn append(&mut self, content: &[u8], slack: usize) -> u32 {
        let length = self.get(40);
        self.0.truncate(4096 + length as usize);
        let cell = (content.len() + slack + 4).next_multiple_of(8);
        let size = (cell + 32).next_multiple_of(4096);
        let bin = self.0.len();
        self.0.resize(bin + size, 0);
        self.0[bin..bin + 4].copy_from_slice(b"hbin");
        self.put(bin + 4, length);
        self.put(bin + 8, size as u32);
        self.put(bin + 32, (cell as u32).wrapping_neg());
        self.0[bin + 36..bin + 36 + content.len()].copy_from_slice(content);
        if size - 32 > cell {
            self.put(bin + 32 + cell, (size - 32 - cell) as u32);
        }
        self.put(40, length + size as u32);
        length + 32
    }

    /// Moves the structure at `at` (found through the reference at `link`) into a new cell with another content.
    fn relocate(&mut self, link: usize, content: &[u8], slack: usize) {
        let new = self.append(content, slack);
        self.put(link, new);
    }

    /// The entry of the single leaf below `parent` that leads to the key of this name.
    fn entry_of(&self, parent: &str, name: &str) -> usize {
        let (leaf, key) = (self.follow(self.key(parent) + 28), self.key(name) as u32 - 4100);
        (0..).map(|i| leaf + 4 + 8 * i).find(|&at| self.get(at) == key).unwrap()
    }

    /// A copy of a key's cell with this 8-bit name.
    fn renamed(&self, name: &str, new: &[u8]) -> Vec<u8> {
        let at = self.key(name);
        let mut cell = self.0[at..at + 76].to_vec();
        cell[72..74].copy_from_slice(&(new.len() as u16).to_le_bytes());
        cell.extend(new);
        cell
    }
}

/// A hive with every structure in it.
fn sample(minor: u32) -> Victim {
    let mut hive = Hive::create_version("ROOT", minor, NOW);
    let root = hive.root();
    let apple = hive.create_key(root, "Apple", NOW).unwrap();
    hive.set_class(apple, Some(&Name::from("Class")), NOW).unwrap();
    for (name, size) in [("", 7), ("resident", 4), ("plain", 100), ("val1", 9), ("val2", 9), ("large", 40_000)] {
        hive.set_value(apple, name, &RegistryData::binary(vec![1; size]), NOW).unwrap();
    }
    hive.set_value(apple, "Ω", &RegistryData::binary([]), NOW).unwrap();
    for name in ["Child1", "Child2", "Child3", "Ω1"] {
        hive.create_key(apple, name, NOW).unwrap();
    }
    let banana = hive.create_key(root, "Banana", NOW).unwrap();
    let mut other = hive.security(root).unwrap().to_vec();
    *other.last_mut().unwrap() = 1;
    hive.set_security(banana, &other, NOW).unwrap();
    let cherry = hive.create_key(root, "Cherry", NOW).unwrap();
    hive.create_key(cherry, "Pit", NOW).unwrap();
    let many = hive.create_key(root, "Many", NOW).unwrap();
    for i in 0..1100 {
        hive.create_key(many, &format!("M{i:05}"), NOW).unwrap();
    }
    Victim(hive.finish(&[]).unwrap())
}

type Damage = fn(&mut Victim);

/// The damages to a hive of version 1.5.
#[rustfmt::skip]
const NEW: &[(Code, Damage)] = &[
    (Code::BbSequence, |v| v.put(4, 9)),
    (Code::BbMajor, |v| v.put(20, 2)),
    (Code::BbMinor, |v| v.put(24, 7)),
    (Code::BbType, |v| v.put(28, 1)),
    (Code::BbFormat, |v| v.put(32, 2)),
    (Code::BbCluster, |v| v.put(44, 2)),
    (Code::BbLength, |v| { let n = v.get(40) - 100; v.put(40, n); }),
    (Code::BbTruncated, |v| { let n = v.0.len() - 4096; v.0.truncate(n); }),
    (Code::BbFilesize, |v| v.0.extend([0; 100])),
    (Code::BbFlags, |v| { v.put(164, u32::from_le_bytes(*b"rmtm")); v.put(144, 4); }),
    (Code::HbSignature, |v| { let at = v.append(&[], 8) as usize + 4096 - 32; v.0[at] = b'x'; }),
    (Code::HbOffset, |v| { let at = v.append(&[], 8) as usize + 4096 - 32; v.put(at + 4, 4096); }),
    (Code::HbSize, |v| { let at = v.append(&[], 8) as usize + 4096 - 32; v.put(at + 8, 8192); }),
    (Code::CeSize, |v| { let (at, _) = v.free(); v.put(at - 4, 4); }),
    (Code::CeAlign, |v| { let (at, n) = v.free(); v.put(at - 4, 12); v.put(at + 8, n as u32 - 12); }),
    (Code::CeCoalesce, |v| { let (at, n) = v.free(); v.put(at - 4, 16); v.put(at + 12, n as u32 - 16); }),
    (Code::CeHuge, |v| { v.append(&[], 0x10_0100); }),
    (Code::CeOrphan, |v| { let (at, n) = v.free(); v.put(at - 4, (n as u32).wrapping_neg()); }),
    (Code::RfNil, |v| { let at = v.key("Apple"); v.put(at + 40, u32::MAX); }),
    (Code::RfVolatile, |v| { let at = v.key("Apple"); v.put(at + 40, 0x8000_0020); }),
    (Code::RfRange, |v| { let at = v.key("Apple"); v.put(at + 40, 0x7000_0000); }),
    (Code::RfNocell, |v| { let at = v.key("Apple"); let n = v.get(at + 40); v.put(at + 40, n + 8); }),
    (Code::RfFree, |v| { let (free, _) = v.free(); let at = v.key("Apple"); v.put(at + 40, free as u32 - 4100); }),
    (Code::RfShared, |v| { let at = v.follow(v.key("Apple") + 40); let n = v.get(at); v.put(at + 4, n); }),
    (Code::NmOdd, |v| { let at = v.named(b"nk", 76, &[0xA9, 3, b'1', 0]); v.put16(at + 72, 3); }),
    (Code::NkSignature, |v| { let at = v.key("Banana"); v.0[at] = b'x'; }),
    (Code::NkCellsize, |v| { let c = v.renamed("Child1", b"Child1"); let e = v.entry_of("Apple", "Child1"); v.relocate(e, &c, 1200); }),
    (Code::NkNoname, |v| { let at = v.key("Banana"); v.put16(at + 72, 0); }),
    (Code::NkNamelen, |v| { let at = v.key("Banana"); v.put16(at + 72, 500); }),
    (Code::NkNamelong, |v| { let c = v.renamed("Child1", &[b'C'; 300]); let e = v.entry_of("Apple", "Child1"); v.relocate(e, &c, 0); }),
    (Code::NkName256, |v| { let c = v.renamed("Child1", &[b'C'; 256]); let e = v.entry_of("Apple", "Child1"); v.relocate(e, &c, 0); }),
    (Code::NkBackslash, |v| { let at = v.key("Banana"); v.0[at + 80] = b'\\'; }),
    (Code::NkUncompressed, |v| { let at = v.named(b"nk", 76, &[0xA9, 3, b'1', 0]); v.put16(at + 76, 0xFF); }),
    (Code::NkParent, |v| { let at = v.key("Banana"); v.put(at + 16, 0x28); }),
    (Code::NkFlags, |v| { let at = v.key("Banana"); v.0[at + 2] |= 1; }),
    (Code::NkFlags2, |v| { let at = v.key("Banana"); v.0[at + 3] |= 4; }),
    (Code::NkEntryflag, |v| { let at = v.key("Banana"); v.0[at + 2] |= 4; }),
    (Code::NkRootflag, |v| { let at = v.key("ROOT"); v.0[at + 2] &= !4; }),
    (Code::NkRootnodel, |v| { let at = v.key("ROOT"); v.0[at + 2] &= !8; }),
    (Code::NkClass, |v| { let at = v.key("Apple"); v.put16(at + 74, 500); }),
    (Code::NkClassodd, |v| { let at = v.key("Apple"); v.put16(at + 74, 9); }),
    (Code::NkClass0, |v| { let at = v.key("Apple"); v.put16(at + 74, 0); }),
    (Code::NkLayer, |v| { v.put(24, 6); let at = v.key("Banana"); v.0[at + 13] = 1; }),
    (Code::NkLinkkids, |v| { let at = v.key("Apple"); v.0[at + 2] |= 0x10; }),
    (Code::NkMaxname, |v| { let at = v.key("ROOT"); v.put16(at + 52, 0); }),
    (Code::NkMaxclass, |v| { let at = v.key("ROOT"); v.put(at + 56, 0); }),
    (Code::NkMaxvname, |v| { let at = v.key("Apple"); v.put(at + 60, 2); }),
    (Code::NkMaxvdata, |v| { let at = v.key("Apple"); v.put(at + 64, 2); }),
    (Code::SlSignature, |v| { let at = v.follow(v.key("Apple") + 28); v.0[at] = b'x'; }),
    (Code::SlRiempty, |v| { let at = v.follow(v.key("Many") + 28); v.put16(at + 2, 0); }),
    (Code::SlRisize, |v| { let at = v.follow(v.key("Many") + 28); v.put16(at + 2, 5000); }),
    (Code::SlLeafempty, |v| { let at = v.follow(v.key("Apple") + 28); v.put16(at + 2, 0); }),
    (Code::SlLeafsize, |v| { let at = v.follow(v.key("Apple") + 28); v.put16(at + 2, 500); }),
    (Code::SlLeafbig, |v| {
        let root = v.follow(v.key("Many") + 28);
        let (a, b) = (v.follow(root + 4), v.follow(root + 8));
        let entries = |at: usize| v.0[at + 4..at + 4 + 8 * usize::from(v.0[at + 2]) + 2048 * usize::from(v.0[at + 3])].to_vec();
        let leaf = [b"lh\x4C\x04".to_vec(), entries(a), entries(b)].concat();
        let link = v.key("Many") + 28;
        v.relocate(link, &leaf, 0);
    }),
    (Code::SlKind, |v| v.put(24, 4)),
    (Code::SlMixed, |v| { let root = v.follow(v.key("Many") + 28); let at = v.follow(root + 8); v.0[at + 1] = b'f'; }),
    (Code::SlCount, |v| { let at = v.key("Apple"); v.put(at + 20, 9); }),
    (Code::SlOrder, |v| {
        let at = v.follow(v.key("Apple") + 28) + 4;
        let (a, b) = (v.0[at..at + 8].to_vec(), v.0[at + 8..at + 16].to_vec());
        v.0[at..at + 16].copy_from_slice(&[b, a].concat());
    }),
    (Code::SlDuplicate, |v| { let at = v.key("Child2"); v.0[at + 76..at + 82].copy_from_slice(b"cHILD1"); }),
    (Code::SlHash, |v| { let at = v.follow(v.key("Apple") + 28); v.0[at + 8] ^= 1; }),
    (Code::SlEmpty, |v| { let n = v.key("Banana"); v.put(n + 28, 0x20); }),
    (Code::VlEmpty, |v| { let n = v.key("Banana"); v.put(n + 40, 0x20); }),
    (Code::VlSize, |v| { let at = v.key("Apple"); v.put(at + 36, 500); }),
    (Code::VlDuplicate, |v| { let at = v.value("val2"); v.0[at + 20..at + 24].copy_from_slice(b"VAL1"); }),
    (Code::VkSignature, |v| { let at = v.value("plain"); v.0[at] = b'x'; }),
    (Code::VkNamelen, |v| { let at = v.value("plain"); v.put16(at + 2, 500); }),
    (Code::VkNamelong, |v| {
        let at = v.value("resident");
        let mut cell = v.0[at..at + 20].to_vec();
        cell[2..4].copy_from_slice(&16384u16.to_le_bytes());
        cell.extend([b'x'; 16384]);
        let list = v.follow(v.key("Apple") + 40);
        v.relocate(list + 4, &cell, 0);
    }),
    (Code::VkUncompressed, |v| { let at = v.named(b"vk", 20, &[0xA9, 3]); v.put16(at + 20, 0xFF); }),
    (Code::VkFlags, |v| { let at = v.value("plain"); v.0[at + 16] |= 8; }),
    (Code::VkResident, |v| { let at = v.value("resident"); v.put(at + 4, 0x8000_0005); }),
    (Code::VkZerodata, |v| { let at = v.value("plain"); v.put(at + 4, 0); }),
    (Code::VkTombstone, |v| { let at = v.value("plain"); v.0[at + 16] |= 2; }),
    (Code::VkDatasize, |v| { let at = v.value("plain"); v.put(at + 4, 300); }),
    (Code::DbSignature, |v| { let at = v.follow(v.value("large") + 8); v.0[at] = b'x'; }),
    (Code::DbCount, |v| { let at = v.follow(v.value("large") + 8); v.put16(at + 2, 2); }),
    (Code::DbShort, |v| { let at = v.follow(v.value("large") + 8); v.put16(at + 2, 1); }),
    (Code::DbList, |v| { let at = v.follow(v.value("large") + 8); v.put16(at + 2, 5000); }),
    (Code::DbSegment, |v| {
        let list = v.follow(v.follow(v.value("large") + 8) + 4);
        let (at, n) = v.free();
        v.put(at - 4, (n as u32).wrapping_neg());
        v.put(list, at as u32 - 4100);
    }),
    (Code::SkSignature, |v| { let at = v.follow(v.key("Banana") + 44); v.0[at] = b'x'; }),
    (Code::SkRing, |v| { let at = v.key("Banana") + 44; let own = v.get(at); let at = v.follow(at); v.put(at + 4, own); }),
    (Code::SkBlink, |v| { let at = v.follow(v.key("Banana") + 44); v.put(at + 8, 0x20); }),
    (Code::SkRefcount, |v| { let at = v.follow(v.key("ROOT") + 44); v.put(at + 12, 1); }),
    (Code::SkUnused, |v| { let n = v.get(v.key("ROOT") + 44); let at = v.key("Banana"); v.put(at + 44, n); }),
    (Code::SkSize, |v| { let at = v.follow(v.key("Banana") + 44); v.put(at + 16, 5000); }),
    (Code::SkDescriptor, |v| { let at = v.follow(v.key("Banana") + 44); v.0[at + 20] = 9; }),
    (Code::SkDescriptor, |v| { let at = v.follow(v.key("Banana") + 44); v.put(at + 24, 0); }),
    (Code::SkDescriptor, |v| { let at = v.follow(v.key("Banana") + 44); v.put16(at + 20 + 22, 3); }),
    (Code::SkDescriptor, |v| { let at = v.follow(v.key("Banana") + 44); v.put16(at + 20 + 30, 0x64); }),
    (Code::SkDuplicate, |v| { let at = v.follow(v.key("Banana") + 44); v.0[at + 20 + 103] = 0; let n = v.get(v.follow(v.key("ROOT") + 44) + 16); v.put(at + 16, n); }),
    (Code::SkDangling, |v| { let at = v.key("Banana"); v.put(at + 44, u32::MAX); }),
];

/// The damages to a hive of version 1.3, which has `lf` and `li` lists and large data in one cell.
#[rustfmt::skip]
const OLD: &[(Code, Damage)] = &[
    (Code::SlHint, |v| { let at = v.follow(v.key("Apple") + 28); v.0[at + 8] = b'X'; }),
    (Code::SlHint, |v| { let at = v.follow(v.key("Apple") + 28); v.0[at + 8] = b'c'; }),
    (Code::SlOrder, |v| { let root = v.follow(v.key("Many") + 28); let (a, b) = (v.get(root + 4), v.get(root + 8)); v.put(root + 4, b); v.put(root + 8, a); }),
    (Code::VkToobig, |v| { let at = v.value("large"); v.put(at + 4, 0x18_0000); }),
    (Code::VkDatasize, |v| { let at = v.value("large"); v.put(at + 4, 70_000); }),
    (Code::DbSignature, |v| v.put(24, 5)),
];

/// A key below a chain of 512 levels.
fn too_deep() -> Victim {
    let mut hive = Hive::create("ROOT", NOW);
    let chain = (0..511).map(|i| format!("d{i}")).collect::<Vec<_>>().join("\\");
    hive.create_key(hive.root(), &chain, NOW).unwrap();
    hive.create_key(hive.root(), r"Banana\X", NOW).unwrap();
    let mut v = Victim(hive.finish(&[]).unwrap());
    let (deepest, banana, x) = (v.key("d510"), v.key("Banana"), v.key("X"));
    let list = v.get(banana + 28);
    v.put(deepest + 20, 1);
    v.put(deepest + 28, list);
    v.put(deepest + 52, 2);
    v.put(banana + 20, 0);
    v.put(banana + 28, u32::MAX);
    v.put(x + 16, deepest as u32 - 4100);
    v
}

fn damaged() -> Vec<(Code, Vec<u8>)> {
    let mut all = Vec::new();
    for (minor, damages) in [(5, NEW), (3, OLD)] {
        let sound = sample(minor);
        assert_eq!(check(&sound.0), []);
        for (code, damage) in damages {
            let mut victim = sound.clone();
            damage(&mut victim);
            seal(&mut victim.0);
            all.push((*code, victim.0));
        }
    }
    let mut deep = too_deep();
    seal(&mut deep.0);
    all.push((Code::NkDepth, deep.0));
    let mut torn = sample(5);
    torn.0[508] ^= 1;
    all.push((Code::BbChecksum, torn.0));
    all
}

fn every_rule_has_a_damage_that_breaks_it() {
    let covered: BTreeSet<Code> = damaged().into_iter().map(|(code, _)| code).chain([Code::BbSignature]).collect();
    let missing: Vec<&Code> = Code::ALL.iter().filter(|code| !covered.contains(code)).collect();
    assert!(missing.is_empty(), "no damage for {missing:?}");
}

fn every_damage_is_named() {
    for (i, (code, bytes)) in damaged().into_iter().enumerate() {
        let faults = check(&bytes);
        assert!(faults.iter().any(|f| f.code() == code), "{i}: {code} is not among {faults:#?}");
    }
    assert_eq!(check(b"no hive")[0].code(), Code::BbSignature);
}

fn a_foreign_checker_finds_the_same() {
    let (Some(judge), Some(python)) = (support::judge("hivecheck.py"), support::program("python3")) else { return };
    let all = damaged();
    let names: Vec<String> = (0..all.len()).map(|i| i.to_string()).collect();
    let files: Vec<(&str, &[u8])> =
        names.iter().zip(&all).map(|(n, (_, bytes))| (n.as_str(), bytes.as_slice())).collect();
    let folder = folder(&files);
    let mut command = Command::new(python);
    command.arg(judge).args(["--strict", "--json"]).args(names.iter().map(|n| folder.path().join(n)));
    let output = command.output().unwrap();
    let reports: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), all.len());
    for (i, (report, (code, bytes))) in reports.iter().zip(&all).enumerate() {
        let theirs: BTreeSet<(String, bool)> = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|f| f[0] != "I")
            .map(|f| (f[1].as_str().unwrap().to_owned(), f[0] == "E"))
            .collect();
        let ours: BTreeSet<(String, bool)> = check(bytes)
            .iter()
            .map(|f| (f.code().to_string(), f.severity() == winject::internals::hive::check::Severity::Error))
            .collect();
        assert_eq!(ours, theirs, "{i}: the damage for {code}");
    }
}

fn damaged_hives_are_not_edited() {
    for (code, bytes) in damaged() {
        let error = check(&bytes).iter().any(|f| f.severity() == winject::internals::hive::check::Severity::Error);
        let edited = Hive::open(bytes).and_then(|mut hive| hive.create_key(hive.root(), "new key", NOW));
        assert_eq!(edited.is_err(), error, "{code}");
    }
}

tests![
    every_rule_has_a_damage_that_breaks_it,
    every_damage_is_named,
    a_foreign_checker_finds_the_same,
    damaged_hives_are_not_edited,
];
