//! Hostile documents: none is judged a plan that winject would not write, and none makes winject panic.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::error::Kind;
use crate::hive::RegistryData;
use crate::plan::{Access, GuestHive};

/// The document after a change, read and judged as if it came from a file.
fn judged(change: impl FnOnce(&mut PlanDocument)) -> crate::Result<()> {
    let mut document = sample::document();
    change(&mut document);
    let read = PlanDocument::parse(&document.to_bytes())?;
    assert_eq!(read, document, "another meaning");
    read.judge()
}

fn edit(change: impl FnOnce(&mut SavedEdit)) -> impl FnOnce(&mut PlanDocument) {
    move |document| change(&mut document.steps[0].edit)
}

fn folder(path: &str) -> impl FnOnce(&mut PlanDocument) + use<> {
    let path = path.to_owned();
    edit(|edit| *edit = SavedEdit::CreateDir { path, access: Access::Protected })
}

fn last(edit: SavedEdit) -> impl FnOnce(&mut PlanDocument) {
    |document| document.steps.push(SavedStep { reason: "forged".to_owned(), edit })
}

fn value(hive: GuestHive, key: &str, name: &str) -> SavedEdit {
    let (key, name) = (key.to_owned(), name.to_owned());
    SavedEdit::SetValue { hive, key, name, data: RegistryData::dword(1), before: None }
}

/// Edits of a value in two keys.
fn two_keys(document: &mut PlanDocument, first: &str, second: &str) {
    [first, second].into_iter().for_each(|key| last(value(GuestHive::System, key, "x"))(document));
}

/// Another file of the boot volume, or another source.
fn copied(document: &mut PlanDocument, to: &str, source: &str) {
    for step in &mut document.steps {
        if let SavedEdit::CopyBootFile { path, from, .. } = &mut step.edit {
            (*path, *from) = (to.to_owned(), source.to_owned());
        }
    }
}

fn removed_key(hive: GuestHive, key: &str) -> SavedEdit {
    SavedEdit::DeleteKey { hive, key: key.to_owned(), before: String::new() }
}

#[test]
fn a_plan_of_winject_passes() {
    judged(|_| {}).unwrap();
    judged(|document| document.image = None).unwrap();
    judged(last(removed_key(GuestHive::System, "DriverDatabase\\DriverPackages\\x"))).unwrap();
    judged(folder("/hyper2kvm/x")).unwrap();
    // two names to Windows
    judged(|d| two_keys(d, "ControlSet001\\Services\\a\u{3c2}", "ControlSet001\\Services\\a\u{3a3}")).unwrap();
}

