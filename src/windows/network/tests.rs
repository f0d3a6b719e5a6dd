//! Kept networks in whole plans: what the guest gets, a second run, and the way back.

use super::options::{NetworkOptions, NewMac};
use crate::error::Kind;
use crate::hive::{Hive, RegistryData};
use crate::plan::{Change, GuestHive};
use crate::windows::first_boot::{FirstBootMethod, FirstBootOptions};
use crate::windows::guest_files::memory::MemoryFiles;
use crate::windows::injection::{Injection, plan_files};
use crate::windows::inspect::installation::Hives;
use crate::windows::options::InjectOptions;
use crate::windows::record::Record;
use crate::windows::registry;
use crate::windows::tests::{NOW, apply, guest_files, hive, inspect, plan, selection, set};

const NET: &str = "{4D36E972-E325-11CE-BFC1-08002BE10318}";
const LIVE: &str = "{5F3F359E-9D52-4566-9BEC-37EFDFB25ABE}";
const GHOST: &str = "{6AAFC9A9-0542-4DB2-8760-CCFFA953737C}";
const NEW: &str = "{7B0E24C4-50F2-4B60-BCB3-EF2C3FF3394E}";
const SYSTEM: &str = "/Windows/System32/config/SYSTEM";

fn add_adapter(system: &mut Hive, set_name: &str, number: u32, guid: &str, name: &str, is_there: bool) {
    let instance = format!("PCI\\VEN_15AD&DEV_07B0\\000C29FFFF00000{number}00");
    let class = format!("{set_name}\\Control\\Class\\{NET}\\000{number}");
    set(system, &class, "NetCfgInstanceId", &RegistryData::sz(guid));
    set(system, &class, "DeviceInstanceID", &RegistryData::sz(&instance));
    set(system, &class, "Characteristics", &RegistryData::dword(0x84));
    if is_there {
        set(system, &format!("{set_name}\\Enum\\{instance}"), "ConfigFlags", &RegistryData::dword(0));
    }
    let connection = format!("{set_name}\\Control\\Network\\{NET}\\{guid}\\Connection");
    set(system, &connection, "Name", &RegistryData::sz(name));
    let key = format!("{set_name}\\Services\\Tcpip\\Parameters\\Interfaces\\{guid}");
    set(system, &key, "EnableDHCP", &RegistryData::dword(0));
    for (name, item) in [("IPAddress", "10.0.0.5"), ("SubnetMask", "255.255.255.0"), ("DefaultGateway", "10.0.0.1")] {
        set(system, &key, name, &RegistryData::multi_sz(&[item]));
    }
    set(system, &key, "NameServer", &RegistryData::sz("10.0.0.53"));
    set(system, &key, "Domain", &RegistryData::sz("corp.example"));
}

/// A guest with an adapter with a static address, and one of an earlier machine with the same.
fn guest_with_adapters() -> MemoryFiles {
    let mut files = guest_files("19045", true);
    let mut system = hive(&files, GuestHive::System);
    for control_set in ["ControlSet001", "ControlSet002"] {
        add_adapter(&mut system, control_set, 1, LIVE, "LAN & B\u{fc}ro", true);
        add_adapter(&mut system, control_set, 2, GHOST, "old", false);
    }
    files.put(SYSTEM, &system.finish(&[]).unwrap());
    files
}

fn keeping(macs: &[&str]) -> InjectOptions {
    let new_macs = macs.iter().map(|text| NewMac::parse(text).unwrap()).collect();
    InjectOptions { network: NetworkOptions { keep: true, new_macs }, ..InjectOptions::default() }
}

