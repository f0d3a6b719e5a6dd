//! What the guest uses: which services, files and packages something else in it depends on.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::Listed;
use crate::error::Result;
use crate::hive::{Hive, KeyId};
use crate::plan::GuestHive;
use crate::upcase::Fold;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registration::driver_database::ROOT;
use crate::windows::registry;

/// A package in `DriverDatabase` with the services that its configurations name, in lower case.
#[derive(Debug)]
pub(super) struct KnownPackage {
    pub hive: GuestHive,
    /// Its key below `DriverPackages`.
    pub name: String,
    pub services: BTreeSet<String>,
}

/// An entry of `CriticalDeviceDatabase`.
#[derive(Debug)]
pub(super) struct CriticalDevice {
    pub set: String,
    /// Its key below `CriticalDeviceDatabase`.
    pub name: String,
    /// The service that it names, in lower case.
    pub service: String,
}

/// What the guest uses, by names in lower case.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Every control set of the hive, also those that Windows does not start from.
    pub sets: Vec<String>,
    /// All services of all control sets.
    names: BTreeSet<String>,
    /// Services that devices, filter lists and other services name, each with the first place.
    pub services: BTreeMap<String, String>,
    /// The services whose `ImagePath` leads to a file of the volume.
    pub images: BTreeMap<String, BTreeSet<String>>,
    /// All entries of `CriticalDeviceDatabase`.
    pub critical: Vec<CriticalDevice>,
    /// INFs that installed devices, each with the first device.
    pub infs: BTreeMap<String, String>,
    /// All packages of both hives.
    pub packages: Vec<KnownPackage>,
    /// The keys of `DeviceIds` that name a listed INF.
    pub ids: BTreeMap<(GuestHive, String), Vec<String>>,
}

impl Usage {
    /// Reads it from the guest's hives.
    ///
    /// # Errors
    /// When a hive is damaged.
    pub(super) fn read(builder: &PlanBuilder<'_>, listed: &Listed) -> Result<Self> {
        let mut out = Self::default();
        let system = builder.hive(GuestHive::System)?;
        for (name, set) in children(system, system.root())? {
            if is_control_set(&name) {
                out.read_services(builder, system, set, &name)?;
                out.read_critical_devices(system, set, &name)?;
                out.read_devices(system, set, &name)?;
                out.read_classes(system, set, &name)?;
                out.sets.push(name);
            }
        }
        let infs = listed_infs(listed);
        for file in [GuestHive::System, GuestHive::Drivers].into_iter().filter(|file| builder.has_hive(*file)) {
            let hive = builder.hive(file)?;
            if let Some(root) = registry::find_key(hive, ROOT)? {
                out.read_packages(file, hive, root)?;
                out.read_ids(file, hive, root, &infs)?;
            }
        }
        Ok(out)
    }

    /// Whether a control set has a service of this name in lower case.
    pub(super) fn has_service(&self, lower: &str) -> bool {
        self.names.contains(lower)
    }

    fn name_service(&mut self, service: &str, place: impl FnOnce() -> String) {
        self.services.entry(service.folded()).or_insert_with(place);
    }

    fn read_services(&mut self, builder: &PlanBuilder<'_>, hive: &Hive, set: KeyId, name: &str) -> Result<()> {
        for (service, key) in children_of(hive, set, "Services")? {
            self.names.insert(service.folded());
            let image = hive.value(key, "ImagePath")?.and_then(|data| data.as_text()).filter(|text| !text.is_empty());
            let image = image.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
            if let Some(path) = builder.guest.image_path(&image) {
                self.images.entry(path.folded()).or_default().insert(service.folded());
            }
            for other in texts(hive, key, "DependOnService")? {
                self.name_service(&other, || format!("the service {service} in {name} depends on it"));
            }
        }
        Ok(())
    }

    fn read_critical_devices(&mut self, hive: &Hive, set: KeyId, name: &str) -> Result<()> {
        for (device, key) in children_of(hive, set, "Control\\CriticalDeviceDatabase")? {
            let service = hive.value(key, "Service")?.and_then(|data| data.as_text()).unwrap_or_default().folded();
            self.critical.push(CriticalDevice { set: name.to_owned(), name: device, service });
        }
        Ok(())
    }

