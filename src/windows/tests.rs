//! The whole plan against a small guest in memory: what is written, byte for byte, and that a second run writes nothing.

use sha2::Digest as _;

use super::first_boot::{FirstBootMethod, FirstBootOptions, Reboot};
use super::options::InjectOptions;
use super::{Guest, registry};
use crate::clock::FileTime;
use crate::drivers::inf::{
    Companions, DirPath, Facts, Guid, Install, Model, RegAction, RegRoot, RegValue, ServiceFacts, Text,
};
use crate::drivers::pe::sample::sample_of_version;
use crate::drivers::trust::SignatureReport;
use crate::drivers::{Arch, BootDriver, Category, Package, Selection};
use crate::hive::{Hive, RegistryData, ValueType};
use crate::plan::{Change, GuestHive, apply_edit};
use crate::windows::guest_files::memory::MemoryFiles;
use crate::windows::injection::{Injection, plan_files};
use crate::windows::inspect::installation::{Hives, inspect_files};

pub(super) const NOW: FileTime = FileTime(0x01DB_0000_0000_0000);
const CONFIG: &str = "/Windows/System32/config";
/// Windows' own drivers without which no disk comes up.
pub(super) const BOOT_CHAIN: [&str; 6] = ["acpi", "pci", "disk", "partmgr", "volmgr", "mountmgr"];
pub(super) const HARDWARE: [&str; 2] =
    ["PCI\\VEN_1AF4&DEV_1004&SUBSYS_00081AF4&REV_00", "PCI\\VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01"];
const COMPATIBLE: [&str; 2] = ["PCI\\VEN_1AF4&DEV_1004", "PCI\\VEN_1AF4&DEV_1048"];

fn text(text: &str) -> Text {
    Text { raw: text.to_owned(), resolved: text.to_owned() }
}

fn line(subkey: &str, name: &str, number: u32) -> RegValue {
    RegValue {
        root: RegRoot::Relative,
        subkey: subkey.to_owned(),
        name: name.to_owned(),
        action: RegAction::Set,
        data: RegistryData::dword(number),
        line: 1,
    }
}

/// What the INF of vioscsi says.
pub(super) fn facts() -> Facts {
    let service = ServiceFacts {
        name: "vioscsi".to_owned(),
        flags: 2,
        kind: 1,
        start: 0,
        error_control: 1,
        group: Some("SCSI miniport".to_owned()),
        binary: DirPath { dirid: 12, path: "vioscsi.sys".to_owned() },
        arguments: String::new(),
        display_name: Some(text("Red Hat VirtIO SCSI pass-through Service")),
        description: None,
        dependencies: Vec::new(),
        start_name: None,
        registry: vec![line("Parameters\\PnpInterface", "5", 1), line("Parameters", "BusType", 10)],
        event_log: None,
        line: 1,
    };
    let model = |hardware: &str, compatible: &str| Model {
        manufacturer: text("Red Hat, Inc."),
        description: text("Red Hat VirtIO SCSI pass-through controller"),
        install: "scsi_inst".to_owned(),
        hardware_id: hardware.to_owned(),
        compatible_ids: vec![compatible.to_owned()],
        section: "VirtioScsi.NTamd64.10.0".to_owned(),
        line: 1,
    };
    Facts {
        file_name: "vioscsi.inf".to_owned(),
        class: "SCSIAdapter".to_owned(),
        class_guid: Guid::parse("{4D36E97B-E325-11CE-BFC1-08002BE10318}").unwrap(),
        provider: text("Red Hat, Inc."),
        driver_date: FileTime::from_date(2025, 7, 9).unwrap(),
        driver_date_text: "2025-07-09".to_owned(),
        driver_version: [100, 101, 104, 28500],
        catalog: Some("vioscsi.cat".to_owned()),
        pnp_lockdown: true,
        models: vec![model(HARDWARE[0], COMPATIBLE[0]), model(HARDWARE[1], COMPATIBLE[1])],
        installs: vec![Install {
            name: "scsi_inst".to_owned(),
            section: "scsi_inst".to_owned(),
            copy_files: Vec::new(),
            software: Vec::new(),
            hardware: Vec::new(),
            services: vec![service],
            companions: Companions { hardware: true, services: true, ..Companions::default() },
            feature_score: u8::MAX,
            null_service: false,
            needs: Vec::new(),
        }],
        source_files: vec!["vioscsi.sys".to_owned()],
        strings: Default::default(),
        includes: Vec::new(),
        warnings: Vec::new(),
    }
}

