//! Decides which drivers and packages go, and removes them.
//!
//! A driver is one unit: its service in every control set, its file, its entries in `CriticalDeviceDatabase` and its
//! packages in `DriverDatabase`. All of it goes, or all of it stays.

use std::collections::BTreeSet;

use super::edits::RegistryEdits;
use super::ledger::Ledger;
use super::manifest::Listed;
use super::packages::Package;
use super::services::Service;
use super::usage::Usage;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::upcase::Fold;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registration::driver_database::ROOT;
use crate::windows::registration::full::oem_number::{oem_number, unmark_oem};
use crate::windows::registration::full::services::LOCKDOWN_KEY;
use crate::windows::registry;

/// Settles what goes and what stays: services and packages that belong together share the decision. A minimal package
/// whose devices the guest's own packages serve goes even if the service stays. Returns the names of those packages.
///
/// # Errors
/// When the guest is damaged.
pub(super) fn decide(
    builder: &PlanBuilder<'_>,
    usage: &Usage,
    services: &mut [Service],
    packages: &mut [Package],
) -> Result<BTreeSet<String>> {
    let mut superseded = BTreeSet::new();
    for package in packages.iter().filter(|package| package.left.is_none() && package.is_minimal()) {
        if package.is_superseded(builder)? {
            superseded.insert(package.name.clone());
        }
    }
    let own = |hive: GuestHive, name: &str, packages: &[Package]| {
        packages.iter().position(|own| own.hive == hive && own.name.eq_ignore_ascii_case(name))
    };
    let mut is_settled = false;
    // Each round lets something stay, or is the last one.
    while !is_settled {
        is_settled = true;
        for service in services.iter_mut().filter(|service| service.left.is_none()) {
            let lower = service.name.folded();
            let holder = usage.packages.iter().filter(|known| known.services.contains(&lower)).find(|known| {
                let own = own(known.hive, &known.name, packages).and_then(|at| packages.get(at));
                own.is_none_or(|own| own.left.is_some() && !superseded.contains(&own.name))
            });
            if let Some(holder) = holder {
                service.left = Some(format!("the package {} of the guest installs it", holder.name));
                is_settled = false;
            }
        }
        for package in packages.iter_mut().filter(|package| package.left.is_none()) {
            if superseded.contains(&package.name) {
                continue;
            }
            // A service that is not listed as a whole is the guest's own.
            let stays = |name: &&String| match services.iter().find(|service| service.is_named(name)) {
                Some(service) => service.left.is_some(),
                None => usage.has_service(name),
            };
            if let Some(name) = package.services.iter().find(stays) {
                package.left = Some(format!("its service {name} stays"));
                is_settled = false;
            }
        }
    }
    Ok(superseded)
}

/// Removes the services that go, with all that belongs to them.
///
/// # Errors
/// When the guest is damaged.
pub(super) fn remove_services(
    builder: &mut PlanBuilder<'_>,
    listed: &Listed,
    services: &[Service],
    edits: &mut RegistryEdits,
    ledger: &mut Ledger,
) -> Result<()> {
    for service in services {
        let file = service.file.and_then(|index| Some((index, listed.files.get(index)?)));
        if let Some(reason) = &service.left {
            ledger.leave(format!("driver {}", service.name), reason.as_str());
            account_for_service(listed, service, Ledger::value_is_left, ledger);
            file.iter().for_each(|(index, _)| ledger.file_is_left(*index));
            continue;
        }
        let reason = format!("{}: the service that winject registered", service.name);
        for key in &service.keys {
            edits.remove_key(GuestHive::System, key, &reason);
        }
        let reason = format!("{}: the devices that were bound to it", service.name);
        for key in &service.critical {
            edits.remove_key(GuestHive::System, key, &reason);
        }
        account_for_service(listed, service, Ledger::value_is_gone, ledger);
        remove_event_sources(builder, listed, service, edits, ledger)?;
        if let Some((index, file)) = file {
            builder.set_reason(format!("{}: the driver file, which no service starts any more", service.name));
            builder.remove_file(&file.path)?;
            ledger.file_is_gone(index);
        }
        ledger.remove(format!("driver {}", service.name));
    }
    Ok(())
}

/// Accounts for the listed values of a service and of the devices that are bound to it, in every control set.
fn account_for_service(listed: &Listed, service: &Service, account: fn(&mut Ledger, usize), ledger: &mut Ledger) {
    for set in listed.control_sets() {
        let own = listed.subtree(GuestHive::System, &format!("{set}\\Services\\{}", service.name));
        own.values().flat_map(|values| values.values()).for_each(|index| account(ledger, *index));
        let devices = listed.subtree(GuestHive::System, &format!("{set}\\Control\\CriticalDeviceDatabase"));
        for values in devices.values() {
            let name = values.get("service").and_then(|index| listed.data(*index)).and_then(RegistryData::as_text);
            if name.is_some_and(|name| name.eq_ignore_ascii_case(&service.name)) {
                values.values().for_each(|index| account(ledger, *index));
            }
        }
    }
}

/// The sources of the event log that have the service's name.
fn remove_event_sources(
    builder: &PlanBuilder<'_>,
    listed: &Listed,
    service: &Service,
    edits: &mut RegistryEdits,
    ledger: &mut Ledger,
) -> Result<()> {
    let hive = builder.hive(GuestHive::System)?;
    for value in listed.values.iter().filter(|value| value.hive == GuestHive::System) {
        let names: Vec<&str> = value.key.split('\\').collect();
        let [_, services, event_log, _, source] = names.as_slice() else { continue };
        let is_source = services.eq_ignore_ascii_case("Services") && event_log.eq_ignore_ascii_case("EventLog");
        if !is_source || !source.eq_ignore_ascii_case(&service.name) {
            continue;
        }
        let subtree = listed.subtree(GuestHive::System, &value.key);
        let Some(id) = registry::find_key(hive, &value.key)? else { continue };
        if listed.difference(hive, id, &subtree)?.is_none() {
            edits.remove_key(GuestHive::System, &value.key, &format!("{}: its source in the event log", service.name));
            subtree.values().flat_map(|values| values.values()).for_each(|index| ledger.value_is_gone(*index));
        }
    }
    Ok(())
}

