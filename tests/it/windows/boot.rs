//! "Will it boot?" on guests of every release, and the same question to a second implementation in Python that reads
//! the image with foreign readers.

use std::path::Path;
use std::process::Command;

use winject::internals::drivers::SignatureLevel;
use winject::internals::hive::{Hive, RegistryData};
use winject::internals::ntfs::CreateOptions;
use winject::internals::windows::{BootCheck, Bus, CheckOptions, InjectOptions, Registration, boot_check};

use super::guests::{self, Disk, NOW, PRODUCTS};
use crate::support;

const OPTIONS: CheckOptions = CheckOptions { signatures: SignatureLevel::Present };

fn answers(disk: &Disk) -> Vec<BootCheck> {
    let volume = disk.volume();
    Bus::ALL.into_iter().map(|bus| boot_check(&volume, bus, &OPTIONS).unwrap()).collect()
}

/// Our reasons, as the second implementation writes them.
fn ours(disk: &Disk) -> serde_json::Value {
    let mut out = serde_json::Map::new();
    for report in answers(disk) {
        // The second implementation looks at the virtio driver alone, not at Windows' own drivers and filters.
        let is_own = |gate: &serde_json::Value| gate == "boot_drivers" || gate == "filters";
        let failures = report.failures().filter(|f| !is_own(&serde_json::to_value(f.gate).unwrap()));
        let mut codes: Vec<serde_json::Value> = failures.map(|f| serde_json::to_value(f.code).unwrap()).collect();
        codes.sort_by_key(ToString::to_string);
        codes.dedup();
        out.insert(report.bus.name().to_owned(), codes.into());
    }
    out.into()
}

