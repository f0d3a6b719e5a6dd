//! A guest that boots after an injection, and every way of breaking it that we know.

use super::check::check_files;
use super::gates::FREE_BYTES_LOW;
use super::*;
use crate::drivers::pe::sample::sample;
use crate::drivers::{Arch, SignatureLevel};
use crate::hive::{Hive, RegistryData};
use crate::plan::GuestHive;
use crate::windows::InjectOptions;
use crate::windows::guest_files::memory::MemoryFiles;
use crate::windows::tests::{BOOT_CHAIN, NOW, apply, guest_files, hive, plan, selection, set};

const SYS: &str = "/Windows/System32/drivers/vioscsi.sys";
const SERVICE: &str = "ControlSet001\\Services\\vioscsi";
const PACKAGE: &str = "DriverDatabase\\DriverPackages\\h2k-vioscsi.inf_amd64_0000000000000000";

fn injected(build: &str, database: bool) -> MemoryFiles {
    let mut files = guest_files(build, database);
    let mut chosen = selection([100, 101, 104, 28500]);
    let boot = chosen.packages[0].boot.as_mut().unwrap();
    boot.data = sample(Arch::Amd64, &[0x30; 64]).into();
    let injection = plan(&files, &chosen, &InjectOptions::default());
    apply(&mut files, &injection);
    files
}

fn lenient() -> CheckOptions {
    CheckOptions { signatures: SignatureLevel::Present }
}

fn check(files: &MemoryFiles) -> BootCheck {
    check_files(files, Bus::VirtioScsi, &lenient()).unwrap()
}

fn codes(report: &BootCheck) -> Vec<Code> {
    report.failures().map(|finding| finding.code).collect()
}

fn edit(files: &mut MemoryFiles, change: impl FnOnce(&mut Hive)) {
    let mut system = hive(files, GuestHive::System);
    change(&mut system);
    files.put("/Windows/System32/config/SYSTEM", &system.finish(&[]).unwrap());
}

fn drop_key(hive: &mut Hive, key: &str) {
    let key = hive.find(hive.root(), key).unwrap().unwrap();
    hive.delete_key(key, NOW).unwrap();
}

fn drop_value(hive: &mut Hive, key: &str, name: &str) {
    let key = hive.find(hive.root(), key).unwrap().unwrap();
    assert!(hive.delete_value(key, name, NOW).unwrap());
}

#[test]
fn an_injected_guest_boots() {
    for (build, database) in [("7601", false), ("9600", true), ("19045", true), ("26100", true)] {
        let report = check(&injected(build, database));
        assert!(report.boots, "{build}: {report}");
        assert_eq!(report.routes.len(), 2, "{report}");
        assert_eq!(report.routes[1].matched, "PCI\\VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01");
    }
}

#[test]
fn before_the_injection_it_does_not() {
    for (build, database) in [("7601", false), ("19045", true)] {
        assert_eq!(codes(&check(&guest_files(build, database)))[0], Code::NoDeviceId);
    }
    let other = check_files(&injected("19045", true), Bus::VirtioBlk, &lenient()).unwrap();
    assert_eq!(codes(&other)[0], Code::NoDeviceId, "vioscsi does not serve virtio-blk");
}

#[test]
fn services_and_critical_devices_alone_stop_windows_10() {
    // what other tools do: Windows 8 and later then stop with 0x7B
    let mut files = injected("19045", true);
    edit(&mut files, |hive| {
        for key in ["DriverInfFiles", "DriverPackages", "DeviceIds"] {
            drop_key(hive, &format!("DriverDatabase\\{key}"));
        }
    });
    assert_eq!(codes(&check(&files))[0], Code::NoDeviceId);
}