/// An unsigned driver file with a version resource.
pub(super) fn driver(version: [u16; 4]) -> Vec<u8> {
    sample_of_version(Arch::Amd64, version)
}

pub(super) fn selection(version: [u16; 4]) -> Selection {
    let mut inf = facts();
    inf.driver_version = version;
    let boot = BootDriver {
        service: "vioscsi".to_owned(),
        file_name: "vioscsi.sys".to_owned(),
        sha256: sha2::Sha256::digest(driver(version)).into(),
        data: driver(version).into(),
        kind: 1,
        start: 0,
        error_control: 1,
        group: Some("SCSI miniport".to_owned()),
        class_guid: inf.class_guid,
        hardware_ids: HARDWARE.map(str::to_owned).to_vec(),
        compatible_ids: COMPATIBLE.map(str::to_owned).to_vec(),
        critical_device_database: true,
        file_version: Some(version),
        signature: SignatureReport::default(),
    };
    let package = Package {
        stage_name: "vioscsi".to_owned(),
        driver: "vioscsi".to_owned(),
        source_path: "media/vioscsi/w10/amd64".to_owned(),
        bucket: "w10".to_owned(),
        inf_name: "vioscsi.inf".to_owned(),
        inf,
        files: Vec::new(),
        category: Category::Storage,
        boot: Some(boot),
        signature: SignatureReport::default(),
        reason: String::new(),
        inf_sha1: [0; 20],
    };
    Selection { packages: vec![package], ..Selection::default() }
}

pub(super) fn set(hive: &mut Hive, key: &str, name: &str, data: &RegistryData) {
    let key = hive.create_key(hive.root(), key, NOW).unwrap();
    hive.set_value(key, name, data, NOW).unwrap();
}

