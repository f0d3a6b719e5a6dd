//! When the invented records of a driver (`h2k-*`) may go, and how they go.
//!
//! The host registers a storage driver by records that belong to no package in the driver store. They are what the
//! first start boots from. Once the real package is installed they only disturb later upgrades. They are removed only
//! when the registry itself shows that the next start finds the same driver without them; in every doubt they stay.

use alloc::string::String;
use alloc::vec::Vec;

use crate::text::join;

/// Most keys that one search visits.
const KEYS_MAX: usize = 100_000;

/// The SYSTEM hive, as this rule reads it. Paths are relative to the hive's root, without a leading backslash.
pub trait Registry {
    /// Names of the keys below a key; `None` when it is missing or cannot be read.
    fn keys(&self, path: &str) -> Option<Vec<String>>;
    /// Names of a key's values.
    fn values(&self, path: &str) -> Option<Vec<String>>;
    /// A value of one or several strings.
    fn strings(&self, path: &str, value: &str) -> Option<Vec<String>>;
    /// A `REG_DWORD`.
    fn number(&self, path: &str, value: &str) -> Option<u32>;
    /// Removes a value; whether it is gone.
    fn remove_value(&mut self, path: &str, value: &str) -> bool;
    /// Removes a key with all below it; whether it is gone.
    fn remove_key(&mut self, path: &str) -> bool;
}

/// The names that a release is about.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    /// Key of the control set in use: `CurrentControlSet`, `ControlSet001`.
    pub control_set: &'a str,
    /// Name under `DriverInfFiles`, and of the values under `DeviceIds`.
    pub inf: &'a str,
    /// Name under `DriverPackages`.
    pub package: &'a str,
    /// The service that the records lead to.
    pub service: &'a str,
}

/// Why records stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// They are gone, or were never there.
    Absent,
    /// The next start may need them.
    Needed(String),
    /// They could not be removed.
    Failed(String),
}

/// Removes the records, if the next start does not need them. `has_file` tells whether a file is there, by its path
/// below the Windows folder.
///
/// # Errors
/// With the reason why they stay.
pub fn release(
    registry: &mut impl Registry,
    records: &Records<'_>,
    has_file: &dyn Fn(&str) -> bool,
) -> Result<(), Kept> {
    let inf_key = join(&["DriverDatabase\\DriverInfFiles\\", records.inf]);
    let package_key = join(&["DriverDatabase\\DriverPackages\\", records.package]);
    let pointers = find_pointers(registry, records.inf)?;
    let has_keys = [&inf_key, &package_key].map(|key| registry.values(key).is_some());
    if pointers.is_empty() && has_keys == [false, false] {
        return Err(Kept::Absent);
    }
    check_service(registry, records, has_file)?;
    check_devices(registry, records, has_file)?;
    // first what leads to the records, so that an interruption leaves no pointer to nothing
    for key in pointers {
        if !registry.remove_value(&key, records.inf) {
            return Err(Kept::Failed(join(&["cannot remove ", records.inf, " from ", &key])));
        }
    }
    for (key, is_there) in [inf_key, package_key].iter().zip(has_keys) {
        if is_there && !registry.remove_key(key) {
            return Err(Kept::Failed(join(&["cannot remove ", key])));
        }
    }
    Ok(())
}

