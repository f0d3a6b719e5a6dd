//! `DriverDatabase`, where Windows 8 and later find the driver of a controller that they have never seen before the
//! system volume is mounted.
//!
//! It lies at the root of the SYSTEM hive, beside the control sets. The smallest set of records that makes the kernel's
//! plug and play bind a driver is: the INF's name with its active package, the package with its version and one
//! configuration, and for each device id a pointer to the INF and one to the configuration.

use crate::clock::FileTime;
use crate::drivers::inf::Guid;
use crate::drivers::{Arch, BootDriver, Package};
use crate::error::{Error, Layer, Result};
use crate::plan::{HiveFile, RegData};
use crate::windows::plan_builder::Planner;
use crate::windows::record::{Action, DriverDatabaseRecord};
use crate::windows::registration::device_ids::BootId;
use crate::windows::registry;

/// The key, from the root of the hive.
pub const ROOT: &str = "DriverDatabase";

/// Length of a package's `Version`.
const VERSION_LENGTH: usize = 48;
/// First build that ignores packages without a `Version` (Windows 10).
const BUILD_VERSION: u32 = 10240;
/// The first 8 bytes of `Version`, the same in every package seen, whatever the CPU.
const VERSION_HEADER: [u8; 8] = [0x00, 0xff, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00];

/// The 48 bytes of a package's `Version`: header, class, `DriverVer`'s date, its four numbers with the last first, zero.
/// Windows 10 and later ignore a package without it.
#[must_use]
pub fn version_record(class: Guid, date: FileTime, version: [u16; 4]) -> [u8; 48] {
    let mut out = [0; 48];
    out[..8].copy_from_slice(&VERSION_HEADER);
    out[8..24].copy_from_slice(&class.0);
    out[24..32].copy_from_slice(&date.0.to_le_bytes());
    for (place, number) in out[32..40].chunks_exact_mut(2).zip(version.iter().rev()) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    out
}

/// Date and version of a `Version` record.
#[must_use]
pub fn parse_version(record: &[u8]) -> Option<(FileTime, [u16; 4])> {
    let date = u64::from_le_bytes(record.get(24..32)?.try_into().ok()?);
    let mut version = [0; 4];
    for (number, bytes) in version.iter_mut().rev().zip(record.get(32..40)?.chunks_exact(2)) {
        *number = u16::from_le_bytes([bytes[0], bytes[1]]);
    }
    Some((FileTime(date), version))
}

/// The name of an invented package. It must look like a folder of the driver store, or tools of the running guest
/// refuse the whole list; the number is a hash of the INF there, and a constant is accepted.
#[must_use]
pub fn package_name(inf: &str, arch: Arch) -> String {
    format!("{inf}_{}_{:016x}", arch.store_name(), 0)
}

/// The keys of one package.
pub(super) struct Keys {
    pub inf_files: String,
    pub package: String,
}

impl Keys {
    pub fn new(inf: &str, package: &str) -> Self {
        Self {
            inf_files: format!("{ROOT}\\DriverInfFiles\\{inf}"),
            package: format!("{ROOT}\\DriverPackages\\{package}"),
        }
    }
}

/// The INF that serves an id already: active, with its package, service and file in place.
fn foreign_binding(planner: &Planner<'_>, id: &str, ours: &str, own_package: &str) -> Result<Option<String>> {
    let hive = planner.hive(HiveFile::System)?;
    for (inf, _) in registry::values(hive, &format!("{ROOT}\\DeviceIds\\{id}"))? {
        if inf.is_empty() || inf.eq_ignore_ascii_case(ours) {
            continue;
        }
        let Some(package) = registry::text(hive, &format!("{ROOT}\\DriverInfFiles\\{inf}"), "Active")? else {
            continue;
        };
        // what an earlier run of ours registered, in either form
        if package.eq_ignore_ascii_case(own_package) || inf.to_ascii_lowercase().starts_with("h2k-") {
            continue;
        }
        let package = format!("{ROOT}\\DriverPackages\\{package}");
        // Windows 10 and later ignore a package without it
        let version = registry::get(hive, &package, "Version")?.map_or(0, |data| data.bytes.len());
        if planner.guest.build >= BUILD_VERSION && version != VERSION_LENGTH {
            continue;
        }
        let Some(name) = registry::text(hive, &format!("{package}\\Descriptors\\{id}"), "Configuration")? else {
            continue;
        };
        let Some(service) = registry::text(hive, &format!("{package}\\Configurations\\{name}"), "Service")? else {
            continue;
        };
        let key = format!("{}\\Services\\{service}", planner.guest.current_control_set());
        let image =
            registry::text(hive, &key, "ImagePath")?.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
        if let Some(path) = planner.guest.image_path(&image)
            && registry::find(hive, &key)?.is_some()
            && planner.exists(&path)?
        {
            return Ok(Some(service));
        }
    }
    Ok(None)
}

