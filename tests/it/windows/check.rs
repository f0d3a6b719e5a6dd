//! `winject check`: what it reads, and what it reports about the state of a guest, apart from the driver.

use std::path::Path;
use std::process::{Command, Output};

use winject::internals::drivers::SignatureLevel;
use winject::internals::hive::{Hive, RegistryData};
use winject::internals::ntfs::CreateOptions;
use winject::internals::windows::{Bus, CheckOptions, InjectOptions, boot_check};

use super::guests::{self, Disk, NOW, PRODUCTS};

const CONFIG: &str = "/Windows/System32/config";
/// Bytes that may be read in addition to the hives.
const BYTES_MAX: u64 = 5_000_000;

fn edit(disk: &Disk, hive: &str, change: impl FnOnce(&mut Hive)) {
    let mut volume = disk.volume();
    let file = volume.find(&format!("{CONFIG}/{hive}")).unwrap().unwrap();
    let mut hive = Hive::open(volume.read(file, 1 << 30).unwrap()).unwrap();
    change(&mut hive);
    volume.overwrite(file, &hive.finish(&[]).unwrap()).unwrap();
    volume.flush().unwrap();
}

fn set(disk: &Disk, hive: &str, key: &str, name: &str, data: &RegistryData) {
    edit(disk, hive, |hive| {
        let key = hive.create_key(hive.root(), key, NOW).unwrap();
        hive.set_value(key, name, data, NOW).unwrap();
    });
}