#[test]
fn the_job_gives_the_settings_and_a_second_run_changes_nothing() {
    let mut files = guest_with_adapters();
    let chosen = selection([100, 101, 104, 28500]);
    let first = plan(&files, &chosen, &keeping(&[]));
    assert_eq!(first.record.network.kept.len(), 1);
    assert_eq!(first.record.network.kept[0].mac, "00:0c:29:00:00:01");
    apply(&mut files, &first);
    let job = String::from_utf8(files.get("/hyper2kvm/firstboot.job").unwrap().clone()).unwrap();
    for line in [
        "network\t00:0c:29:00:00:01\t300\tLAN & B\u{fc}ro",
        "netsh\tinterface ipv4 set address name={index} source=static address=10.0.0.5 mask=255.255.255.0 \
         gateway=10.0.0.1",
        "netsh\tinterface ipv4 set dnsservers name={index} source=static address=10.0.0.53 register=primary validate=no",
        "network\t00:0c:29:00:00:01\t10\tLAN & B\u{fc}ro (name)",
        "netsh\tinterface set interface name={name} newname=\"LAN & B\u{fc}ro\"",
    ] {
        assert!(job.lines().any(|own| own == line), "{line}\n{job}");
    }
    assert!(job.contains("call SetDNSDomain corp.example <nul"), "{job}");
    let system = hive(&files, GuestHive::System);
    for control_set in ["ControlSet001", "ControlSet002"] {
        let name = |guid| {
            registry::get_string(
                &system,
                &format!("{control_set}\\Control\\Network\\{NET}\\{guid}\\Connection"),
                "Name",
            )
        };
        assert_eq!(name(LIVE).unwrap().as_deref(), Some("LAN & B\u{fc}ro (former)"));
        assert_eq!(name(GHOST).unwrap().as_deref(), Some("old"));
        let key = |guid| format!("{control_set}\\Services\\Tcpip\\Parameters\\Interfaces\\{guid}");
        assert_eq!(registry::get_strings(&system, &key(LIVE), "IPAddress").unwrap(), ["10.0.0.5"], "the way back");
        assert_eq!(registry::get_value(&system, &key(GHOST), "IPAddress").unwrap(), None);
        assert_eq!(registry::get_u32(&system, &key(GHOST), "EnableDHCP").unwrap(), Some(1));
    }
    let second = plan(&files, &chosen, &keeping(&[]));
    assert!(second.plan.is_empty(), "{:?}", second.plan.steps);
    assert_eq!(second.record.network.released, ["old"]);
    let plain = plan(&guest_with_adapters(), &chosen, &InjectOptions::default());
    assert!(plain.record.network.kept.is_empty(), "nothing without the option");
}

#[test]
fn a_script_gives_the_settings_by_the_connection_that_has_the_address() {
    let mut files = guest_with_adapters();
    let first_boot = FirstBootOptions { method: FirstBootMethod::Script, ..FirstBootOptions::default() };
    let options = InjectOptions { first_boot, ..keeping(&[]) };
    let injection = plan(&files, &selection([100, 101, 104, 28500]), &options);
    apply(&mut files, &injection);
    let script = String::from_utf8(files.get("/hyper2kvm/firstboot.cmd").unwrap().clone()).unwrap();
    for part in [
        "/c:\"00-0c-29-00-00-01\"",
        "netsh.exe\" interface ipv4 set address name=\"%NIC%\" source=static address=10.0.0.5 mask=255.255.255.0 \
         gateway=10.0.0.1 >>",
        "set dnsservers name=\"%NIC%\" source=static address=10.0.0.53 register=primary validate=no",
        "call SetDNSDomain corp.example",
        "\"name\":\"LAN & B\\u00fcro\"",
    ] {
        assert!(script.contains(part), "{part}\n{script}");
    }
    assert!(script.is_ascii() && !script.contains("newname"), "a script cannot say this name");
    let setup = String::from_utf8(files.get("/hyper2kvm/setup.cmd").unwrap().clone()).unwrap();
    assert!(setup.contains("not by this script"), "{setup}");
}

#[test]
fn a_new_address_replaces_the_former_one() {
    let chosen = selection([100, 101, 104, 28500]);
    for former in ["00:0c:29:00:00:01", "lan & b\u{dc}ro"] {
        let injection = plan(&guest_with_adapters(), &chosen, &keeping(&[&format!("{former}=52:54:00:00:00:0A")]));
        assert_eq!(injection.record.network.kept[0].mac, "52:54:00:00:00:0a");
    }
}

#[test]
fn what_cannot_be_kept_is_an_error() {
    let chosen = selection([100, 101, 104, 28500]);
    let files = guest_with_adapters();
    let fail = |options: &InjectOptions| {
        plan_files(&files, &inspect(&files), &Hives::new(), None, &chosen, options).unwrap_err()
    };
    let error = fail(&keeping(&["WAN=52:54:00:00:00:01"]));
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.hint_text().unwrap().contains("00:0c:29:00:00:01"), "{error}");
    let none = FirstBootOptions { method: FirstBootMethod::None, ..FirstBootOptions::default() };
    assert_eq!(fail(&InjectOptions { first_boot: none, ..keeping(&[]) }).kind(), Kind::Usage);
}

#[test]
fn a_removal_brings_back_what_was_freed() {
    let before = guest_with_adapters();
    let mut files = before.clone();
    let chosen = selection([100, 101, 104, 28500]);
    let injection = plan(&files, &chosen, &keeping(&[]));
    apply(&mut files, &injection);
    let volume_before = hive(&before, GuestHive::System);
    let removal = crate::windows::removal::plan_files(&files, &inspect(&files), &Hives::new(), None).unwrap();
    for (guid, key, names) in [
        (LIVE, "Control\\Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}\\@\\Connection", &["Name"][..]),
        (
            GHOST,
            "Services\\Tcpip\\Parameters\\Interfaces\\@",
            &["IPAddress", "SubnetMask", "DefaultGateway", "EnableDHCP"],
        ),
    ] {
        for control_set in ["ControlSet001", "ControlSet002"] {
            let key = format!("{control_set}\\{}", key.replace('@', guid));
            for wanted in names {
                let earlier = registry::get_value(&volume_before, &key, wanted).unwrap().unwrap();
                let is_back = |change: &Change| {
                    matches!(change, Change::SetValue { key: at, name, data, .. }
                    if at.eq_ignore_ascii_case(&key) && name == wanted && *data == earlier)
                };
                assert!(removal.plan.steps.iter().any(|step| is_back(&step.change)), "{key} : {wanted}");
            }
        }
    }
}

