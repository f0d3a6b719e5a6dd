//! The repairs on guests in memory: what they change, that a second run changes nothing, and that a removal brings all of
//! it back.

use std::collections::BTreeMap;

use super::hypervisor::Hypervisor;
use super::options::{DataDisks, RepairOptions};
use crate::hive::{Hive, RegistryData};
use crate::plan::{GuestHive, Plan};
use crate::windows::guest_files::memory::MemoryFiles;
use crate::windows::injection::{Injection, plan_files};
use crate::windows::inspect::installation::Hives;
use crate::windows::options::InjectOptions;
use crate::windows::record::{Action, Record};
use crate::windows::registry;
use crate::windows::removal;
use crate::windows::tests::{apply, guest_files, hive, inspect, plan, selection, set};

const CONFIG: &str = "/Windows/System32/config";
const SETS: [&str; 2] = ["ControlSet001", "ControlSet002"];
const SYSTEM_CLASS: &str = "Control\\Class\\{4d36e97d-e325-11ce-bfc1-08002be10318}";
const DEVICE: &str = "Enum\\ACPI\\PNP0F13\\4&1";
const VERSION: [u16; 4] = [100, 101, 104, 28500];

fn edit(files: &mut MemoryFiles, file: GuestHive, change: impl FnOnce(&mut Hive)) {
    let mut edited = hive(files, file);
    change(&mut edited);
    files.put(&format!("{CONFIG}/{}", file.file_name()), &edited.finish(&[]).unwrap());
}

fn system(files: &mut MemoryFiles, change: impl FnOnce(&mut Hive)) {
    edit(files, GuestHive::System, change);
}

/// Every value of SYSTEM below these words.
fn values(files: &MemoryFiles) -> BTreeMap<String, RegistryData> {
    let hive = hive(files, GuestHive::System);
    let mut out = BTreeMap::new();
    let mut pending = vec![String::new()];
    while let Some(key) = pending.pop() {
        for (name, data) in registry::key_values(&hive, &key).unwrap() {
            out.insert(format!("{key} : {name}"), data);
        }
        let below = registry::subkey_names(&hive, &key).unwrap();
        pending.extend(below.into_iter().map(|name| if key.is_empty() { name } else { format!("{key}\\{name}") }));
    }
    out
}

fn value(files: &MemoryFiles, key: &str, name: &str) -> Option<RegistryData> {
    registry::get_value(&hive(files, GuestHive::System), key, name).unwrap()
}

fn options(repairs: RepairOptions) -> InjectOptions {
    InjectOptions { repairs, ..InjectOptions::default() }
}

fn of(hypervisor: Hypervisor) -> RepairOptions {
    RepairOptions { remove_tools: [hypervisor].into(), ..RepairOptions::default() }
}

fn apply_plan(files: &mut MemoryFiles, plan: Plan) {
    apply(files, &Injection { plan, record: Record::default(), hives: Hives::new() });
}

fn remove(files: &mut MemoryFiles) -> removal::Removal {
    let mut removal = removal::plan_files(files, &inspect(files), &Hives::new(), None).unwrap();
    apply_plan(files, std::mem::replace(&mut removal.plan, Plan::new("/Windows/System32/config".to_owned())));
    removal
}

/// A guest with all tools of a hypervisor: programs that start by themselves, filters in a class and on a device, and a
/// disk on each driver of a device.
fn guest_of(hypervisor: Hypervisor, build: &str, has_database: bool) -> MemoryFiles {
    let tools = hypervisor.tools();
    let mut files = guest_files(build, has_database);
    for filter in tools.filters.iter().chain(tools.programs) {
        files.put(&format!("/Windows/System32/drivers/{filter}.sys"), b"MZ");
    }
    system(&mut files, |hive| {
        for cs in SETS {
            let start = |hive: &mut Hive, name: &str, start| {
                set(hive, &format!("{cs}\\Services\\{name}"), "Start", &RegistryData::dword(start));
            };
            for (at, name) in tools.programs.iter().enumerate() {
                start(hive, name, [2, 1, 0, 3][at % 4]);
            }
            for name in tools.filters {
                start(hive, name, 3);
            }
            for name in tools.devices {
                start(hive, name, 0);
                set(hive, &format!("{cs}\\Services\\{name}"), "Group", &RegistryData::sz("SCSI miniport"));
            }
            let all: Vec<&str> = ["first"].iter().chain(tools.filters).chain(&["last"]).copied().collect();
            set(hive, &format!("{cs}\\{SYSTEM_CLASS}"), "UpperFilters", &RegistryData::multi_sz(&all));
            set(hive, &format!("{cs}\\{DEVICE}"), "LowerFilters", &RegistryData::multi_sz(tools.filters));
            set(hive, &format!("{cs}\\Control\\CrashControl"), "AutoReboot", &RegistryData::dword(1));
            set(hive, &format!("{cs}\\Services\\partmgr\\Parameters"), "SanPolicy", &RegistryData::dword(2));
        }
    });
    files
}

