//! Forged plans: a plan of winject, changed by an attacker who knows the format.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use winject::internals::drivers::SignatureLevel;
use winject::internals::hive::{RegistryData, ValueType};
use winject::internals::plan::saved::{
    PlanDocument, ReadRange, SavedEdit, SavedFile, SavedFileContent, SavedStep, Sha256Sum,
};
use winject::internals::plan::{Access, GuestHive};

use super::guest_state::GuestState;

/// One change of a document. An index means one of the steps, ranges or places that there are.
#[derive(Debug, Clone)]
pub enum Forgery {
    DropStep(Index),
    MoveStep(Index, Index),
    DoubleStep(Index),
    NewStep(SavedEdit),
    /// A file of the user, listed as one or not.
    Upload(String, bool),
    Path(Index, String),
    Access(Index, Access),
    Key(Index, String),
    Name(Index, String),
    Data(Index, RegistryData),
    /// Other content for a file that is written.
    Content(Index, Vec<u8>),
    /// No longer said to replace anything.
    Before(Index),
    NoReads,
    DropReads(Index),
    MoreReads(u64, u64),
    NoExpectation(bool),
    Signatures,
    NoDrivers,
    State(u8),
    Hives(Index),
    NoOtherDisks,
    DoubleOtherDisk(Option<String>),
    Volume,
}

/// A change of the document's JSON: a value is replaced, or gets the value of another place, or is left out, or doubled.
#[derive(Debug, Clone)]
pub enum Break {
    Replace(Index, Value),
    Copy(Index, Index),
    Remove(Index),
    Double(Index),
}

/// Mostly one of the first, seldom one of the others.
fn mostly(first: &[&'static str], others: &[&'static str]) -> impl Strategy<Value = &'static str> + use<> {
    prop_oneof![5 => select(first.to_vec()), 1 => select(others.to_vec())]
}

fn path() -> impl Strategy<Value = String> {
    let folders = mostly(
        &[
            "/hyper2kvm",
            "/hyper2kvm/a",
            "/Windows/System32/drivers",
            "/windows/SYSTEM32/Drivers",
            "/Windows/INF",
            "/Windows/System32/DriverStore/FileRepository",
            "/Windows/System32/DriverStore/FileRepository/a.inf_amd64_1",
            "/Windows/System32/CatRoot",
            "/Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}",
        ],
        &["/hyper2\u{212a}vm", "/Windows/System32/config", "/Windows/System32", "/Windows", "/Users", "/", ""],
    );
    let names = prop_oneof![
        4 => select(vec!["viostor.sys", "VIOSTOR.SYS", "disk.sys", "new.sys", "oem0.inf", "oem999.inf", "oem7.cat", "a"]),
        3 => select(vec!["σ.sys", "ς.sys", "Ä.sys", "ä.sys", "\u{212a}.sys", "😀.sys", "a~1.sys", "VIOSTO~1.SYS", "setup.cmd"]),
        1 => select(vec!["CON", "nul.sys", "a:b.sys", "a.sys.", "a .sys ", "a\\b.sys", "a\0.sys", "$MFT", ".", ".."]),
    ]
    .prop_map(str::to_owned);
    let names = prop_oneof![12 => names, 1 => (240..260_usize).prop_map(|count| format!("{}.sys", "n".repeat(count)))];
    let twist = mostly(&[""], &["/", "//", "/../x", "/x", ":s", "/.", " ", "K", "long", "no name", "no name"]);
    (folders, names, twist).prop_map(|(folder, name, twist)| match twist {
        // Its lower case is a `k`, but not to Windows.
        "K" => format!("{folder}/{name}").replace('k', "\u{212a}"),
        "long" => format!("{folder}{}/{name}", "/a".repeat(480)),
        "no name" => folder.to_owned(),
        twist => format!("{folder}/{name}{twist}"),
    })
}