fn connection_name(system: &Hive, control_set: &str) -> Option<String> {
    let key = format!("{control_set}\\Control\\Network\\{NET}\\{LIVE}\\Connection");
    registry::get_string(system, &key, "Name").unwrap()
}

#[test]
fn each_control_set_keeps_its_own_name_of_a_connection() {
    let chosen = selection([100, 101, 104, 28500]);
    for other in [Some("Ethernet0"), None] {
        let mut files = guest_with_adapters();
        let mut system = hive(&files, GuestHive::System);
        let key = format!("ControlSet002\\Control\\Network\\{NET}\\{LIVE}\\Connection");
        match other {
            Some(name) => set(&mut system, &key, "Name", &RegistryData::sz(name)),
            None => {
                let id = registry::find_key(&system, &key).unwrap().unwrap();
                system.delete_value(id, "Name", NOW).unwrap();
            }
        }
        files.put(SYSTEM, &system.finish(&[]).unwrap());
        let injection = plan(&files, &chosen, &keeping(&[]));
        apply(&mut files, &injection);
        let system = hive(&files, GuestHive::System);
        assert_eq!(connection_name(&system, "ControlSet001").as_deref(), Some("LAN & B\u{fc}ro (former)"));
        assert_eq!(connection_name(&system, "ControlSet002"), other.map(|name| format!("{name} (former)")));
        assert!(plan(&files, &chosen, &keeping(&[])).plan.is_empty(), "a second run has nothing to do");
    }
}

#[test]
fn a_job_that_has_ended_leaves_the_network_as_it_is() {
    let chosen = selection([100, 101, 104, 28500]);
    let mut files = guest_with_adapters();
    files.put("/hyper2kvm/firstboot.done", b"done\r\n");
    let injection = plan(&files, &chosen, &keeping(&[]));
    assert!(injection.record.network.kept.is_empty() && injection.record.network.released.is_empty());
    assert!(injection.plan.warnings.iter().any(|warning| warning.contains("network settings are not kept")));
    apply(&mut files, &injection);
    let system = hive(&files, GuestHive::System);
    assert_eq!(connection_name(&system, "ControlSet001").as_deref(), Some("LAN & B\u{fc}ro"));
}

#[test]
fn a_run_that_leaves_the_option_out_says_what_stays_renamed() {
    let chosen = selection([100, 101, 104, 28500]);
    let mut files = guest_with_adapters();
    let warns = |files: &MemoryFiles| {
        let warnings = plan(files, &chosen, &InjectOptions::default()).plan.warnings;
        warnings.iter().any(|warning| warning.contains("former connections keep the names"))
    };
    assert!(!warns(&files));
    let injection = plan(&files, &chosen, &keeping(&[]));
    apply(&mut files, &injection);
    assert!(warns(&files));
    files.put("/hyper2kvm/firstboot.done", b"done\r\n");
    assert!(!warns(&files), "the new connections have their settings");
}

#[test]
fn a_name_of_the_guest_runs_nothing_when_a_hint_is_pasted() {
    let mut files = guest_with_adapters();
    let mut system = hive(&files, GuestHive::System);
    let name = "$(touch /x) `id`";
    let key = format!("ControlSet001\\Control\\Network\\{NET}\\{GHOST}\\Connection");
    set(&mut system, &key, "Name", &RegistryData::sz(name));
    files.put(SYSTEM, &system.finish(&[]).unwrap());
    let injection = plan(&files, &selection([100, 101, 104, 28500]), &keeping(&[]));
    let notes = injection.plan.notes.join("\n");
    assert!(notes.contains("--mac '$(touch /x) `id`=MAC' gives"), "{notes}");
}