#[test]
fn the_tools_of_each_hypervisor_go_and_a_removal_brings_them_back() {
    for hypervisor in Hypervisor::ALL {
        for (build, has_database) in [("19045", true), ("7601", false)] {
            let tools = hypervisor.tools();
            let mut files = guest_of(hypervisor, build, has_database);
            let before = values(&files);
            let repairs = RepairOptions { no_auto_reboot: true, data_disks: DataDisks::Online, ..of(hypervisor) };
            let chosen = selection(VERSION);
            let first = plan(&files, &chosen, &options(repairs.clone()));
            assert_eq!(first.record.repairs.auto_reboot, Some(Action::Updated));
            apply(&mut files, &first);
            let number = |key: String, name| value(&files, &key, name).unwrap().as_u32().unwrap();
            for cs in SETS {
                for (at, name) in tools.programs.iter().enumerate() {
                    let expected = if at % 4 == 3 { 3 } else { 4 };
                    assert_eq!(number(format!("{cs}\\Services\\{name}"), "Start"), expected, "{hypervisor} {name}");
                }
                for name in tools.filters {
                    assert_eq!(number(format!("{cs}\\Services\\{name}"), "Start"), 4, "{hypervisor} {name}");
                }
                for name in tools.devices {
                    assert_eq!(number(format!("{cs}\\Services\\{name}"), "Start"), 0, "{hypervisor} {name}");
                }
                let list = value(&files, &format!("{cs}\\{SYSTEM_CLASS}"), "UpperFilters").unwrap();
                assert_eq!(list, RegistryData::multi_sz(&["first", "last"]));
                let device = value(&files, &format!("{cs}\\{DEVICE}"), "LowerFilters");
                assert_eq!(device.is_none(), !tools.filters.is_empty(), "{hypervisor}");
                assert_eq!(number(format!("{cs}\\Control\\CrashControl"), "AutoReboot"), 0);
                assert_eq!(number(format!("{cs}\\Services\\partmgr\\Parameters"), "SanPolicy"), 1);
            }
            // nothing to do again, with the options and without
            for repairs in [repairs, RepairOptions::default()] {
                let again = plan(&files, &chosen, &options(repairs));
                assert!(again.plan.is_empty(), "{hypervisor}: {}", again.plan);
            }
            let removal = remove(&mut files);
            let after = values(&files);
            let is_inbox = |place: &String| place.contains("storahci") || place.contains("StartOverride");
            // no package is staged here, so that the removal leaves the driver
            let is_driver = |place: &String| place.contains("vioscsi") || place.contains("CriticalDeviceDatabase");
            for (place, data) in &before {
                assert!(after.get(place) == Some(data) || is_inbox(place), "{hypervisor}: {place}: {:?}", removal.left);
            }
            for place in after.keys() {
                assert!(before.contains_key(place) || is_driver(place), "{hypervisor}: {place}: {:?}", removal.left);
            }
        }
    }
}

