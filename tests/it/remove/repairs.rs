//! The repairs on guests with real hives: a removal brings all of it back, plans of them can be saved, and a forged one is
//! refused; and guests whose boot chain was put away, which boot after an injection or are said not to.

use winject::internals::drivers::SignatureLevel;
use winject::internals::hive::RegistryData;
use winject::internals::ntfs::CreateOptions;
use winject::internals::plan::GuestHive;
use winject::internals::plan::saved::{PlanDocument, SavedEdit};
use winject::internals::windows::{Bus, CheckOptions, DataDisks, InjectOptions, RepairOptions, boot_check};

use super::{edit_hive, remove, seen_differences, set};
use crate::inject::{succeed, winject};
use crate::windows::guests::{self, Disk, PRODUCTS};

const SYSTEM_CLASS: &str = "ControlSet001\\Control\\Class\\{4d36e97d-e325-11ce-bfc1-08002be10318}";
const SCSI_CLASS: &str = "ControlSet001\\Control\\Class\\{4d36e97b-e325-11ce-bfc1-08002be10318}";

fn repaired() -> InjectOptions {
    let repairs = RepairOptions {
        remove_tools_found: true,
        no_auto_reboot: true,
        data_disks: DataDisks::Online,
        ..RepairOptions::default()
    };
    InjectOptions { repairs, ..InjectOptions::default() }
}

/// Services that the real hives have, and what becomes of them; the filters that leave lists.
const FOUND: [(&str, &[&str], &[&str]); 3] = [
    ("w7", &["VMTools", "VMMEMCTL", "VMUpgradeHelper", "vmdebug", "vmmouse"], &["vmmouse"]),
    ("w8.1", &["VBoxGuest", "VBoxMouse", "VBoxService", "VBoxSF"], &["VBoxMouse"]),
    (
        "w10",
        &["VMTools", "VGAuthService", "VMMemCtl", "VMRawDsk", "vmci", "vsock", "vmmouse", "VMUsbMouse"],
        &["vmmouse", "vmusbmouse"],
    ),
];

/// Puts the drivers of services where their `ImagePath` says: the guests are made without.
fn put_drivers(disk: &Disk, services: &[&str]) {
    let mut volume = disk.volume();
    let inspected = winject::internals::windows::inspect(&volume).unwrap().unwrap();
    let system = &inspected.hives[&GuestHive::System];
    for set in inspected.guest.control_set_names() {
        for service in services {
            let Some(key) = system.find(system.root(), &format!("{set}\\Services\\{service}")).unwrap() else {
                continue;
            };
            let image = system.value(key, "ImagePath").unwrap().and_then(|data| data.as_text()).unwrap_or_default();
            let Some(path) = inspected.guest.image_path(&image).filter(|path| path.to_lowercase().ends_with(".sys"))
            else {
                continue;
            };
            volume.create_dir_all(path.rsplit_once('/').unwrap().0, &CreateOptions::default()).unwrap();
            volume.replace_file(&path, b"MZ", &CreateOptions::default()).unwrap();
        }
    }
    volume.flush().unwrap();
}

fn a_removal_brings_back_all_that_repairs_changed() {
    let Some(media) = guests::media() else { return };
    for (product, services, filters) in FOUND {
        let product = PRODUCTS.iter().find(|one| one.name == product).unwrap();
        let Some(made) = guests::guest(product) else { return };
        let before = made.copy("before-repairs");
        put_drivers(&before, services);
        let disk = before.copy("repairs");
        let done = guests::inject(&disk, &media, &repaired()).record.repairs;
        for service in services {
            let is_done =
                |one: &&winject::internals::windows::DisabledService| one.service.eq_ignore_ascii_case(service);
            assert!(done.services.iter().any(|one| is_done(&one)), "{}: {service}: {done:#?}", product.name);
        }
        for filter in filters {
            assert!(
                done.filters.iter().any(|one| one.filter.eq_ignore_ascii_case(filter)),
                "{}: {filter}",
                product.name
            );
        }
        let mut disabled: Vec<String> = done.services.iter().map(|one| one.service.to_lowercase()).collect();
        disabled.sort();
        disabled.dedup();
        assert_eq!(disabled.len(), services.len(), "{}: {disabled:?}", product.name);
        for options in [repaired(), InjectOptions::default()] {
            let again = guests::inject(&disk, &media, &options).plan;
            assert!(again.is_empty(), "{}: {again}", product.name);
        }
        let removal = remove(&disk).unwrap();
        let Some(seen) = seen_differences(&before, &disk.path) else { return };
        // what an injection without repairs leaves, too: in-box controllers start at boot
        let inbox = ["storahci", "stornvme", "msahci", "atapi", "intelide", "pciide", "LSI_SAS", "isapnp"];
        let is_inbox = |line: &&String| {
            let service = line.split("\\Services\\").nth(1).and_then(|rest| rest.split(['\\', ' ']).next());
            service.is_some_and(|service| inbox.iter().any(|name| name.eq_ignore_ascii_case(service)))
        };
        let unexplained: Vec<&String> = seen.iter().filter(|line| !is_inbox(line)).collect();
        assert!(unexplained.is_empty(), "{}: {unexplained:#?}\nleft: {:#?}", product.name, removal.left);
        println!("{}: {} services, {} filters, all back", product.name, done.services.len(), done.filters.len());
        for disk in [before, disk] {
            std::fs::remove_file(disk.path).unwrap();
        }
    }
}

