//! The service of a boot driver in every control set.

use crate::drivers::inf::{RegAction, RegRoot, RegValue};
use crate::drivers::{BootDriver, Package};
use crate::error::Result;
use crate::plan::{HiveFile, RegData};
use crate::windows::plan_builder::Planner;
use crate::windows::record::{Action, Record, ServiceRecord};
use crate::windows::registry;

/// `SERVICE_BOOT_START`.
const BOOT_START: u32 = 0;

/// The service's key in one control set.
pub(super) fn service(
    planner: &mut Planner<'_>,
    package: &Package,
    boot: &BootDriver,
    set: &str,
    install: bool,
) -> Result<Option<ServiceRecord>> {
    let system = HiveFile::System;
    let key = format!("{set}\\Services\\{}", boot.service);
    planner.because(format!("{}: the service, started by the boot loader", boot.service));
    let present = registry::find(planner.hive(system)?, &key)?.is_some();
    let mut image = format!("system32\\drivers\\{}", boot.file_name);
    let mut actions = Vec::new();
    if !install {
        // the guest's own driver: where this control set or else the current one says, as long as its file is there
        let current = format!("{}\\Services\\{}", planner.guest.current_control_set(), boot.service);
        let Some(own) = living_image(planner, [&key, &current])? else { return Ok(None) };
        if !present {
            actions.push(planner.value(system, &key, "Type", RegData::dword(boot.kind))?);
            actions.push(planner.value(system, &key, "ErrorControl", RegData::dword(boot.error_control))?);
            if let Some(group) = &boot.group {
                actions.push(planner.value(system, &key, "Group", RegData::sz(group))?);
            }
            actions.extend(parameters(planner, package, boot, &key)?);
        }
        let here = planner.system_text(&key, "ImagePath")?;
        if here.as_ref() != Some(&own) {
            actions.push(planner.value(system, &key, "ImagePath", RegData::expand_sz(&own))?);
        }
        image = own;
    } else {
        // an ImagePath that leads to the same file is as good
        let current = registry::get(planner.hive(system)?, &key, "ImagePath")?;
        let target = format!("{}/{}", planner.guest.drivers_dir(), boot.file_name);
        let leads_there = |data: &RegData| {
            let path = data.as_text().and_then(|text| planner.guest.image_path(&text));
            path.is_some_and(|path| path.eq_ignore_ascii_case(&target))
        };
        let data = current.filter(leads_there).unwrap_or_else(|| RegData::expand_sz(&image));
        image = data.as_text().unwrap_or(image);
        actions.push(planner.value(system, &key, "Type", RegData::dword(boot.kind))?);
        actions.push(planner.value(system, &key, "ErrorControl", RegData::dword(boot.error_control))?);
        if let Some(group) = &boot.group {
            actions.push(planner.value(system, &key, "Group", RegData::sz(group))?);
        }
        actions.push(planner.value(system, &key, "ImagePath", data)?);
        actions.extend(parameters(planner, package, boot, &key)?);
    }
    actions.push(planner.value(system, &key, "Start", RegData::dword(boot.start))?);
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
pub(super) fn living_image(planner: &Planner<'_>, keys: [&str; 2]) -> Result<Option<String>> {
    for key in keys {
        let name = key.rsplit('\\').next().unwrap_or(key);
        if registry::find(planner.hive(HiveFile::System)?, key)?.is_none() {
            continue;
        }
        let image = planner.system_text(key, "ImagePath")?;
        let image = image.unwrap_or_else(|| format!("System32\\drivers\\{name}.sys"));
        if let Some(path) = planner.guest.image_path(&image)
            && planner.exists(&path)?
        {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

/// What the INF puts below the service's key (`BusType` above all).
fn parameters(planner: &mut Planner<'_>, package: &Package, boot: &BootDriver, key: &str) -> Result<Vec<Action>> {
    let services = package.inf.services();
    let Some(facts) = services.into_iter().find(|s| s.name.eq_ignore_ascii_case(&boot.service)) else {
        return Ok(Vec::new());
    };
    let mut actions = Vec::new();
    for line in &facts.registry {
        actions.extend(add_reg(planner, HiveFile::System, key, line)?);
    }
    Ok(actions)
}

/// One line of an `AddReg` section below a key.
pub(super) fn add_reg(
    planner: &mut Planner<'_>,
    hive: HiveFile,
    base: &str,
    line: &RegValue,
) -> Result<Option<Action>> {
    if line.root != RegRoot::Relative {
        return Ok(None);
    }
    let key = if line.subkey.is_empty() { base.to_owned() } else { format!("{base}\\{}", line.subkey) };
    let present = registry::get(planner.hive(hive)?, &key, &line.name)?;
    match line.action {
        RegAction::KeyOnly => planner.key(hive, &key)?,
        RegAction::OverwriteOnly if present.is_none() => {}
        RegAction::SetIfAbsent if present.is_some() => {
            return present.map(|data| planner.value(hive, &key, &line.name, data)).transpose();
        }
        RegAction::Set | RegAction::SetIfAbsent | RegAction::OverwriteOnly => {
            return planner.value(hive, &key, &line.name, RegData::new(line.kind, line.data.clone())).map(Some);
        }
        RegAction::Append => return append(planner, hive, &key, line, present).map(Some),
        RegAction::Delete => {
            planner.no_value(hive, &key, &line.name)?;
        }
    }
    Ok(None)
}

/// Strings added to a `REG_MULTI_SZ`, each once.
fn append(
    planner: &mut Planner<'_>,
    hive: HiveFile,
    key: &str,
    line: &RegValue,
    present: Option<RegData>,
) -> Result<Action> {
    let mut texts = present.and_then(|data| data.as_texts()).unwrap_or_default();
    for text in RegData::new(line.kind, line.data.clone()).as_texts().unwrap_or_default() {
        if !texts.iter().any(|t| t.eq_ignore_ascii_case(&text)) {
            texts.push(text);
        }
    }
    planner.value(hive, key, &line.name, RegData::multi_sz(&texts))
}

/// `StartOverride` holds a start type for each hardware profile and beats `Start`.
pub(super) fn drop_start_override(
    planner: &mut Planner<'_>,
    set: &str,
    service: &str,
    record: &mut Record,
) -> Result<()> {
    planner.because(format!("{service}: StartOverride would keep it from starting at boot"));
    if planner.no_key(HiveFile::System, &format!("{set}\\Services\\{service}\\StartOverride"))? {
        record.registry_changes.startoverride_removed.push(format!("{set}\\{service}"));
    }
    Ok(())
}

/// Lets a service that is there start at boot, in every control set.
pub(super) fn start_at_boot(planner: &mut Planner<'_>, service: &str, reason: &str, record: &mut Record) -> Result<()> {
    for set in planner.guest.control_set_names() {
        let key = format!("{set}\\Services\\{service}");
        if living_image(planner, [&key, &key])?.is_some() {
            planner.because(format!("{service}: {reason}"));
            planner.value(HiveFile::System, &key, "Start", RegData::dword(BOOT_START))?;
            drop_start_override(planner, &set, service, record)?;
        }
    }
    Ok(())
}
