//! The service of a boot driver in every control set.

use crate::drivers::inf::{RegAction, RegRoot, RegValue};
use crate::drivers::{BootDriver, Package};
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{Action, Record, ServiceRecord};
use crate::windows::registry;

/// `SERVICE_BOOT_START`: the boot loader loads the driver.
const BOOT_START: u32 = 0;

/// The service's key in one control set.
pub(super) fn register_service(
    builder: &mut PlanBuilder<'_>,
    package: &Package,
    boot: &BootDriver,
    set: &str,
    install: bool,
) -> Result<Option<ServiceRecord>> {
    let system = GuestHive::System;
    let key = format!("{set}\\Services\\{}", boot.service);
    builder.set_reason(format!("{}: the service, started by the boot loader", boot.service));
    let present = registry::find_key(builder.hive(system)?, &key)?.is_some();
    let mut image = format!("system32\\drivers\\{}", boot.file_name);
    let mut actions = Vec::new();
    if !install {
        // the guest's own driver: where this control set or else the current one says, as long as its file is there
        let current = format!("{}\\Services\\{}", builder.guest.current_control_set(), boot.service);
        let Some(own) = existing_image(builder, [&key, &current])? else { return Ok(None) };
        if !present {
            actions.push(builder.set_value(system, &key, "Type", RegistryData::dword(boot.kind))?);
            actions.push(builder.set_value(system, &key, "ErrorControl", RegistryData::dword(boot.error_control))?);
            if let Some(group) = &boot.group {
                actions.push(builder.set_value(system, &key, "Group", RegistryData::sz(group))?);
            }
            actions.extend(set_parameters(builder, package, boot, &key)?);
        }
        let here = builder.system_string(&key, "ImagePath")?;
        if here.as_ref() != Some(&own) {
            actions.push(builder.set_value(system, &key, "ImagePath", RegistryData::expand_sz(&own))?);
        }
        image = own;
    } else {
        // an ImagePath that leads to the same file is as good
        let current = registry::get_value(builder.hive(system)?, &key, "ImagePath")?;
        let target = format!("{}/{}", builder.guest.drivers_dir(), boot.file_name);
        let leads_there = |data: &RegistryData| {
            let path = data.as_text().and_then(|text| builder.guest.image_path(&text));
            path.is_some_and(|path| path.eq_ignore_ascii_case(&target))
        };
        let data = current.filter(leads_there).unwrap_or_else(|| RegistryData::expand_sz(&image));
        image = data.as_text().unwrap_or(image);
        actions.push(builder.set_value(system, &key, "Type", RegistryData::dword(boot.kind))?);
        actions.push(builder.set_value(system, &key, "ErrorControl", RegistryData::dword(boot.error_control))?);
        if let Some(group) = &boot.group {
            actions.push(builder.set_value(system, &key, "Group", RegistryData::sz(group))?);
        }
        actions.push(builder.set_value(system, &key, "ImagePath", data)?);
        actions.extend(set_parameters(builder, package, boot, &key)?);
    }
    actions.push(builder.set_value(system, &key, "Start", RegistryData::dword(boot.start))?);
    Ok(Some(ServiceRecord {
        service: boot.service.clone(),
        control_set: set.to_owned(),
        kind: boot.kind,
        start: boot.start,
        group: boot.group.clone().unwrap_or_default(),
        image,
        action: Action::overall(&actions),
    }))
}

/// The first `ImagePath` of these service keys whose file is there.
pub(super) fn existing_image(builder: &PlanBuilder<'_>, keys: [&str; 2]) -> Result<Option<String>> {
    for key in keys {
        let name = key.rsplit('\\').next().unwrap_or(key);
        if registry::find_key(builder.hive(GuestHive::System)?, key)?.is_none() {
            continue;
        }
        let image = builder.system_string(key, "ImagePath")?;
        let image = image.unwrap_or_else(|| format!("System32\\drivers\\{name}.sys"));
        if let Some(path) = builder.guest.image_path(&image)
            && builder.exists(&path)?
        {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

/// What the INF puts below the service's key (`BusType` above all).
fn set_parameters(
    builder: &mut PlanBuilder<'_>,
    package: &Package,
    boot: &BootDriver,
    key: &str,
) -> Result<Vec<Action>> {
    let services = package.inf.services();
    let Some(facts) = services.into_iter().find(|s| s.name.eq_ignore_ascii_case(&boot.service)) else {
        return Ok(Vec::new());
    };
    let mut actions = Vec::new();
    for line in &facts.registry {
        actions.extend(apply_add_reg(builder, GuestHive::System, key, line)?);
    }
    Ok(actions)
}

/// One line of an `AddReg` section below a key.
pub(super) fn apply_add_reg(
    builder: &mut PlanBuilder<'_>,
    hive: GuestHive,
    base: &str,
    line: &RegValue,
) -> Result<Option<Action>> {
    if line.root != RegRoot::Relative {
        return Ok(None);
    }
    let key = if line.subkey.is_empty() { base.to_owned() } else { format!("{base}\\{}", line.subkey) };
    let present = registry::get_value(builder.hive(hive)?, &key, &line.name)?;
    match line.action {
        RegAction::KeyOnly => builder.create_key(hive, &key)?,
        RegAction::OverwriteOnly if present.is_none() => {}
        RegAction::SetIfAbsent if present.is_some() => {
            return present.map(|data| builder.set_value(hive, &key, &line.name, data)).transpose();
        }
        RegAction::Set | RegAction::SetIfAbsent | RegAction::OverwriteOnly => {
            return builder.set_value(hive, &key, &line.name, line.data.clone()).map(Some);
        }
        RegAction::Append => return append_strings(builder, hive, &key, line, present).map(Some),
        RegAction::Delete => {
            builder.remove_value(hive, &key, &line.name)?;
        }
    }
    Ok(None)
}

/// Strings added to a `REG_MULTI_SZ`, each once.
fn append_strings(
    builder: &mut PlanBuilder<'_>,
    hive: GuestHive,
    key: &str,
    line: &RegValue,
    present: Option<RegistryData>,
) -> Result<Action> {
    let mut texts = present.and_then(|data| data.as_texts()).unwrap_or_default();
    for text in line.data.as_texts().unwrap_or_default() {
        if !texts.iter().any(|t| t.eq_ignore_ascii_case(&text)) {
            texts.push(text);
        }
    }
    builder.set_value(hive, key, &line.name, RegistryData::multi_sz(&texts))
}

/// `StartOverride` holds a start type for each hardware profile and beats `Start`.
pub(super) fn remove_start_override(
    builder: &mut PlanBuilder<'_>,
    set: &str,
    service: &str,
    record: &mut Record,
) -> Result<()> {
    builder.set_reason(format!("{service}: StartOverride would keep it from starting at boot"));
    if builder.remove_key(GuestHive::System, &format!("{set}\\Services\\{service}\\StartOverride"))? {
        record.registry_changes.startoverride_removed.push(format!("{set}\\{service}"));
    }
    Ok(())
}

/// Lets a service that is there start at boot, in every control set.
pub(super) fn start_at_boot(
    builder: &mut PlanBuilder<'_>,
    service: &str,
    reason: &str,
    record: &mut Record,
) -> Result<()> {
    for set in builder.guest.control_set_names() {
        let key = format!("{set}\\Services\\{service}");
        if existing_image(builder, [&key, &key])?.is_some() {
            builder.set_reason(format!("{service}: {reason}"));
            builder.set_value(GuestHive::System, &key, "Start", RegistryData::dword(BOOT_START))?;
            remove_start_override(builder, &set, service, record)?;
        }
    }
    Ok(())
}