#[test]
fn what_the_guest_changed_since_is_not_brought_back() {
    let mut files = guest_of(Hypervisor::Xen, "19045", true);
    let first = plan(&files, &selection(VERSION), &options(of(Hypervisor::Xen)));
    apply(&mut files, &first);
    let (agent, filter) = ("ControlSet001\\Services\\xenagent", "ControlSet001\\Services\\xenfilt");
    system(&mut files, |hive| set(hive, agent, "Start", &RegistryData::dword(3)));
    // its driver has been uninstalled: a list that names it would keep the devices from starting
    files.0.remove("/windows/system32/drivers/xenfilt.sys");
    let removal = remove(&mut files);
    assert_eq!(value(&files, agent, "Start"), Some(RegistryData::dword(3)));
    assert_eq!(value(&files, filter, "Start"), Some(RegistryData::dword(3)));
    let list = value(&files, &format!("ControlSet001\\{SYSTEM_CLASS}"), "UpperFilters").unwrap();
    assert_eq!(list, RegistryData::multi_sz(&["first", "last"]));
    for text in ["changed since", "xenfilt.sys is gone"] {
        assert!(removal.left.iter().any(|item| item.reason.contains(text)), "{:?}", removal.left);
    }
}

#[test]
fn what_something_else_needs_stays() {
    let mut files = guest_of(Hypervisor::Xen, "19045", true);
    let vmware = guest_of(Hypervisor::Vmware, "19045", true);
    let class = format!("ControlSet001\\{SYSTEM_CLASS}");
    system(&mut files, |hive| {
        set(hive, "ControlSet001\\Services\\backup", "Start", &RegistryData::dword(2));
        set(hive, "ControlSet001\\Services\\backup", "DependOnService", &RegistryData::multi_sz(&["XENAGENT"]));
        // bytes after the end of the list, which a new list would not have
        let mut odd = RegistryData::multi_sz(&["first", "xenfilt"]);
        odd.bytes.extend([b'x', 0, 0, 0]);
        set(hive, &class, "UpperFilters", &odd);
        // one text instead of a list
        set(hive, "ControlSet002\\Enum\\A\\B\\C", "UpperFilters", &RegistryData::sz("xenfilt"));
    });
    let injection = plan(&files, &selection(VERSION), &options(of(Hypervisor::Xen)));
    let before = values(&files);
    apply(&mut files, &injection);
    let after = values(&files);
    let left = injection.record.repairs.left.join("\n");
    for place in [
        "ControlSet001\\Services\\xenagent : Start".to_owned(),
        "ControlSet001\\Services\\xenfilt : Start".to_owned(),
        format!("{class} : UpperFilters"),
    ] {
        assert_eq!(before.get(&place), after.get(&place), "{place}: {left}");
    }
    assert!(left.contains("the service backup depends on it") && left.contains("is not a list"), "{left}");
    assert!(!after.contains_key("ControlSet002\\Enum\\A\\B\\C : UpperFilters"));
    assert_eq!(after["ControlSet002\\Services\\xenfilt : Start"], RegistryData::dword(4));
    // a service that is in a list of class filters by mistake
    let mut files = vmware;
    system(&mut files, |hive| set(hive, &class, "LowerFilters", &RegistryData::multi_sz(&["VMCI"])));
    let injection = plan(&files, &selection(VERSION), &options(of(Hypervisor::Vmware)));
    apply(&mut files, &injection);
    assert_eq!(value(&files, "ControlSet001\\Services\\VMTools", "Start"), Some(RegistryData::dword(4)));
    let left = injection.record.repairs.left.join("\n");
    assert!(left.contains("vmci stays") && left.contains("LowerFilters lists it"), "{left}");
}

#[test]
fn filters_of_two_hypervisors_leave_the_same_list() {
    let mut files = guest_files("19045", true);
    let mouse = "Control\\Class\\{4d36e96f-e325-11ce-bfc1-08002be10318}";
    system(&mut files, |hive| {
        for set_name in SETS {
            let list = RegistryData::multi_sz(&["vmmouse", "mouclass", "VBoxMouse"]);
            set(hive, &format!("{set_name}\\{mouse}"), "UpperFilters", &list);
            for filter in ["vmmouse", "VBoxMouse"] {
                set(hive, &format!("{set_name}\\Services\\{filter}"), "Start", &RegistryData::dword(3));
            }
        }
    });
    for filter in ["vmmouse", "VBoxMouse"] {
        files.put(&format!("/Windows/System32/drivers/{filter}.sys"), b"MZ");
    }
    let both = [Hypervisor::Vmware, Hypervisor::Virtualbox].into();
    let repairs = RepairOptions { remove_tools: both, ..RepairOptions::default() };
    let injection = plan(&files, &selection(VERSION), &options(repairs));
    apply(&mut files, &injection);
    for set_name in SETS {
        let left = value(&files, &format!("{set_name}\\{mouse}"), "UpperFilters");
        assert_eq!(left, Some(RegistryData::multi_sz(&["mouclass"])), "{set_name}");
    }
    remove(&mut files);
    let back = value(&files, &format!("ControlSet001\\{mouse}"), "UpperFilters");
    assert_eq!(back, Some(RegistryData::multi_sz(&["vmmouse", "mouclass", "VBoxMouse"])));
}

