//! Windows' own drivers between the loader and the disk.

use super::service::{remove_start_override, start_at_boot};
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::Record;
use crate::windows::registry;

/// In-box disk controllers from which the guest may have to be started when virtio does not work.
const INBOX_CONTROLLERS: [&str; 7] = ["storahci", "stornvme", "msahci", "atapi", "intelide", "pciide", "LSI_SAS"];

/// Services between the loader and the disk. Windows writes a `StartOverride` under those that the present machine does
/// not use (`pci` on a Hyper-V guest of generation 2); the new machine needs them.
const BOOT_CHAIN: [&str; 11] =
    ["acpi", "pci", "vdrvroot", "msisadrv", "isapnp", "intelide", "partmgr", "volmgr", "volmgrx", "mountmgr", "disk"];

/// Lets the in-box controllers that are there start at boot, so that the guest also starts from an
/// emulated SATA, IDE or NVMe disk.
///
/// # Errors
/// When a hive or the volume is damaged.
pub fn keep_inbox_controllers(builder: &mut PlanBuilder<'_>, record: &mut Record) -> Result<()> {
    let current = builder.guest.current_control_set().to_owned();
    for service in INBOX_CONTROLLERS {
        let key = format!("{current}\\Services\\{service}");
        if registry::find_key(builder.hive(GuestHive::System)?, &key)?.is_none() {
            continue;
        }
        let image = builder.system_string(&key, "ImagePath")?;
        let image = image.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
        let Some(path) = builder.guest.image_path(&image) else { continue };
        if !builder.exists(&path)? {
            continue;
        }
        start_at_boot(builder, service, "kept startable, so that the guest still boots from an emulated disk", record)?;
        record.registry_changes.inbox_controllers.push(service.to_owned());
    }
    if record.registry_changes.inbox_controllers.is_empty() {
        builder.add_warning(
            "no in-box disk controller can be started at boot: the guest cannot return to SATA, IDE or NVMe",
        );
    }
    Ok(())
}

/// The drivers of the boot chain that are boot-start in every Windows since Vista.
const BOOT_START: [&str; 6] = ["acpi", "pci", "partmgr", "volmgr", "mountmgr", "disk"];

/// Whether Windows finds no disk without this service.
#[must_use]
pub fn is_in_boot_chain(service: &str) -> bool {
    BOOT_START.iter().any(|name| name.eq_ignore_ascii_case(service))
}

/// Lets the drivers of the boot chain that are there start at boot: removes their `StartOverride`, and sets the `Start` of
/// those that need it. Of the others it is not changed: what it was in the box cannot be known.
///
/// # Errors
/// When a hive is damaged.
pub fn repair_boot_chain(builder: &mut PlanBuilder<'_>, record: &mut Record) -> Result<()> {
    for set in builder.guest.control_set_names() {
        for service in BOOT_CHAIN {
            // of every service that is there, so that a second run says the same in its manifest
            let key = format!("{set}\\Services\\{service}");
            if registry::find_key(builder.hive(GuestHive::System)?, &key)?.is_some() {
                remove_start_override(builder, &set, service, record)?;
            }
            let start = registry::get_u32(builder.hive(GuestHive::System)?, &key, "Start")?;
            if is_in_boot_chain(service) && start.is_some() {
                builder.set_reason(format!("{service}: no disk is found without it, so it has to start at boot"));
                builder.replace_value(GuestHive::System, &key, "Start", Some(RegistryData::dword(0)))?;
            }
        }
    }
    Ok(())
}