fn kernel(machine: u16) -> Vec<u8> {
    let mut image = vec![0; 0x100];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x80;
    image[0x80..0x84].copy_from_slice(b"PE\0\0");
    image[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
    image
}

/// A guest with two control sets.
pub(super) fn guest_files(build: &str, has_driver_database: bool) -> MemoryFiles {
    let mut system = Hive::create("SYSTEM", NOW);
    for (name, number) in [("Current", 1), ("Default", 1), ("LastKnownGood", 2)] {
        set(&mut system, "Select", name, &RegistryData::dword(number));
    }
    for cs in ["ControlSet001", "ControlSet002"] {
        set(&mut system, &format!("{cs}\\Control\\ProductOptions"), "ProductType", &RegistryData::sz("WinNT"));
        set(&mut system, &format!("{cs}\\Services\\storahci"), "Start", &RegistryData::dword(3));
        set(&mut system, &format!("{cs}\\Services\\storahci\\StartOverride"), "0", &RegistryData::dword(3));
        set(&mut system, &format!("{cs}\\Services\\vioscsi\\StartOverride"), "0", &RegistryData::dword(3));
        set(&mut system, &format!("{cs}\\Services\\msahci"), "Start", &RegistryData::dword(3));
        for service in BOOT_CHAIN {
            set(&mut system, &format!("{cs}\\Services\\{service}"), "Start", &RegistryData::dword(0));
        }
        set(&mut system, &format!("{cs}\\Services\\ntfs"), "Start", &RegistryData::dword(3));
    }
    if has_driver_database {
        set(&mut system, "DriverDatabase", "Architecture", &RegistryData::dword(9));
    }
    let mut software = Hive::create("SOFTWARE", NOW);
    let version = "Microsoft\\Windows NT\\CurrentVersion";
    set(&mut software, version, "CurrentBuildNumber", &RegistryData::sz(build));
    set(&mut software, version, "CurrentVersion", &RegistryData::sz(if has_driver_database { "6.3" } else { "6.1" }));
    set(&mut software, version, "SystemRoot", &RegistryData::sz("C:\\Windows"));
    set(
        &mut software,
        "Microsoft\\Windows\\CurrentVersion",
        "DevicePath",
        &RegistryData::expand_sz("%SystemRoot%\\inf"),
    );
    let mut files = MemoryFiles::default();
    files.put(&format!("{CONFIG}/SYSTEM"), &system.finish(&[]).unwrap());
    files.put(&format!("{CONFIG}/SOFTWARE"), &software.finish(&[]).unwrap());
    files.put("/Windows/System32/ntoskrnl.exe", &kernel(0x8664));
    files.put("/Windows/System32/hal.dll", &kernel(0x8664));
    for driver in BOOT_CHAIN.into_iter().chain(["ntfs", "storport", "CLASSPNP"]) {
        files.put(&format!("/Windows/System32/drivers/{driver}.sys"), &kernel(0x8664));
    }
    files.put("/Windows/System32/drivers/storahci.sys", b"MZ");
    files
}

pub(super) fn inspect(files: &MemoryFiles) -> Guest {
    inspect_files(files).unwrap().unwrap().guest
}

pub(super) fn plan(files: &MemoryFiles, selection: &Selection, options: &InjectOptions) -> Injection {
    plan_files(files, &inspect(files), &Hives::new(), None, selection, options).unwrap()
}

/// Applies a plan to the files in memory.
pub(super) fn apply(files: &mut MemoryFiles, injection: &Injection) {
    let mut hives = std::collections::BTreeMap::new();
    for step in &injection.plan.steps {
        if let Some(file) = step.change.hive() {
            let hive = hives
                .entry(file)
                .or_insert_with(|| Hive::open(files.get(&injection.plan.hive_path(file)).unwrap().clone()).unwrap());
            apply_edit(hive, &step.change, NOW).unwrap();
        }
        match &step.change {
            Change::WriteFile { path, content, .. } => files.put(path, &content.read().unwrap()),
            Change::CreateDir { path, .. } => files.put(&format!("{path}/"), b""),
            Change::Protect { .. } => {}
            Change::DeleteFile { path } => drop(files.0.remove(path)),
            _ => {}
        }
    }
    for (file, hive) in hives {
        files.put(&injection.plan.hive_path(file), &hive.finish(&[]).unwrap());
    }
}

pub(super) fn hive(files: &MemoryFiles, file: GuestHive) -> Hive {
    Hive::open(files.get(&format!("{CONFIG}/{}", file.file_name())).unwrap().clone()).unwrap()
}

fn value(hive: &Hive, key: &str, name: &str) -> RegistryData {
    registry::get_value(hive, key, name).unwrap().unwrap_or_else(|| panic!("no {key} : {name}"))
}

#[test]
fn the_minimal_registration_of_windows_10() {
    let mut files = guest_files("19045", true);
    let injection = plan(&files, &selection([100, 101, 104, 28500]), &InjectOptions::default());
    apply(&mut files, &injection);
    let system = hive(&files, GuestHive::System);
    for cs in ["ControlSet001", "ControlSet002"] {
        let key = format!("{cs}\\Services\\vioscsi");
        assert_eq!(value(&system, &key, "Type"), RegistryData::dword(1));
        assert_eq!(value(&system, &key, "Start"), RegistryData::dword(0));
        assert_eq!(value(&system, &key, "ErrorControl"), RegistryData::dword(1));
        assert_eq!(value(&system, &key, "Group"), RegistryData::sz("SCSI miniport"));
        assert_eq!(value(&system, &key, "ImagePath"), RegistryData::expand_sz("system32\\drivers\\vioscsi.sys"));
        assert_eq!(value(&system, &format!("{key}\\Parameters"), "BusType"), RegistryData::dword(10));
        assert_eq!(value(&system, &format!("{key}\\Parameters\\PnpInterface"), "5"), RegistryData::dword(1));
        assert_eq!(registry::find_key(&system, &format!("{key}\\StartOverride")).unwrap(), None);
        // in-box controllers stay startable
        assert_eq!(value(&system, &format!("{cs}\\Services\\storahci"), "Start"), RegistryData::dword(0));
        assert_eq!(registry::find_key(&system, &format!("{cs}\\Services\\storahci\\StartOverride")).unwrap(), None);
        assert_eq!(
            value(&system, &format!("{cs}\\Services\\msahci"), "Start"),
            RegistryData::dword(3),
            "its file is missing"
        );
        let cdd = format!("{cs}\\Control\\CriticalDeviceDatabase\\PCI#VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01");
        assert_eq!(value(&system, &cdd, "Service"), RegistryData::sz("vioscsi"));
        assert_eq!(value(&system, &cdd, "ClassGUID"), RegistryData::sz("{4D36E97B-E325-11CE-BFC1-08002BE10318}"));
    }
    let inf = "h2k-vioscsi.inf";
    let package = "h2k-vioscsi.inf_amd64_0000000000000000";
    let key = format!("DriverDatabase\\DriverInfFiles\\{inf}");
    assert_eq!(value(&system, &key, ""), RegistryData::multi_sz(&[package]));
    assert_eq!(value(&system, &key, "Active"), RegistryData::sz(package));
    assert_eq!(value(&system, &key, "Configurations"), RegistryData::multi_sz(&["scsi_inst"]));
    let key = format!("DriverDatabase\\DriverPackages\\{package}");
    let version = value(&system, &key, "Version");
    assert_eq!(version.kind, ValueType::BINARY);
    assert_eq!(version.bytes.len(), 48);
    assert_eq!(version.bytes[32..40], [0x54, 0x6f, 104, 0, 101, 0, 100, 0]);
    let configuration = format!("{key}\\Configurations\\scsi_inst");
    assert_eq!(value(&system, &configuration, "ConfigFlags"), RegistryData::dword(0));
    assert_eq!(value(&system, &configuration, "Service"), RegistryData::sz("vioscsi"));
    let ids = [
        ("PCI\\VEN_1AF4&DEV_1004&SUBSYS_00081AF4&REV_00", 1),
        ("PCI\\VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01", 1),
        ("PCI\\VEN_1AF4&DEV_1004&REV_00", 1),
        ("PCI\\VEN_1AF4&DEV_1048&REV_01", 1),
        ("PCI\\VEN_1AF4&DEV_1004", 2),
        ("PCI\\VEN_1AF4&DEV_1048", 2),
    ];
    for (id, rank) in ids {
        assert_eq!(
            value(&system, &format!("DriverDatabase\\DeviceIds\\{id}"), inf),
            RegistryData::binary([rank, 0xff, 0, 0])
        );
        assert_eq!(
            value(&system, &format!("{key}\\Descriptors\\{id}"), "Configuration"),
            RegistryData::sz("scsi_inst")
        );
    }
    let device_ids = registry::subkey_names(&system, "DriverDatabase\\DeviceIds\\PCI").unwrap();
    assert_eq!(device_ids.len(), ids.len());
    // the first-boot service, in the current set only
    let service = "ControlSet001\\Services\\hyper2kvm-firstboot";
    assert_eq!(value(&system, service, "Start"), RegistryData::dword(2));
    assert_eq!(value(&system, service, "Type"), RegistryData::dword(0x10));
    assert!(
        value(&system, service, "ImagePath").as_text().unwrap().ends_with("\\hyper2kvm\\hyper2kvm-firstboot.exe\"")
    );
    assert_eq!(registry::find_key(&system, "ControlSet002\\Services\\hyper2kvm-firstboot").unwrap(), None);
    for file in ["setup.cmd", "firstboot.job", "hyper2kvm-firstboot.exe", "manifest.json"] {
        assert!(files.get(&format!("/hyper2kvm/{file}")).is_some(), "{file}");
    }
}

#[test]
fn windows_7_gets_no_driver_database() {
    let mut files = guest_files("7601", false);
    let injection = plan(&files, &selection([100, 90, 104, 1]), &InjectOptions::default());
    apply(&mut files, &injection);
    let system = hive(&files, GuestHive::System);
    assert_eq!(registry::find_key(&system, "DriverDatabase").unwrap(), None);
    assert_eq!(injection.record.registry_changes.style, "cdd");
    let keys = registry::subkey_names(&system, "ControlSet001\\Control\\CriticalDeviceDatabase").unwrap();
    assert_eq!(keys.len(), 6);
}

#[test]
fn a_second_run_changes_nothing() {
    for (build, database) in [("19045", true), ("7601", false)] {
        let mut files = guest_files(build, database);
        let chosen = selection([100, 101, 104, 28500]);
        let first = plan(&files, &chosen, &InjectOptions::default());
        assert!(!first.plan.is_empty());
        apply(&mut files, &first);
        let second = plan(&files, &chosen, &InjectOptions::default());
        assert!(second.plan.is_empty(), "{}", second.plan);
    }
}

#[test]
fn newer_media_replace_and_older_do_not() {
    let mut files = guest_files("19045", true);
    let old = selection([100, 90, 104, 1]);
    let new = selection([100, 101, 104, 28500]);
    let options = InjectOptions::default();
    let first = plan(&files, &old, &options);
    apply(&mut files, &first);
    let upgrade = plan(&files, &new, &options);
    assert!(
        upgrade.plan.to_string().contains("replace file /windows/System32/drivers/vioscsi.sys"),
        "{}",
        upgrade.plan
    );
    apply(&mut files, &upgrade);
    let key = "DriverDatabase\\DriverPackages\\h2k-vioscsi.inf_amd64_0000000000000000";
    let version = value(&hive(&files, GuestHive::System), key, "Version");
    assert_eq!(version.bytes[32..40], [0x54, 0x6f, 104, 0, 101, 0, 100, 0]);

    let downgrade = plan(&files, &old, &options);
    assert!(downgrade.plan.files().all(|s| !s.change.to_string().contains("vioscsi.sys")), "{}", downgrade.plan);
    assert!(downgrade.plan.notes.iter().any(|n| n.contains("--force")), "{:?}", downgrade.plan.notes);
    let forced = plan(&files, &old, &InjectOptions { force: true, ..options });
    assert!(forced.plan.to_string().contains("replace file /windows/System32/drivers/vioscsi.sys"));
}

#[test]
fn a_finished_first_boot_job_is_not_armed_again_unless_asked() {
    let mut files = guest_files("19045", true);
    files.put("/hyper2kvm/firstboot.done", b"done\r\n");
    let chosen = selection([100, 101, 104, 28500]);
    let injection = plan(&files, &chosen, &InjectOptions::default());
    assert!(injection.record.firstboot.skipped.is_some());
    assert!(!injection.plan.to_string().contains("Services\\hyper2kvm-firstboot"));
    let armed = plan(
        &files,
        &chosen,
        &InjectOptions {
            first_boot: FirstBootOptions { rearm: true, ..FirstBootOptions::default() },
            ..InjectOptions::default()
        },
    );
    assert!(armed.plan.to_string().contains("delete file /hyper2kvm/firstboot.done"));
    assert!(armed.plan.to_string().contains("Services\\hyper2kvm-firstboot"));
}

#[test]
fn attempts_of_an_earlier_job_do_not_count_for_another_one() {
    const COUNTERS: [&str; 3] =
        ["/hyper2kvm/firstboot.attempts", "/hyper2kvm/firstboot.begun", "/hyper2kvm/firstboot.json"];
    let chosen = selection([100, 101, 104, 28500]);
    for method in [FirstBootMethod::Service, FirstBootMethod::Script] {
        let with = |reboot| InjectOptions {
            first_boot: FirstBootOptions { method, reboot, ..FirstBootOptions::default() },
            ..InjectOptions::default()
        };
        let mut files = guest_files("19045", true);
        let first = plan(&files, &chosen, &with(Reboot::Never));
        apply(&mut files, &first);
        COUNTERS.iter().for_each(|path| files.put(path, b"2\r\n"));
        assert!(plan(&files, &chosen, &with(Reboot::Never)).plan.is_empty(), "the same job goes on counting");
        let other = plan(&files, &chosen, &with(Reboot::IfNeeded));
        apply(&mut files, &other);
        assert!(COUNTERS.iter().all(|path| files.get(path).is_none()), "another job begins anew");
    }
}

#[test]
fn a_marker_that_is_removed_does_not_make_an_ended_job_run() {
    let mut files = guest_files("19045", true);
    files.put("/hyper2kvm/firstboot.done", b"done\r\n");
    files.put("/hyper2kvm/firstboot.failed", b"failed\r\n");
    let injection = plan(&files, &selection([100, 101, 104, 28500]), &InjectOptions::default());
    assert!(injection.record.firstboot.skipped.is_some());
    assert!(!injection.plan.warnings.iter().any(|warning| warning.contains("so that the job runs")));
}

#[test]
fn the_job_is_started_as_asked() {
    let chosen = selection([100, 101, 104, 28500]);
    let service = "ControlSet001\\Services\\hyper2kvm-firstboot";
    let with = |method| InjectOptions {
        first_boot: FirstBootOptions { method, reboot: Reboot::IfNeeded, ..FirstBootOptions::default() },
        ..InjectOptions::default()
    };
    let mut files = guest_files("19045", true);
    // one form replaces the other
    for (method, name, error_control, there, gone) in [
        (FirstBootMethod::Script, "script", 0, vec!["firstboot.cmd"], vec!["hyper2kvm-firstboot.exe", "firstboot.job"]),
        (
            FirstBootMethod::Service,
            "service",
            1,
            vec!["hyper2kvm-firstboot.exe", "firstboot.job"],
            vec!["firstboot.cmd"],
        ),
        (FirstBootMethod::Script, "script", 0, vec!["firstboot.cmd"], vec!["hyper2kvm-firstboot.exe", "firstboot.job"]),
    ] {
        let injection = plan(&files, &chosen, &with(method));
        assert_eq!(injection.record.firstboot.method, name);
        assert_eq!(injection.record.firstboot.program_sha256.is_some(), method == FirstBootMethod::Service);
        apply(&mut files, &injection);
        let system = hive(&files, GuestHive::System);
        assert_eq!(value(&system, service, "ErrorControl"), RegistryData::dword(error_control));
        assert!(there.iter().all(|file| files.get(&format!("/hyper2kvm/{file}")).is_some()), "{there:?}");
        assert!(gone.iter().all(|file| files.get(&format!("/hyper2kvm/{file}")).is_none()), "{gone:?}");
        assert!(plan(&files, &chosen, &with(method)).plan.is_empty(), "a second run has nothing to do");
    }
    let script = String::from_utf8(files.get("/hyper2kvm/firstboot.cmd").unwrap().to_vec()).unwrap();
    assert!(script.contains("shutdown.exe"));

    let guest = inspect(&files);
    let refused = plan_files(&files, &guest, &Hives::new(), None, &chosen, &with(FirstBootMethod::None)).unwrap_err();
    assert!(refused.to_string().contains("an earlier run has put one into this guest"), "{refused}");

    let mut files = guest_files("19045", true);
    let none = plan(&files, &chosen, &with(FirstBootMethod::None));
    assert_eq!(none.record.firstboot.skipped.as_deref(), Some("not wanted"));
    apply(&mut files, &none);
    assert_eq!(registry::find_key(&hive(&files, GuestHive::System), service).unwrap(), None);
    assert!(files.get("/hyper2kvm/setup.cmd").is_some() && files.get("/hyper2kvm/firstboot.job").is_none());
}

#[test]
fn invented_records_are_released_by_the_job_that_registered_them() {
    let injection = plan(&guest_files("19045", true), &selection([100, 101, 104, 28500]), &InjectOptions::default());
    let releases: Vec<_> = injection.record.firstboot.steps.iter().filter(|step| step.kind == "release").collect();
    assert_eq!(releases.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["h2k-vioscsi.inf"]);
    let injection = plan(&guest_files("7601", false), &selection([100, 90, 104, 1]), &InjectOptions::default());
    assert!(injection.record.firstboot.steps.iter().all(|step| step.kind != "release"));
}

#[test]
fn an_active_package_of_the_guest_is_not_clobbered() {
    let mut files = guest_files("26100", true);
    let mut system = hive(&files, GuestHive::System);
    let id = HARDWARE[1];
    let package = "vioscsi.inf_amd64_0123456789abcdef";
    set(&mut system, "DriverDatabase\\DriverInfFiles\\oem7.inf", "Active", &RegistryData::sz(package));
    set(&mut system, &format!("DriverDatabase\\DeviceIds\\{id}"), "oem7.inf", &RegistryData::binary([1, 0xff, 0, 0]));
    let key = format!("DriverDatabase\\DriverPackages\\{package}");
    set(&mut system, &key, "Version", &RegistryData::binary([0; 48]));
    set(&mut system, &format!("{key}\\Descriptors\\{id}"), "Configuration", &RegistryData::sz("c"));
    set(&mut system, &format!("{key}\\Configurations\\c"), "Service", &RegistryData::sz("vioscsi"));
    let image = "\\SystemRoot\\System32\\DriverStore\\FileRepository\\vioscsi.inf_amd64_0123456789abcdef\\vioscsi.sys";
    set(&mut system, "ControlSet001\\Services\\vioscsi", "ImagePath", &RegistryData::expand_sz(image));
    set(&mut system, "ControlSet001\\Services\\vioscsi", "Start", &RegistryData::dword(3));
    files.put(&format!("{CONFIG}/SYSTEM"), &system.finish(&[]).unwrap());
    files.put(&format!("/Windows/System32/DriverStore/FileRepository/{package}/vioscsi.sys"), b"MZ");

    let injection = plan(&files, &selection([100, 101, 104, 28500]), &InjectOptions::default());
    apply(&mut files, &injection);
    let system = hive(&files, GuestHive::System);
    let names: Vec<String> = registry::key_values(&system, &format!("DriverDatabase\\DeviceIds\\{id}"))
        .unwrap()
        .into_iter()
        .map(|v| v.0)
        .collect();
    assert_eq!(names, ["oem7.inf"]);
    assert_eq!(value(&system, "ControlSet001\\Services\\vioscsi", "ImagePath"), RegistryData::expand_sz(image));
    assert_eq!(value(&system, "ControlSet001\\Services\\vioscsi", "Start"), RegistryData::dword(0));
    // ids without a driver are added
    assert!(registry::find_key(&system, "DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1048&REV_01").unwrap().is_some());
    assert_eq!(injection.record.registry_changes.driver_database[0].ids_kept, [id]);
}

#[test]
fn plans_are_deterministic() {
    let files = guest_files("19045", true);
    let chosen = selection([100, 101, 104, 28500]);
    let once = plan(&files, &chosen, &InjectOptions::default());
    let again = plan(&files, &chosen, &InjectOptions::default());
    assert_eq!(once.plan, again.plan);
    assert_eq!(serde_json::to_string(&once.plan).unwrap(), serde_json::to_string(&again.plan).unwrap());
    // files first, SYSTEM last
    let order: Vec<Option<GuestHive>> = once.plan.steps.iter().map(|s| s.change.hive()).collect();
    assert!(order.is_sorted());
}
