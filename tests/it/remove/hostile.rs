//! Manifests that others wrote: whatever they list, nothing that winject did not write is removed or changed.

use serde_json::{Value, json};
use winject::internals::hive::{Hive, RegistryData};
use winject::internals::ntfs::CreateOptions;
use winject::internals::random::Random;

use super::{CONFIG, Content, Disk, MANIFEST, content, copied, injected, only, plan, remove, sha256};
use crate::support;

fn read(disk: &Disk, path: &str) -> Vec<u8> {
    let volume = disk.volume();
    let file = volume.find(path).unwrap().unwrap();
    volume.read(file, 1 << 30).unwrap()
}

/// Replaces the manifest, which stays protected as it is.
fn write(disk: &Disk, bytes: &[u8]) {
    let mut volume = disk.volume();
    volume.replace_file(MANIFEST, bytes, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
}

/// All files and all values of the guest, as entries of a manifest: true hashes, true data.
struct Truth {
    files: Vec<Value>,
    values: Vec<Value>,
}

fn truth(disk: &Disk, seen: &Content) -> Truth {
    let is_file = |item: &&String| item.starts_with('/') && !item.ends_with('/');
    let mut files: Vec<Value> =
        seen.keys().filter(is_file).map(|path| json!({"path": path, "sha256": sha256(&read(disk, path))})).collect();
    files.extend([
        json!({"path": format!("{CONFIG}/SYSTEM"), "sha256": sha256(&read(disk, &format!("{CONFIG}/SYSTEM")))}),
    ]);
    let mut values = Vec::new();
    for name in ["SYSTEM", "SOFTWARE"] {
        let hive = Hive::open(read(disk, &format!("{CONFIG}/{name}"))).unwrap();
        let mut pending = vec![(hive.root(), name.to_owned())];
        while let Some((key, path)) = pending.pop() {
            for value in hive.values(key).unwrap() {
                values.push(json!({"key": path, "name": value.name.to_string(), "data": value.data}));
            }
            for sub in hive.subkeys(key).unwrap() {
                pending.push((sub, format!("{path}\\{}", hive.key_name(sub).unwrap())));
            }
        }
    }
    Truth { files, values }
}

/// A string in one of the ways in which a place can be written wrongly.
fn bent(random: &mut Random, text: &str) -> String {
    match random.below(14) {
        0 => text.to_uppercase(),
        1 => text.to_lowercase(),
        2 => format!("{text}:stream"),
        3 => text.replacen('/', "/../", 1),
        4 => text.replace('/', "\\"),
        5 => format!("{text}{}", "x".repeat(70_000)),
        6 => format!("{text}\u{0}"),
        7 => format!("{text} "),
        8 => text.replace('s', "\u{17f}"),
        9 => text.trim_start_matches('/').to_owned(),
        10 => format!("/hyper2kvm/../{text}"),
        11 => format!("{text}."),
        12 => text.replace("ControlSet001", "ControlSet002"),
        _ => String::new(),
    }
}

/// A manifest made from the true one by up to eight changes.
fn mutate(random: &mut Random, manifest: &Value, truth: &Truth) -> Vec<u8> {
    let mut out = manifest.clone();
    for _ in 0..random.below(8) + 1 {
        let list = ["files", "registry"][random.index(2)];
        let source = if list == "files" { &truth.files } else { &truth.values };
        let field = if list == "files" { "path" } else { "key" };
        let entries = out[list].as_array_mut().unwrap();
        let at = random.index(entries.len());
        match random.below(9) {
            // Anything of the guest, as it is.
            0..=2 => entries.push(source[random.index(source.len())].clone()),
            // A whole service, package or folder of the guest.
            3 | 4 => {
                let text = source[random.index(source.len())][field].as_str().unwrap().to_owned();
                let count = text.split(['\\', '/']).count().min(4);
                let prefix: String = text.split_inclusive(['\\', '/']).take(count).collect();
                entries.extend(source.iter().filter(|e| e[field].as_str().unwrap().starts_with(&prefix)).cloned());
            }
            5 if !entries.is_empty() => {
                let text = bent(random, entries[at][field].as_str().unwrap());
                entries[at][field] = text.into();
            }
            6 if !entries.is_empty() => drop(entries.remove(at)),
            7 if list == "files" && !entries.is_empty() => {
                entries[at]["sha256"] = source[random.index(source.len())]["sha256"].clone()
            }
            7 if !entries.is_empty() => entries[at]["data"] = source[random.index(source.len())]["data"].clone(),
            _ => out["removed_keys"]
                .as_array_mut()
                .unwrap()
                .push(truth.values[random.index(truth.values.len())]["key"].clone()),
        }
    }
    // Two entries of one place are refused at once; most manifests shall come further.
    if random.below(4) > 0 {
        for (list, fields) in [("files", &["path"][..]), ("registry", &["key", "name"])] {
            let mut seen = std::collections::BTreeSet::new();
            let place = |e: &Value| fields.iter().map(|f| e[*f].as_str().unwrap().to_lowercase()).collect::<Vec<_>>();
            out[list].as_array_mut().unwrap().retain(|entry| seen.insert(place(entry)));
        }
    }
    let mut bytes = serde_json::to_vec(&out).unwrap();
    if random.below(12) == 0 {
        let at = random.index(bytes.len());
        bytes[at] = random.byte();
    }
    if random.below(24) == 0 {
        bytes.truncate(random.index(bytes.len()));
    }
    bytes
}

/// Nothing that was there before the injection is lost or changed, but for the value that winject extends.
fn assert_guest_is_whole(original: &Content, before: &Content, after: &Content, what: &str) {
    for item in original.keys().filter(|item| *item != "SOFTWARE\\Microsoft\\Windows\\CurrentVersion : DevicePath") {
        assert_eq!(after.get(item), before.get(item), "{what}: {item} is not as it was");
    }
    for item in only(after, before) {
        assert_eq!(item, "SOFTWARE\\Microsoft\\Windows\\CurrentVersion : DevicePath", "{what}: new or changed");
    }
    for name in ["viostor", "vioscsi"] {
        let is_service = after.contains_key(&format!("SYSTEM\\ControlSet001\\Services\\{name}"));
        let is_file = after.contains_key(&format!("/Windows/System32/drivers/{name}.sys"));
        assert!(!is_service || is_file, "{what}: {name} has lost its file");
    }
}

fn no_manifest_makes_the_guest_lose_anything() {
    let (original, made) = injected();
    let (original, before) = (content(original), content(made));
    let truth = truth(made, &before);
    let manifest: Value = serde_json::from_slice(&read(made, MANIFEST)).unwrap();
    let copy = copied(made);
    let (mut refused, mut carried_out) = (0, 0);
    for seed in 0..support::rounds(60, 400) {
        let mut random = Random::new(seed);
        write(&copy.disk, &mutate(&mut random, &manifest, &truth));
        let Ok(removal) = plan(&copy.disk) else {
            refused += 1;
            continue;
        };
        // A whole removal costs ten times its plan: the plan is looked at always.
        for step in &removal.plan.steps {
            use winject::internals::plan::Change;
            let lost: Option<String> = match &step.change {
                Change::DeleteFile { path } => Some(path.clone()),
                Change::DeleteKey { hive, key } => Some(format!("{hive}\\{key}")),
                Change::DeleteValue { hive, key, name } => Some(format!("{hive}\\{key} : {name}")),
                Change::SetValue { name, .. } if name == "DevicePath" => None,
                other => panic!("seed {seed}: {other}"),
            };
            let is_original = |lost: &String| original.keys().any(|item| item.eq_ignore_ascii_case(lost));
            assert!(!lost.as_ref().is_some_and(is_original), "seed {seed}: {}", step.change);
        }
        if random.below(4) == 0 {
            let copy = copied(&copy.disk);
            remove(&copy.disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_guest_is_whole(&original, &before, &content(&copy.disk), &format!("seed {seed}"));
            carried_out += 1;
        }
    }
    assert!(refused > 5 && carried_out > 0, "{refused} refused, {carried_out} carried out");
}

/// Entries that a forger would choose, each with the truth about it.
fn chosen_forgeries_are_refused_or_without_effect() {
    let (original, made) = injected();
    let (original, before) = (content(original), content(made));
    let truth = truth(made, &before);
    let manifest: Value = serde_json::from_slice(&read(made, MANIFEST)).unwrap();
    let file = |path: &str| truth.files.iter().find(|entry| entry["path"] == path).unwrap().clone();
    let below = |prefix: &str| {
        let is_below = |entry: &&Value| {
            let key = entry["key"].as_str().unwrap();
            key == prefix || key.starts_with(&format!("{prefix}\\"))
        };
        truth.values.iter().filter(is_below).cloned().collect::<Vec<Value>>()
    };
    let services = "SYSTEM\\ControlSet001\\Services";
    let database = "SYSTEM\\DriverDatabase";
    let cases = [
        ("the kernel", vec![file("/Windows/System32/ntoskrnl.exe")], vec![], true),
        ("a hive", vec![file("/Windows/System32/config/SYSTEM")], vec![], true),
        ("a file of winsxs", vec![file("/Windows/WinSxS/disk.sys")], vec![], true),
        ("a driver's file alone", vec![file("/Windows/System32/drivers/disk.sys")], vec![], false),
        (
            "a driver of Windows",
            vec![file("/Windows/System32/drivers/disk.sys")],
            below(&format!("{services}\\disk")),
            false,
        ),
        (
            "a network driver",
            vec![file("/Windows/System32/drivers/ndis.sys")],
            below(&format!("{services}\\ndis")),
            false,
        ),
        (
            "a package of Windows",
            vec![],
            [
                below(&format!("{database}\\DriverInfFiles\\mshdc.inf")),
                below(&format!("{database}\\DriverPackages\\mshdc.inf_amd64_0000000000000001")),
                below(&format!("{database}\\DeviceIds\\PCI\\CC_010601")),
            ]
            .concat(),
            false,
        ),
        ("the filters of a class", vec![], below("SYSTEM\\ControlSet001\\Control\\Class"), true),
        ("where Windows is", vec![], below("SOFTWARE\\Microsoft\\Windows NT"), true),
        ("the control set", vec![], below("SYSTEM\\Select"), true),
    ];
    for (what, files, values, is_refused) in cases {
        let mut forged = manifest.clone();
        for (list, entries, field) in [("files", files, "path"), ("registry", values, "key")] {
            // The true entry replaces what is listed of the same place.
            let list = forged[list].as_array_mut().unwrap();
            list.retain(|old| {
                let is_same = |new: &Value| new[field] == old[field] && new["name"] == old["name"];
                !entries.iter().any(is_same)
            });
            list.extend(entries);
        }
        let copy = copied(made);
        write(&copy.disk, &serde_json::to_vec_pretty(&forged).unwrap());
        match remove(&copy.disk) {
            Err(error) => {
                assert!(is_refused, "{what}: {error}");
                assert_eq!(error.kind(), winject::Kind::Refused, "{what}: {error}");
                assert!(error.hint_text().is_some(), "{what}");
            }
            Ok(removal) => {
                assert!(!is_refused, "{what}: {:?}", removal.removed);
                assert_guest_is_whole(&original, &before, &content(&copy.disk), what);
                assert!(removal.removed.contains(&"driver viostor".to_owned()), "{what}: the rest goes all the same");
            }
        }
    }
}

/// Documents that are no manifests: an error, in bounded time and memory.
fn what_is_not_a_manifest_is_refused() {
    let (_, made) = injected();
    let copy = copied(made);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let large = vec![b' '; (16 << 20) + 1];
    let texts: [&[u8]; 8] = [
        b"",
        b"null",
        b"{}",
        b"{\"schema\": \"winject.manifest.v1\"}",
        b"\xff\xfe{\x00}\x00",
        b"{\"schema\": \"winject.manifest.v2\", \"tool\": \"\", \"version\": \"\", \"files\": [], \"registry\": [], \
          \"removed_keys\": [], \"driver_database\": []}",
        deep.as_bytes(),
        &large,
    ];
    for text in texts {
        write(&copy.disk, text);
        let error = plan(&copy.disk).unwrap_err();
        assert!(error.to_string().contains("manifest"), "{error}");
    }
}

/// The data of a hive as JSON has it are read back as they were.
fn odd_data_in_a_manifest_are_taken_as_they_are() {
    for data in [RegistryData::none(), RegistryData::binary([0xff; 3]), RegistryData::multi_sz::<&str>(&[])] {
        let text = serde_json::to_string(&data).unwrap();
        assert_eq!(serde_json::from_str::<RegistryData>(&text).unwrap(), data);
    }
}

tests![
    no_manifest_makes_the_guest_lose_anything,
    chosen_forgeries_are_refused_or_without_effect,
    what_is_not_a_manifest_is_refused,
    odd_data_in_a_manifest_are_taken_as_they_are,
];