/// A name for our INF that no other package of the guest has.
fn own_inf_name(planner: &Planner<'_>, service: &str) -> Result<String> {
    let hive = planner.hive(HiveFile::System)?;
    let stem: String =
        service.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    for number in 1..100 {
        let name = if number == 1 { format!("h2k-{stem}.inf") } else { format!("h2k-{stem}-{number}.inf") };
        let key = format!("{ROOT}\\DriverInfFiles\\{name}");
        let active = registry::text(hive, &key, "Active")?;
        let is_ours =
            active.is_some_and(|package| package.eq_ignore_ascii_case(&package_name(&name, planner.guest.arch)));
        if is_ours || registry::find(hive, &key)?.is_none() {
            return Ok(name);
        }
    }
    Err(Error::bug(Layer::Windows, format!("no free name for the INF of {service}")))
}

/// What an earlier run of ours registered for a service: date and version.
///
/// # Errors
/// When the hive is damaged there.
pub fn registered_version(planner: &Planner<'_>, service: &str) -> Result<Option<(FileTime, [u16; 4])>> {
    let inf = own_inf_name(planner, service)?;
    let keys = Keys::new(&inf, &package_name(&inf, planner.guest.arch));
    let data = registry::get(planner.hive(HiveFile::System)?, &keys.package, "Version")?;
    Ok(data.and_then(|data| parse_version(&data.bytes)))
}

