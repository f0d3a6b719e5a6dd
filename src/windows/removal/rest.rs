//! What is left of the manifest's entries after all that is winject's has been dealt with: changes to the guest's own
//! items, whose old content is not known. They stay, and each is accounted for.

use std::collections::BTreeMap;

use super::ledger::Ledger;
use super::manifest::Listed;
use super::services::{Service, service_of};
use super::usage::Usage;
use crate::error::Result;
use crate::plan::{GuestHive, value_name};
use crate::upcase::Fold;
use crate::windows::guest_paths::SERVICE;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registration::driver_database::ROOT;
use crate::windows::registry;

/// Accounts for everything that is not accounted for yet.
///
/// # Errors
/// When the guest is damaged.
pub(super) fn account_for_rest(
    builder: &PlanBuilder<'_>,
    listed: &Listed,
    usage: &Usage,
    services: &[Service],
    ledger: &mut Ledger,
) -> Result<()> {
    for index in ledger.open_files(listed) {
        let Some(file) = listed.files.get(index) else { continue };
        if builder.exists(&file.path)? {
            ledger.leave(&file.path, "nothing in the manifest shows that it is winject's alone");
            ledger.file_is_left(index);
        } else {
            ledger.file_is_gone(index);
        }
    }
    let mut changed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for index in ledger.open_values(listed) {
        let Some(value) = listed.values.get(index) else { continue };
        let is_there = builder.has_hive(value.hive)
            && registry::get_value(builder.hive(value.hive)?, &value.key, &value.name)?.as_ref() == Some(&value.data);
        if !is_there {
            ledger.value_is_gone(index);
            continue;
        }
        ledger.value_is_left(index);
        let place = match service_of(&value.key).filter(|_| value.hive == GuestHive::System) {
            Some(service) => service.to_owned(),
            None => format!("{}\\{}", value.hive, value.key),
        };
        let places = changed.entry(value_name(&value.name).to_owned()).or_default();
        if !places.contains(&place) {
            places.push(place);
        }
    }
    for (name, places) in changed {
        let what = format!("{name} of {}", places.join(", "));
        ledger.leave(what, "the guest's own, and what was there before is not known");
    }
    account_for_overrides(listed, services, ledger);
    account_for_unlisted(builder, listed, usage, ledger)
}

/// `StartOverride` of services that stay.
fn account_for_overrides(listed: &Listed, services: &[Service], ledger: &mut Ledger) {
    let goes = |name: &str| services.iter().any(|own| own.left.is_none() && own.name.eq_ignore_ascii_case(name));
    let mut names: Vec<&str> = Vec::new();
    for (hive, key) in &listed.removed_keys {
        let Some(service) = service_of(key).filter(|_| *hive == GuestHive::System) else { continue };
        if !goes(service) && !names.iter().any(|name| name.eq_ignore_ascii_case(service)) {
            names.push(service);
        }
    }
    if !names.is_empty() {
        let what = format!("StartOverride of {}", names.join(", "));
        ledger.leave(what, "winject removed it where it was there, and what it held is not known");
    }
}

/// What earlier runs may have put into the guest, and the manifest of the last one does not list.
fn account_for_unlisted(builder: &PlanBuilder<'_>, listed: &Listed, usage: &Usage, ledger: &mut Ledger) -> Result<()> {
    const REASON: &str = "the manifest does not list it: an earlier run of winject may have left it";
    let system = builder.hive(GuestHive::System)?;
    for inf in registry::subkey_names(system, &format!("{ROOT}\\DriverInfFiles"))? {
        let key = format!("{ROOT}\\DriverInfFiles\\{inf}");
        if inf.folded().starts_with("h2k-") && listed.value(GuestHive::System, &key, "").is_none() {
            ledger.leave(format!("package {inf}"), REASON);
        }
    }
    let is_listed = listed
        .control_sets()
        .into_iter()
        .any(|set| listed.value(GuestHive::System, &format!("{set}\\Services\\{SERVICE}"), "ImagePath").is_some());
    if !is_listed && usage.has_service(&SERVICE.folded()) && !ledger.left.iter().any(|left| left.what.contains(SERVICE))
    {
        ledger.leave(format!("service {SERVICE}"), REASON);
    }
    Ok(())
}