#[test]
fn nothing_to_remove_is_a_note() {
    let files = guest_files("19045", true);
    let plain = plan(&files, &selection(VERSION), &InjectOptions::default());
    let all = RepairOptions { remove_tools_found: true, ..RepairOptions::default() };
    for (repairs, text) in [(all, "no tools of a former hypervisor"), (of(Hypervisor::Parallels), "Parallels: none of")]
    {
        let asked = plan(&files, &selection(VERSION), &options(repairs));
        assert_eq!(asked.plan.steps, plain.plan.steps);
        assert!(asked.plan.notes.iter().any(|note| note.contains(text)), "{:?}", asked.plan.notes);
    }
}

#[test]
fn uninstallers_become_steps_of_the_job() {
    let code = "{0123ABCD-0123-0123-0123-0123456789AB}";
    let mut files = guest_files("19045", true);
    edit(&mut files, GuestHive::Software, |hive| {
        let list = "Microsoft\\Windows\\CurrentVersion\\Uninstall";
        let mut program = |key: &str, name: &str, command: &str| {
            let key = format!("{list}\\{key}");
            set(hive, &key, "DisplayName", &RegistryData::sz(name));
            set(hive, &key, "UninstallString", &RegistryData::expand_sz(command));
        };
        program(code, "VMware Tools", &format!("MsiExec.exe /I{code}"));
        program("VBox", "Oracle VM VirtualBox Guest Additions 7.0", "C:\\Program Files\\Oracle\\VB\\uninst.exe");
        program("Prl", "Parallels Tools", "cmd /c del /s C:\\");
        program("Other", "VMware Horizon", "MsiExec.exe /I{99999999-0123-0123-0123-0123456789AB}");
    });
    let all = options(RepairOptions { remove_tools_found: true, ..RepairOptions::default() });
    let without = plan(&files, &selection(VERSION), &all);
    assert_eq!(without.record.repairs.uninstallers.len(), 1, "{:?}", without.record.repairs);
    files.put("/Program Files/Oracle/VB/uninst.exe", b"MZ");
    let injection = plan(&files, &selection(VERSION), &all);
    let commands: Vec<&str> =
        injection.record.repairs.uninstallers.iter().map(|found| found.command.as_str()).collect();
    let msi = format!("\"%SystemRoot%\\System32\\msiexec.exe\" /x {code} /qn /norestart");
    assert_eq!(commands, [msi.as_str(), "\"C:\\Program Files\\Oracle\\VB\\uninst.exe\" /S"]);
    assert!(injection.record.repairs.left.iter().any(|left| left.contains("Parallels Tools is not uninstalled")));
    apply(&mut files, &injection);
    let job = files.get("/hyper2kvm/firstboot.job").or_else(|| files.get("/hyper2kvm/firstboot.cmd")).unwrap();
    let job = String::from_utf8(job.clone()).unwrap();
    assert!(job.contains(code) && job.contains("uninst.exe\" /S") && !job.contains("del /s"), "{job}");
    assert!(plan(&files, &selection(VERSION), &all).plan.is_empty());
}