    /// The devices that plug and play knows: enumerator, device, instance.
    fn read_devices(&mut self, hive: &Hive, set: KeyId, name: &str) -> Result<()> {
        for (bus, key) in children_of(hive, set, "Enum")? {
            for (device, key) in children(hive, key)? {
                for (instance, key) in children(hive, key)? {
                    let place = || format!("a device is bound to it: {name}\\Enum\\{bus}\\{device}\\{instance}");
                    for value in ["Service", "UpperFilters", "LowerFilters"] {
                        for service in texts(hive, key, value)? {
                            self.name_service(&service, place);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The device classes: their filters, and the INFs of their devices.
    fn read_classes(&mut self, hive: &Hive, set: KeyId, name: &str) -> Result<()> {
        for (class, key) in children_of(hive, set, "Control\\Class")? {
            for value in ["UpperFilters", "LowerFilters"] {
                for service in texts(hive, key, value)? {
                    self.name_service(&service, || {
                        format!("it is a filter of a class: {name}\\Control\\Class\\{class}")
                    });
                }
            }
            for (device, key) in children(hive, key)? {
                if let Some(inf) = hive.value(key, "InfPath")?.and_then(|data| data.as_text()) {
                    let place = || format!("a device is installed by it: {name}\\Control\\Class\\{class}\\{device}");
                    self.infs.entry(inf.folded()).or_insert_with(place);
                }
            }
        }
        Ok(())
    }

    fn read_packages(&mut self, file: GuestHive, hive: &Hive, root: KeyId) -> Result<()> {
        for (name, key) in children_of(hive, root, "DriverPackages")? {
            let mut services = BTreeSet::new();
            for (_, key) in children_of(hive, key, "Configurations")? {
                let service = hive.value(key, "Service")?.and_then(|data| data.as_text());
                services.extend(service.filter(|service| !service.is_empty()).map(|service| service.folded()));
            }
            self.packages.push(KnownPackage { hive: file, name, services });
        }
        Ok(())
    }

    /// Ids have one or two levels.
    fn read_ids(&mut self, file: GuestHive, hive: &Hive, root: KeyId, infs: &BTreeSet<String>) -> Result<()> {
        let Some(top) = hive.find(root, "DeviceIds")? else { return Ok(()) };
        let mut pending = vec![(top, format!("{ROOT}\\DeviceIds"), 0)];
        while let Some((key, path, depth)) = pending.pop() {
            for value in hive.values(key)? {
                let inf = value.name.to_string().folded();
                if infs.contains(&inf) {
                    self.ids.entry((file, inf)).or_default().push(path.clone());
                }
            }
            if depth < 2 {
                pending.extend(
                    children(hive, key)?.into_iter().map(|(name, sub)| (sub, format!("{path}\\{name}"), depth + 1)),
                );
            }
        }
        Ok(())
    }
}

/// The INFs whose records are listed, in lower case.
fn listed_infs(listed: &Listed) -> BTreeSet<String> {
    let files = format!("{ROOT}\\driverinffiles\\").folded();
    let keys = listed.values.iter().map(|value| value.key.folded());
    keys.filter_map(|key| key.strip_prefix(&files).map(str::to_owned)).filter(|inf| !inf.contains('\\')).collect()
}

/// Whether this is the name of a control set: `ControlSet001`.
fn is_control_set(name: &str) -> bool {
    let number = name.to_ascii_lowercase().strip_prefix("controlset").map(str::to_owned);
    number.is_some_and(|number| number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn texts(hive: &Hive, key: KeyId, name: &str) -> Result<Vec<String>> {
    Ok(hive.value(key, name)?.map(|data| data.to_texts()).unwrap_or_default())
}

/// The subkeys of a key with their names.
fn children(hive: &Hive, key: KeyId) -> Result<Vec<(String, KeyId)>> {
    hive.subkeys(key)?.into_iter().map(|sub| Ok((hive.key_name(sub)?.to_string(), sub))).collect()
}

/// The subkeys of the key at this path below `key`; none if it does not exist.
fn children_of(hive: &Hive, key: KeyId, path: &str) -> Result<Vec<(String, KeyId)>> {
    hive.find(key, path)?.map_or(Ok(Vec::new()), |found| children(hive, found))
}