fn second_opinion(python: &Path, disks: &[Disk]) -> Vec<serde_json::Value> {
    let script = support::root().join("tests/it/windows/will_it_boot.py");
    let volumes = disks.iter().map(|disk| format!("{}={}", disk.offset, disk.path.display()));
    let out = support::run(Command::new(python).arg(script).args(volumes));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn every_guest_boots_from_both_buses_after_an_injection_in_either_form() {
    let (Some(media), Some(python)) = (guests::media(), support::judge_python()) else { return };
    for product in &PRODUCTS {
        let Some(made) = guests::guest(product) else { return };
        let mut disks = Vec::new();
        for registration in [Registration::Minimal, Registration::Full] {
            let disk = made.copy(&format!("boots-{registration:?}"));
            let has_database = product.name != "w7";
            if registration == Registration::Full && has_database {
                guests::add_drivers_hive(&disk);
            }
            assert!(answers(&disk).iter().all(|report| !report.boots), "{}: before", product.name);
            let options = InjectOptions { registration, ..InjectOptions::default() };
            guests::inject(&disk, &media, &options);
            for report in answers(&disk) {
                assert!(report.boots, "{}: {report}", product.name);
                let prefix = if registration == Registration::Full { "oem" } else { "h2k-" };
                let is_right = |inf: &Option<String>| inf.as_ref().is_some_and(|inf| inf.starts_with(prefix));
                assert!(!has_database || report.routes.iter().all(|route| is_right(&route.inf)), "{report}");
            }
            // a second run finds everything done
            let again = guests::inject(&disk, &media, &options);
            assert!(again.plan.is_empty(), "{}: {}", product.name, again.plan);
            disks.push(disk);
        }
        let opinions = second_opinion(&python, &disks);
        for (disk, opinion) in disks.iter().zip(opinions) {
            assert_eq!(ours(disk), opinion, "{}", disk.path.display());
            std::fs::remove_file(&disk.path).unwrap();
        }
    }
}

const SYSTEM: &str = "/Windows/System32/config/SYSTEM";
const SYS: &str = "/Windows/System32/drivers/viostor.sys";
const SERVICE: &str = "ControlSet001\\Services\\viostor";
const PACKAGE: &str = "DriverDatabase\\DriverPackages\\h2k-viostor.inf_amd64_0000000000000000";

fn edit(disk: &Disk, change: impl FnOnce(&mut Hive)) {
    let mut volume = disk.volume();
    let file = volume.find(SYSTEM).unwrap().unwrap();
    let mut hive = Hive::open(volume.read(file, 1 << 30).unwrap()).unwrap();
    change(&mut hive);
    volume.overwrite(file, &hive.finish(&[]).unwrap()).unwrap();
    volume.flush().unwrap();
}

fn edit_file(disk: &Disk, change: impl FnOnce(&mut Vec<u8>)) {
    let mut volume = disk.volume();
    let file = volume.find(SYS).unwrap().unwrap();
    let mut bytes = volume.read(file, 1 << 30).unwrap();
    change(&mut bytes);
    volume.replace_file(SYS, &bytes, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
}

fn set(disk: &Disk, key: &str, name: &str, data: &RegistryData) {
    edit(disk, |hive| {
        let key = hive.create_key(hive.root(), key, NOW).unwrap();
        hive.set_value(key, name, data, NOW).unwrap();
    });
}

fn drop_key(disk: &Disk, key: &str) {
    edit(disk, |hive| {
        let key = hive.find(hive.root(), key).unwrap().unwrap();
        hive.delete_key(key, NOW).unwrap();
    });
}

fn drop_value(disk: &Disk, key: &str, name: &str) {
    edit(disk, |hive| {
        let key = hive.find(hive.root(), key).unwrap().unwrap();
        assert!(hive.delete_value(key, name, NOW).unwrap());
    });
}

fn pe_header(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[0x3c..0x40].try_into().unwrap()) as usize
}

fn every_way_of_breaking_a_guest_has_the_same_reason_in_both_implementations() {
    type Break = fn(&Disk);
    let ways: [(&str, &str, Break); 22] = [
        ("missing-file", "file-missing", |d| {
            let mut volume = d.volume();
            volume.delete(SYS).unwrap();
            volume.flush().unwrap();
        }),
        ("other-cpu", "wrong-machine", |d| {
            edit_file(d, |b| {
                let at = pe_header(b) + 4;
                b[at..at + 2].copy_from_slice(&0xAA64u16.to_le_bytes());
            });
        }),
        ("unsigned", "unsigned", |d| {
            edit_file(d, |b| {
                let at = pe_header(b) + 24 + 112 + 32;
                b[at..at + 8].fill(0);
            });
        }),
        ("cut", "not-a-program", |d| edit_file(d, |b| b.truncate(b.len() / 2))),
        ("no-program", "not-a-program", |d| edit_file(d, |b| b[0] = b'X')),
        ("console", "wrong-subsystem", |d| {
            edit_file(d, |b| {
                let at = pe_header(b) + 24 + 68;
                b[at] = 3;
            });
        }),
        ("start-3", "start-type", |d| set(d, SERVICE, "Start", &RegistryData::dword(3))),
        ("override", "start-override", |d| set(d, &format!("{SERVICE}\\StartOverride"), "0", &RegistryData::dword(3))),
        ("own-process", "service-type", |d| set(d, SERVICE, "Type", &RegistryData::dword(0x10))),
        ("no-service", "no-service", |d| drop_key(d, SERVICE)),
        ("drive-d", "image-path", |d| set(d, SERVICE, "ImagePath", &RegistryData::expand_sz("\\??\\D:\\viostor.sys"))),
        ("bus-type", "bus-type", |d| set(d, &format!("{SERVICE}\\Parameters"), "BusType", &RegistryData::dword(10))),
        ("no-ids", "no-device-id", |d| {
            edit(d, |hive| {
                let pci = hive.find(hive.root(), "DriverDatabase\\DeviceIds\\PCI").unwrap().unwrap();
                for key in hive.subkeys(pci).unwrap() {
                    if hive.key_name(key).unwrap().to_string().contains("VEN_1AF4&DEV_10") {
                        hive.delete_key(key, NOW).unwrap();
                    }
                }
            });
        }),
        ("not-active", "package-not-active", |d| {
            drop_value(d, "DriverDatabase\\DriverInfFiles\\h2k-viostor.inf", "Active");
        }),
        ("no-package", "package-missing", |d| drop_key(d, PACKAGE)),
        ("no-version", "no-version", |d| drop_value(d, PACKAGE, "Version")),
        ("no-configuration", "no-configuration", |d| drop_key(d, &format!("{PACKAGE}\\Configurations"))),
        ("wrong-place", "no-device-id", |d| {
            // the tree under the control set, which Windows does not read
            edit(d, |hive| {
                let from = hive.find(hive.root(), "DriverDatabase\\DeviceIds\\PCI").unwrap().unwrap();
                for key in hive.subkeys(from).unwrap() {
                    let name = hive.key_name(key).unwrap().to_string();
                    if !name.contains("VEN_1AF4&DEV_10") {
                        continue;
                    }
                    let wrong = format!("ControlSet001\\Control\\DriverDatabase\\DeviceIds\\PCI\\{name}");
                    let to = hive.create_key(hive.root(), &wrong, NOW).unwrap();
                    for value in hive.values(key).unwrap() {
                        hive.set_value_named(to, &value.name, &value.data, NOW).unwrap();
                    }
                    hive.delete_key(key, NOW).unwrap();
                }
            });
        }),
        ("no-descriptor", "no-descriptor", |d| drop_key(d, &format!("{PACKAGE}\\Descriptors"))),
        ("other-default", "start-type", |d| {
            // the set of the next start is not the one of the last start
            edit(d, |hive| {
                let set = "ControlSet002\\Services\\viostor";
                let key = hive.create_key(hive.root(), set, NOW).unwrap();
                for (name, data) in [
                    ("Start", RegistryData::dword(3)),
                    ("Type", RegistryData::dword(1)),
                    ("ImagePath", RegistryData::expand_sz("system32\\drivers\\viostor.sys")),
                ] {
                    hive.set_value(key, name, &data, NOW).unwrap();
                }
                let select = hive.find(hive.root(), "Select").unwrap().unwrap();
                let two = RegistryData::dword(2);
                hive.set_value(select, "Default", &two, NOW).unwrap();
            });
        }),
        ("no-database", "no-driver-database", |d| drop_key(d, "DriverDatabase")),
        ("cut-hive", "hive-damaged", |d| {
            let mut volume = d.volume();
            let file = volume.find(SYSTEM).unwrap().unwrap();
            let bytes = volume.read(file, 1 << 30).unwrap();
            volume.overwrite(file, &bytes[..bytes.len() / 2]).unwrap();
            volume.flush().unwrap();
        }),
    ];
    let (Some(media), Some(python)) = (guests::media(), support::judge_python()) else { return };
    let Some(made) = guests::guest(&PRODUCTS[2]) else { return };
    let good = made.copy("good");
    guests::inject(&good, &media, &InjectOptions::default());
    let mut disks = Vec::new();
    for (name, code, break_it) in ways {
        let disk = good.copy(name);
        break_it(&disk);
        let report = &answers(&disk)[0];
        assert!(!report.boots, "{name}: {report}");
        let codes = ours(&disk);
        assert!(codes["virtio-blk"].as_array().unwrap().contains(&code.into()), "{name}: {report}");
        disks.push(disk);
    }
    agree_and_remove(&python, &disks);
    std::fs::remove_file(&good.path).unwrap();
}

/// The second implementation says of every disk what we say; then they are removed.
fn agree_and_remove(python: &Path, disks: &[Disk]) {
    for (disk, opinion) in disks.iter().zip(second_opinion(python, disks)) {
        assert_eq!(ours(disk), opinion, "{}", disk.path.display());
        std::fs::remove_file(&disk.path).unwrap();
    }
}

/// The same for the full form: its own names, and files in the driver store.
fn ways_of_breaking_the_full_form() {
    type Break = fn(&Disk, &str);
    let ways: [(&str, &str, Break); 5] = [
        ("full-not-active", "package-not-active", |d, oem| {
            drop_value(d, &format!("DriverDatabase\\DriverInfFiles\\{oem}"), "Active");
        }),
        ("full-missing-file", "file-missing", |d, _| {
            let mut volume = d.volume();
            volume.delete(SYS).unwrap();
            volume.flush().unwrap();
        }),
        ("full-start-3", "start-type", |d, _| set(d, SERVICE, "Start", &RegistryData::dword(3))),
        ("full-store", "file-missing", |d, _| {
            let image = "System32\\DriverStore\\FileRepository\\viostor.inf_amd64_0123456789abcdef\\viostor.sys";
            set(d, SERVICE, "ImagePath", &RegistryData::expand_sz(image));
        }),
        ("full-ids", "no-device-id", |d, oem| {
            edit(d, |hive| {
                let pci = hive.find(hive.root(), "DriverDatabase\\DeviceIds\\PCI").unwrap().unwrap();
                for key in hive.subkeys(pci).unwrap() {
                    hive.delete_value(key, oem, NOW).unwrap();
                }
            });
        }),
    ];
    let (Some(media), Some(python)) = (guests::media(), support::judge_python()) else { return };
    let Some(made) = guests::guest(&PRODUCTS[2]) else { return };
    let good = made.copy("full-good");
    guests::add_drivers_hive(&good);
    let options = InjectOptions { registration: Registration::Full, ..InjectOptions::default() };
    guests::inject(&good, &media, &options);
    let oem = answers(&good)[0].routes[0].inf.clone().unwrap();
    let mut disks = Vec::new();
    for (name, code, break_it) in ways {
        let disk = good.copy(name);
        break_it(&disk, &oem);
        assert!(ours(&disk)["virtio-blk"].as_array().unwrap().contains(&code.into()), "{name}: {}", answers(&disk)[0]);
        disks.push(disk);
    }
    agree_and_remove(&python, &disks);
    std::fs::remove_file(&good.path).unwrap();
}

tests![
    every_guest_boots_from_both_buses_after_an_injection_in_either_form,
    every_way_of_breaking_a_guest_has_the_same_reason_in_both_implementations,
    ways_of_breaking_the_full_form,
];