/// Removes the packages that go, with all that belongs to them. Returns their folders in the driver store.
///
/// # Errors
/// When the guest is damaged.
pub(super) fn remove_packages(
    builder: &mut PlanBuilder<'_>,
    listed: &Listed,
    packages: &[Package],
    superseded: &BTreeSet<String>,
    edits: &mut RegistryEdits,
    ledger: &mut Ledger,
) -> Result<Vec<String>> {
    let mut folders = Vec::new();
    let mut oems = BTreeSet::new();
    for package in packages {
        let what = if package.is_minimal() { &package.inf } else { &package.name };
        if let Some(reason) = &package.left {
            ledger.leave(format!("package {what}"), reason.as_str());
            account_for_package(listed, package, Ledger::value_is_left, ledger);
            package.files.iter().for_each(|index| ledger.file_is_left(*index));
            continue;
        }
        let reason = format!("{}: the records of a package that winject registered", package.inf);
        for key in &package.keys {
            edits.remove_key(package.hive, key, &reason);
        }
        for key in &package.ids {
            edits.remove_value(package.hive, key, &package.inf, &reason);
        }
        account_for_package(listed, package, Ledger::value_is_gone, ledger);
        builder.set_reason(format!("{}: the files of a package that winject registered", package.inf));
        for index in &package.files {
            let Some(file) = listed.files.get(*index) else { continue };
            builder.remove_file(&file.path)?;
            ledger.file_is_gone(*index);
        }
        folders.extend(package.folder.clone());
        if !package.is_minimal() {
            oems.insert(package.inf.folded());
        }
        if superseded.contains(&package.name) {
            ledger.remove(format!("package {what}, whose devices the guest's own package serves"));
        } else {
            ledger.remove(format!("package {what}"));
        }
    }
    release_locked_files(builder, listed, &oems, edits, ledger)?;
    unmark_numbers(builder, listed, &oems, ledger)?;
    Ok(folders)
}

fn account_for_package(listed: &Listed, package: &Package, account: fn(&mut Ledger, usize), ledger: &mut Ledger) {
    for key in &package.keys {
        let values = listed.subtree(package.hive, key);
        values.values().flat_map(|values| values.values()).for_each(|index| account(ledger, *index));
    }
    let ids = listed.subtree(package.hive, &format!("{ROOT}\\DeviceIds"));
    let named = ids.values().filter_map(|values| values.get(&package.inf.folded()));
    named.for_each(|index| account(ledger, *index));
}

/// `PnpLockdownFiles`: the entries whose only owner is a package that goes.
fn release_locked_files(
    builder: &PlanBuilder<'_>,
    listed: &Listed,
    oems: &BTreeSet<String>,
    edits: &mut RegistryEdits,
    ledger: &mut Ledger,
) -> Result<()> {
    let hive = builder.hive(GuestHive::Software)?;
    for (rest, values) in listed.subtree(GuestHive::Software, LOCKDOWN_KEY) {
        let owners = values.get("owners").and_then(|index| listed.data(*index)).and_then(RegistryData::as_texts);
        let is_ours = owners.is_some_and(|owners| owners.iter().all(|owner| oems.contains(&owner.folded())));
        let key = format!("{LOCKDOWN_KEY}\\{rest}");
        if !is_ours {
            continue;
        }
        let difference = match registry::find_key(hive, &key)? {
            Some(id) => listed.difference(hive, id, &listed.subtree(GuestHive::Software, &key))?,
            None => None,
        };
        match difference {
            None => {
                edits.remove_key(GuestHive::Software, &key, "files of the removed packages are no longer protected");
                values.values().for_each(|index| ledger.value_is_gone(*index));
            }
            Some(difference) => {
                ledger.leave(format!("SOFTWARE\\{key}"), difference);
                values.values().for_each(|index| ledger.value_is_left(*index));
            }
        }
    }
    Ok(())
}

/// `OemInfMap`: the numbers of the packages that go are free again.
fn unmark_numbers(
    builder: &mut PlanBuilder<'_>,
    listed: &Listed,
    oems: &BTreeSet<String>,
    ledger: &mut Ledger,
) -> Result<()> {
    const NAME: &str = "OemInfMap";
    let Some(index) = listed.value(GuestHive::System, ROOT, NAME) else { return Ok(()) };
    let present = registry::get_value(builder.hive(GuestHive::System)?, ROOT, NAME)?;
    let Some(present) = present else {
        ledger.value_is_gone(index);
        return Ok(());
    };
    let numbers = oems.iter().filter_map(|oem| oem_number(oem));
    // The highest number first, so that the zeros at the end go as they came.
    let map = numbers.rev().fold(present.bytes.clone(), |map, number| unmark_oem(&map, number));
    if map == present.bytes {
        return Ok(());
    }
    builder.set_reason("the numbers of the removed packages are free again");
    if map.is_empty() {
        builder.remove_value(GuestHive::System, ROOT, NAME)?;
    } else {
        builder.set_value(GuestHive::System, ROOT, NAME, RegistryData { kind: present.kind, bytes: map })?;
    }
    ledger.value_is_gone(index);
    Ok(())
}
