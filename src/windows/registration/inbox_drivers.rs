//! Windows' own drivers between the loader and the disk.

use super::service::{drop_start_override, start_at_boot};
use crate::error::Result;
use crate::plan::HiveFile;
use crate::windows::plan_builder::Planner;
use crate::windows::record::Record;
use crate::windows::registry;

/// In-box disk controllers from which the guest may have to be started when virtio does not work.
const WAY_BACK: [&str; 7] = ["storahci", "stornvme", "msahci", "atapi", "intelide", "pciide", "LSI_SAS"];

/// Services between the loader and the disk. Windows writes a `StartOverride` under those that the present machine does
/// not use (`pci` on a Hyper-V guest of generation 2); the new machine needs them.
const CHAIN: [&str; 11] =
    ["acpi", "pci", "vdrvroot", "msisadrv", "isapnp", "intelide", "partmgr", "volmgr", "volmgrx", "mountmgr", "disk"];

/// Keeps the way back open: the in-box controllers that are there start at boot, so that the guest also starts from an
/// emulated SATA, IDE or NVMe disk.
///
/// # Errors
/// When a hive or the volume is damaged.
pub fn way_back(planner: &mut Planner<'_>, record: &mut Record) -> Result<()> {
    let current = planner.guest.current_control_set().to_owned();
    for service in WAY_BACK {
        let key = format!("{current}\\Services\\{service}");
        if registry::find(planner.hive(HiveFile::System)?, &key)?.is_none() {
            continue;
        }
        let image = planner.system_text(&key, "ImagePath")?;
        let image = image.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
        let Some(path) = planner.guest.image_path(&image) else { continue };
        if !planner.exists(&path)? {
            continue;
        }
        start_at_boot(planner, service, "the way back to an emulated disk controller", record)?;
        record.registry_changes.way_back.push(service.to_owned());
    }
    if record.registry_changes.way_back.is_empty() {
        planner.warn("no in-box disk controller can be started at boot: there is no way back to SATA, IDE or NVMe");
    }
    Ok(())
}

/// Takes `StartOverride` away from the drivers of the boot chain that are there. Their `Start` is left alone: what it
/// was in the box cannot be known.
///
/// # Errors
/// When a hive is damaged.
pub fn free_boot_chain(planner: &mut Planner<'_>, record: &mut Record) -> Result<()> {
    for set in planner.guest.control_set_names() {
        for service in CHAIN {
            // of every service that is there, so that a second run says the same in its manifest
            let key = format!("{set}\\Services\\{service}");
            if registry::find(planner.hive(HiveFile::System)?, &key)?.is_some() {
                drop_start_override(planner, &set, service, record)?;
            }
        }
    }
    Ok(())
}
