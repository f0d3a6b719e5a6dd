//! Values of the guest's own that winject replaced get back what they held.

use super::edits::RegistryEdits;
use super::ledger::Ledger;
use super::manifest::Listed;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::value_name;
use crate::windows::network::{is_connection, is_name_taken};
use crate::windows::plan_builder::{PlanBuilder, ReplacedValue};
use crate::windows::registration::is_in_boot_chain;
use crate::windows::registry;

/// Brings back each replaced value that still holds what winject made of it.
///
/// # Errors
/// When a hive is damaged.
pub(super) fn restore(
    builder: &mut PlanBuilder<'_>,
    listed: &Listed,
    edits: &mut RegistryEdits,
    ledger: &mut Ledger,
) -> Result<()> {
    for value in &listed.replaced {
        let ReplacedValue { hive, key, name, data, before } = value;
        let what = format!("{} of {hive}\\{key}", value_name(name));
        if !builder.has_hive(*hive) || registry::find_key(builder.hive(*hive)?, key)?.is_none() {
            continue;
        }
        let found = registry::get_value(builder.hive(*hive)?, key, name)?;
        if found == *before {
            continue;
        }
        if found != *data {
            ledger.leave(what, "it has been changed since winject replaced it");
            continue;
        }
        if let Some(reason) = reason_to_stay(builder, value)? {
            ledger.leave(what, reason);
            continue;
        }
        builder.set_reason("what winject replaced of the guest's own is brought back");
        match before {
            Some(before) => {
                builder.set_value(*hive, key, name, before.clone())?;
                edits.keep_key(*hive, key);
            }
            None => drop(builder.remove_value(*hive, key, name)?),
        }
        ledger.remove(format!("winject's {what} (the guest's own is back)"));
    }
    Ok(())
}

/// Why bringing back the value would harm: a driver that is to start, or to filter again, is gone since, or another
/// connection has the name.
fn reason_to_stay(builder: &PlanBuilder<'_>, value: &ReplacedValue) -> Result<Option<String>> {
    let names: Vec<&str> = value.key.split('\\').collect();
    let (Some(set), Some(area)) = (names.first(), names.get(1)) else { return Ok(None) };
    let is = |text: &str| area.eq_ignore_ascii_case(text);
    if is_connection(&value.key)
        && let Some(name) = value.before.as_ref().and_then(RegistryData::as_text)
        && is_name_taken(builder, &value.key, &name)?
    {
        return Ok(Some(format!("another connection is called {name:?} now, and a name is one connection's only")));
    }
    let services: Vec<String> = if is("Services") && value.name.eq_ignore_ascii_case("Start") {
        // only the boot loader stops where a file is missing
        let is_boot = value.before == Some(RegistryData::dword(0));
        names
            .get(2)
            .filter(|name| is_boot || is_in_boot_chain(name))
            .map(|name| (*name).to_owned())
            .into_iter()
            .collect()
    } else if (is("Control") || is("Enum")) && value.name.to_ascii_lowercase().ends_with("filters") {
        let left = value.data.as_ref().map(RegistryData::to_texts).unwrap_or_default();
        let before = value.before.as_ref().map(RegistryData::to_texts).unwrap_or_default();
        before.into_iter().filter(|name| !left.contains(name)).collect()
    } else {
        Vec::new()
    };
    for service in services {
        if is_in_boot_chain(&service) {
            return Ok(Some("Windows finds no disk unless it starts at boot".to_owned()));
        }
        let key = format!("{set}\\Services\\{service}");
        if registry::find_key(builder.hive(value.hive)?, &key)?.is_none() {
            return Ok(Some(format!("the service {service} is gone")));
        }
        let image = builder.system_string(&key, "ImagePath")?.filter(|image| !image.is_empty());
        let image = image.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
        if let Some(path) = builder.guest.image_path(&image)
            && !builder.exists(&path)?
        {
            return Ok(Some(format!("its driver {path} is gone")));
        }
    }
    Ok(None)
}