#[test]
fn every_way_of_breaking_it_has_its_reason() {
    type Break = fn(&mut MemoryFiles);
    let ways: [(&str, Code, Break); 22] = [
        ("file missing", Code::FileMissing, |f| drop(f.0.remove(&SYS.to_lowercase()))),
        ("other CPU", Code::WrongMachine, |f| f.put(SYS, &sample(Arch::X86, &[0x30; 64]))),
        ("not signed", Code::Unsigned, |f| f.put(SYS, &sample(Arch::Amd64, &[]))),
        ("no program", Code::NotAProgram, |f| f.put(SYS, b"not a program")),
        ("cut file", Code::NotAProgram, |f| {
            let mut bytes = sample(Arch::Amd64, &[0x30; 64]);
            bytes.truncate(bytes.len() - 8);
            f.put(SYS, &bytes);
        }),
        ("Start=3", Code::StartType, |f| edit(f, |h| set(h, SERVICE, "Start", &RegistryData::dword(3)))),
        ("no Start", Code::StartType, |f| edit(f, |h| drop_value(h, SERVICE, "Start"))),
        ("StartOverride", Code::StartOverride, |f| {
            edit(f, |h| set(h, &format!("{SERVICE}\\StartOverride"), "0", &RegistryData::dword(3)));
        }),
        ("user-mode service", Code::ServiceType, |f| edit(f, |h| set(h, SERVICE, "Type", &RegistryData::dword(0x10)))),
        ("no service", Code::NoService, |f| edit(f, |h| drop_key(h, SERVICE))),
        ("another drive", Code::ImagePath, |f| {
            edit(f, |h| set(h, SERVICE, "ImagePath", &RegistryData::expand_sz("\\??\\D:\\vioscsi.sys")));
        }),
        ("wrong BusType", Code::BusType, |f| {
            edit(f, |h| set(h, &format!("{SERVICE}\\Parameters"), "BusType", &RegistryData::dword(1)));
        }),
        ("no DeviceIds", Code::NoDeviceId, |f| edit(f, |h| drop_key(h, "DriverDatabase\\DeviceIds\\PCI"))),
        ("tree in the wrong place", Code::NoDeviceId, |f| {
            edit(f, |h| {
                drop_key(h, "DriverDatabase\\DeviceIds");
                let wrong = "ControlSet001\\Control\\DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1048";
                set(h, wrong, "h2k-vioscsi.inf", &RegistryData::binary([1, 0xff, 0, 0]));
            });
        }),
        ("package not active", Code::PackageNotActive, |f| {
            edit(f, |h| drop_value(h, "DriverDatabase\\DriverInfFiles\\h2k-vioscsi.inf", "Active"));
        }),
        ("package gone", Code::PackageMissing, |f| edit(f, |h| drop_key(h, PACKAGE))),
        ("no Version", Code::NoVersion, |f| edit(f, |h| drop_value(h, PACKAGE, "Version"))),
        ("short Version", Code::NoVersion, |f| edit(f, |h| set(h, PACKAGE, "Version", &RegistryData::binary([0; 40])))),
        ("no descriptors", Code::NoDescriptor, |f| edit(f, |h| drop_key(h, &format!("{PACKAGE}\\Descriptors")))),
        ("no configuration", Code::NoConfiguration, |f| {
            edit(f, |h| drop_key(h, &format!("{PACKAGE}\\Configurations")));
        }),
        ("hive cut in the middle", Code::HiveDamaged, |f| {
            let bytes = f.get("/Windows/System32/config/SYSTEM").unwrap().clone();
            f.put("/Windows/System32/config/SYSTEM", &bytes[..bytes.len() / 2]);
        }),
        ("no DriverDatabase", Code::NoDriverDatabase, |f| edit(f, |h| drop_key(h, "DriverDatabase"))),
    ];
    for (name, code, break_it) in ways {
        let mut files = injected("19045", true);
        break_it(&mut files);
        let report = check(&files);
        assert!(!report.boots, "{name}: {report}");
        assert!(codes(&report).contains(&code), "{name}: {report}");
        // What is wrong with the driver's file is shown as the driver's, not as the kernel's.
        if [Code::FileMissing, Code::WrongMachine, Code::Unsigned, Code::NotAProgram, Code::ImagePath].contains(&code) {
            assert!(report.failures().all(|one| one.gate == Gate::Start), "{name}: {:?}", report.findings);
        }
        let text = report.to_string();
        assert!(text.starts_with("virtio-scsi: no"), "{text}");
        if name == "tree in the wrong place" {
            assert!(text.contains("which Windows does not read"), "{text}");
        }
    }
}