/// Ids that are ours to bind, and those that another package's service has.
type SplitIds<'i> = (Vec<&'i BootId>, Vec<(&'i BootId, String)>);

/// Splits ids into those that are free for `ours` and those that another active package serves, with the services of
/// those packages. `package` is our own package, whatever its INF is called.
pub(super) fn split<'i>(planner: &Planner<'_>, ids: &'i [BootId], ours: &str, package: &str) -> Result<SplitIds<'i>> {
    let (mut own, mut kept) = (Vec::new(), Vec::new());
    for id in ids {
        match foreign_binding(planner, &id.id, ours, package)? {
            Some(service) => kept.push((id, service)),
            None => own.push(id),
        }
    }
    Ok((own, kept))
}

/// Plans the minimal records for a boot driver. Ids that another active package serves are left to it; its service is
/// returned so that the caller can see to its start type. Where the guest keeps a driver that is there already
/// (`installs` is false), the record keeps a later version of that driver.
///
/// # Errors
/// When the hive is damaged.
pub fn register(
    planner: &mut Planner<'_>,
    package: &Package,
    boot: &BootDriver,
    ids: &[BootId],
    installs: bool,
) -> Result<(DriverDatabaseRecord, Vec<String>)> {
    let inf = own_inf_name(planner, &boot.service)?;
    let name = package_name(&inf, planner.guest.arch);
    let mut record = DriverDatabaseRecord {
        hive: HiveFile::System,
        inf: inf.clone(),
        package: name.clone(),
        ids: Vec::new(),
        ids_kept: Vec::new(),
        action: Action::Kept,
    };
    let (own, kept) = split(planner, ids, &inf, &name)?;
    let mut foreign_services = Vec::new();
    for (id, service) in kept {
        record.ids_kept.push(id.id.clone());
        if !foreign_services.contains(&service) {
            foreign_services.push(service);
        }
    }
    if own.is_empty() {
        return Ok((record, foreign_services));
    }
    let facts = &package.inf;
    let ours = (facts.driver_date, facts.driver_version);
    let theirs = if installs { None } else { registered_version(planner, &boot.service)? };
    let version = theirs.map_or(ours, |theirs| theirs.max(ours));
    record.action = write(planner, &inf, &name, version, boot, &own)?;
    record.ids = own.into_iter().map(|id| id.id.clone()).collect();
    Ok((record, foreign_services))
}

/// The records themselves.
fn write(
    planner: &mut Planner<'_>,
    inf: &str,
    name: &str,
    version: (FileTime, [u16; 4]),
    boot: &BootDriver,
    ids: &[&BootId],
) -> Result<Action> {
    let system = HiveFile::System;
    let keys = Keys::new(inf, name);
    let mut configurations: Vec<&str> = Vec::new();
    for id in ids {
        if !configurations.contains(&id.configuration.as_str()) {
            configurations.push(&id.configuration);
        }
    }
    planner.because(format!(
        "{}: DriverDatabase, where this Windows looks for drivers of unknown controllers",
        boot.service
    ));
    let version = version_record(boot.class_guid, version.0, version.1);
    let mut actions = vec![
        planner.value(system, &keys.inf_files, "", RegData::multi_sz(&[name]))?,
        planner.value(system, &keys.inf_files, "Active", RegData::sz(name))?,
        planner.value(system, &keys.inf_files, "Configurations", RegData::multi_sz(&configurations))?,
        planner.value(system, &keys.package, "Version", RegData::binary(version))?,
    ];
    for configuration in &configurations {
        let key = format!("{}\\Configurations\\{configuration}", keys.package);
        actions.push(planner.value(system, &key, "ConfigFlags", RegData::dword(0))?);
        actions.push(planner.value(system, &key, "Service", RegData::sz(&boot.service))?);
    }
    for id in ids {
        let key = format!("{}\\Descriptors\\{}", keys.package, id.id);
        actions.push(planner.value(system, &key, "Configuration", RegData::sz(&id.configuration))?);
    }
    for id in ids {
        let key = format!("{ROOT}\\DeviceIds\\{}", id.id);
        actions.push(planner.value(system, &key, inf, RegData::binary(id.rank()))?);
    }
    Ok(overall(&actions))
}

/// One word for several: all new, all right, or something in between.
#[must_use]
pub fn overall(actions: &[Action]) -> Action {
    if actions.iter().all(|a| *a == Action::Unchanged) {
        Action::Unchanged
    } else if actions.iter().all(|a| *a == Action::Created) {
        Action::Created
    } else {
        Action::Updated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCSI_ADAPTER: Guid =
        Guid([0x7b, 0xe9, 0x36, 0x4d, 0x25, 0xe3, 0xce, 0x11, 0xbf, 0xc1, 0x08, 0x00, 0x2b, 0xe1, 0x03, 0x18]);

    #[test]
    fn version_record_byte_for_byte() {
        // vioscsi, 08/30/2021, 100.85.104.20800: the bytes from 24 on are a published test vector
        let record = version_record(SCSI_ADAPTER, FileTime::from_date(2021, 8, 30).unwrap(), [100, 85, 104, 20800]);
        let expected = [
            0x00, 0xff, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00, // header
            0x7b, 0xe9, 0x36, 0x4d, 0x25, 0xe3, 0xce, 0x11, 0xbf, 0xc1, 0x08, 0x00, 0x2b, 0xe1, 0x03,
            0x18, // class
            0x00, 0x40, 0xc3, 0xf9, 0x31, 0x9d, 0xd7, 0x01, // date
            0x40, 0x51, 0x68, 0x00, 0x55, 0x00, 0x64, 0x00, // version, last number first
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        ];
        assert_eq!(record, expected);
        assert_eq!(parse_version(&record), Some((FileTime::from_date(2021, 8, 30).unwrap(), [100, 85, 104, 20800])));
    }

    #[test]
    fn version_record_of_a_real_package() {
        // what Windows 10 wrote for VMware's pvscsi.inf (class SCSIAdapter, 08/01/2019, 1.3.15.0)
        let date = FileTime(u64::from_le_bytes([0x00, 0x00, 0x3b, 0x3a, 0xc5, 0x48, 0xd5, 0x01]));
        let hex = "00ff0900000000007be9364d25e3ce11bfc108002be1031800003b3ac548d501\
                   00000f00030001000000000000000000";
        let record: String =
            version_record(SCSI_ADAPTER, date, [1, 3, 15, 0]).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(record, hex);
    }

    #[test]
    fn names_look_like_the_driver_store() {
        assert_eq!(package_name("h2k-viostor.inf", Arch::Amd64), "h2k-viostor.inf_amd64_0000000000000000");
        assert_eq!(package_name("h2k-vioscsi.inf", Arch::X86), "h2k-vioscsi.inf_x86_0000000000000000");
    }
}
