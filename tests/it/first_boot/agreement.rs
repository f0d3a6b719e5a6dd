//! The program's rules, which its own crate tests on the host, held against what winject writes and what real hives hold.

use std::cell::RefCell;

use winject::internals::clock::FileTime;
use winject::internals::hive::{Hive, KeyId, RegistryData};
use winject::internals::ntfs::security::Protected;
use winject_firstboot::descriptor::check_trusted;
use winject_firstboot::release::{Kept, Records, Registry, release};

use crate::support;

const NOW: FileTime = FileTime(0x01DC_0000_0000_0000);
const INF: &str = "h2k-test.inf";
const PACKAGE: &str = "h2k-test.inf_amd64_0000000000000000";

/// A SYSTEM hive as the program reads it. Every file that it asks for is there.
struct Offline {
    hive: RefCell<Hive>,
    /// How many values and keys were removed.
    removals: usize,
}

impl Offline {
    /// A real hive whose logs are lost, marked as clean.
    fn open(path: &str) -> Option<Self> {
        let mut bytes = support::corpus_bytes(path)?;
        let primary: [u8; 4] = bytes[4..8].try_into().unwrap();
        bytes[8..12].copy_from_slice(&primary);
        let sum = bytes[..508].chunks_exact(4).fold(0, |sum, w| sum ^ u32::from_le_bytes(w.try_into().unwrap()));
        bytes[508..512].copy_from_slice(&sum.to_le_bytes());
        Some(Self { hive: RefCell::new(Hive::open(bytes).unwrap()), removals: 0 })
    }

    fn find(&self, path: &str) -> Option<KeyId> {
        let hive = self.hive.borrow();
        hive.find(hive.root(), path).unwrap()
    }

    fn texts(&self, path: &str, take: impl Fn(&Hive, KeyId) -> Vec<String>) -> Option<Vec<String>> {
        Some(take(&self.hive.borrow(), self.find(path)?))
    }

    /// Every key with its values, as text.
    fn dump(&self) -> Vec<String> {
        let hive = self.hive.borrow();
        let (mut lines, mut todo) = (Vec::new(), vec![hive.root()]);
        while let Some(key) = todo.pop() {
            let path = hive.key_path(key);
            lines.push(path.clone());
            for value in hive.values(key).unwrap() {
                lines.push(format!("{path} {:?} {:?}", String::from_utf16_lossy(value.name.units()), value.data.bytes));
            }
            todo.extend(hive.subkeys(key).unwrap());
        }
        lines.sort();
        lines
    }

    /// Adds the records that winject invents for one id, as its minimal form does.
    fn invent(&self, id: &str, service: &str) {
        let mut hive = self.hive.borrow_mut();
        let root = hive.root();
        let package = format!("DriverDatabase\\DriverPackages\\{PACKAGE}");
        for (path, value, data) in [
            (format!("DriverDatabase\\DriverInfFiles\\{INF}"), "Active", RegistryData::sz(PACKAGE)),
            (package.clone(), "", RegistryData::sz(INF)),
            (format!("{package}\\Configurations\\winject"), "Service", RegistryData::sz(service)),
            (format!("{package}\\Descriptors\\{id}"), "Configuration", RegistryData::sz("winject")),
            (format!("DriverDatabase\\DeviceIds\\{id}"), INF, RegistryData::binary([1, 0xff, 0, 0])),
        ] {
            let key = hive.create_key(root, &path, NOW).unwrap();
            hive.set_value(key, value, &data, NOW).unwrap();
        }
    }
}