#[test]
fn one_form_alone_is_a_warning() {
    let mut files = injected("19045", true);
    edit(&mut files, |hive| {
        for id in ["VEN_1AF4&DEV_1004&SUBSYS_00081AF4&REV_00", "VEN_1AF4&DEV_1004&REV_00", "VEN_1AF4&DEV_1004"] {
            drop_key(hive, &format!("DriverDatabase\\DeviceIds\\PCI\\{id}"));
        }
    });
    let report = check(&files);
    assert!(report.boots, "{report}");
    assert!(report.findings.iter().any(|f| f.code == Code::OneForm && f.level == Level::Warning), "{report}");
}

#[test]
fn a_guest_without_in_box_controllers_is_noted() {
    let mut files = injected("19045", true);
    files.0.remove("/windows/system32/drivers/storahci.sys");
    let report = check(&files);
    assert!(report.boots && report.findings.iter().any(|f| f.code == Code::NoInboxController), "{report}");
}

#[test]
fn no_windows_at_all() {
    assert_eq!(codes(&check(&MemoryFiles::default())), [Code::NoWindows]);
}

#[test]
fn little_space_is_a_warning() {
    let mut files = injected("19045", true);
    let has = |files: &MemoryFiles| check(files).findings.iter().any(|f| f.code == Code::LittleSpace);
    assert!(!has(&files));
    files.1 = Some(FREE_BYTES_LOW);
    assert!(!has(&files));
    files.1 = Some(FREE_BYTES_LOW - 1);
    assert!(has(&files) && check(&files).boots);
}

/// Windows 7 knows SHA-2 signatures only after an update; `CurrentState` says whether it is really installed.
#[test]
fn the_update_for_sha_2_on_windows_7() {
    const PACKAGES: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";
    let signed = std::fs::read("test-images/drivers/vioscsi/w10/amd64/vioscsi.sys").unwrap();
    let answer = |package: &str, state: u32| {
        let mut files = injected("7601", false);
        files.put(SYS, &signed);
        let mut software = hive(&files, GuestHive::Software);
        set(
            &mut software,
            &format!("{PACKAGES}\\{package}~31bf3856ad364e35"),
            "CurrentState",
            &RegistryData::dword(state),
        );
        files.put("/Windows/System32/config/SOFTWARE", &software.finish(&[]).unwrap());
        let strict = CheckOptions { signatures: SignatureLevel::Require };
        let report = check_files(&files, Bus::VirtioScsi, &strict).unwrap();
        let finding = report.findings.iter().find(|f| f.code == Code::SignatureTooNew).map(|f| f.level);
        (report.boots, finding)
    };
    let update = "Package_for_KB4474419";
    assert_eq!(answer(update, 0x70), (true, None), "installed");
    assert_eq!(answer(update, 0x80), (true, None), "permanent");
    for (name, state) in [("staged", 0x40), ("install pending", 0x60), ("uninstall pending", 5), ("absent", 0)] {
        assert_eq!(answer(update, state), (false, Some(Level::Failure)), "{name}");
    }
    assert_eq!(answer("Package_for_KB1111111", 0x70), (false, Some(Level::Failure)), "another update");
    assert_eq!(answer("Package_for_KB3033929", 0x70), (true, Some(Level::Warning)), "the first update for SHA-2");
}