fn put(disk: &Disk, path: &str, bytes: &[u8]) {
    let mut volume = disk.volume();
    volume.replace_file(path, bytes, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
}

fn check(image: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_winject"));
    command.arg("check").arg(image).args(["--json", "--signature-policy", "warn"]).output().unwrap()
}

/// The codes of all findings for virtio-blk.
fn codes(disk: &Disk) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_slice(&check(&disk.path).stdout).unwrap();
    let findings = json["buses"][0]["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

fn little_is_read_but_the_hives() {
    let (Some(media), Some(made)) = (guests::media(), guests::guest(&PRODUCTS[2])) else { return };
    let disk = made.copy("bytes-read");
    for round in ["before", "after"] {
        let volume = disk.volume();
        let hives: u64 = ["SYSTEM", "SOFTWARE"]
            .iter()
            .map(|name| volume.stat(volume.find(&format!("{CONFIG}/{name}")).unwrap().unwrap()).unwrap().size)
            .sum();
        drop(volume);
        let json: serde_json::Value = serde_json::from_slice(&check(&disk.path).stdout).unwrap();
        let read = json["bytes_read"].as_u64().unwrap();
        assert!(read >= hives, "{round}: the count counts");
        assert!(read - hives < BYTES_MAX, "{round}: {read} bytes read, {hives} of them hives");
        assert_eq!(json["buses"].as_array().unwrap().len(), 2);
        guests::inject(&disk, &media, &InjectOptions::default());
    }
    std::fs::remove_file(&disk.path).unwrap();
}

fn the_state_of_the_guest_is_reported() {
    type Change = fn(&Disk);
    let states: [(&str, &str, Change); 14] = [
        ("fast-startup", "fast startup", |d| {
            set(d, "SYSTEM", &format!("{SESSION}\\Power"), "HiberbootEnabled", &RegistryData::dword(1));
        }),
        ("antivirus", "antivirus", |d| {
            edit(d, "SYSTEM", |hive| {
                let key = hive.create_key(hive.root(), "ControlSet001\\Services\\mfehidk", NOW).unwrap();
                for (name, data) in
                    [("Group", RegistryData::sz("FSFilter Anti-Virus")), ("Start", RegistryData::dword(0))]
                {
                    hive.set_value(key, name, &data, NOW).unwrap();
                }
            });
        }),
        ("disk-filter", "disk class", |d| filter(d, "{4d36e967-e325-11ce-bfc1-08002be10318}", "UpperFilters")),
        ("disk-filter", "volume class", |d| filter(d, "{71a27cdd-812a-11d0-bec7-08002be2092f}", "LowerFilters")),
        ("disk-filter", "controller class", |d| filter(d, "{4d36e97b-e325-11ce-bfc1-08002be10318}", "UpperFilters")),
        ("device-policy", "policy", |d| {
            let key = "Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions";
            set(d, "SOFTWARE", key, "DenyUnspecified", &RegistryData::dword(1));
        }),
        ("no-way-back", "no in-box controller", |d| {
            edit(d, "SYSTEM", |hive| {
                for name in ["storahci", "stornvme", "msahci", "atapi", "intelide"] {
                    let key = format!("ControlSet001\\Services\\{name}");
                    if let Some(key) = hive.find(hive.root(), &key).unwrap() {
                        let data = RegistryData::dword(3);
                        hive.set_value(key, "Start", &data, NOW).unwrap();
                    }
                }
            });
        }),
        ("pending-reboot", "renames", |d| {
            let files = RegistryData::multi_sz(&["\\??\\C:\\a", "\\??\\C:\\b"]);
            set(d, "SYSTEM", SESSION, "PendingFileRenameOperations", &files);
        }),
        ("pending-reboot", "servicing", |d| {
            let key = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\RebootPending";
            set(d, "SOFTWARE", key, "x", &RegistryData::dword(1));
        }),
        ("pending-reboot", "update", |d| {
            let key = "Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update\\RebootRequired";
            set(d, "SOFTWARE", key, "x", &RegistryData::dword(1));
        }),
        ("pending-reboot", "pending.xml", |d| put(d, "/Windows/WinSxS/pending.xml", b"<PendingTransaction/>")),
        ("setup-in-progress", "setup phase", |d| set(d, "SYSTEM", "Setup", "SetupPhase", &RegistryData::dword(3))),
        ("setup-in-progress", "out-of-box experience", |d| {
            set(d, "SYSTEM", "Setup", "OOBEInProgress", &RegistryData::dword(1))
        }),
        ("volume-state", "hibernated", |d| {
            let mut hibernation = vec![0u8; 8192];
            hibernation[..4].copy_from_slice(b"HIBR");
            put(d, "/hiberfil.sys", &hibernation);
        }),
    ];
    let (Some(media), Some(made)) = (guests::media(), guests::guest(&PRODUCTS[2])) else { return };
    let good = made.copy("state");
    guests::inject(&good, &media, &InjectOptions::default());
    // the hive's own guest waited for renames when it was copied
    edit(&good, "SYSTEM", |hive| {
        let key = hive.find(hive.root(), SESSION).unwrap().unwrap();
        hive.delete_value(key, "PendingFileRenameOperations", NOW).unwrap();
    });
    let before = codes(&good);
    let quiet = ["antivirus", "disk-filter", "device-policy", "no-way-back", "pending-reboot", "setup-in-progress"];
    for code in quiet.into_iter().chain(["volume-state"]) {
        assert!(!before.iter().any(|known| known == code), "{code} before any change: {before:?}");
    }
    for (code, name, change) in states {
        let disk = good.copy("state-changed");
        change(&disk);
        let after = codes(&disk);
        assert!(after.iter().any(|known| known == code), "{name}: {after:?}");
        // The driver is right all the same; but a filter without a service keeps Windows from starting.
        let expected = if code == "disk-filter" { 1 } else { 0 };
        let status = check(&disk.path).status;
        assert_eq!(status.code(), Some(expected), "{name}");
        std::fs::remove_file(&disk.path).unwrap();
    }
    std::fs::remove_file(&good.path).unwrap();
}

const SESSION: &str = "ControlSet001\\Control\\Session Manager";

fn filter(disk: &Disk, class: &str, name: &str) {
    edit(disk, "SYSTEM", |hive| {
        let key = hive.create_key(hive.root(), &format!("ControlSet001\\Control\\Class\\{class}"), NOW).unwrap();
        let mut texts = hive.value(key, name).unwrap().and_then(|v| v.as_texts()).unwrap_or_default();
        texts.push("prl_strg".to_owned());
        let data = RegistryData::multi_sz(&texts);
        hive.set_value(key, name, &data, NOW).unwrap();
    });
}

fn an_encrypted_volume_is_named() {
    let Some(made) = guests::guest(&PRODUCTS[2]) else { return };
    let disk = made.copy("bitlocker");
    let file = std::fs::File::options().write(true).open(&disk.path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"-FVE-FS-", disk.offset + 3).unwrap();
    let output = check(&disk.path);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    // A header without the metadata that it names.
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("BitLocker"), "{text}");
    std::fs::remove_file(&disk.path).unwrap();
}

/// What stands in the made SYSTEM hive of Windows 7 and the unsigned noise of the made media, at every level.
fn the_signature_policy_is_that_of_the_caller() {
    let (Some(media), Some(made)) = (guests::media(), guests::guest(&PRODUCTS[2])) else { return };
    let disk = made.copy("policy");
    guests::inject(&disk, &media, &InjectOptions::default());
    let boots = |signatures| {
        let report = boot_check(&disk.volume(), Bus::VirtioBlk, &CheckOptions { signatures }).unwrap();
        (report.boots, report.findings.iter().any(|f| f.text.contains("proves nothing")))
    };
    assert_eq!(boots(SignatureLevel::Require), (false, true));
    assert_eq!(boots(SignatureLevel::Present), (true, true));
    assert_eq!(boots(SignatureLevel::Warn), (true, true));
    std::fs::remove_file(&disk.path).unwrap();
}

tests![
    little_is_read_but_the_hives,
    the_state_of_the_guest_is_reported,
    an_encrypted_volume_is_named,
    the_signature_policy_is_that_of_the_caller,
];
