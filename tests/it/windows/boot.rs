//! "Will it boot?" on guests of every release, and the same question to a second implementation in Python that reads
//! the image with foreign readers.

use std::path::Path;
use std::process::Command;

use winject::drivers::SignatureLevel;
use winject::hive::{Data, Hive};
use winject::ntfs::New;
use winject::windows::{BootCheck, Bus, CheckOptions, InjectOptions, Registration, boot_check};

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
        let mut codes: Vec<serde_json::Value> =
            report.failures().map(|f| serde_json::to_value(f.code).unwrap()).collect();
        codes.sort_by_key(ToString::to_string);
        codes.dedup();
        out.insert(report.bus.name().to_owned(), codes.into());
    }
    out.into()
}

fn second_opinion(python: &Path, disks: &[Disk]) -> Vec<serde_json::Value> {
    let script = support::root().join("tests/it/windows/will_it_boot.py");
    let out = support::run(
        Command::new(python).arg(script).arg(disks[0].offset.to_string()).args(disks.iter().map(|d| &d.path)),
    );
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn every_guest_boots_from_both_buses_after_an_injection() {
    let (Some(media), Some(python)) = (guests::media(), support::judge_python()) else { return };
    for product in &PRODUCTS {
        let Some(made) = guests::guest(product) else { return };
        let disk = made.copy("boots");
        assert!(answers(&disk).iter().all(|report| !report.boots), "{}: before", product.name);
        guests::inject(&disk, &media, &InjectOptions::default());
        for report in answers(&disk) {
            assert!(report.boots, "{}: {report}", product.name);
        }
        let opinion = &second_opinion(&python, std::slice::from_ref(&disk))[0];
        assert_eq!(*opinion, ours(&disk), "{}", product.name);

        // a second run finds everything done
        let again = guests::inject(&disk, &media, &InjectOptions::default());
        assert!(again.plan.is_empty(), "{}: {}", product.name, again.plan);
        std::fs::remove_file(&disk.path).unwrap();
    }
}

#[test]
fn the_full_registration_boots_too() {
    let Some(media) = guests::media() else { return };
    let options = InjectOptions { registration: Registration::Full, ..InjectOptions::default() };
    let Some(made) = guests::guest(&PRODUCTS[2]) else { return };
    let disk = made.copy("full");
    let first = guests::inject(&disk, &media, &options);
    let text = first.plan.to_string();
    assert!(text.contains("DriverDatabase\\DriverInfFiles\\oem"), "{text}");
    assert!(text.contains("DriverStore/FileRepository/viostor.inf_amd64_"), "{text}");
    assert!(text.contains("PnpLockdownFiles\\%SystemRoot%/System32/drivers/viostor.sys"), "{text}");
    for report in answers(&disk) {
        assert!(report.boots, "{report}");
        assert!(report.routes[0].inf.as_deref().is_some_and(|inf| inf.starts_with("oem")), "{report}");
    }
    let again = guests::inject(&disk, &media, &options);
    assert!(again.plan.is_empty(), "{}", again.plan);
    std::fs::remove_file(&disk.path).unwrap();

    // the minimal form first, then the full one: nothing invented is left
    let disk = made.copy("both");
    guests::inject(&disk, &media, &InjectOptions::default());
    guests::inject(&disk, &media, &options);
    for report in answers(&disk) {
        assert!(report.boots, "{report}");
        assert!(report.routes[0].inf.as_deref().is_some_and(|inf| inf.starts_with("oem")), "{report}");
    }
    assert!(guests::inject(&disk, &media, &options).plan.is_empty());
    std::fs::remove_file(&disk.path).unwrap();
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
    volume.replace_file(SYS, &bytes, &New::default()).unwrap();
    volume.flush().unwrap();
}

fn set(disk: &Disk, key: &str, name: &str, data: &Data) {
    edit(disk, |hive| {
        let key = hive.create_key(hive.root(), key, NOW).unwrap();
        hive.set_value(key, name, data.kind, &data.bytes, NOW).unwrap();
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

#[test]
fn every_way_of_breaking_a_guest_has_the_same_reason_in_both_implementations() {
    type Break = fn(&Disk);
    let ways: [(&str, &str, Break); 18] = [
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
        ("start-3", "start-type", |d| set(d, SERVICE, "Start", &Data::dword(3))),
        ("override", "start-override", |d| set(d, &format!("{SERVICE}\\StartOverride"), "0", &Data::dword(3))),
        ("own-process", "service-type", |d| set(d, SERVICE, "Type", &Data::dword(0x10))),
        ("no-service", "no-service", |d| drop_key(d, SERVICE)),
        ("drive-d", "image-path", |d| set(d, SERVICE, "ImagePath", &Data::expand_sz("\\??\\D:\\viostor.sys"))),
        ("bus-type", "bus-type", |d| set(d, &format!("{SERVICE}\\Parameters"), "BusType", &Data::dword(10))),
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
    let opinions = second_opinion(&python, &disks);
    for (disk, opinion) in disks.iter().zip(opinions) {
        assert_eq!(ours(disk), opinion, "{}", disk.path.display());
        std::fs::remove_file(&disk.path).unwrap();
    }
    std::fs::remove_file(&good.path).unwrap();
}