#[test]
fn a_broken_hive_does_not_boot_wherever_it_is_broken() {
    let mut files = injected("19045", true);
    let mut system = hive(&files, GuestHive::System);
    set(&mut system, "ControlSet001\\Control\\Elsewhere", "x", &RegistryData::dword(1));
    let mut bytes = system.finish(&[]).unwrap();
    // destroys a key cell far from everything that the driver needs
    let at = bytes.windows(9).position(|w| w == b"Elsewhere").unwrap() - 0x4c;
    assert_eq!(&bytes[at..at + 2], b"nk");
    bytes[at] = b'x';
    files.put("/Windows/System32/config/SYSTEM", &bytes);
    assert!(codes(&check(&files)).contains(&Code::HiveDamaged), "{}", check(&files));
}

#[test]
fn the_control_set_of_the_next_start_counts() {
    let mut files = injected("19045", true);
    edit(&mut files, |hive| set(hive, "Select", "Default", &RegistryData::dword(7)));
    assert!(codes(&check(&files)).contains(&Code::HiveDamaged), "{}", check(&files));
}

const CLASS: &str = "ControlSet001\\Control\\Class";
const DISKS: &str = "{4d36e967-e325-11ce-bfc1-08002be10318}";

/// Windows' own drivers: missing, disabled, held back, or without a file.
#[test]
fn every_driver_of_the_chain_counts() {
    for service in BOOT_CHAIN {
        let key = format!("ControlSet001\\Services\\{service}");
        let named = |change: &dyn Fn(&mut MemoryFiles), code: Code| {
            let mut files = injected("19045", true);
            change(&mut files);
            let report = check(&files);
            let found = report.failures().any(|one| one.code == code && one.text.contains(service));
            assert!(!report.boots && found, "{service}, {code:?}: {report}");
        };
        for start in [1, 3, 4] {
            named(&|f| edit(f, |h| set(h, &key, "Start", &RegistryData::dword(start))), Code::StartType);
        }
        let held_back = format!("{key}\\StartOverride");
        named(&|f| edit(f, |h| set(h, &held_back, "0", &RegistryData::dword(3))), Code::StartOverride);
        named(&|f| edit(f, |h| drop_key(h, &key)), Code::NoService);
        let path = format!("/windows/system32/drivers/{service}.sys");
        named(&|f| drop(f.0.remove(&path)), Code::FileMissing);
        named(&|f| f.put(&path, b"not a program"), Code::FileMissing);
    }
    for file in ["drivers/storport.sys", "drivers/classpnp.sys", "drivers/ntfs.sys", "hal.dll", "ntoskrnl.exe"] {
        let mut files = injected("19045", true);
        files.put(&format!("/Windows/System32/{file}"), b"not a program");
        let report = check(&files);
        let said = report.failures().any(|one| one.text.to_lowercase().contains(file));
        assert!(!report.boots && said, "{file}: {report}");
    }
}

#[test]
fn class_filters_that_cannot_be_loaded() {
    let answer = |class: &str, value: &str, filter: &str, start: Option<u32>, has_file: bool| {
        let mut files = injected("19045", true);
        edit(&mut files, |h| {
            set(h, &format!("{CLASS}\\{class}"), value, &RegistryData::multi_sz(&[filter]));
            if let Some(start) = start {
                set(h, &format!("ControlSet001\\Services\\{filter}"), "Start", &RegistryData::dword(start));
            }
        });
        if has_file {
            let kernel = files.get("/Windows/System32/ntoskrnl.exe").unwrap().clone();
            files.put(&format!("/Windows/System32/drivers/{filter}.sys"), &kernel);
        }
        let report = check(&files);
        let named = report.failures().any(|one| one.gate == Gate::Filters && one.text.contains(filter));
        assert_eq!(report.boots, !named, "{report}");
        report.boots
    };
    for class in [
        DISKS,
        "{71a27cdd-812a-11d0-bec7-08002be2092f}",
        "{4d36e97b-e325-11ce-bfc1-08002be10318}",
        "{4d36e96a-e325-11ce-bfc1-08002be10318}",
        "{4d36e97d-e325-11ce-bfc1-08002be10318}",
    ] {
        for value in ["UpperFilters", "LowerFilters"] {
            assert!(answer(class, value, "xenfilt", Some(0), true), "{class} {value}");
            assert!(!answer(class, value, "xenfilt", None, true), "no service: {class} {value}");
            assert!(!answer(class, value, "xenfilt", Some(0), false), "no file: {class} {value}");
            assert!(!answer(class, value, "xenfilt", Some(4), true), "disabled: {class} {value}");
        }
    }
    assert!(answer("{4d36e972-e325-11ce-bfc1-08002be10318}", "UpperFilters", "x", None, false), "network cards");
}