impl Registry for Offline {
    fn keys(&self, path: &str) -> Option<Vec<String>> {
        self.texts(path, |hive, key| {
            let keys = hive.subkeys(key).unwrap();
            keys.iter().map(|&key| String::from_utf16_lossy(hive.key_name(key).unwrap().units())).collect()
        })
    }
    fn values(&self, path: &str) -> Option<Vec<String>> {
        self.texts(path, |hive, key| {
            hive.values(key).unwrap().iter().map(|value| String::from_utf16_lossy(value.name.units())).collect()
        })
    }
    fn strings(&self, path: &str, value: &str) -> Option<Vec<String>> {
        let key = self.find(path)?;
        let data = self.hive.borrow().value(key, value).unwrap()?;
        data.as_text().map(|text| vec![text]).or_else(|| data.as_texts())
    }
    fn number(&self, path: &str, value: &str) -> Option<u32> {
        let key = self.find(path)?;
        self.hive.borrow().value(key, value).unwrap()?.as_u32()
    }
    fn remove_value(&mut self, path: &str, value: &str) -> bool {
        let key = self.find(path).unwrap();
        self.removals += 1;
        self.hive.borrow_mut().delete_value(key, value, NOW).unwrap()
    }
    fn remove_key(&mut self, path: &str) -> bool {
        let key = self.find(path).unwrap();
        self.removals += 1;
        self.hive.borrow_mut().delete_key(key, NOW).unwrap();
        true
    }
}

/// For every service that a real Windows starts at boot: invented records for it go exactly when its devices are bound
/// to a package of the driver store, and the rest of the hive is as it was.
fn records_go_only_for_services_whose_devices_have_a_real_package() {
    // 10: the one third-party package that a boot-start device is bound to. 8.1 has such a device too, VBoxGuest, but its
    // package has no descriptors in the registry: nothing shows that the next start would find the driver by them.
    let hives = [("hives/win10-1909/SYSTEM.xz", vec!["vmci"]), ("hives/win8.1/SYSTEM.xz", vec![])];
    for (path, expected) in hives {
        let Some(mut hive) = Offline::open(path) else { return };
        let set = "ControlSet001";
        let services = hive.keys(&format!("{set}\\Services")).unwrap();
        let is_boot = |name: &String| hive.number(&format!("{set}\\Services\\{name}"), "Start") == Some(0);
        let services: Vec<String> = services.into_iter().filter(is_boot).collect();
        assert!(services.len() > 20, "{path}: {}", services.len());
        let id = "PCI\\VEN_1AF4&DEV_1001";
        let take_back = |hive: &mut Offline| {
            hive.remove_key(&format!("DriverDatabase\\DriverInfFiles\\{INF}"));
            hive.remove_key(&format!("DriverDatabase\\DriverPackages\\{PACKAGE}"));
            hive.remove_value(&format!("DriverDatabase\\DeviceIds\\{id}"), INF);
        };
        // the key of the id stays: it is the hive's own from here on
        hive.invent(id, "first");
        take_back(&mut hive);
        let before = hive.dump();
        let mut released = Vec::new();
        for service in &services {
            hive.invent(id, service);
            hive.removals = 0;
            let records = Records { control_set: set, inf: INF, package: PACKAGE, service };
            match release(&mut hive, &records, &|_| true) {
                Ok(()) => {
                    assert_eq!(hive.removals, 3, "{path}, {service}");
                    assert!(hive.dump() == before, "{path}, {service}: something else has changed");
                    released.push(service.clone());
                }
                Err(Kept::Needed(_)) => {
                    assert_eq!(hive.removals, 0, "{path}, {service}: records that stay are not touched");
                    take_back(&mut hive);
                }
                Err(kept) => panic!("{path}, {service}: {kept:?}"),
            }
        }
        assert_eq!(released, expected, "{path}");
    }
}

/// What the host protects, the program trusts: otherwise it would refuse the INFs of an administrator.
fn the_descriptors_that_winject_writes_are_trusted() {
    for kind in [Protected::Top, Protected::Directory, Protected::File] {
        assert_eq!(check_trusted(&kind.descriptor(), &[]), Ok(()), "{kind:?}");
    }
}

tests![records_go_only_for_services_whose_devices_have_a_real_package, the_descriptors_that_winject_writes_are_trusted,];
