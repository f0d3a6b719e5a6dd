//! A guest that has run since: what Windows and people changed stays as it is, the rest of what winject put there goes.

use winject::internals::hive::RegistryData;
use winject::internals::ntfs::CreateOptions;
use winject::internals::random::Random;

use winject::internals::ntfs::security::Protected;

use super::{Content, Disk, Removal, content, copied, copy_key, edit_hive, injected, of_users, only, remove, set};
use crate::support;
use crate::windows::guests::FileVolume;
use winject::internals::ntfs::Volume;

type Guest = Volume<FileVolume>;

/// What a mutation makes a removal leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// A driver with all that belongs to it.
    Driver(&'static str),
    /// The service of the first-boot job and its script.
    Job,
    /// One file.
    File(&'static str),
    /// Nothing of winject's.
    Nothing,
}

/// Something that Windows or people do to a guest after an injection.
#[derive(Debug)]
struct Mutation {
    name: &'static str,
    leaves: Leaves,
    change: fn(&mut Guest),
}

const fn mutation(name: &'static str, leaves: Leaves, change: fn(&mut Guest)) -> Mutation {
    Mutation { name, leaves, change }
}

const VIOSTOR: Leaves = Leaves::Driver("viostor");
const VIOSCSI: Leaves = Leaves::Driver("vioscsi");
const STAGED_INF: &str = "/hyper2kvm/drivers/virtio/viostor/viostor.inf";
const OEM: &str = "oem7.inf";
const OEM_PACKAGE: &str = "viostor.inf_amd64_1234567890abcdef";

fn system(volume: &mut Guest, key: &str, name: &str, data: &RegistryData) {
    edit_hive(volume, "SYSTEM", |hive| set(hive, key, name, data));
}

fn put(volume: &mut Guest, path: &str, bytes: &[u8]) {
    volume.replace_file(path, bytes, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
}

const MUTATIONS: [Mutation; 26] = [
    mutation("the service has owners", VIOSTOR, |volume| {
        system(volume, "ControlSet001\\Services\\viostor", "Owners", &RegistryData::multi_sz(&[OEM]));
    }),
    mutation("the service has a driver package", VIOSCSI, |volume| {
        let data = RegistryData::sz("vioscsi.inf_amd64_00000000000000aa");
        system(volume, "ControlSet001\\Services\\vioscsi", "DriverPackageId", &data);
    }),
    mutation("the service starts on demand", VIOSTOR, |volume| {
        system(volume, "ControlSet001\\Services\\viostor", "Start", &RegistryData::dword(3));
    }),
    mutation("the service has another parameter", VIOSCSI, |volume| {
        system(
            volume,
            "ControlSet001\\Services\\vioscsi\\Parameters\\Device",
            "NumberOfRequests",
            &RegistryData::dword(9),
        );
    }),
    mutation("a value of the service is gone", VIOSTOR, |volume| {
        edit_hive(volume, "SYSTEM", |hive| {
            let key = hive.find(hive.root(), "ControlSet001\\Services\\viostor").unwrap().unwrap();
            hive.delete_value(key, "ErrorControl", super::NOW).unwrap();
        });
    }),
    mutation("a device is bound to the service", VIOSCSI, |volume| {
        let key = "ControlSet001\\Enum\\PCI\\VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01\\3&11583659&0&20";
        system(volume, key, "Service", &RegistryData::sz("VIOSCSI"));
    }),
    mutation("a device was installed by the INF", VIOSTOR, |volume| {
        let key = "ControlSet001\\Control\\Class\\{4d36e97b-e325-11ce-bfc1-08002be10318}\\0003";
        system(volume, key, "InfPath", &RegistryData::sz("h2k-viostor.inf"));
    }),
    mutation("a class has the service as its filter", VIOSCSI, |volume| {
        let key = "ControlSet001\\Control\\Class\\{4d36e97b-e325-11ce-bfc1-08002be10318}";
        system(volume, key, "LowerFilters", &RegistryData::multi_sz(&["vioscsi"]));
    }),
    mutation("another service depends on it", VIOSTOR, |volume| {
        system(volume, "ControlSet001\\Services\\Backup", "DependOnService", &RegistryData::multi_sz(&["VioStor"]));
    }),
    mutation("another service starts the same file", VIOSCSI, |volume| {
        let data = RegistryData::expand_sz("\\SystemRoot\\System32\\DRIVERS\\VIOSCSI.sys");
        system(volume, "ControlSet001\\Services\\Copy", "ImagePath", &data);
    }),
    mutation("Windows has its own package", VIOSTOR, real_package),
    mutation("the driver file is a later one", VIOSTOR, |volume| {
        put(volume, "/Windows/System32/drivers/viostor.sys", b"a later driver");
    }),
    mutation("a critical device of the guest names the service", VIOSCSI, |volume| {
        let key = "ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#VEN_9999&DEV_1048";
        system(volume, key, "Service", &RegistryData::sz("vioscsi"));
    }),
    mutation("a device id was added to the records", VIOSTOR, |volume| {
        let key = "DriverDatabase\\DeviceIds\\PCI\\VEN_9999&DEV_0001";
        system(volume, key, "h2k-viostor.inf", &RegistryData::binary([1, 0xff, 0, 0]));
    }),
    mutation("the records of the package have another value", VIOSCSI, |volume| {
        let key = "DriverDatabase\\DriverPackages\\h2k-vioscsi.inf_amd64_0000000000000000";
        system(volume, key, "StatusFlags", &RegistryData::dword(0x12));
    }),
    mutation("the rank of a device id is another one", VIOSCSI, |volume| {
        let key = "DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1048";
        system(volume, key, "h2k-vioscsi.inf", &RegistryData::binary([3, 0, 0, 0]));
    }),
    mutation("another INF serves a device id, too", Leaves::Nothing, |volume| {
        let key = "DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1004";
        system(volume, key, "oem9.inf", &RegistryData::binary([1, 0xff, 0, 0]));
    }),
    mutation("Windows has copied the control set", Leaves::Nothing, |volume| {
        edit_hive(volume, "SYSTEM", |hive| copy_key(hive, "ControlSet001", "ControlSet002"));
    }),
    mutation("the first-boot service is disabled", Leaves::Job, |volume| {
        system(volume, "ControlSet001\\Services\\hyper2kvm-firstboot", "Start", &RegistryData::dword(4));
    }),
    mutation("the first-boot job has run", Leaves::Nothing, |volume| {
        put(volume, "/Windows/Temp/hyper2kvm-firstboot.log", b"done\r\n");
        edit_hive(volume, "SYSTEM", |hive| {
            // Another mutation may have changed it; then Windows would not have run it.
            if let Some(key) = hive.find(hive.root(), "ControlSet001\\Services\\hyper2kvm-firstboot").unwrap()
                && hive.value(key, "Start").unwrap() == Some(RegistryData::dword(2))
            {
                hive.delete_key(key, super::NOW).unwrap();
            }
        });
    }),
    mutation("the staged INF is another one", Leaves::File(STAGED_INF), |volume| {
        put(volume, STAGED_INF, b"; changed");
    }),
    mutation("the script was edited", Leaves::File("/hyper2kvm/setup.cmd"), |volume| {
        put(volume, "/hyper2kvm/setup.cmd", b"@echo changed\r\n");
    }),
    mutation("a file of people lies in the folder", Leaves::Nothing, |volume| {
        put(volume, "/hyper2kvm/notes.txt", b"mine");
    }),
    mutation("a package of people is staged", Leaves::Nothing, |volume| {
        volume.create_dir_all("/hyper2kvm/drivers/virtio/mine", &CreateOptions::default()).unwrap();
        put(volume, "/hyper2kvm/drivers/virtio/mine/mine.inf", b"[Version]");
    }),
    mutation("DevicePath has more folders", Leaves::Nothing, |volume| {
        edit_hive(volume, "SOFTWARE", |hive| {
            let key = hive.find(hive.root(), "Microsoft\\Windows\\CurrentVersion").unwrap().unwrap();
            let text = hive.value(key, "DevicePath").unwrap().unwrap().as_text().unwrap();
            let data = RegistryData::expand_sz(&format!("D:\\first;{text};;E:\\last\\"));
            hive.set_value(key, "DevicePath", &data, super::NOW).unwrap();
        });
    }),
    mutation("a driver of the guest is new", Leaves::Nothing, |volume| {
        put(volume, "/Windows/System32/drivers/viorng.sys", b"another driver");
        system(volume, "ControlSet001\\Services\\viorng", "Start", &RegistryData::dword(3));
    }),
];

/// What Windows writes when `pnputil` has installed the driver's package: it serves the ids of the INF.
fn real_package(volume: &mut Guest) {
    edit_hive(volume, "SYSTEM", |hive| {
        let package = format!("DriverDatabase\\DriverPackages\\{OEM_PACKAGE}");
        set(hive, &format!("DriverDatabase\\DriverInfFiles\\{OEM}"), "", &RegistryData::multi_sz(&[OEM_PACKAGE]));
        set(hive, &format!("DriverDatabase\\DriverInfFiles\\{OEM}"), "Active", &RegistryData::sz(OEM_PACKAGE));
        set(hive, &package, "", &RegistryData::sz(OEM));
        set(hive, &package, "Version", &RegistryData::binary([0; 48]));
        set(hive, &format!("{package}\\Configurations\\Setup_Inst"), "Service", &RegistryData::sz("viostor"));
        for id in [
            "PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00",
            "PCI\\VEN_1AF4&DEV_1001",
            "PCI\\VEN_1AF4&DEV_1042&SUBSYS_11001AF4&REV_01",
            "PCI\\VEN_1AF4&DEV_1042",
        ] {
            let rank = RegistryData::binary([1, 0xff, 0, 0]);
            set(hive, &format!("DriverDatabase\\DeviceIds\\{id}"), OEM, &rank);
            let key = format!("{package}\\Descriptors\\{id}");
            set(hive, &key, "Configuration", &RegistryData::sz("Setup_Inst"));
        }
    });
}

/// Whether an item belongs to what is left.
fn belongs(item: &str, leaves: Leaves) -> bool {
    let item = item.to_lowercase();
    match leaves {
        Leaves::Driver(name) => {
            let devices = if name == "viostor" { ["dev_1001", "dev_1042"] } else { ["dev_1004", "dev_1048"] };
            let is_device = devices.iter().any(|device| item.contains(device));
            item.contains(&format!("\\services\\{name}"))
                || item == format!("/windows/system32/drivers/{name}.sys")
                || item.contains("\\criticaldevicedatabase") && (is_device || item.ends_with("criticaldevicedatabase"))
                || belongs_to_records(&item, name)
        }
        Leaves::Job => {
            let programs = ["/hyper2kvm/hyper2kvm-firstboot.exe", "/hyper2kvm/firstboot.job"];
            item.contains("\\services\\hyper2kvm-firstboot") || programs.contains(&item.as_str())
        }
        Leaves::File(path) => item == path,
        Leaves::Nothing => false,
    }
}

/// Whether an item, in lower case, belongs to the minimal records of a driver.
fn belongs_to_records(item: &str, name: &str) -> bool {
    let devices = if name == "viostor" { ["dev_1001", "dev_1042"] } else { ["dev_1004", "dev_1048"] };
    let inf = format!("h2k-{name}.inf");
    let is_id =
        item.starts_with("system\\driverdatabase\\deviceids\\") && devices.iter().any(|device| item.contains(device));
    item.starts_with(&format!("system\\driverdatabase\\driverinffiles\\{inf}"))
        || item.starts_with(&format!("system\\driverdatabase\\driverpackages\\{inf}_"))
        || is_id && (item.ends_with(&format!(" : {inf}")) || !item.contains(" : "))
}

/// Whether `item` is a folder or key above one of `others`.
fn is_above(item: &str, others: &[&str]) -> bool {
    others.iter().any(|other| {
        let rest = other.strip_prefix(item);
        rest.is_some_and(|rest| item.ends_with('/') || rest.starts_with('\\') || rest.starts_with(" : "))
    })
}

const DEVICE_PATH: &str = "SOFTWARE\\Microsoft\\Windows\\CurrentVersion : DevicePath";

/// Applies the mutations, removes, and judges the outcome. Returns how many of the mutations left something.
fn judge(chosen: &[&Mutation], original: &Content, injected_content: &Content, disk: &Disk) -> Removal {
    let names: Vec<&str> = chosen.iter().map(|mutation| mutation.name).collect();
    for mutation in chosen {
        (mutation.change)(&mut disk.volume());
    }
    let mutated = content(disk);
    let removal = remove(disk).unwrap_or_else(|error| panic!("{names:?}: {error}"));
    let after = content(disk);

    let has = |name: &str| names.contains(&name);
    let mut left: Vec<Leaves> = chosen.iter().map(|mutation| mutation.leaves).collect();
    // A file of people in the folder of a package, or a job that does not run any more, leaves nothing of winject's.
    left.retain(|leaves| *leaves != Leaves::Nothing);
    let changed_records =
        ["a device was installed by the INF", "a device id was added to the records"].iter().any(|name| has(name));
    let is_superseded = has("Windows has its own package") && !changed_records;
    // Without the staged copy of its file a driver cannot be told from one of the guest's own; here it is always there.
    let is_left = |item: &str| {
        left.iter().any(|leaves| belongs(item, *leaves))
            && !(is_superseded
                && belongs_to_records(&item.to_lowercase(), "viostor")
                && !only(&mutated, injected_content).contains(&item))
    };

    // A copy of a control set is no change of what it was copied from.
    let is_copy = |item: &str| {
        let first = item.replace("ControlSet002", "ControlSet001");
        first != item && injected_content.contains_key(&first) && !original.contains_key(&first)
    };
    let touched: Vec<&str> = only(&mutated, injected_content).into_iter().filter(|item| !is_copy(item)).collect();
    for item in touched.iter().filter(|item| **item != DEVICE_PATH) {
        assert_eq!(after.get(*item), mutated.get(*item), "{names:?}: {item} was changed in the guest, and not left");
    }
    let kept: Vec<&str> =
        after.keys().map(String::as_str).filter(|item| is_left(item) || touched.contains(item)).collect();
    for item in only(injected_content, original) {
        let is_changed = original.contains_key(item);
        if after.contains_key(item) && !is_changed && !touched.contains(&item) {
            assert!(is_left(item) || is_above(item, &kept), "{names:?}: {item} is still there");
        }
        if is_left(item) && mutated.contains_key(item) {
            assert_eq!(after.get(item), mutated.get(item), "{names:?}: {item} belongs to what is left");
        }
    }
    for item in after.keys().filter(|item| is_copy(item)) {
        assert!(is_left(item) || is_above(item, &kept), "{names:?}: the copy {item} is still there");
    }
    for (item, what) in original {
        let is_as_it_was = after.get(item) == mutated.get(item)
            && (mutated.contains_key(item) || !injected_content.contains_key(item));
        assert!(is_as_it_was || item == DEVICE_PATH, "{names:?}: {item} of the guest is not as it was: {what}");
    }
    let path = if has("DevicePath has more folders") {
        "D:\\first;%SystemRoot%\\inf;;E:\\last\\"
    } else {
        "%SystemRoot%\\inf"
    };
    assert_eq!(after[DEVICE_PATH], format!("{:?}", RegistryData::expand_sz(path)), "{names:?}");
    for name in ["viostor", "vioscsi"] {
        let is_service =
            after.keys().any(|item| item.to_lowercase().contains(&format!("\\services\\{name} : imagepath")));
        let is_file = after.contains_key(&format!("/Windows/System32/drivers/{name}.sys"));
        assert!(!is_service || is_file, "{names:?}: {name} has lost its file");
    }
    assert!(!after.contains_key(super::MANIFEST), "{names:?}");
    removal
}

/// A mixture of changes that the seed names, on a disk with the content of the second kind; the first is that before the
/// injection.
pub(super) fn judge_any(seed: u64, contents: &(Content, Content), disk: &Disk) {
    let mut random = Random::new(seed);
    let share = random.below(10) + 1;
    let chosen: Vec<&Mutation> = MUTATIONS.iter().filter(|_| random.below(12) < share).collect();
    judge(&chosen, &contents.0, &contents.1, disk);
}

fn each_taken_over_driver_is_left_with_its_reason() {
    let (original, made) = injected();
    let (original_content, injected_content) = (content(original), content(made));
    for mutation in &MUTATIONS {
        let copy = copied(made);
        let removal = judge(&[mutation], &original_content, &injected_content, &copy.disk);
        let is_listed = |what: &str| removal.left.iter().any(|item| item.what == what && !item.reason.is_empty());
        match mutation.leaves {
            Leaves::Driver(name) => {
                assert!(is_listed(&format!("driver {name}")), "{}: {:?}", mutation.name, removal.left);
                assert_eq!(removal.removed.iter().filter(|what| what.starts_with("driver ")).count(), 1);
            }
            Leaves::Job => assert!(is_listed("service hyper2kvm-firstboot and its script"), "{:?}", removal.left),
            Leaves::File(path) => assert!(is_listed(path), "{:?}", removal.left),
            Leaves::Nothing => {
                assert_eq!(removal.removed.iter().filter(|what| what.starts_with("driver ")).count(), 2);
            }
        }
    }
}

fn a_guest_that_nothing_has_changed_loses_all_of_it() {
    let (original, made) = injected();
    let copy = copied(made);
    let removal = judge(&[], &content(original), &content(made), &copy.disk);
    assert_eq!(removal.left.len(), 2, "{:?}", removal.left);
}

fn any_mixture_of_changes_stays_and_the_rest_goes() {
    let (original, made) = injected();
    let contents = (content(original), content(made));
    for seed in 0..support::rounds(10, 40) {
        let copy = copied(made);
        judge_any(seed, &contents, &copy.disk);
        let again = remove(&copy.disk).unwrap();
        assert!(again.plan.is_empty() && !again.has_manifest, "seed {seed}");
    }
}

/// A driver whose staged copy is gone cannot be told from a driver of the guest.
fn a_driver_without_its_staged_copy_is_left() {
    let (_, made) = injected();
    let copy = copied(made);
    let mut volume = copy.disk.volume();
    volume.delete("/hyper2kvm/drivers/virtio/viostor/viostor.sys").unwrap();
    volume.flush().unwrap();
    drop(volume);
    let removal = remove(&copy.disk).unwrap();
    let reason = &removal.left.iter().find(|item| item.what == "driver viostor").unwrap().reason;
    assert!(reason.contains("no staged package"), "{reason}");
    assert!(removal.removed.contains(&"driver vioscsi".to_owned()));
}

/// What the job left is removed only if it can have left it.
fn markers_of_the_job_go_and_those_of_others_stay() {
    let (_, made) = injected();
    let copy = copied(made);
    let mut volume = copy.disk.volume();
    let own = volume.protected_security(winject::internals::ntfs::security::Protected::File).unwrap();
    let anyone = volume.security_id(&of_users(Protected::File)).unwrap();
    for (name, id) in [("firstboot.done", own), ("firstboot.json", own), ("firstboot.failed", anyone)] {
        let how = CreateOptions { security: winject::internals::ntfs::Security::Id(id), ..CreateOptions::default() };
        volume.replace_file(&format!("/hyper2kvm/{name}"), b"x", &how).unwrap();
    }
    volume.flush().unwrap();
    drop(volume);
    let removal = remove(&copy.disk).unwrap();
    let after = content(&copy.disk);
    let left: Vec<&str> = after.keys().filter(|item| item.starts_with("/hyper2kvm/")).map(String::as_str).collect();
    assert_eq!(left, ["/hyper2kvm/", "/hyper2kvm/firstboot.failed"]);
    assert!(
        removal.left.iter().any(|item| item.reason == "it holds /hyper2kvm/firstboot.failed"),
        "{:?}",
        removal.left
    );
}

tests![
    each_taken_over_driver_is_left_with_its_reason,
    a_guest_that_nothing_has_changed_loses_all_of_it,
    any_mixture_of_changes_stays_and_the_rest_goes,
    a_driver_without_its_staged_copy_is_left,
    markers_of_the_job_go_and_those_of_others_stay,
];
