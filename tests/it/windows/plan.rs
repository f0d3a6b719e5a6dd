//! Inspection and plans on guests with real hives.

use winject::Kind;
use winject::internals::drivers::{Arch, ProductType};
use winject::internals::hive::{Hive, RegistryData, ValueType};
use winject::internals::ntfs::{OpenOptions, Volume};
use winject::internals::plan::{Applied, Change, GuestHive, apply, verify};
use winject::internals::windows::{Guest, InjectOptions, Injection, plan_injection};

use super::guests::{self, FileVolume, PRODUCTS};

fn every_release_is_recognised() {
    let expected = [
        ("Windows 7", 7601, Arch::X86, ProductType::WinNt, false),
        ("Windows 8.1", 9600, Arch::Amd64, ProductType::WinNt, true),
        ("Windows 10", 19045, Arch::Amd64, ProductType::WinNt, true),
        ("Windows 11", 26100, Arch::Amd64, ProductType::WinNt, true),
        ("Windows Server 2022", 20348, Arch::Amd64, ProductType::ServerNt, true),
        ("Windows Server 2025", 26100, Arch::Amd64, ProductType::ServerNt, true),
    ];
    for (product, (name, build, arch, kind, database)) in PRODUCTS.iter().zip(expected) {
        let Some(disk) = guests::guest(product) else { return };
        let guest = Guest::inspect(&disk.volume()).unwrap().unwrap();
        assert_eq!(guest.product, name, "{guest}");
        assert_eq!(
            (guest.build, guest.arch, guest.product_type, guest.has_driver_database),
            (build, arch, kind, database),
            "{guest}"
        );
        assert_eq!(guest.windows_dir, "/Windows");
        assert!(guest.control_sets[0].is_current);
    }
}

fn windows_7_edits_both_control_sets() {
    let (Some(media), Some(disk)) = (guests::media(), guests::guest(&PRODUCTS[0])) else { return };
    let volume = disk.volume();
    let guest = Guest::inspect(&volume).unwrap().unwrap();
    let names: Vec<&str> = guest.control_sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["ControlSet001", "ControlSet002"]);
    let chosen = guests::selection(&guest, &media);
    let injection = plan_injection(&volume, &guest, &chosen, &InjectOptions::default()).unwrap();
    let text = injection.plan.to_string();
    for set in names {
        for service in ["viostor", "vioscsi"] {
            assert!(text.contains(&format!("SYSTEM\\{set}\\Services\\{service} : Start = REG_DWORD 0x0")), "{set}");
        }
        assert!(text.contains(&format!("{set}\\Control\\CriticalDeviceDatabase\\PCI#VEN_1AF4&DEV_1042")), "{set}");
    }
    assert!(!text.contains("DriverDatabase\\"), "{text}");
}

/// Every difference between the plan and the volume is found, one at a time.
fn verify_finds_whatever_is_not_as_planned() {
    let (Some(media), Some(disk)) = (guests::media(), guests::guest(&PRODUCTS[2])) else { return };
    let disk = disk.copy("verify");
    let mut volume = disk.volume();
    let guest = Guest::inspect(&volume).unwrap().unwrap();
    let chosen = guests::selection(&guest, &media);
    let Injection { plan, hives, .. } = plan_injection(&volume, &guest, &chosen, &InjectOptions::default()).unwrap();
    let applied = apply(&plan, &mut volume, hives, guests::NOW).unwrap();
    let mut device = volume.into_device();
    let unknown = Applied::default();
    let refuses = |device: &FileVolume, what: &str| {
        for applied in [&applied, &unknown] {
            let error = verify(device, &plan, applied, false).expect_err(what);
            assert_eq!(error.kind(), Kind::Verify, "{what}: {error}");
        }
    };
    let done = verify(&device, &plan, &applied, false).unwrap();
    assert_eq!(done, verify(&device, &plan, &unknown, false).unwrap());
    assert!(done.files > 20 && done.values > 20 && done.hives == 2, "{done:?}");

    let edit = |device: FileVolume, path: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut volume = Volume::open(device, &OpenOptions::new(guests::NOW)).unwrap();
        let file = volume.find(path).unwrap().unwrap();
        let before = volume.read(file, u64::MAX).unwrap();
        let mut after = before.clone();
        change(&mut after);
        volume.overwrite(file, &after).unwrap();
        volume.flush().unwrap();
        (volume.into_device(), before)
    };
    for step in plan.files() {
        let Change::WriteFile { path, .. } = &step.change else { continue };
        for at_end in [false, true] {
            let flip = |bytes: &mut Vec<u8>| {
                let at = if at_end { bytes.len() - 1 } else { 0 };
                bytes[at] ^= 1;
            };
            let (other, before) = edit(device, path, &flip);
            refuses(&other, path);
            device = edit(other, path, &|bytes| bytes.clone_from(&before)).0;
        }
        let (other, before) = edit(device, path, &|bytes| bytes.push(0));
        refuses(&other, path);
        device = edit(other, path, &|bytes| bytes.clone_from(&before)).0;
    }
    for step in plan.of_hive(GuestHive::System).step_by(7) {
        let undo = |bytes: &mut Vec<u8>| {
            let mut hive = Hive::open(std::mem::take(bytes)).unwrap();
            let root = hive.root();
            match &step.change {
                Change::SetValue { key, name, .. } => {
                    let key = hive.find(root, key).unwrap().unwrap();
                    hive.set_value(key, name, &RegistryData::new(ValueType(0x77), b"another"), guests::NOW).unwrap();
                }
                Change::CreateKey { key, .. } => {
                    let key = hive.find(root, key).unwrap().unwrap();
                    hive.delete_key(key, guests::NOW).unwrap();
                }
                Change::DeleteKey { key, .. } => drop(hive.create_key(root, key, guests::NOW).unwrap()),
                _ => {}
            }
            *bytes = hive.finish(&[]).unwrap();
        };
        let path = plan.hive_path(GuestHive::System);
        let (other, before) = edit(device, &path, &undo);
        refuses(&other, &step.change.to_string());
        device = edit(other, &path, &|bytes| bytes.clone_from(&before)).0;
    }
    // sound, and as planned, but not what was written
    let path = plan.hive_path(GuestHive::System);
    let (other, _) = edit(device, &path, &|bytes| {
        let mut hive = Hive::open(std::mem::take(bytes)).unwrap();
        let root = hive.root();
        hive.create_key(root, "Select\\more", guests::NOW).unwrap();
        *bytes = hive.finish(&[]).unwrap();
    });
    verify(&other, &plan, &unknown, false).unwrap();
    assert_eq!(verify(&other, &plan, &applied, false).unwrap_err().kind(), Kind::Verify);
}

tests![every_release_is_recognised, windows_7_edits_both_control_sets, verify_finds_whatever_is_not_as_planned,];