/// A guest after the first boot on the new machine: the former adapter, which nothing marks as a ghost, and the new one with
/// its MAC address, its address and its name.
fn guest_after_the_first_boot() -> MemoryFiles {
    let mut files = guest_with_adapters();
    let injection = plan(&files, &selection([100, 101, 104, 28500]), &keeping(&[]));
    apply(&mut files, &injection);
    let mut system = hive(&files, GuestHive::System);
    for control_set in ["ControlSet001", "ControlSet002"] {
        add_adapter(&mut system, control_set, 3, NEW, "LAN & B\u{fc}ro", true);
        let class = format!("{control_set}\\Control\\Class\\{NET}\\0003");
        let instance = "PCI\\VEN_1AF4&DEV_1000&SUBSYS_00011AF4&REV_00\\3&13c0b0c5&0&18";
        set(&mut system, &class, "DeviceInstanceID", &RegistryData::sz(instance));
        set(&mut system, &format!("{control_set}\\Enum\\{instance}"), "ConfigFlags", &RegistryData::dword(0));
        let kernel = format!("{control_set}\\Control\\NetworkSetup2\\Interfaces\\{NEW}\\Kernel");
        set(&mut system, &kernel, "PermanentAddress", &RegistryData::binary([0, 0x0c, 0x29, 0, 0, 1]));
    }
    files.put(SYSTEM, &system.finish(&[]).unwrap());
    files.put("/hyper2kvm/firstboot.done", b"done\r\n");
    files
}

fn rearmed(macs: &[&str]) -> InjectOptions {
    InjectOptions { first_boot: FirstBootOptions { rearm: true, ..FirstBootOptions::default() }, ..keeping(macs) }
}

fn names(files: &MemoryFiles, control_set: &str) -> [Option<String>; 2] {
    let system = hive(files, GuestHive::System);
    [LIVE, NEW].map(|guid| {
        let key = format!("{control_set}\\Control\\Network\\{NET}\\{guid}\\Connection");
        registry::get_string(&system, &key, "Name").unwrap()
    })
}

#[test]
fn of_two_adapters_with_one_mac_address_the_later_one_is_kept() {
    let chosen = selection([100, 101, 104, 28500]);
    let mut files = guest_after_the_first_boot();
    let injection = plan(&files, &chosen, &rearmed(&[]));
    let kept = &injection.record.network.kept;
    assert_eq!(kept.iter().map(|one| one.guid.to_uppercase()).collect::<Vec<_>>(), [NEW]);
    assert!(injection.plan.notes.iter().any(|note| note.contains("installed later")), "{:?}", injection.plan.notes);
    apply(&mut files, &injection);
    for control_set in ["ControlSet001", "ControlSet002"] {
        let expected = ["LAN & B\u{fc}ro (former)", "LAN & B\u{fc}ro (former 2)"];
        assert_eq!(names(&files, control_set), expected.map(|name| Some(name.to_owned())));
    }
    assert!(plan(&files, &chosen, &rearmed(&[])).plan.is_empty(), "a second run has nothing to do");
    // by its address or its name the later one is meant; by its GUID each of them can be
    for former in ["00:0c:29:00:00:01", "LAN & B\u{fc}ro", LIVE] {
        let injection =
            plan(&guest_after_the_first_boot(), &chosen, &rearmed(&[&format!("{former}=52:54:00:00:00:0A")]));
        let guid = injection.record.network.kept[0].guid.to_uppercase();
        assert_eq!(guid, if former == LIVE { LIVE } else { NEW }, "{former}");
    }
}

#[test]
fn a_removal_gives_a_name_to_one_connection_only() {
    let chosen = selection([100, 101, 104, 28500]);
    let mut again = guest_after_the_first_boot();
    let injection = plan(&again, &chosen, &rearmed(&[]));
    apply(&mut again, &injection);
    for mut files in [guest_after_the_first_boot(), again] {
        let removal = crate::windows::removal::plan_files(&files, &inspect(&files), &Hives::new(), None).unwrap();
        assert!(
            removal.left.iter().any(|left| left.reason.contains("another connection is called")),
            "{:?}",
            removal.left
        );
        let changes = Injection { plan: removal.plan, record: Record::default(), hives: Hives::new() };
        apply(&mut files, &changes);
        for control_set in ["ControlSet001", "ControlSet002"] {
            let found = names(&files, control_set);
            let count = found.iter().flatten().filter(|name| *name == "LAN & B\u{fc}ro").count();
            assert_eq!(count, 1, "{control_set}: {found:?}");
        }
    }
}

#[test]
fn a_name_that_a_script_cannot_give_is_not_freed() {
    let chosen = selection([100, 101, 104, 28500]);
    let mut files = guest_with_adapters();
    let first_boot = FirstBootOptions { method: FirstBootMethod::Script, ..FirstBootOptions::default() };
    let injection = plan(&files, &chosen, &InjectOptions { first_boot, ..keeping(&[]) });
    assert!(injection.plan.warnings.iter().any(|warning| warning.contains("names in ASCII only")));
    apply(&mut files, &injection);
    let system = hive(&files, GuestHive::System);
    assert_eq!(connection_name(&system, "ControlSet001").as_deref(), Some("LAN & B\u{fc}ro"));
}