fn needed<T>(parts: &[&str]) -> Result<T, Kept> {
    Err(Kept::Needed(join(parts)))
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// The keys below `DeviceIds` that have a value named after the INF.
fn find_pointers(registry: &impl Registry, inf: &str) -> Result<Vec<String>, Kept> {
    let mut found = Vec::new();
    let mut todo: Vec<(String, u32)> = Vec::from([(String::from("DriverDatabase\\DeviceIds"), 0)]);
    let mut visited = 0;
    while let Some((path, depth)) = todo.pop() {
        visited += 1;
        if visited > KEYS_MAX {
            return needed(&["the registry has too many device ids to look through"]);
        }
        if registry.values(&path).unwrap_or_default().iter().any(|value| same(value, inf)) {
            found.push(path.clone());
        }
        // an id has at most a bus and a name: PCI\VEN_1AF4&DEV_1001
        if depth < 3 {
            let below = registry.keys(&path).unwrap_or_default();
            todo.extend(below.iter().map(|name| (join(&[&path, "\\", name]), depth + 1)));
        }
    }
    Ok(found)
}

/// The service has to be able to start before the disk is readable.
fn check_service(registry: &impl Registry, records: &Records<'_>, has_file: &dyn Fn(&str) -> bool) -> Result<(), Kept> {
    let service = records.service;
    let key = join(&[records.control_set, "\\Services\\", service]);
    if registry.number(&key, "Start") != Some(0) {
        return needed(&["the service ", service, " is not started at boot"]);
    }
    let overrides = join(&[&key, "\\StartOverride"]);
    for value in registry.values(&overrides).unwrap_or_default() {
        if registry.number(&overrides, &value) != Some(0) {
            return needed(&["the service ", service, " has a StartOverride"]);
        }
    }
    let image = registry.strings(&key, "ImagePath").and_then(|image| image.into_iter().next());
    let image = image.unwrap_or_else(|| join(&["System32\\drivers\\", service, ".sys"]));
    match below_windows(&image) {
        Some(path) if has_file(path) => Ok(()),
        _ => needed(&["the driver file of ", service, " is not found: ", &image]),
    }
}

/// The part of a driver's `ImagePath` below the Windows folder.
fn below_windows(image: &str) -> Option<&str> {
    for start in ["\\SystemRoot\\", "%SystemRoot%\\"] {
        if image.get(..start.len()).is_some_and(|head| same(head, start)) {
            return image.get(start.len()..);
        }
    }
    Some(image).filter(|image| image.get(..9).is_some_and(|head| same(head, "system32\\")))
}

/// Every device of the service has to be bound to a real package, by ids that lead to it. At least one has to be there:
/// otherwise nothing proves anything, and the record may be what a later change of the bus boots from.
fn check_devices(registry: &impl Registry, records: &Records<'_>, has_file: &dyn Fn(&str) -> bool) -> Result<(), Kept> {
    let mut devices = 0;
    let mut visited = 0;
    let root = join(&[records.control_set, "\\Enum"]);
    let Some(buses) = registry.keys(&root) else { return needed(&["the list of devices cannot be read"]) };
    for bus in buses {
        let bus = join(&[&root, "\\", &bus]);
        for device in registry.keys(&bus).unwrap_or_default() {
            let device = join(&[&bus, "\\", &device]);
            for instance in registry.keys(&device).unwrap_or_default() {
                visited += 1;
                if visited > KEYS_MAX {
                    return needed(&["too many devices"]);
                }
                let instance = join(&[&device, "\\", &instance]);
                let service = registry.strings(&instance, "Service").unwrap_or_default();
                if service.first().is_some_and(|name| same(name, records.service)) {
                    check_device(registry, records, &instance, has_file)?;
                    devices += 1;
                }
            }
        }
    }
    if devices == 0 {
        return needed(&["no device is driven by ", records.service]);
    }
    Ok(())
}

fn check_device(
    registry: &impl Registry,
    records: &Records<'_>,
    device: &str,
    has_file: &dyn Fn(&str) -> bool,
) -> Result<(), Kept> {
    /// `CONFIGFLAG_REINSTALL`, `CONFIGFLAG_FAILEDINSTALL`, `CONFIGFLAG_DISABLED`
    const UNSETTLED: u32 = 0x20 | 0x40 | 0x1;
    let name = device.get(records.control_set.len() + 6..).unwrap_or(device);
    if registry.number(device, "ConfigFlags").unwrap_or(0) & UNSETTLED != 0 {
        return needed(&[name, " is not installed completely"]);
    }
    let first = |path: &str, value: &str| registry.strings(path, value).and_then(|all| all.into_iter().next());
    let Some(driver) = first(device, "Driver") else { return needed(&[name, " has no driver key"]) };
    let class = join(&[records.control_set, "\\Control\\Class\\", &driver]);
    let Some(inf) = first(&class, "InfPath") else { return needed(&[name, " names no INF"]) };
    if !is_oem_inf(&inf) {
        return needed(&[name, " is bound to ", &inf]);
    }
    if !has_file(&join(&["INF\\", &inf])) {
        return needed(&[name, " is bound to ", &inf, ", which is not in the INF folder"]);
    }
    let Some(package) = first(&join(&["DriverDatabase\\DriverInfFiles\\", &inf]), "Active") else {
        return needed(&[&inf, " has no active package"]);
    };
    let package = join(&["DriverDatabase\\DriverPackages\\", &package]);
    let mut ids = registry.strings(device, "HardwareID").unwrap_or_default();
    ids.extend(registry.strings(device, "CompatibleIDs").unwrap_or_default());
    let leads_to_service = |id: &String| {
        let pointers = registry.values(&join(&["DriverDatabase\\DeviceIds\\", id])).unwrap_or_default();
        if !pointers.iter().any(|pointer| same(pointer, &inf)) {
            return false;
        }
        let descriptor = join(&[&package, "\\Descriptors\\", id]);
        let Some(configuration) = first(&descriptor, "Configuration") else { return false };
        let service = first(&join(&[&package, "\\Configurations\\", &configuration]), "Service");
        service.is_some_and(|service| same(&service, records.service))
    };
    if !ids.iter().any(leads_to_service) {
        return needed(&["no id of ", name, " leads through ", &inf, " to ", records.service]);
    }
    Ok(())
}

/// `oemN.inf`, the name that Windows gives to an installed package.
fn is_oem_inf(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let number = name.strip_prefix("oem").and_then(|rest| rest.strip_suffix(".inf"));
    number.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Keys in lower case, each with its values.
    #[derive(Clone, PartialEq, Debug, Default)]
    struct Fake(BTreeMap<String, BTreeMap<String, Vec<String>>>);

    impl Fake {
        fn set(&mut self, path: &str, value: &str, data: &[&str]) -> &mut Self {
            let mut at = String::new();
            for name in path.split('\\') {
                if !at.is_empty() {
                    at.push('\\');
                }
                at.push_str(&name.to_ascii_lowercase());
                self.0.entry(at.clone()).or_default();
            }
            let data = data.iter().map(|&text| text.into()).collect();
            self.0.get_mut(&at).unwrap().insert(value.to_ascii_lowercase(), data);
            self
        }
    }

    impl Registry for Fake {
        fn keys(&self, path: &str) -> Option<Vec<String>> {
            let start = path.to_ascii_lowercase();
            self.0.get(&start)?;
            let below = |key: &String| key.strip_prefix(&start)?.strip_prefix('\\').map(String::from);
            Some(self.0.keys().filter_map(below).filter(|rest| !rest.contains('\\')).collect())
        }
        fn values(&self, path: &str) -> Option<Vec<String>> {
            Some(self.0.get(&path.to_ascii_lowercase())?.keys().cloned().collect())
        }
        fn strings(&self, path: &str, value: &str) -> Option<Vec<String>> {
            self.0.get(&path.to_ascii_lowercase())?.get(&value.to_ascii_lowercase()).cloned()
        }
        fn number(&self, path: &str, value: &str) -> Option<u32> {
            self.strings(path, value)?.first()?.parse().ok()
        }
        fn remove_value(&mut self, path: &str, value: &str) -> bool {
            self.0.get_mut(&path.to_ascii_lowercase()).is_some_and(|v| v.remove(&value.to_ascii_lowercase()).is_some())
        }
        fn remove_key(&mut self, path: &str) -> bool {
            let start = path.to_ascii_lowercase();
            let below = join(&[&start, "\\"]);
            self.0.retain(|key, _| *key != start && !key.starts_with(&below));
            true
        }
    }

    const ID: &str = "PCI\\VEN_1AF4&DEV_1001";
    const DEVICE: &str = "CurrentControlSet\\Enum\\PCI\\VEN_1AF4&DEV_1001\\3&1";
    const CLASS: &str = "CurrentControlSet\\Control\\Class\\{4d36e97b}\\0001";
    const SERVICE: &str = "CurrentControlSet\\Services\\viostor";
    const PACKAGE: &str = "DriverDatabase\\DriverPackages\\viostor.inf_amd64_1";
    const RECORDS: Records<'_> = Records {
        control_set: "CurrentControlSet",
        inf: "h2k-viostor.inf",
        package: "h2k-viostor.inf_amd64_0",
        service: "viostor",
    };

    fn installed() -> Fake {
        let mut fake = Fake::default();
        fake.set("DriverDatabase\\DriverInfFiles\\h2k-viostor.inf", "Active", &["h2k-viostor.inf_amd64_0"])
            .set("DriverDatabase\\DriverPackages\\h2k-viostor.inf_amd64_0\\Descriptors\\PCI", "x", &["y"])
            .set(&join(&["DriverDatabase\\DeviceIds\\", ID]), "h2k-viostor.inf", &[""])
            .set("DriverDatabase\\DeviceIds\\{4d36e97b}", "h2k-viostor.inf", &[""])
            .set(&join(&["DriverDatabase\\DeviceIds\\", ID]), "oem7.inf", &[""])
            .set("DriverDatabase\\DriverInfFiles\\oem7.inf", "Active", &["viostor.inf_amd64_1"])
            .set(&join(&[PACKAGE, "\\Descriptors\\", ID]), "Configuration", &["rhelscsi_inst"])
            .set(&join(&[PACKAGE, "\\Configurations\\rhelscsi_inst"]), "Service", &["viostor"])
            .set(SERVICE, "Start", &["0"])
            .set(SERVICE, "ImagePath", &["\\SystemRoot\\System32\\drivers\\viostor.sys"])
            .set(DEVICE, "Service", &["viostor"])
            .set(DEVICE, "HardwareID", &["PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4", ID])
            .set(DEVICE, "Driver", &["{4d36e97b}\\0001"])
            .set(CLASS, "InfPath", &["oem7.inf"]);
        fake
    }

    fn has_file(path: &str) -> bool {
        ["system32\\drivers\\viostor.sys", "inf\\oem7.inf"].contains(&path.to_ascii_lowercase().as_str())
    }

    #[test]
    fn the_records_go_when_the_real_package_has_taken_over_and_nothing_else_does() {
        let mut fake = installed();
        assert_eq!(release(&mut fake, &RECORDS, &has_file), Ok(()));
        assert!(!fake.0.iter().any(|(key, values)| key.contains("h2k-") || values.keys().any(|v| v.contains("h2k-"))));
        let mut rest = installed();
        rest.0.retain(|key, _| !key.contains("h2k-"));
        rest.0.values_mut().for_each(|values| values.retain(|name, _| !name.contains("h2k-")));
        assert_eq!(fake, rest);
        assert_eq!(release(&mut fake, &RECORDS, &has_file), Err(Kept::Absent), "a second time");
    }

    #[test]
    fn the_records_stay_untouched_when_any_link_of_the_next_start_is_missing() {
        let another = "CurrentControlSet\\Enum\\PCI\\VEN_1AF4&DEV_1042\\3&2";
        let breaks: [(&str, &dyn Fn(&mut Fake)); 14] = [
            ("bound to the invented INF", &|f| {
                let _ = f.set(CLASS, "InfPath", &["h2k-viostor.inf"]);
            }),
            ("no INF", &|f| {
                let _ = f.remove_value(CLASS, "InfPath");
            }),
            ("no driver key", &|f| {
                let _ = f.remove_value(DEVICE, "Driver");
            }),
            ("no device", &|f| {
                let _ = f.remove_key(DEVICE);
            }),
            ("a second device is not bound", &|f| {
                let _ = f.set(another, "Service", &["VIOSTOR"]);
            }),
            ("another start type", &|f| {
                let _ = f.set(SERVICE, "Start", &["3"]);
            }),
            ("an override", &|f| {
                let _ = f.set(&join(&[SERVICE, "\\StartOverride"]), "0", &["3"]);
            }),
            ("another file", &|f| {
                let _ = f.set(SERVICE, "ImagePath", &["System32\\drivers\\other.sys"]);
            }),
            ("a file elsewhere", &|f| {
                let _ = f.set(SERVICE, "ImagePath", &["\\??\\D:\\viostor.sys"]);
            }),
            ("INF not in its folder", &|f| {
                let _ = f.set(CLASS, "InfPath", &["oem8.inf"]);
            }),
            ("no active package", &|f| {
                let _ = f.remove_key("DriverDatabase\\DriverInfFiles\\oem7.inf");
            }),
            ("no pointer", &|f| {
                let _ = f.remove_value(&join(&["DriverDatabase\\DeviceIds\\", ID]), "oem7.inf");
            }),
            ("another service", &|f| {
                f.set(&join(&[PACKAGE, "\\Configurations\\rhelscsi_inst"]), "Service", &["x"]);
            }),
            ("to be installed again", &|f| {
                let _ = f.set(DEVICE, "ConfigFlags", &["32"]);
            }),
        ];
        for (what, damage) in breaks {
            let mut fake = installed();
            damage(&mut fake);
            let before = fake.clone();
            assert!(matches!(release(&mut fake, &RECORDS, &has_file), Err(Kept::Needed(_))), "{what}");
            assert_eq!(fake, before, "{what}");
        }
    }

    #[test]
    fn only_names_that_windows_gives_are_real_packages() {
        for (name, is_real) in
            [("oem1.inf", true), ("OEM12.INF", true), ("oem.inf", false), ("h2k-x.inf", false), ("oemx.inf", false)]
        {
            assert_eq!(is_oem_inf(name), is_real, "{name}");
        }
    }
}