#[test]
fn no_place_out_of_scope_is_edited() {
    for path in [
        "hyper2kvm",
        "/",
        "",
        "//hyper2kvm",
        "/hyper2kvm/",
        "/hyper2kvm/../Windows",
        "/hyper2kvm/.",
        "/hyper2kvm/a:b",
        "/hyper2kvm/a\\b",
        "/hyper2kvm/a\0",
        "/hyper2kvm/CON",
        "/hyper2kvm/a.",
        "/hyper2kvm/a ",
        "/$Extend",
        "/$MFT",
        "/Users/Public",
        "/Windows",
        "/Windows/System32",
        "/hyper2kvm2",
        "/Windows/System32/drivers/x",
        "/ProgramData",
        "/Windows/System32/DriverStoreX/FileRepository/a",
        "/WindowsX/System32/DriverStore/FileRepository/a",
        // its lower case is a `k`, but not to Windows
        "/hyper2\u{212a}vm",
    ] {
        let error = judged(folder(path)).expect_err(path);
        assert!(error.kind() == Kind::Usage && error.to_string().contains("step 1"), "{error}");
    }
    let long = format!("/hyper2kvm/{}", "a/".repeat(600));
    judged(folder(&format!("{long}a"))).unwrap_err();
    for path in [
        "/Windows/System32/ntoskrnl.exe",
        "/Windows/System32/config/SYSTEM",
        "/Windows/System32/drivers/etc/hosts",
        "/Windows/System32/drivers",
        "/Windows/INF/disk.inf",
        "/Windows/INF/oem.inf",
        "/hyper2kvm",
        "/pagefile.sys",
        "/Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}/x.cat",
        "/Windows/INF/oem1x.inf",
        "/Windows/System32/DriverStore/FileRepository/a.inf",
    ] {
        judged(|document| {
            if let SavedEdit::WriteFile { path: target, .. } = &mut document.steps[4].edit {
                *target = path.to_owned();
            }
        })
        .expect_err(path);
    }
    use GuestHive::{Bcd, Drivers, Software, System};
    for (hive, key, name) in [
        (System, "Select", "Default"),
        (System, "ControlSet001\\Control\\Lsa", "x"),
        (System, "ControlSet001\\Services", "x"),
        (System, "Setup", "CmdLine"),
        (System, "ControlSet1\\Services\\a", "x"),
        (System, "ControlSetABC\\Services\\a", "x"),
        (System, "DriverDatabaseX", "x"),
        (System, "", "x"),
        (System, "ControlSet001\\\\Services\\a", "x"),
        (Drivers, "Select", "x"),
        (Software, "Microsoft\\Windows\\CurrentVersion\\Run", "x"),
        (Software, "Microsoft\\Windows\\CurrentVersion", "ProgramFilesDir"),
        (Software, "DriverDatabase\\x", "x"),
        (Software, "Microsoft\\SystemCertificates\\Root\\Certificates\\x", "Blob"),
        (Software, "Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLoc\u{212a}downFiles\\x", "x"),
        (Software, "Microsoft\\SystemCertificates\\TrustedPublisher\\Certificates\\x\\y", "Blob"),
        (Bcd, "Objects\\{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}\\Elements\\16000048", "Element"),
        (Bcd, "Objects\\{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}\\Elements\\16000046", "x"),
        (Bcd, "Objects\\{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}\\Description", "Type"),
        (Bcd, "Objects\\x\\Elements\\16000046", "Element"),
        // a number is not a flag
        (Bcd, "Objects\\{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}\\Elements\\16000046", "Element"),
    ] {
        judged(last(value(hive, key, name))).expect_err(key);
    }
    for (hive, key) in [
        (System, "ControlSet001\\Services\\viostor"),
        (System, "ControlSet001"),
        (System, "DriverDatabase"),
        (System, "Setup"),
        (System, "DriverDatabase\\DriverPackages"),
        (System, "DriverDatabase\\DriverPac\u{212a}ages\\x"),
        (System, "ControlSet001\\Services\\a\\Parameters"),
        (System, "ControlSet001\\Services\\a\\b\\StartOverride"),
        (Software, "Microsoft"),
        (Bcd, "Objects\\{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}"),
        (Bcd, "Objects\\{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}\\Elements"),
    ] {
        judged(last(removed_key(hive, key))).expect_err(key);
    }
}

#[test]
fn a_driver_is_not_opened_to_other_users() {
    for access in
        [Access::Protected, Access::Like("/Users/Public".to_owned()), Access::Like("/Windows/System32".to_owned())]
    {
        judged(|document| {
            if let SavedEdit::WriteFile { access: target, .. } = &mut document.steps[4].edit {
                *target = access;
            }
        })
        .unwrap_err();
    }
    judged(edit(|edit| {
        if let SavedEdit::CreateDir { access, .. } = edit {
            *access = Access::Like("/Windows/System32".to_owned());
        }
    }))
    .unwrap_err();
}

