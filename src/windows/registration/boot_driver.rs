//! Boot drivers: the file, the service, and the two databases that bind devices to it.

use super::driver_database::{self, overall};
use crate::drivers::inf::{RegAction, RegRoot, RegValue};
use crate::drivers::{BootDriver, Category, Package};
use crate::error::{Error, Kind, Layer, Result};
use crate::plan::{Access, Content, HiveFile, RegData, hex};
use crate::windows::options::{InjectOptions, Registration};
use crate::windows::plan_builder::Planner;
use crate::windows::record::{Action, CriticalDeviceRecord, FileRecord, Record, ServiceRecord};
use crate::windows::registration::device_ids::{self, BootId};
use crate::windows::registration::full;
use crate::windows::registry;
use std::sync::Arc;

/// `SERVICE_BOOT_START`.
const BOOT_START: u32 = 0;

/// In-box disk controllers from which the guest may have to be started when virtio does not work.
const WAY_BACK: [&str; 7] = ["storahci", "stornvme", "msahci", "atapi", "intelide", "pciide", "LSI_SAS"];
/// Services between the loader and the disk. Windows writes a `StartOverride` under those that the present machine does
/// not use (`pci` on a Hyper-V guest of generation 2); the new machine needs them.
const CHAIN: [&str; 11] =
    ["acpi", "pci", "vdrvroot", "msisadrv", "isapnp", "intelide", "partmgr", "volmgr", "volmgrx", "mountmgr", "disk"];

/// Plans everything for one boot driver.
///
/// # Errors
/// When a hive or the volume is damaged.
pub fn register(
    planner: &mut Planner<'_>,
    package: &Package,
    boot: &BootDriver,
    options: &InjectOptions,
    record: &mut Record,
) -> Result<()> {
    let ids = device_ids::boot_ids(&package.inf, boot);
    let decision = decide(planner, package, boot, options)?;
    let file = format!("{}/{}", planner.guest.drivers_dir(), boot.file_name);
    match &decision {
        Decision::Install => record.files_copied.push(copy(planner, package, boot, &file)?),
        Decision::Keep(reason) => {
            planner.note(format!("{}: {reason}", boot.service));
            record.files_copied.push(kept(package, boot, &file, reason));
        }
    }
    let install = decision == Decision::Install;
    for set in control_sets(planner) {
        match service(planner, package, boot, &set, install)? {
            Some(done) => record.registry_changes.services.push(done),
            // nothing may start at boot whose file is not there
            None => {
                planner.warn(format!("{}: {set} has no file for this service; it is left as it is", boot.service));
                continue;
            }
        }
        drop_start_override(planner, &set, &boot.service, record)?;
        if boot.critical_device_database {
            critical_devices(planner, boot, &ids, &set, record)?;
        }
    }
    // a driver that the guest keeps is not installed by the full form either
    let is_minimal = options.registration == Registration::Minimal || !install;
    if planner.guest.has_driver_database && is_storage(package) && is_minimal {
        let (done, foreign) = driver_database::register(planner, package, boot, &ids, install)?;
        if !done.ids_kept.is_empty() {
            planner.note(format!(
                "{}: {} device ids are served by the guest's own package",
                boot.service,
                done.ids_kept.len()
            ));
        }
        record.registry_changes.driver_database.push(done);
        for other in foreign {
            start_at_boot(planner, &other, "the guest's own driver serves this controller", record)?;
        }
    }
    Ok(())
}

fn is_storage(package: &Package) -> bool {
    package.category == Category::Storage
}

fn control_sets(planner: &Planner<'_>) -> Vec<String> {
    planner.guest.control_sets.iter().map(|set| set.name.clone()).collect()
}

/// Whether our driver goes in, or the guest's own stays.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Install,
    Keep(String),
}

fn decide(planner: &Planner<'_>, package: &Package, boot: &BootDriver, options: &InjectOptions) -> Result<Decision> {
    if options.force {
        return Ok(Decision::Install);
    }
    let key = format!("{}\\Services\\{}", planner.guest.current_control_set(), boot.service);
    if let Some(image) = planner.system_text(&key, "ImagePath")?
        && let Some(path) = planner.guest.image_path(&image)
    {
        // not where an earlier full registration of ours put it
        let in_store = store_package(&path).map(|package| full::is_ours(planner, package)).transpose()?;
        if in_store == Some(false) && planner.exists(&path)? {
            return Ok(Decision::Keep("the guest has installed this driver itself".to_owned()));
        }
    }
    let file = format!("{}/{}", planner.guest.drivers_dir(), boot.file_name);
    let Some(present) = planner.read(&file)? else { return Ok(Decision::Install) };
    if *present == *boot.data {
        return Ok(Decision::Install);
    }
    if let (Some(theirs), Some(ours)) = (file_version(&present), boot.file_version.or_else(|| file_version(&boot.data)))
    {
        if theirs > ours {
            return Ok(Decision::Keep(format!(
                "the guest's {} is newer ({} against {}); --force replaces it",
                boot.file_name,
                dotted(theirs),
                dotted(ours)
            )));
        }
        if theirs < ours {
            return Ok(Decision::Install);
        }
    }
    if let Some((date, version)) = driver_database::registered_version(planner, &boot.service)?
        && (date, version) > (package.inf.driver_date, package.inf.driver_version)
    {
        return Ok(Decision::Keep(format!(
            "the guest has driver version {}, the media {}; --force replaces it",
            dotted(version),
            package.inf.version_text()
        )));
    }
    Ok(Decision::Install)
}

/// The package in whose driver-store folder a path lies.
fn store_package(path: &str) -> Option<&str> {
    const STORE: &str = "/driverstore/filerepository/";
    let at = path.to_ascii_lowercase().find(STORE)?.checked_add(STORE.len())?;
    path.get(at..)?.split('/').next()
}

