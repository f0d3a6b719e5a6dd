//! The first-boot service, `DevicePath`, and certificates of publishers.

use super::edits::RegistryEdits;
use super::ledger::Ledger;
use super::manifest::Listed;
use super::usage::Usage;
use crate::drivers::trust::STORE_KEY;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::upcase::Fold;
use crate::windows::guest_paths::{SERVICE, STAGE_IN_SCRIPT};
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registry;
use crate::windows::staging::device_path::{self, remove_folders};

/// Removes the service of the first-boot job. Returns why it stays, so that its script stays, too.
///
/// # Errors
/// When the hive is damaged.
pub(super) fn remove_job_service(
    builder: &PlanBuilder<'_>,
    listed: &Listed,
    usage: &Usage,
    edits: &mut RegistryEdits,
    ledger: &mut Ledger,
) -> Result<Option<String>> {
    let hive = builder.hive(GuestHive::System)?;
    let rest = format!("Services\\{SERVICE}");
    let mut keys = Vec::new();
    let mut left = usage.services.get(&SERVICE.folded()).cloned();
    for set in &usage.sets {
        let key = format!("{set}\\{rest}");
        if let Some(id) = registry::find_key(hive, &key)? {
            let difference = listed.difference(hive, id, &listed.subtree_of_set(set, &rest))?;
            left = left.or(difference.map(|difference| format!("{difference} ({set})")));
            keys.push(key);
        }
    }
    let listed_values: Vec<usize> = listed
        .control_sets()
        .iter()
        .flat_map(|set| listed.subtree(GuestHive::System, &format!("{set}\\{rest}")).into_values())
        .flat_map(|values| values.into_values())
        .collect();
    if let Some(reason) = left.filter(|_| !keys.is_empty()) {
        ledger.leave(format!("service {SERVICE} and its script"), reason.as_str());
        listed_values.into_iter().for_each(|index| ledger.value_is_left(index));
        return Ok(Some(reason));
    }
    for key in &keys {
        edits.remove_key(GuestHive::System, key, "the service that starts the first-boot job");
    }
    if !keys.is_empty() {
        ledger.remove(format!("service {SERVICE}"));
    }
    listed_values.into_iter().for_each(|index| ledger.value_is_gone(index));
    Ok(None)
}

/// Takes winject's folders out of `DevicePath`; the rest of it stays, in its order.
///
/// # Errors
/// When the hive is damaged.
pub(super) fn shorten_device_path(builder: &mut PlanBuilder<'_>, listed: &Listed, ledger: &mut Ledger) -> Result<()> {
    let Some(index) = listed.value(GuestHive::Software, device_path::KEY, device_path::NAME) else { return Ok(()) };
    let present = registry::get_value(builder.hive(GuestHive::Software)?, device_path::KEY, device_path::NAME)?;
    let Some(present) = present else {
        ledger.value_is_gone(index);
        return Ok(());
    };
    let leave = |ledger: &mut Ledger, reason: &str| {
        ledger.leave("DevicePath", reason);
        ledger.value_is_left(index);
        Ok(())
    };
    let text = present.as_text().filter(|text| RegistryData::text(present.kind, text) == present);
    let Some(text) = text else { return leave(ledger, "it is not a plain text any more") };
    let drive = builder.guest.system_root.get(..2).unwrap_or("C:");
    let stages = [STAGE_IN_SCRIPT.to_owned(), STAGE_IN_SCRIPT.replace("%SystemDrive%", drive)];
    let new = remove_folders(&text, &stages);
    if new == text && listed.data(index) == Some(&present) {
        return leave(ledger, "it names no folder of winject's");
    }
    if new == text {
        ledger.value_is_gone(index);
        return Ok(());
    }
    if new.trim_matches([';', ' ']).is_empty() {
        return leave(ledger, "it names winject's folders only, and Windows needs one that it can look into");
    }
    builder.set_reason("DevicePath: winject's folders are taken out");
    let data = RegistryData::text(present.kind, &new);
    builder.set_value(GuestHive::Software, device_path::KEY, device_path::NAME, data)?;
    ledger.value_is_gone(index);
    ledger.remove("folders in DevicePath");
    Ok(())
}

/// Certificates that `--trust-publisher` wrote are left: they look like those that were trusted before.
pub(super) fn leave_certificates(listed: &Listed, ledger: &mut Ledger) {
    for (rest, values) in listed.subtree(GuestHive::Software, STORE_KEY) {
        let reason = "it may have been trusted before; winject reg delete IMAGE KEY --in-place removes it";
        ledger.leave(format!("trusted publisher HKLM\\SOFTWARE\\{STORE_KEY}\\{rest}"), reason);
        values.values().for_each(|index| ledger.value_is_left(*index));
    }
}
