//! Plans the full registration of each package.

use std::collections::{BTreeSet, HashSet};

use super::driver_store::store_files;
use super::earlier::{self, package_name};
use super::oem_number::{mark_oem, oem_name};
use super::records::{Form, Names, Origin, records};
use super::services::{copy_system_files, protect_files, register_services};
use crate::drivers::{Category, Package};
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::windows::guest_paths;
use crate::windows::options::InjectOptions;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{Action, DriverDatabaseRecord, Record};
use crate::windows::registration::driver_database::{self, ROOT};
use crate::windows::registration::driver_file::dotted;
use crate::windows::registration::service::start_at_boot;
use crate::windows::registration::{device_ids, minimal};
use crate::windows::registry;

/// The classes whose packages this guest keeps in its SYSTEM hive. Windows keeps there what plug and play may need
/// before user mode runs; all other packages are in DRIVERS. The guest's own packages tell which classes those are.
fn boot_classes(builder: &PlanBuilder<'_>) -> Result<HashSet<Vec<u8>>> {
    let hive = builder.hive(GuestHive::System)?;
    let packages = format!("{ROOT}\\DriverPackages");
    let mut out = HashSet::new();
    for package in registry::subkey_names(hive, &packages)? {
        let version = registry::get_value(hive, &format!("{packages}\\{package}"), "Version")?;
        out.extend(version.and_then(|data| data.bytes.get(8..24).map(<[u8]>::to_vec)));
    }
    Ok(out)
}

/// Whether the guest has a hive for packages that are not needed for booting.
fn has_drivers_hive(builder: &PlanBuilder<'_>) -> Result<bool> {
    Ok(builder.has_hive(GuestHive::Drivers) && registry::find_key(builder.hive(GuestHive::Drivers)?, ROOT)?.is_some())
}

/// Plans the full registration of every package that has an INF for this guest: those of the classes that are needed
/// early in SYSTEM, the rest in DRIVERS.
///
/// # Errors
/// When the volume or a hive is damaged, or the media cannot be read.
pub(crate) fn register(
    builder: &mut PlanBuilder<'_>,
    packages: &[Package],
    options: &InjectOptions,
    record: &mut Record,
) -> Result<()> {
    let mut taken = BTreeSet::new();
    let mut map =
        registry::get_value(builder.hive(GuestHive::System)?, ROOT, "OemInfMap")?.map(|d| d.bytes).unwrap_or_default();
    let before = map.clone();
    let classes = boot_classes(builder)?;
    let has_drivers = has_drivers_hive(builder)?;
    for package in packages.iter().filter(|p| !p.inf_name.is_empty() && !p.inf.models.is_empty()) {
        if let Some(gap) = gap(package) {
            builder.add_warning(format!(
                "{}: not registered, as {gap}: Windows would not install it either; it is only staged",
                package.stage_name
            ));
            continue;
        }
        let is_early = package.category == Category::Storage || classes.contains(package.inf.class_guid.0.as_slice());
        if !is_early && !has_drivers {
            builder.add_note(format!(
                "{}: the guest has no DRIVERS hive; the first-boot job installs it",
                package.stage_name
            ));
            continue;
        }
        let hive = if is_early { GuestHive::System } else { GuestHive::Drivers };
        if keeps_own(builder, package, hive, options, record)? {
            continue;
        }
        let number = register_package(builder, package, hive, &mut taken, record)?;
        map = mark_oem(&map, number);
    }
    if map != before {
        builder.set_reason("the numbers of third-party INFs that are in use");
    }
    if !taken.is_empty() {
        builder.set_value(GuestHive::System, ROOT, "OemInfMap", RegistryData::binary(map))?;
    }
    Ok(())
}

/// What a package lacks so that Windows refuses to install it. A boot driver is registered in the minimal form already: its
/// own file is there, and its signature is the policy's matter.
fn gap(package: &Package) -> Option<String> {
    if package.boot.is_some() {
        return None;
    }
    let missing = package.missing_files();
    if !missing.is_empty() {
        return Some(format!("the media lack {}, which its INF copies", missing.join(", ")));
    }
    if package.signature.present {
        return None;
    }
    Some(package.signature.problem.clone().unwrap_or_else(|| "it has no catalogue".to_owned()))
}

