//! `DriverDatabase`, where Windows 8 and later find the driver of a controller that they have never seen before the
//! system volume is mounted.
//!
//! It lies at the root of the SYSTEM hive, next to the control sets. The smallest set of records that makes the kernel's
//! plug and play bind a driver is: the INF's name with its active package, the package with its version and one
//! configuration, and for each device id a pointer to the INF and one to the configuration.

use super::device_ids::BootId;
use crate::clock::FileTime;
use crate::drivers::Arch;
use crate::drivers::inf::Guid;
use crate::error::Result;
use crate::plan::GuestHive;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registry;

/// The key, from the root of the hive.
pub const ROOT: &str = "DriverDatabase";

/// Length of a package's `Version`.
const VERSION_LENGTH: usize = 48;

/// First build that ignores packages without a `Version` (Windows 10).
const BUILD_VERSION: u32 = 10240;

/// The first two bytes of `Version` of a package that did not come with Windows.
const VERSION_THIRD_PARTY: [u8; 2] = [0x00, 0xff];

/// The number of a CPU in `Version`, and in `Architecture` of the database: `PROCESSOR_ARCHITECTURE_…` of `winnt.h`. All
/// amd64 hives at hand have 9, and Microsoft's own example for 32-bit ARM 5.
const fn processor_number(arch: Arch) -> u16 {
    match arch {
        Arch::X86 => 0,
        Arch::Amd64 => 9,
        Arch::Arm64 => 12,
    }
}

/// What is wrong with the CPU that the guest's database names; `None` where it is that of the kernel, or not named.
///
/// # Errors
/// When the hive is damaged there.
pub(crate) fn architecture_problem(builder: &PlanBuilder<'_>) -> Result<Option<String>> {
    let expected = processor_number(builder.guest.arch);
    let found = registry::get_u32(builder.hive(GuestHive::System)?, ROOT, "Architecture")?;
    Ok(found.filter(|found| *found != u32::from(expected)).map(|found| {
        format!(
            "DriverDatabase is for the CPU number {found}, the kernel for {} ({expected}); packages are registered for the \
             kernel",
            builder.guest.arch
        )
    }))
}

/// The 48 bytes of a package's `Version`: origin, CPU, class, `DriverVer`'s date, its four numbers with the last first, zero.
/// Windows 10 and later ignore a package without it.
#[must_use]
pub fn version_record(arch: Arch, class: Guid, date: FileTime, version: [u16; 4]) -> [u8; 48] {
    let mut out = [0; 48];
    out[..2].copy_from_slice(&VERSION_THIRD_PARTY);
    out[2..4].copy_from_slice(&processor_number(arch).to_le_bytes());
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

/// The keys of one package.
pub(crate) struct Keys {
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

/// The service of the INF that serves an id already: active, with its package, service and file in place.
pub(crate) fn foreign_binding(
    builder: &PlanBuilder<'_>,
    id: &str,
    ours: &str,
    own_package: &str,
) -> Result<Option<String>> {
    let hive = builder.hive(GuestHive::System)?;
    for (inf, _) in registry::key_values(hive, &format!("{ROOT}\\DeviceIds\\{id}"))? {
        if inf.is_empty() || inf.eq_ignore_ascii_case(ours) {
            continue;
        }
        let Some(package) = registry::get_string(hive, &format!("{ROOT}\\DriverInfFiles\\{inf}"), "Active")? else {
            continue;
        };
        // what an earlier run of ours registered, in either form
        if package.eq_ignore_ascii_case(own_package) || inf.to_ascii_lowercase().starts_with("h2k-") {
            continue;
        }
        let package = format!("{ROOT}\\DriverPackages\\{package}");
        // Windows 10 and later ignore a package without it
        let version = registry::get_value(hive, &package, "Version")?.map_or(0, |data| data.bytes.len());
        if builder.guest.build >= BUILD_VERSION && version != VERSION_LENGTH {
            continue;
        }
        let Some(name) = registry::get_string(hive, &format!("{package}\\Descriptors\\{id}"), "Configuration")? else {
            continue;
        };
        let Some(service) = registry::get_string(hive, &format!("{package}\\Configurations\\{name}"), "Service")?
        else {
            continue;
        };
        let key = format!("{}\\Services\\{service}", builder.guest.current_control_set());
        let image = registry::get_string(hive, &key, "ImagePath")?
            .unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
        if let Some(path) = builder.guest.image_path(&image)
            && registry::find_key(hive, &key)?.is_some()
            && builder.exists(&path)?
        {
            return Ok(Some(service));
        }
    }
    Ok(None)
}

/// Ids that are ours to bind, and those that another package's service has.
type SplitIds<'i> = (Vec<&'i BootId>, Vec<(&'i BootId, String)>);

/// Splits ids into those that are free for `ours` and those that another active package serves, with the services of
/// those packages. `package` is our own package, whatever its INF is called.
pub(super) fn split<'i>(
    builder: &PlanBuilder<'_>,
    ids: &'i [BootId],
    ours: &str,
    package: &str,
) -> Result<SplitIds<'i>> {
    let (mut own, mut kept) = (Vec::new(), Vec::new());
    for id in ids {
        match foreign_binding(builder, &id.id, ours, package)? {
            Some(service) => kept.push((id, service)),
            None => own.push(id),
        }
    }
    Ok((own, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_record_byte_for_byte() {
        // vioscsi, 08/30/2021, 100.85.104.20800: the bytes from 24 on are a published test vector
        let record = version_record(
            Arch::Amd64,
            Guid::SCSI_ADAPTER,
            FileTime::from_date(2021, 8, 30).unwrap(),
            [100, 85, 104, 20800],
        );
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
        let record = crate::hex::encode(&version_record(Arch::Amd64, Guid::SCSI_ADAPTER, date, [1, 3, 15, 0]));
        assert_eq!(record, hex);
    }

    #[test]
    fn the_version_record_names_the_cpu() {
        let header = |arch| {
            let record = version_record(arch, Guid::SCSI_ADAPTER, FileTime(0), [0; 4]);
            <[u8; 8]>::try_from(&record[..8]).unwrap()
        };
        assert_eq!(header(Arch::X86), [0x00, 0xff, 0x00, 0x00, 0, 0, 0, 0]);
        assert_eq!(header(Arch::Amd64), [0x00, 0xff, 0x09, 0x00, 0, 0, 0, 0]);
        assert_eq!(header(Arch::Arm64), [0x00, 0xff, 0x0c, 0x00, 0, 0, 0, 0]);
    }
}