/// Plug and play takes a signed record before ours, which has no signer.
#[test]
fn a_signed_record_of_another_maker_goes_first() {
    const FOREIGN: &str = "DriverDatabase\\DriverPackages\\oem77.inf_amd64_00112233445566aa";
    const ID: &str = "PCI\\VEN_1AF4&DEV_1048";
    let answer = |signer: Option<u32>| {
        let mut files = injected("19045", true);
        edit(&mut files, |h| {
            let name = FOREIGN.rsplit('\\').next().unwrap();
            set(h, &format!("DriverDatabase\\DeviceIds\\{ID}"), "oem77.inf", &RegistryData::binary([2, 0xff, 0, 0]));
            set(h, "DriverDatabase\\DriverInfFiles\\oem77.inf", "Active", &RegistryData::sz(name));
            set(h, FOREIGN, "Version", &RegistryData::binary([0; 48]));
            set(h, &format!("{FOREIGN}\\Descriptors\\{ID}"), "Configuration", &RegistryData::sz("i"));
            set(h, &format!("{FOREIGN}\\Configurations\\i"), "Service", &RegistryData::sz("foostor"));
            set(h, "ControlSet001\\Services\\foostor", "Start", &RegistryData::dword(4));
            if let Some(signer) = signer {
                set(h, FOREIGN, "SignerScore", &RegistryData::dword(signer));
            }
        });
        let report = check(&files);
        let service = report.routes.iter().find(|route| route.controller == "modern").unwrap().service.clone();
        (report.boots, service)
    };
    assert_eq!(answer(Some(0x0D00_0005)), (false, "foostor".to_owned()));
    assert_eq!(answer(Some(0x8000_0000)), (true, "vioscsi".to_owned()), "unsigned, and a worse id");
    assert_eq!(answer(None), (true, "vioscsi".to_owned()));
}

/// What Windows leaves on `pci` of a guest without a PCI bus.
#[test]
fn injection_frees_the_boot_chain() {
    let mut files = guest_files("19045", true);
    edit(&mut files, |h| {
        for service in BOOT_CHAIN {
            for set_name in ["ControlSet001", "ControlSet002"] {
                set(h, &format!("{set_name}\\Services\\{service}\\StartOverride"), "0", &RegistryData::dword(3));
            }
        }
    });
    let mut chosen = selection([100, 101, 104, 28500]);
    chosen.packages[0].boot.as_mut().unwrap().data = sample(Arch::Amd64, &[0x30; 64]).into();
    let injection = plan(&files, &chosen, &InjectOptions::default());
    let removed = &injection.record.registry_changes.startoverride_removed;
    assert!(removed.contains(&"ControlSet001\\pci".to_owned()), "{removed:?}");
    assert!(removed.contains(&"ControlSet002\\disk".to_owned()), "{removed:?}");
    apply(&mut files, &injection);
    let report = check(&files);
    assert!(report.boots, "{report}");
    // every Windows starts it at boot
    edit(&mut files, |h| set(h, "ControlSet001\\Services\\pci", "Start", &RegistryData::dword(4)));
    assert_eq!(codes(&check(&files)), [Code::StartType]);
    let again = plan(&files, &chosen, &InjectOptions::default());
    apply(&mut files, &again);
    assert!(check(&files).boots);
}