#[test]
fn parts_that_contradict_each_other_are_refused() {
    type Change = fn(&mut PlanDocument);
    let changes: &[Change] = &[
        |d| d.image = Some("../win.qcow2".to_owned()),
        |d| d.image = Some("..".to_owned()),
        |d| d.disk.size = u64::MAX,
        |d| d.disk.size = 1 << 20,
        |d| d.disk.sector = 0,
        |d| d.disk.id = Some("x".to_owned()),
        |d| d.partition.start = u64::MAX,
        |d| d.partition.length = 0,
        |d| d.boot = None,
        |d| d.steps.retain(|step| !step.edit.is_of_boot_volume()),
        |d| d.boot.iter_mut().for_each(|boot| boot.start = u64::MAX),
        |d| d.boot.iter_mut().for_each(|boot| boot.length = 1 << 30),
        |d| d.boot.iter_mut().for_each(|boot| boot.length = 0),
        |d| d.boot.iter_mut().for_each(|boot| boot.store = "/Windows/System32/config/SYSTEM".to_owned()),
        |d| copied(d, "/EFI/Boot/bootia32.efi", "/EFI/Microsoft/Boot/bootmgfw.efi"),
        |d| copied(d, "/EFI/Microsoft/Boot/bootmgfw.efi", "/EFI/Microsoft/Boot/bootmgfw.efi"),
        |d| copied(d, "/EFI/Boot/bootx64.efi", "/EFI/Microsoft/Boot/BCD"),
        |d| d.windows.folder = "/Users".to_owned(),
        |d| d.windows.config = "/Windows/System32/Config".to_owned(),
        |d| d.hives.clear(),
        |d| d.hives.push(d.hives[0].clone()),
        |d| d.hives[0].logs[0].name = "/../SAM".to_owned(),
        |d| d.reads.bytes += 1,
        |d| d.reads.ranges.reverse(),
        |d| d.reads.ranges.push(d.reads.ranges[1]),
        |d| d.reads.ranges[1] = ReadRange { start: 0x1000, length: 0x2000 },
        |d| d.reads.ranges[1].start = u64::MAX,
        |d| d.reads.ranges[1].length = 0,
        |d| d.reads.ranges = (0..70_000).map(|at| ReadRange { start: at * 2, length: 1 }).collect(),
        |d| d.expects.boots_from = vec!["ide".to_owned()],
        |d| d.expects.boots_from.push("virtio-scsi".to_owned()),
        |d| d.expects.boots_from.clear(),
        |d| drop(d.expects.boots_from.pop()),
        |d| d.verdict.after.clear(),
        |d| (d.verdict.after, d.expects.boots_from) = (Vec::new(), Vec::new()),
        |d| drop((d.verdict.after.pop(), d.expects.boots_from.pop())),
        |d| d.verdict.after.reverse(),
        |d| d.verdict.after[0].boots = false,
        |d| d.verdict.after[0].findings[0].level = FindingLevel::Failure,
        |d| d.verdict.after[0].findings[0].gate = "a\nb".to_owned(),
        |d| d.verdict.before.push(d.verdict.before[0].clone()),
        |d| d.drivers[0].signed = false,
        |d| d.notes.push("x".repeat(100_000)),
        |d| d.files.reverse(),
        |d| d.files.clear(),
        |d| {
            d.files.push(SavedFile {
                sha256: Sha256Sum([255; 32]),
                size: 1,
                content: SavedFileContent::Media("a".into()),
            })
        },
        |d| d.files.iter_mut().for_each(|file| file.size += 1),
        |d| d.files.iter_mut().for_each(|file| file.size = 1 << 40),
        |d| d.files.iter_mut().for_each(|file| file.content = SavedFileContent::Text("forged".to_owned())),
        |d| d.files.iter_mut().for_each(|file| file.content = SavedFileContent::Hex("00FF".to_owned())),
        |d| d.files.iter_mut().for_each(|file| file.content = SavedFileContent::Media("../../etc/passwd".to_owned())),
        |d| d.files.iter_mut().for_each(|file| file.content = SavedFileContent::Media("/etc/passwd".to_owned())),
        |d| d.steps.reverse(),
        |d| d.steps.swap(0, 1),
        |d| d.steps.push(d.steps[8].clone()),
        // one name in two spellings, though not to a reader who lowers a sigma at the end of a word otherwise
        |d| two_keys(d, "ControlSet001\\Services\\a\u{3c3}", "ControlSet001\\Services\\a\u{3a3}"),
        |d| drop(d.steps.remove(1)),
        |d| {
            (0..10_001)
                .for_each(|name| last(value(GuestHive::System, "ControlSet001\\Services\\a", &name.to_string()))(d))
        },
    ];
    for (index, change) in changes.iter().enumerate() {
        let error = judged(change).expect_err(&format!("change {index}"));
        assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{error}");
    }
}

/// Every place of a JSON value, as a pointer.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| pointers(value, &format!("{at}/{name}"), out)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| pointers(value, &format!("{at}/{i}"), out)),
        _ => {}
    }
}

fn replacement() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "[/\\\\$:.a-z]{0,12}".prop_map(Value::from),
        Just(Value::Array(Vec::new())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any bytes changed: refused as another spelling, or the document is what those bytes say.
    #[test]
    fn bytes_that_are_changed_have_no_other_meaning(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()
    ) {
        let mut bytes = sample::document().to_bytes();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let short = cut.index(bytes.len());
        prop_assert!(PlanDocument::parse(&bytes[..short]).is_err());
        if let Ok(document) = PlanDocument::parse(&bytes) {
            prop_assert_eq!(document.to_bytes(), bytes);
            let _ = document.judge();
        }
    }

    /// Any value replaced by any other, moved or doubled: judged without a panic.
    #[test]
    fn values_that_are_changed_are_judged(
        index in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), new in replacement(), copy in any::<bool>()
    ) {
        let mut value = serde_json::to_value(sample::document()).unwrap();
        let mut places = Vec::new();
        pointers(&value, "", &mut places);
        let new = if copy { value.pointer(&places[other.index(places.len())]).unwrap().clone() } else { new };
        *value.pointer_mut(&places[index.index(places.len())]).unwrap() = new;
        if let Ok(document) = serde_json::from_value::<PlanDocument>(value)
            && let Ok(read) = PlanDocument::parse(&document.to_bytes())
        {
            prop_assert_eq!(&read, &document);
            let _ = read.judge();
        }
    }
}