pub(super) fn dotted(version: [u16; 4]) -> String {
    version.map(|n| n.to_string()).join(".")
}

/// The version resource's `VS_FIXEDFILEINFO` (PE format, "VS_VERSIONINFO"), found by its signature.
pub(super) fn file_version(image: &[u8]) -> Option<[u16; 4]> {
    const SIGNATURE: [u8; 8] = [0xbd, 0x04, 0xef, 0xfe, 0x00, 0x00, 0x01, 0x00];
    let at = image.windows(SIGNATURE.len()).position(|w| w == SIGNATURE)?;
    let fields = image.get(at.checked_add(8)?..at.checked_add(16)?)?;
    let word = |i: usize| fields.get(i..i + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    Some([word(2)?, word(0)?, word(6)?, word(4)?])
}

fn copy(planner: &mut Planner<'_>, package: &Package, boot: &BootDriver, file: &str) -> Result<FileRecord> {
    planner.because(format!("{}: the driver file that the loader reads", boot.service));
    let access = like_a_driver(planner)?;
    let action = planner.file_with(file, boot.data.len() as u64, boot.sha256, &access, || {
        Content::hashed(Arc::clone(&boot.data), boot.sha256)
    })?;
    Ok(FileRecord {
        name: boot.file_name.clone(),
        action,
        reason: None,
        source: format!("{}/{}", package.source_path, boot.file_name),
        destination: file.to_owned(),
        size: boot.data.len() as u64,
        sha256: hex(&boot.sha256),
        service: Some(boot.service.clone()),
    })
}

fn kept(package: &Package, boot: &BootDriver, file: &str, reason: &str) -> FileRecord {
    FileRecord {
        name: boot.file_name.clone(),
        action: Action::Kept,
        reason: Some(reason.to_owned()),
        source: format!("{}/{}", package.source_path, boot.file_name),
        destination: file.to_owned(),
        size: boot.data.len() as u64,
        sha256: hex(&boot.sha256),
        service: Some(boot.service.clone()),
    }
}

/// Permissions of a driver that came with Windows; else those of the folder.
pub(super) fn like_a_driver(planner: &Planner<'_>) -> Result<Access> {
    let folder = planner.guest.drivers_dir();
    for name in ["disk.sys", "ntfs.sys", "partmgr.sys", "pci.sys"] {
        let path = format!("{folder}/{name}");
        if planner.exists(&path)? {
            return Ok(Access::Like(path));
        }
    }
    if !planner.exists(&folder)? {
        return Err(Error::new(Kind::NotWindows, Layer::Windows, "the folder for drivers is not there")
            .path(folder)
            .hint("this Windows cannot start as it is; repair it first"));
    }
    Ok(Access::Like(folder))
}

/// The service's key in one control set.
fn service(
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
        action: overall(&actions),
    }))
}

/// The first `ImagePath` of these service keys whose file is there.
fn living_image(planner: &Planner<'_>, keys: [&str; 2]) -> Result<Option<String>> {
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

fn critical_devices(
    planner: &mut Planner<'_>,
    boot: &BootDriver,
    ids: &[BootId],
    set: &str,
    record: &mut Record,
) -> Result<()> {
    planner.because(format!("{}: CriticalDeviceDatabase, where Windows up to 7 looks", boot.service));
    for id in ids {
        let name = id.critical_name();
        let key = format!("{set}\\Control\\CriticalDeviceDatabase\\{name}");
        let class = RegData::sz(&boot.class_guid.to_string());
        let actions = [
            planner.value(HiveFile::System, &key, "Service", RegData::sz(&boot.service))?,
            planner.value(HiveFile::System, &key, "ClassGUID", class)?,
        ];
        record.registry_changes.cdd.push(CriticalDeviceRecord {
            pci_id: name,
            service: boot.service.clone(),
            control_set: set.to_owned(),
            action: overall(&actions),
        });
    }
    Ok(())
}

/// `StartOverride` holds a start type for each hardware profile and beats `Start`.
fn drop_start_override(planner: &mut Planner<'_>, set: &str, service: &str, record: &mut Record) -> Result<()> {
    planner.because(format!("{service}: StartOverride would keep it from starting at boot"));
    if planner.no_key(HiveFile::System, &format!("{set}\\Services\\{service}\\StartOverride"))? {
        record.registry_changes.startoverride_removed.push(format!("{set}\\{service}"));
    }
    Ok(())
}

/// Lets a service that is there start at boot, in every control set.
pub(super) fn start_at_boot(planner: &mut Planner<'_>, service: &str, reason: &str, record: &mut Record) -> Result<()> {
    for set in control_sets(planner) {
        let key = format!("{set}\\Services\\{service}");
        if living_image(planner, [&key, &key])?.is_some() {
            planner.because(format!("{service}: {reason}"));
            planner.value(HiveFile::System, &key, "Start", RegData::dword(BOOT_START))?;
            drop_start_override(planner, &set, service, record)?;
        }
    }
    Ok(())
}

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
    for set in control_sets(planner) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_resource_is_found() {
        let mut image = vec![0x11; 100];
        image.extend([0xbd, 0x04, 0xef, 0xfe, 0x00, 0x00, 0x01, 0x00]);
        // dwFileVersionMS = 100.101, dwFileVersionLS = 104.28500
        image.extend([101, 0, 100, 0]);
        image.extend(28500u16.to_le_bytes());
        image.extend([104, 0]);
        assert_eq!(file_version(&image), Some([100, 101, 104, 28500]));
        assert_eq!(file_version(&image[..112]), None);
        assert_eq!(file_version(b"MZ"), None);
    }
}