/// Whether the guest keeps what it has: its own package serves the devices already, or is newer.
fn keeps_own(
    builder: &mut PlanBuilder<'_>,
    package: &Package,
    hive: GuestHive,
    options: &InjectOptions,
    record: &mut Record,
) -> Result<bool> {
    let name = package_name(package, builder.guest.arch);
    if let Some(boot) = package.boot.as_ref().filter(|_| package.category == Category::Storage) {
        // the guest's own driver was kept: it has got the small records already
        if record.files_copied.iter().any(|f| f.action == Action::Kept && f.service.as_ref() == Some(&boot.service)) {
            return Ok(true);
        }
        if is_newer_there(builder, package, hive, options)? {
            return Ok(true);
        }
        // a package from an earlier run is not the guest's own: it is replaced
        if !earlier::earlier(builder, package)?.is_empty() {
            return Ok(false);
        }
        // the forms without a subsystem are winject's addition: the ids of the INF decide
        let ids = device_ids::boot_ids(&package.inf, boot);
        let (free, kept) = driver_database::split(builder, &ids, "", &name)?;
        let known: Vec<&str> = package.inf.hardware_ids().into_iter().chain(package.inf.compatible_ids()).collect();
        if kept.is_empty() || free.iter().any(|id| known.iter().any(|k| k.eq_ignore_ascii_case(&id.id))) {
            return Ok(false);
        }
        builder.add_note(format!("{}: the guest's own package serves all its devices", package.stage_name));
        let services: BTreeSet<String> = kept.into_iter().map(|(_, service)| service).collect();
        for service in services {
            start_at_boot(builder, &service, "the guest's own driver serves this controller", record)?;
        }
        return Ok(true);
    }
    is_newer_there(builder, package, hive, options)
}

/// Whether the guest has a package of the same INF that makes the media's needless.
fn is_newer_there(
    builder: &mut PlanBuilder<'_>,
    package: &Package,
    hive: GuestHive,
    options: &InjectOptions,
) -> Result<bool> {
    if options.force {
        return Ok(false);
    }
    let is_storage = package.category == Category::Storage;
    match earlier::newest(builder, package, hive, !is_storage)? {
        Some((other, version)) => {
            let text = format!(
                "{}: the guest has the package {other} of version {}, the media {}; --force registers it all the same",
                package.stage_name,
                dotted(version),
                package.inf.version_text()
            );
            builder.add_note(text);
            Ok(true)
        }
        None => Ok(false),
    }
}

fn register_package(
    builder: &mut PlanBuilder<'_>,
    package: &Package,
    hive: GuestHive,
    taken: &mut BTreeSet<usize>,
    record: &mut Record,
) -> Result<usize> {
    let name = package_name(package, builder.guest.arch);
    let earlier = earlier::earlier(builder, package)?;
    let (oem, number) = oem_name(builder, &name, earlier.iter().map(|old| old.oem.clone()).collect(), taken)?;
    let names = Names { oem, package: name };
    builder.set_reason(format!("{}: driver store", package.stage_name));
    store_files(builder, package, &names)?;
    let stage = format!("{}\\{}", guest_paths::STAGE.replace('/', "\\"), package.stage_name);
    let drive = builder.guest.system_root.get(..2).unwrap_or("C:").to_owned();
    let signer = package.signature.signer.clone().filter(|_| package.signature.is_good());
    let origin = Origin { arch: builder.guest.arch, folder: format!("{drive}{stage}"), signer };
    let form = if hive == GuestHive::System { Form::Configured } else { Form::Staged };
    let records = records(&package.inf, &names, &origin, form, builder.guest.build);
    for old in &earlier {
        builder.set_reason(format!("{}: what an earlier run registered is replaced", package.stage_name));
        earlier::remove(builder, old, &names, hive, &records)?;
    }
    builder.set_reason(format!("{}: the records of an installed package", package.stage_name));
    let mut actions = Vec::new();
    for key in &records.keys {
        builder.create_key(hive, key)?;
    }
    for (key, value, data) in records.values {
        actions.push(builder.set_value(hive, &key, &value, data)?);
    }
    if form == Form::Configured {
        let is_storage = package.category == Category::Storage;
        register_services(builder, package, &names, is_storage, record)?;
        if !is_storage {
            copy_system_files(builder, package, record)?;
        }
        if package.inf.pnp_lockdown {
            protect_files(builder, package, &names)?;
        }
        minimal::remove_minimal(builder, package)?;
    }
    record.registry_changes.driver_database.push(DriverDatabaseRecord {
        hive,
        inf: names.oem,
        package: names.package,
        ids: package.inf.hardware_ids().into_iter().chain(package.inf.compatible_ids()).map(str::to_owned).collect(),
        ids_kept: Vec::new(),
        action: Action::overall(&actions),
    });
    Ok(number)
}