fn a_saved_plan_of_repairs_is_good_and_a_forged_one_is_not() {
    let Some(media) = guests::media() else { return };
    let Some(made) = guests::guest(&PRODUCTS[1]) else { return };
    let mut command = winject();
    command.arg("plan").arg(&made.path).arg("--drivers").arg(&media).args(["--json", "--signature-policy", "warn"]);
    command.args(["--remove-tools", "auto,xen", "--no-auto-reboot", "--data-disks", "online"]);
    let document = PlanDocument::parse(&succeed(&mut command).stdout).unwrap();
    document.judge().unwrap();
    let is_at = |edit: &SavedEdit, end: &str| matches!(edit, SavedEdit::SetValue { key, .. } if key.to_lowercase().ends_with(end));
    let list = "{4d36e96f-e325-11ce-bfc1-08002be10318}";
    let forge = |end: &str, change: &dyn Fn(&mut SavedEdit)| {
        let mut forged = document.clone();
        let step = forged.steps.iter_mut().find(|step| is_at(&step.edit, end)).unwrap();
        change(&mut step.edit);
        forged.judge()
    };
    let data = |new: RegistryData| {
        move |edit: &mut SavedEdit| {
            if let SavedEdit::SetValue { data, .. } = edit {
                *data = new.clone();
            }
        }
    };
    assert!(forge(list, &|_| {}).is_ok());
    for new in [
        RegistryData::multi_sz(&["mouclass", "evil"]),
        RegistryData::multi_sz(&["VBoxMouse"]),
        RegistryData::multi_sz::<&str>(&[]),
        RegistryData::sz("mouclass"),
    ] {
        assert!(forge(list, &data(new.clone())).is_err(), "{new}");
    }
    assert!(forge("crashcontrol", &data(RegistryData::dword(1))).is_err());
    let elsewhere = |edit: &mut SavedEdit| {
        if let SavedEdit::SetValue { key, .. } = edit {
            *key = "ControlSet001\\Control\\Session Manager".to_owned();
        }
    };
    assert!(forge(list, &elsewhere).is_err() && forge("crashcontrol", &elsewhere).is_err());
}

fn boots(disk: &Disk) -> bool {
    let options = CheckOptions { signatures: SignatureLevel::Warn };
    boot_check(&disk.volume(), Bus::VirtioBlk, &options).unwrap().boots
}

fn set_value(disk: &Disk, key: &str, name: &str, data: &RegistryData) {
    edit_hive(&mut disk.volume(), "SYSTEM", |hive| set(hive, key, name, data));
}

/// A sceptical reading found that these booted by the check's word only.
fn a_broken_boot_chain_is_repaired_or_named() {
    let Some(media) = guests::media() else { return };
    let Some(made) = guests::guest(&PRODUCTS[2]) else { return };
    let services = "ControlSet001\\Services";
    let filter = RegistryData::multi_sz(&["xenfilt"]);
    let cases: [(String, &str, RegistryData, InjectOptions, bool); 8] = [
        (format!("{services}\\pci\\StartOverride"), "0", RegistryData::dword(3), InjectOptions::default(), true),
        (format!("{services}\\pci"), "Start", RegistryData::dword(3), InjectOptions::default(), true),
        (format!("{services}\\disk"), "Start", RegistryData::dword(4), InjectOptions::default(), true),
        (format!("{services}\\storahci\\StartOverride"), "0", RegistryData::dword(3), InjectOptions::default(), true),
        (SCSI_CLASS.to_owned(), "UpperFilters", RegistryData::multi_sz(&["nosuch"]), InjectOptions::default(), false),
        (SYSTEM_CLASS.to_owned(), "UpperFilters", RegistryData::multi_sz(&["nosuch"]), InjectOptions::default(), false),
        (SYSTEM_CLASS.to_owned(), "UpperFilters", filter.clone(), InjectOptions::default(), false),
        (SYSTEM_CLASS.to_owned(), "UpperFilters", filter, repaired(), true),
    ];
    for (key, name, data, options, expected) in cases {
        let disk = made.copy("chain");
        set_value(&disk, &key, name, &data);
        assert!(!boots(&disk));
        guests::inject(&disk, &media, &options);
        assert_eq!(boots(&disk), expected, "{key} : {name} = {data}");
        std::fs::remove_file(&disk.path).unwrap();
    }
}

tests![
    a_removal_brings_back_all_that_repairs_changed,
    a_saved_plan_of_repairs_is_good_and_a_forged_one_is_not,
    a_broken_boot_chain_is_repaired_or_named,
];
