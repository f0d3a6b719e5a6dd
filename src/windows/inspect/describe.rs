//! Describes one installation as a [`Guest`].

use super::guest::Guest;
use super::state::{consequences, filters, pending, policies, power, sha2_update};
use super::version::{architecture, control_sets, product_type, version};
use crate::drivers::GuestTarget;
use crate::error::{Kind, Result};
use crate::hive::Hive;
use crate::windows::first_boot::outcome::read_outcome;
use crate::windows::guest_files::GuestFiles;
use crate::windows::network::Network;
use crate::windows::registry;

pub(super) fn describe(files: &dyn GuestFiles, windows_dir: &str, system: &Hive, software: &Hive) -> Result<Guest> {
    let control_sets = control_sets(system)?;
    let current = control_sets.first().map_or_else(String::new, |set| set.name.clone());

    let mut guest = version(software, windows_dir)?;
    guest.product_type = product_type(system, &current, guest.installation_type.as_deref())?;
    guest.arch = architecture(files, system, &current, &mut guest)?;
    let target = GuestTarget::new(guest.arch, guest.major, guest.minor, guest.build, guest.is_server());
    target.release().name.clone_into(&mut guest.product);
    guest.control_sets = control_sets;
    guest.has_driver_database = registry::find_key(system, "DriverDatabase")?.is_some();
    power(system, &current, &mut guest)?;
    pending(system, software, &current, &mut guest)?;
    match files.exists(&format!("{windows_dir}/WinSxS/pending.xml")) {
        Ok(true) => guest.pending_reboots.push("servicing operations (WinSxS\\pending.xml)".to_owned()),
        Ok(false) => {}
        // a damaged folder that is not needed must not hide a Windows
        Err(error) if error.kind() == Kind::Damaged => {
            guest.warnings.push(format!("servicing operations may be pending, the folder cannot be read: {error}"));
        }
        Err(error) => return Err(error),
    }
    filters(system, &current, &mut guest)?;
    guest.device_policies = policies(software)?;
    guest.sha2_update = sha2_update(software, &guest)?;
    guest.network = Network::read(system, &current);
    guest.free_bytes = files.free_space();
    guest.first_boot = read_outcome(files, windows_dir, system, &current)?;
    consequences(&mut guest);
    Ok(guest)
}
