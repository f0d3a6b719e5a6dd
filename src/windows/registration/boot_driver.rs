//! Everything about one boot driver: its file, its service, and the two databases that bind devices to it.

use super::critical_devices::register_critical_devices;
use super::device_ids;
use super::driver_file::{copy_file, dotted, kept_record};
use super::foreign_records;
use super::full;
use super::minimal;
use super::service::{register_service, remove_start_override, start_at_boot};
use crate::drivers::pe::file_version;
use crate::drivers::{BootDriver, Category, Package};
use crate::error::Result;
use crate::windows::options::{InjectOptions, Registration};
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::Record;

/// Plans everything for one boot driver.
///
/// # Errors
/// When a hive or the volume is damaged.
pub fn register(
    builder: &mut PlanBuilder<'_>,
    package: &Package,
    boot: &BootDriver,
    options: &InjectOptions,
    record: &mut Record,
) -> Result<()> {
    let ids = device_ids::boot_ids(&package.inf, boot);
    let decision = decide(builder, package, boot, options)?;
    let file = format!("{}/{}", builder.guest.drivers_dir(), boot.file_name);
    match &decision {
        Decision::Install => record.files_copied.push(copy_file(builder, package, boot, &file)?),
        Decision::Keep(reason) => {
            builder.add_note(format!("{}: {reason}", boot.service));
            record.files_copied.push(kept_record(package, boot, &file, reason));
        }
    }
    let install = decision == Decision::Install;
    for set in builder.guest.control_set_names() {
        match register_service(builder, package, boot, &set, install)? {
            Some(done) => record.registry_changes.services.push(done),
            // nothing may start at boot whose file is not there
            None => {
                builder
                    .add_warning(format!("{}: {set} has no file for this service; it is left as it is", boot.service));
                continue;
            }
        }
        remove_start_override(builder, &set, &boot.service, record)?;
        if boot.critical_device_database {
            register_critical_devices(builder, boot, &ids, &set, record)?;
        }
    }
    if builder.guest.has_driver_database && is_storage(package) {
        foreign_records::repair(builder, boot, &ids, record)?;
    }
    // a driver that the guest keeps is not installed by the full form either
    let is_minimal = options.registration == Registration::Minimal || !install;
    if builder.guest.has_driver_database && is_storage(package) && is_minimal {
        let (done, foreign) = minimal::register(builder, package, boot, &ids, install)?;
        if !done.ids_kept.is_empty() {
            builder.add_note(format!(
                "{}: {} device ids are served by the guest's own package",
                boot.service,
                done.ids_kept.len()
            ));
        }
        record.registry_changes.driver_database.push(done);
        for other in foreign {
            start_at_boot(builder, &other, "the guest's own driver serves this controller", record)?;
        }
    }
    Ok(())
}

fn is_storage(package: &Package) -> bool {
    package.category == Category::Storage
}

/// Whether the media's driver is installed or the guest's own is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Install,
    Keep(String),
}

fn decide(
    builder: &PlanBuilder<'_>,
    package: &Package,
    boot: &BootDriver,
    options: &InjectOptions,
) -> Result<Decision> {
    if options.force {
        return Ok(Decision::Install);
    }
    let key = format!("{}\\Services\\{}", builder.guest.current_control_set(), boot.service);
    if let Some(image) = builder.system_string(&key, "ImagePath")?
        && let Some(path) = builder.guest.image_path(&image)
    {
        // not where an earlier full registration of ours put it
        let in_store = store_package(&path).map(|package| full::earlier::is_ours(builder, package)).transpose()?;
        if in_store == Some(false) && builder.exists(&path)? {
            return Ok(Decision::Keep("the guest has installed this driver itself".to_owned()));
        }
    }
    let file = format!("{}/{}", builder.guest.drivers_dir(), boot.file_name);
    let Some(present) = builder.read_file(&file)? else { return Ok(Decision::Install) };
    if *present == *boot.data {
        return Ok(Decision::Install);
    }
    if let (Some(theirs), Some(ours)) = (file_version(&present), boot.file_version.or_else(|| file_version(&boot.data)))
    {
        if theirs > ours {
            return Ok(Decision::Keep(format!(
                "the guest's {} is newer ({} against {}); --force replaces it",
                boot.file_name,
                dotted(theirs),
                dotted(ours)
            )));
        }
        if theirs < ours {
            return Ok(Decision::Install);
        }
    }
    if let Some((date, version)) = minimal::registered_version(builder, &boot.service)?
        && (date, version) > (package.inf.driver_date, package.inf.driver_version)
    {
        return Ok(Decision::Keep(format!(
            "the guest has driver version {}, the media {}; --force replaces it",
            dotted(version),
            package.inf.version_text()
        )));
    }
    Ok(Decision::Install)
}

/// The package in whose driver-store folder a path lies.
fn store_package(path: &str) -> Option<&str> {
    const STORE: &str = "/driverstore/filerepository/";
    let at = path.to_ascii_lowercase().find(STORE)?.checked_add(STORE.len())?;
    path.get(at..)?.split('/').next()
}
