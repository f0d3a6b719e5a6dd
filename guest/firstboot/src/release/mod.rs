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
    registry: &mut dyn Registry,
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
fn find_pointers(registry: &dyn Registry, inf: &str) -> Result<Vec<String>, Kept> {
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
fn check_service(registry: &dyn Registry, records: &Records<'_>, has_file: &dyn Fn(&str) -> bool) -> Result<(), Kept> {
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
fn check_devices(registry: &dyn Registry, records: &Records<'_>, has_file: &dyn Fn(&str) -> bool) -> Result<(), Kept> {
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
    registry: &dyn Registry,
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
mod tests;
