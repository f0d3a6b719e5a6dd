//! Records of other packages for the devices of a boot driver.
//!
//! Windows ranks a signed record above one without a signer, however well the ids match ("How Windows Ranks Drivers" of
//! Microsoft's driver documentation). So a record that is left of an earlier installation wins over the minimal form; if
//! its driver cannot start, the disk has none.

use std::collections::BTreeSet;

use super::device_ids::BootId;
use super::driver_database::ROOT;
use super::service::{existing_image, start_at_boot};
use crate::drivers::BootDriver;
use crate::error::Result;
use crate::plan::GuestHive;
use crate::upcase::Fold;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::Record;
use crate::windows::registry;

/// Most ids of one device, and INFs of one id, that are followed.
const RECORDS_MAX: usize = 4096;
/// `SIGNERSCORE_UNCLASSIFIED`: scores from here on mean unsigned.
const UNSIGNED: u32 = 0x8000_0000;

/// Lets the driver of a signed foreign record start at boot, and takes the record out of the id if the driver is gone.
///
/// # Errors
/// When a hive or the volume is damaged.
pub(super) fn repair(
    builder: &mut PlanBuilder<'_>,
    boot: &BootDriver,
    ids: &[BootId],
    record: &mut Record,
) -> Result<()> {
    let mut startable = BTreeSet::new();
    for device in devices(ids) {
        for id in ids_of(builder, &device)? {
            for inf in registry::key_values(builder.hive(GuestHive::System)?, &id)?.into_iter().map(|(name, _)| name) {
                let Some(service) = signed_service(builder, &id, &inf)? else { continue };
                if service.eq_ignore_ascii_case(&boot.service) {
                    continue;
                }
                let key = format!("{}\\Services\\{service}", builder.guest.current_control_set());
                if existing_image(builder, [&key, &key])?.is_some() {
                    startable.insert(service);
                    continue;
                }
                builder.set_reason(format!("{inf} would win this id, and its service {service} has no driver"));
                builder.replace_value(GuestHive::System, &id, &inf, None)?;
                let short = id.rsplit('\\').next().unwrap_or(&id);
                builder.add_note(format!(
                    "{short}: the record of {inf} is taken out, as its service {service} has no driver any more"
                ));
            }
        }
    }
    for service in startable {
        start_at_boot(builder, &service, "its package is signed, so Windows prefers it for this controller", record)?;
    }
    Ok(())
}

/// The devices of these ids: `PCI\VEN_1AF4&DEV_1001`.
fn devices(ids: &[BootId]) -> BTreeSet<String> {
    let device = |id: &BootId| {
        let mut parts = id.id.splitn(3, '&');
        Some(format!("{}&{}", parts.next()?, parts.next()?))
    };
    ids.iter().filter_map(device).collect()
}

/// The keys of a device's ids: the device alone, or with what follows.
fn ids_of(builder: &PlanBuilder<'_>, device: &str) -> Result<Vec<String>> {
    let Some((bus, device)) = device.split_once('\\') else { return Ok(Vec::new()) };
    let key = format!("{ROOT}\\DeviceIds\\{bus}");
    let device = device.folded();
    let is_of_device = |name: &String| {
        let name = name.folded();
        name.strip_prefix(&device).is_some_and(|rest| rest.is_empty() || rest.starts_with('&'))
    };
    let names = registry::subkey_names(builder.hive(GuestHive::System)?, &key)?;
    Ok(names.into_iter().filter(is_of_device).take(RECORDS_MAX).map(|name| format!("{key}\\{name}")).collect())
}

/// The service to which a foreign INF leads for an id, if its package is whole and signed.
fn signed_service(builder: &PlanBuilder<'_>, id_key: &str, inf: &str) -> Result<Option<String>> {
    let hive = builder.hive(GuestHive::System)?;
    if inf.is_empty() || inf.to_ascii_lowercase().starts_with("h2k-") {
        return Ok(None);
    }
    let Some(package) = registry::get_string(hive, &format!("{ROOT}\\DriverInfFiles\\{inf}"), "Active")? else {
        return Ok(None);
    };
    let package = format!("{ROOT}\\DriverPackages\\{package}");
    let score = registry::get_u32(hive, &package, "SignerScore")?;
    if score.is_none_or(|score| score >= UNSIGNED) {
        return Ok(None);
    }
    let id = id_key.get(ROOT.len() + "\\DeviceIds\\".len()..).unwrap_or_default();
    let Some(name) = registry::get_string(hive, &format!("{package}\\Descriptors\\{id}"), "Configuration")? else {
        return Ok(None);
    };
    let service = registry::get_string(hive, &format!("{package}\\Configurations\\{name}"), "Service")?;
    Ok(service.filter(|service| !service.is_empty()))
}
