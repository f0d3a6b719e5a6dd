//! Frees what the new adapters need: names of connections, and addresses that ghost adapters hold.
//!
//! Windows gives a name to one connection only, and those of absent adapters count. So the former connection becomes
//! `NAME (former)`, or `NAME (former 2)` where an earlier migration has left one. Its addresses stay with it: the guest can go back to the old machine. Only adapters that were gone
//! before lose theirs, if a kept adapter has the same. `winject remove` brings all of it back.

use super::choose::KeptNetwork;
use super::read::{NET_CLASS, connection_key, ipv4_key};
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::plan::saved::{FORMER_MAX, former_connection};
use crate::upcase::Fold;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registry;

/// Longest name that still becomes one of a former connection, in characters.
const NAME_MAX: usize = 200;
/// The value with the name of a connection.
pub(super) const CONNECTION_NAME: &str = "Name";
/// The values of static IPv4 settings.
const STATIC_VALUES: [&str; 4] = ["IPAddress", "SubnetMask", "DefaultGateway", "DefaultGatewayMetric"];

/// Plans it in every control set that can be booted.
///
/// # Errors
/// When the hive is damaged.
pub(super) fn release(builder: &mut PlanBuilder<'_>, kept: &KeptNetwork) -> Result<()> {
    let sets = builder.guest.control_set_names();
    for adapter in &kept.adapters {
        if adapter.rename.is_none() || adapter.name.chars().count() > NAME_MAX {
            continue;
        }
        builder.set_reason(format!("its name is free for the new connection {:?}", adapter.name));
        for key in existing_keys(builder, &sets, |set| connection_key(set, adapter.guid))? {
            // A control set may know the connection by another name, or by none.
            let Some(own) = own_name(builder, &key)? else { continue };
            let Some(former) = free_name(builder, &key, &own)? else { continue };
            let data = RegistryData::sz(&former);
            builder.replace_value(GuestHive::System, &key, CONNECTION_NAME, Some(data))?;
        }
    }
    for (guid, label) in &kept.released {
        builder.set_reason(format!("the ghost adapter {label:?} holds an address that a kept adapter has"));
        for key in existing_keys(builder, &sets, |set| ipv4_key(set, *guid))? {
            for name in STATIC_VALUES {
                builder.replace_value(GuestHive::System, &key, name, None)?;
            }
            builder.replace_value(GuestHive::System, &key, "EnableDHCP", Some(RegistryData::dword(1)))?;
        }
    }
    Ok(())
}

/// The first name of a former connection that no other connection of the control set has; `None` if all are taken.
fn free_name(builder: &PlanBuilder<'_>, key: &str, own: &str) -> Result<Option<String>> {
    for name in (1..=FORMER_MAX).map(|number| former_connection(own, number)) {
        if !is_name_taken(builder, key, &name)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether another connection than that of `key` has this name after the plan, in the same control set.
///
/// # Errors
/// When the hive is damaged.
pub fn is_name_taken(builder: &PlanBuilder<'_>, key: &str, name: &str) -> Result<bool> {
    let Some((set, _)) = key.split_once('\\') else { return Ok(false) };
    let system = builder.hive(GuestHive::System)?;
    for adapter in registry::subkey_names(system, &format!("{set}\\Control\\Network\\{NET_CLASS}"))? {
        let other = format!("{set}\\Control\\Network\\{NET_CLASS}\\{adapter}\\Connection");
        if other.folded() == key.folded() {
            continue;
        }
        let found = builder.value_after(GuestHive::System, &other, CONNECTION_NAME)?;
        if found.as_ref().and_then(RegistryData::as_text).is_some_and(|found| found.folded() == name.folded()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether this is the key of a connection of a network adapter.
#[must_use]
pub fn is_connection(key: &str) -> bool {
    let key = key.folded();
    let names: Vec<&str> = key.split('\\').collect();
    matches!(names.as_slice(), [_, "control", "network", class, _, "connection"] if *class == NET_CLASS)
}

/// The name of a connection in one control set, before earlier runs replaced it.
fn own_name(builder: &PlanBuilder<'_>, key: &str) -> Result<Option<String>> {
    let name = match builder.earlier_replacement(GuestHive::System, key, CONNECTION_NAME)? {
        Some(value) => value.before.clone(),
        None => registry::get_value(builder.hive(GuestHive::System)?, key, CONNECTION_NAME)?,
    };
    let name = name.as_ref().and_then(RegistryData::as_text);
    Ok(name.filter(|name| !name.is_empty() && name.chars().count() <= NAME_MAX))
}

fn existing_keys(builder: &PlanBuilder<'_>, sets: &[String], key: impl Fn(&str) -> String) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for key in sets.iter().map(|set| key(set)) {
        if registry::find_key(builder.hive(GuestHive::System)?, &key)?.is_some() {
            out.push(key);
        }
    }
    Ok(out)
}