/// A hive, and a key that is mostly one of it.
fn key() -> impl Strategy<Value = (GuestHive, String)> {
    use GuestHive::{Drivers, Software, System};
    let system = mostly(
        &[
            r"ControlSet001\Services\viostor",
            r"controlset001\SERVICES\VioStor",
            r"ControlSet001\Services\viostor\Parameters",
            r"ControlSet001\Services\viostor\StartOverride",
            r"ControlSet001\Services\disk",
            r"ControlSet001\Services\neu σ",
            r"ControlSet001\Services\neu Σ",
            r"ControlSet009\Services\new",
            r"ControlSet001\Control\CriticalDeviceDatabase\pci#ven_1af4&dev_1001",
            r"DriverDatabase",
            r"DriverDatabase\DriverPackages\new",
        ],
        &[r"ControlSet001\Control\Session Manager", r"ControlSet001\Services", "Select", "Setup", ""],
    );
    let software = mostly(
        &[
            r"Microsoft\Windows\CurrentVersion",
            r"Microsoft\Windows\CurrentVersion\Setup\PnpLockdownFiles\new",
            r"Microsoft\SystemCertificates\TrustedPublisher\Certificates\new",
        ],
        &[
            r"Microsoft\Windows\CurrentVersion\Run",
            "Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLoc\u{212a}downFiles\\a",
            "",
        ],
    );
    let place = prop_oneof![
        5 => system.prop_map(|key| (System, key)),
        2 => software.prop_map(|key| (Software, key)),
        1 => Just((Drivers, r"DriverDatabase\DriverPackages\new")),
    ];
    let twist = mostly(&["", "", r"\x"], &[r"\", r"\\x", r"\..\..\x", "K", "K", "long", "deep", "\0", "/x"]);
    (place, twist).prop_map(|((hive, key), twist)| {
        let key = match twist {
            "K" => key.replace(['k', 'K'], "\u{212a}"),
            "long" => format!(r"{key}\{}", "n".repeat(255)),
            "deep" => format!("{key}{}", r"\d".repeat(61)),
            twist => format!("{key}{twist}"),
        };
        (hive, key)
    })
}

fn value_name() -> impl Strategy<Value = String> {
    let names =
        select(vec!["Start", "start", "Type", "ImagePath", "", "DevicePath", "Blob", "new", "ς", "Σ", "a\0", r"a\b"]);
    prop_oneof![12 => names.prop_map(str::to_owned), 1 => (16_380..16_386_usize).prop_map(|count| "n".repeat(count))]
}

fn data() -> impl Strategy<Value = RegistryData> {
    let kinds = prop_oneof![4 => 0..12_u32, 1 => any::<u32>()];
    let lengths = prop_oneof![8 => 0..40_usize, 1 => 16_340..16_350_usize, 1 => (1 << 20) - 1..=(1 << 20) + 1_usize];
    (kinds, lengths, any::<u8>())
        .prop_map(|(kind, length, byte)| RegistryData::new(ValueType(kind), vec![byte; length]))
}

fn access() -> impl Strategy<Value = Access> {
    let samples =
        ["/Windows/System32/drivers", "/Windows/System32/drivers/disk.sys", "/Windows/System32", "/Users", "", "/.."];
    prop_oneof![
        Just(Access::Protected),
        Just(Access::Inherited),
        select(samples.to_vec()).prop_map(|path| Access::Like(path.to_owned()))
    ]
}

fn edit() -> impl Strategy<Value = SavedEdit> {
    let (size, sha256) = (0, Sha256Sum::of(b""));
    prop_oneof![
        (path(), access()).prop_map(|(path, access)| SavedEdit::CreateDir { path, access }),
        (path(), access())
            .prop_map(move |(path, access)| { SavedEdit::WriteFile { path, sha256, size, access, before: None } }),
        path().prop_map(|path| SavedEdit::Protect { path, before: None }),
        path().prop_map(|path| SavedEdit::DeleteFile { path, before: None }),
        key().prop_map(|(hive, key)| SavedEdit::CreateKey { hive, key }),
        (key(), value_name(), data())
            .prop_map(|((hive, key), name, data)| { SavedEdit::SetValue { hive, key, name, data, before: None } }),
        (key(), value_name()).prop_map(|((hive, key), name)| SavedEdit::DeleteValue { hive, key, name, before: None }),
        key().prop_map(|(hive, key)| SavedEdit::DeleteKey { hive, key, before: String::new() }),
    ]
}

fn upload() -> impl Strategy<Value = String> {
    let places = [
        "/tool.exe",
        "/Tools/tool.exe",
        "/Tools/Sub/tool.exe",
        "/Users/tool.exe",
        "/Users",
        "/Windows/System32/tool.dll",
        "/WINDOWS",
        "/bootmgr",
        "/HYPER2~1/tool.cmd",
        "/hyper2kvm/tool.cmd",
    ];
    prop_oneof![4 => select(places.to_vec()).prop_map(str::to_owned), 1 => path()]
}

pub fn forgery() -> impl Strategy<Value = Forgery> {
    use Forgery::*;
    let index = any::<Index>;
    let steps = prop_oneof![
        index().prop_map(DropStep),
        (index(), index()).prop_map(|(from, to)| MoveStep(from, to)),
        index().prop_map(DoubleStep),
        index().prop_map(Before),
    ];
    let places = prop_oneof![
        4 => edit().prop_map(NewStep),
        2 => (upload(), proptest::bool::weighted(0.8)).prop_map(|(path, is_listed)| Upload(path, is_listed)),
        2 => (index(), path()).prop_map(|(step, path)| Path(step, path)),
        1 => (index(), access()).prop_map(|(step, access)| Access(step, access)),
        2 => (index(), key()).prop_map(|(step, (_, key))| Key(step, key)),
        1 => (index(), value_name()).prop_map(|(step, name)| Name(step, name)),
        2 => (index(), data()).prop_map(|(step, data)| Data(step, data)),
        1 => (index(), vec(any::<u8>(), 0..2000)).prop_map(|(step, bytes)| Content(step, bytes)),
    ];
    let facts = prop_oneof![
        Just(NoReads),
        index().prop_map(DropReads),
        (any::<u64>(), 0..1_u64 << 31).prop_map(|(start, length)| MoreReads(start, length)),
        any::<bool>().prop_map(NoExpectation),
        Just(Signatures),
        Just(NoDrivers),
        (0..16_u8).prop_map(State),
        index().prop_map(Hives),
        Just(NoOtherDisks),
        proptest::option::of(path()).prop_map(DoubleOtherDisk),
        Just(Volume),
    ];
    // On the heap: without optimisation, a tree of all of them fills the stack of a test.
    prop_oneof![3 => steps.boxed(), 8 => places.boxed(), 2 => facts.boxed()]
}

pub fn breakage() -> impl Strategy<Value = Break> {
    let numbers = select(vec![0, 1, 511, 4096, (1 << 53) - 1, 1 << 53, u64::from(u32::MAX), u64::MAX - 1, u64::MAX]);
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        numbers.prop_map(Value::from),
        (-2_i64..0).prop_map(Value::from),
        Just(Value::from(1e300)),
        path().prop_map(Value::from),
        key().prop_map(|(_, key)| Value::from(key)),
        Just(Value::Array(Vec::new())),
        Just(serde_json::json!({})),
    ];
    let index = any::<Index>;
    prop_oneof![
        (index(), value).prop_map(|(place, value)| Break::Replace(place, value)),
        (index(), index()).prop_map(|(place, from)| Break::Copy(place, from)),
        index().prop_map(Break::Remove),
        index().prop_map(Break::Double),
    ]
}

impl Forgery {
    pub fn apply(&self, plan: &mut PlanDocument) {
        let count = plan.steps.len();
        if count == 0 && !matches!(self, Self::NewStep(_)) {
            return;
        }
        let pick = |index: &Index| index.index(count);
        // The next step of which this can be changed.
        let next = |from: &Index, can: &dyn Fn(&SavedEdit) -> bool| {
            (0..count).map(|ahead| (from.index(count) + ahead) % count).find(|at| can(&plan.steps[*at].edit))
        };
        match self {
            Self::DropStep(at) => drop(plan.steps.remove(pick(at))),
            Self::MoveStep(from, to) => {
                let step = plan.steps.remove(pick(from));
                plan.steps.insert(to.index(count), step);
            }
            Self::DoubleStep(at) => plan.steps.push(plan.steps[pick(at)].clone()),
            Self::NewStep(edit) => plan.steps.push(SavedStep { reason: "forged".to_owned(), edit: edit.clone() }),
            Self::Upload(path, is_listed) => {
                let content = b"a tool";
                let access = Access::Inherited;
                let folders = path.match_indices('/').skip(1).filter_map(|(at, _)| path.get(..at));
                let folders = folders.filter(|folder| folder.starts_with("/Tools"));
                let folders =
                    folders.map(|path| SavedEdit::CreateDir { path: path.to_owned(), access: access.clone() });
                let (sha256, size) = (Sha256Sum::of(content), content.len() as u64);
                let file =
                    SavedEdit::WriteFile { path: path.clone(), sha256, size, access: access.clone(), before: None };
                let steps = folders.chain(std::iter::once(file));
                let steps = steps.map(|edit| SavedStep { reason: "forged".to_owned(), edit }).collect::<Vec<_>>();
                plan.steps.splice(0..0, steps);
                plan.files.push(inline(content));
                if *is_listed {
                    plan.uploads.push(path.clone());
                    plan.uploads.sort();
                }
            }
            Self::Path(from, new) => {
                if let Some(at) = next(from, &|edit| edit.path().is_some())
                    && let SavedEdit::CreateDir { path, .. }
                    | SavedEdit::WriteFile { path, .. }
                    | SavedEdit::Protect { path, .. }
                    | SavedEdit::DeleteFile { path, .. } = &mut plan.steps[at].edit
                {
                    path.clone_from(new);
                }
            }
            Self::Access(from, new) => {
                let has = |edit: &SavedEdit| matches!(edit, SavedEdit::CreateDir { .. } | SavedEdit::WriteFile { .. });
                if let Some(at) = next(from, &has)
                    && let SavedEdit::CreateDir { access, .. } | SavedEdit::WriteFile { access, .. } =
                        &mut plan.steps[at].edit
                {
                    access.clone_from(new);
                }
            }
            Self::Key(from, new) => {
                if let Some(at) = next(from, &|edit| edit.key().is_some())
                    && let SavedEdit::CreateKey { key, .. }
                    | SavedEdit::SetValue { key, .. }
                    | SavedEdit::DeleteValue { key, .. }
                    | SavedEdit::DeleteKey { key, .. } = &mut plan.steps[at].edit
                {
                    key.clone_from(new);
                }
            }
            Self::Name(from, new) => {
                if let Some(at) = next(from, &|edit| matches!(edit, SavedEdit::SetValue { .. }))
                    && let SavedEdit::SetValue { name, .. } = &mut plan.steps[at].edit
                {
                    name.clone_from(new);
                }
            }
            Self::Data(from, new) => {
                if let Some(at) = next(from, &|edit| matches!(edit, SavedEdit::SetValue { .. }))
                    && let SavedEdit::SetValue { data, .. } = &mut plan.steps[at].edit
                {
                    data.clone_from(new);
                }
            }
            Self::Content(from, bytes) => {
                let (new, length) = (Sha256Sum::of(bytes), bytes.len() as u64);
                if let Some(at) = next(from, &|edit| matches!(edit, SavedEdit::WriteFile { .. }))
                    && let SavedEdit::WriteFile { sha256, size, .. } = &mut plan.steps[at].edit
                {
                    (*sha256, *size) = (new, length);
                    plan.files.push(inline(bytes));
                }
            }
            Self::Before(from) => {
                if let Some(at) = next(from, &has_before) {
                    set_before(&mut plan.steps[at].edit, None);
                }
            }
            Self::NoReads => plan.reads.ranges.clear(),
            Self::DropReads(at) => {
                if !plan.reads.ranges.is_empty() {
                    plan.reads.ranges.remove(at.index(plan.reads.ranges.len()));
                }
            }
            Self::MoreReads(start, length) => {
                let (start, length) = (start % (plan.disk.size * 2), *length);
                plan.reads.ranges.push(ReadRange { start, length });
                plan.reads.ranges.sort();
            }
            Self::NoExpectation(even_any) => {
                plan.expects.boots_from.clear();
                plan.verdict.after.iter_mut().for_each(|verdict| verdict.boots = false);
                plan.expects.boots_from_any &= !even_any;
            }
            Self::Signatures => plan.expects.signature_policy = SignatureLevel::Warn,
            Self::NoDrivers => plan.drivers.clear(),
            Self::State(bits) => {
                let state = &mut plan.state;
                let flags = [&mut state.allow_dirty, &mut state.discard_ntfs_log, &mut state.discard_hibernation];
                flags.into_iter().enumerate().for_each(|(bit, flag)| *flag = bits >> bit & 1 == 1);
                state.skip_volume_check = bits & 8 == 8;
                state.no_replay = bits & 16 == 16;
            }
            Self::Hives(at) => drop(plan.hives.remove(at.index(plan.hives.len()))),
            Self::NoOtherDisks => plan.others.clear(),
            Self::DoubleOtherDisk(name) => {
                if let Some(mut other) = plan.others.first().cloned() {
                    other.name.clone_from(name);
                    plan.others.push(other);
                }
            }
            Self::Volume => plan.volume.serial.0 ^= 1,
        }
    }
}

impl Break {
    pub fn apply(&self, document: &mut Value) {
        let mut places = Vec::new();
        pointers(document, "", &mut places);
        let place = |index: &Index| places[index.index(places.len())].as_str();
        match self {
            Self::Replace(at, new) => *document.pointer_mut(place(at)).unwrap() = new.clone(),
            Self::Copy(at, from) => {
                let new = document.pointer(place(from)).unwrap().clone();
                *document.pointer_mut(place(at)).unwrap() = new;
            }
            Self::Remove(at) | Self::Double(at) => {
                let Some((above, name)) = place(at).rsplit_once('/') else { return };
                match document.pointer_mut(above).unwrap() {
                    Value::Object(map) if matches!(self, Self::Remove(_)) => drop(map.remove(name)),
                    Value::Object(map) => drop(map.insert("new".to_owned(), map[name].clone())),
                    Value::Array(list) => {
                        let item = list.remove(name.parse().unwrap());
                        list.extend(
                            matches!(self, Self::Double(_)).then(|| [item.clone(), item]).into_iter().flatten(),
                        );
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Every place of a JSON value, as a pointer. (No name of a plan's fields needs an escape.)
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| pointers(value, &format!("{at}/{name}"), out)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| pointers(value, &format!("{at}/{i}"), out)),
        _ => {}
    }
}

/// A file whose content the plan itself holds.
pub fn inline(bytes: &[u8]) -> SavedFile {
    let content = match std::str::from_utf8(bytes) {
        Ok(text) => SavedFileContent::Text(text.to_owned()),
        Err(_) => SavedFileContent::Hex(winject::internals::hex::encode(bytes)),
    };
    SavedFile { sha256: Sha256Sum::of(bytes), size: bytes.len() as u64, content }
}

fn has_before(edit: &SavedEdit) -> bool {
    match edit {
        SavedEdit::WriteFile { before, .. } | SavedEdit::DeleteFile { before, .. } => before.is_some(),
        SavedEdit::SetValue { before, .. } | SavedEdit::DeleteValue { before, .. } => before.is_some(),
        _ => false,
    }
}

/// Says what an edit replaces, as the guest has it.
fn set_before(edit: &mut SavedEdit, guest: Option<&GuestState>) {
    match edit {
        SavedEdit::WriteFile { path, before, .. } | SavedEdit::DeleteFile { path, before } => {
            *before = guest.and_then(|guest| guest.file(path));
        }
        SavedEdit::SetValue { hive, key, name, before, .. } | SavedEdit::DeleteValue { hive, key, name, before } => {
            *before = guest.and_then(|guest| guest.value(*hive, key, name).cloned());
        }
        _ => {}
    }
}

/// Makes the parts of a forged plan agree with each other and with the guest, as a careful forger does.
pub fn mend(plan: &mut PlanDocument, guest: &GuestState, image: &Path) {
    plan.steps.iter_mut().for_each(|step| set_before(&mut step.edit, Some(guest)));
    plan.steps.retain(|step| match &step.edit {
        SavedEdit::WriteFile { sha256, size, before, .. } => {
            before.is_none_or(|before| (before.sha256, before.size) != (*sha256, *size))
        }
        SavedEdit::SetValue { data, before, .. } => before.as_ref() != Some(data),
        SavedEdit::DeleteValue { before, .. } => before.is_some(),
        SavedEdit::CreateKey { hive, key } => !guest.has_key(*hive, key),
        _ => true,
    });
    plan.steps.sort_by_key(|step| step.edit.hive());
    plan.files.push(inline(b""));
    let written = |step: &SavedStep| match &step.edit {
        SavedEdit::WriteFile { sha256, .. } => Some(*sha256),
        _ => None,
    };
    let used: BTreeSet<Sha256Sum> = plan.steps.iter().filter_map(written).collect();
    plan.files.retain(|file| used.contains(&file.sha256));
    plan.files.sort_by_key(|file| file.sha256);
    plan.files.dedup_by_key(|file| file.sha256);
    let reads = &mut plan.reads;
    reads.bytes = reads.ranges.iter().map(|range| range.length).sum();
    let size = plan.disk.size;
    if reads.ranges.iter().all(|range| range.start.checked_add(range.length).is_some_and(|end| end <= size)) {
        reads.sha256 = hash(image, &reads.ranges);
    }
}

fn hash(image: &Path, ranges: &[ReadRange]) -> Sha256Sum {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(image).unwrap();
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    for range in ranges {
        let end = range.start + range.length;
        let mut at = range.start;
        while at < end {
            let part = &mut buf[..(end - at).min(1 << 20) as usize];
            file.read_exact_at(part, at).unwrap();
            hash.update(&*part);
            at += part.len() as u64;
        }
    }
    Sha256Sum(hash.finalize().into())
}