#[test]
fn thousands_of_uninstallers_end_in_a_warning() {
    let mut files = guest_files("19045", true);
    edit(&mut files, GuestHive::Software, |hive| {
        for number in 0..5000 {
            let code = format!("{{0123ABCD-0123-0123-0123-{number:012}}}");
            let key = format!("Microsoft\\Windows\\CurrentVersion\\Uninstall\\{code}");
            set(hive, &key, "DisplayName", &RegistryData::sz("VMware Tools"));
            set(hive, &key, "UninstallString", &RegistryData::sz(&format!("MsiExec.exe /I{code}")));
        }
    });
    let asked = options(of(Hypervisor::Vmware));
    let injection = plan(&files, &selection(VERSION), &asked);
    assert_eq!(injection.record.repairs.uninstallers.len(), 64);
    let warnings = &injection.plan.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("5000 programs have the names")), "{warnings:?}");
    apply(&mut files, &injection);
    assert!(plan(&files, &selection(VERSION), &asked).plan.is_empty());
    let warnings = plan(&files, &selection(VERSION), &InjectOptions::default()).plan.warnings;
    assert!(!warnings.iter().any(|warning| warning.contains("programs have")), "{warnings:?}");
}

#[test]
fn a_signed_record_without_a_driver_is_taken_out_and_comes_back() {
    let id = "DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1048&SUBSYS_99991AF4";
    let package = "DriverDatabase\\DriverPackages\\foo.inf_amd64_1111";
    for (score, has_driver, stays) in
        [(0x0D00_0005, false, false), (0x8000_0000, false, true), (0x0D00_0005, true, true)]
    {
        let mut files = guest_files("19045", true);
        system(&mut files, |hive| {
            set(hive, "DriverDatabase\\DriverInfFiles\\oem77.inf", "Active", &RegistryData::sz("foo.inf_amd64_1111"));
            set(hive, package, "Version", &RegistryData::binary([0; 48]));
            set(hive, package, "SignerScore", &RegistryData::dword(score));
            set(hive, &format!("{package}\\Configurations\\f"), "Service", &RegistryData::sz("foostor"));
            let descriptor = format!("{package}\\Descriptors\\PCI\\VEN_1AF4&DEV_1048&SUBSYS_99991AF4");
            set(hive, &descriptor, "Configuration", &RegistryData::sz("f"));
            set(hive, id, "oem77.inf", &RegistryData::binary([1, 0xff, 0, 0]));
            for cs in SETS {
                set(hive, &format!("{cs}\\Services\\foostor"), "Start", &RegistryData::dword(4));
            }
        });
        if has_driver {
            files.put("/Windows/System32/drivers/foostor.sys", b"MZ");
        }
        let record = value(&files, id, "oem77.inf");
        let first = plan(&files, &selection(VERSION), &InjectOptions::default());
        apply(&mut files, &first);
        assert_eq!(value(&files, id, "oem77.inf").is_some(), stays, "{score:#x} {has_driver}");
        let start = value(&files, "ControlSet001\\Services\\foostor", "Start").unwrap().as_u32().unwrap();
        assert_eq!(start, if has_driver { 0 } else { 4 }, "{score:#x} {has_driver}");
        assert!(plan(&files, &selection(VERSION), &InjectOptions::default()).plan.is_empty());
        remove(&mut files);
        assert_eq!(value(&files, id, "oem77.inf"), record);
    }
}

#[test]
fn the_boot_chain_starts_at_boot_and_stays_so() {
    let mut files = guest_files("19045", true);
    system(&mut files, |hive| {
        set(hive, "ControlSet001\\Services\\pci", "Start", &RegistryData::dword(3));
        set(hive, "ControlSet001\\Services\\disk", "Start", &RegistryData::dword(4));
    });
    let first = plan(&files, &selection(VERSION), &InjectOptions::default());
    apply(&mut files, &first);
    let removal = remove(&mut files);
    for service in ["pci", "disk"] {
        let key = format!("ControlSet001\\Services\\{service}");
        assert_eq!(value(&files, &key, "Start"), Some(RegistryData::dword(0)));
        let listed = removal.left.iter().find(|item| item.what.contains(&key)).unwrap();
        assert!(listed.reason.contains("finds no disk"), "{listed:?}");
    }
}

#[test]
fn windows_before_vista_is_refused_by_name() {
    let files = guest_files("2600", false);
    let error =
        plan_files(&files, &inspect(&files), &Hives::new(), None, &selection(VERSION), &InjectOptions::default())
            .unwrap_err();
    assert!(error.to_string().contains("Windows XP"), "{error}");
    assert!(error.hint_text().unwrap().contains("winject convert IMAGE NEW.qcow2"));
}
