//! The minimal registration: the smallest set of records in `DriverDatabase` that makes the kernel's plug and play bind
//! a driver. The first-boot job installs the package properly later.

use super::device_ids::{self, BootId};
use super::driver_database::{Keys, ROOT, parse_version, split, version_record};
use crate::clock::FileTime;
use crate::drivers::{Arch, BootDriver, Package};
use crate::error::{Error, Layer, Result};
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{Action, DriverDatabaseRecord};
use crate::windows::registry;

/// The name of an invented package. It must look like a folder of the driver store, or tools of the running guest
/// refuse the whole list; the number is a hash of the INF there, and a constant is accepted.
#[must_use]
pub fn package_name(inf: &str, arch: Arch) -> String {
    format!("{inf}_{}_{:016x}", arch.store_name(), 0)
}

/// A name for our INF that no other package of the guest has.
fn own_inf_name(builder: &PlanBuilder<'_>, service: &str) -> Result<String> {
    let hive = builder.hive(GuestHive::System)?;
    let stem: String =
        service.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    for number in 1..100 {
        let name = if number == 1 { format!("h2k-{stem}.inf") } else { format!("h2k-{stem}-{number}.inf") };
        let key = format!("{ROOT}\\DriverInfFiles\\{name}");
        let active = registry::get_string(hive, &key, "Active")?;
        let is_ours =
            active.is_some_and(|package| package.eq_ignore_ascii_case(&package_name(&name, builder.guest.arch)));
        if is_ours || registry::find_key(hive, &key)?.is_none() {
            return Ok(name);
        }
    }
    Err(Error::bug(Layer::Windows, format!("no free name for the INF of {service}")))
}

/// What an earlier run of ours registered for a service: date and version.
///
/// # Errors
/// When the hive is damaged there.
pub fn registered_version(builder: &PlanBuilder<'_>, service: &str) -> Result<Option<(FileTime, [u16; 4])>> {
    let inf = own_inf_name(builder, service)?;
    let keys = Keys::new(&inf, &package_name(&inf, builder.guest.arch));
    let data = registry::get_value(builder.hive(GuestHive::System)?, &keys.package, "Version")?;
    Ok(data.and_then(|data| parse_version(&data.bytes)))
}

/// Plans the minimal records for a boot driver. Ids that another active package serves are left to it; its service is
/// returned so that the caller can see to its start type. Where the guest keeps a driver that is there already
/// (`installs` is false), the record keeps a later version of that driver.
///
/// # Errors
/// When the hive is damaged.
pub fn register(
    builder: &mut PlanBuilder<'_>,
    package: &Package,
    boot: &BootDriver,
    ids: &[BootId],
    installs: bool,
) -> Result<(DriverDatabaseRecord, Vec<String>)> {
    let inf = own_inf_name(builder, &boot.service)?;
    let name = package_name(&inf, builder.guest.arch);
    let mut record = DriverDatabaseRecord {
        hive: GuestHive::System,
        inf: inf.clone(),
        package: name.clone(),
        ids: Vec::new(),
        ids_kept: Vec::new(),
        action: Action::Kept,
    };
    let (own, kept) = split(builder, ids, &inf, &name)?;
    let mut foreign_services = Vec::new();
    for (id, service) in kept {
        record.ids_kept.push(id.id.clone());
        if !foreign_services.contains(&service) {
            foreign_services.push(service);
        }
    }
    if own.is_empty() {
        return Ok((record, foreign_services));
    }
    let facts = &package.inf;
    let ours = (facts.driver_date, facts.driver_version);
    let theirs = if installs { None } else { registered_version(builder, &boot.service)? };
    let version = theirs.map_or(ours, |theirs| theirs.max(ours));
    record.action = write(builder, &inf, &name, version, boot, &own)?;
    record.ids = own.into_iter().map(|id| id.id.clone()).collect();
    Ok((record, foreign_services))
}

/// Plans the records of one INF and its package.
fn write(
    builder: &mut PlanBuilder<'_>,
    inf: &str,
    name: &str,
    version: (FileTime, [u16; 4]),
    boot: &BootDriver,
    ids: &[&BootId],
) -> Result<Action> {
    let system = GuestHive::System;
    let keys = Keys::new(inf, name);
    let mut configurations: Vec<&str> = Vec::new();
    for id in ids {
        if !configurations.contains(&id.configuration.as_str()) {
            configurations.push(&id.configuration);
        }
    }
    builder.set_reason(format!(
        "{}: DriverDatabase, where this Windows looks for drivers of unknown controllers",
        boot.service
    ));
    let version = version_record(builder.guest.arch, boot.class_guid, version.0, version.1);
    let mut actions = vec![
        builder.set_value(system, &keys.inf_files, "", RegistryData::multi_sz(&[name]))?,
        builder.set_value(system, &keys.inf_files, "Active", RegistryData::sz(name))?,
        builder.set_value(system, &keys.inf_files, "Configurations", RegistryData::multi_sz(&configurations))?,
        builder.set_value(system, &keys.package, "Version", RegistryData::binary(version))?,
    ];
    for configuration in &configurations {
        let key = format!("{}\\Configurations\\{configuration}", keys.package);
        actions.push(builder.set_value(system, &key, "ConfigFlags", RegistryData::dword(0))?);
        actions.push(builder.set_value(system, &key, "Service", RegistryData::sz(&boot.service))?);
    }
    for id in ids {
        let key = format!("{}\\Descriptors\\{}", keys.package, id.id);
        actions.push(builder.set_value(system, &key, "Configuration", RegistryData::sz(&id.configuration))?);
    }
    for id in ids {
        let key = format!("{ROOT}\\DeviceIds\\{}", id.id);
        actions.push(builder.set_value(system, &key, inf, RegistryData::binary(id.rank()))?);
    }
    Ok(Action::overall(&actions))
}

/// Removes the records of an earlier minimal registration.
pub(super) fn remove_minimal(builder: &mut PlanBuilder<'_>, package: &Package) -> Result<()> {
    let Some(boot) = &package.boot else { return Ok(()) };
    let inf = format!("h2k-{}.inf", boot.service.to_lowercase());
    let keys = Keys::new(&inf, &package_name(&inf, builder.guest.arch));
    builder.set_reason(format!("{}: the records of the minimal registration are replaced", boot.service));
    builder.remove_key(GuestHive::System, &keys.inf_files)?;
    builder.remove_key(GuestHive::System, &keys.package)?;
    for id in device_ids::boot_ids(&package.inf, boot) {
        builder.remove_value(GuestHive::System, &format!("{ROOT}\\DeviceIds\\{}", id.id), &inf)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_look_like_the_driver_store() {
        assert_eq!(package_name("h2k-viostor.inf", Arch::Amd64), "h2k-viostor.inf_amd64_0000000000000000");
        assert_eq!(package_name("h2k-vioscsi.inf", Arch::X86), "h2k-vioscsi.inf_x86_0000000000000000");
    }
}
