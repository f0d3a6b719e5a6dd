//! The records that Windows itself writes when it installs a third-party package (`--registration full`): driver store,
//! `oemN.inf`, catalogue, and the whole of `DriverDatabase`.
//!
//! Which keys, values and types there are was read out of real hives; tests compare with them. What such a record says
//! about its origin is only what we know: no signer is claimed that was not found in the catalogue.

mod earlier;
mod records;

pub(super) use earlier::{is_ours, package_name};
pub use records::{Form, Names, Origin, Records, image_path, records, service_values};

use std::collections::{BTreeSet, HashSet};

use super::driver_database::{self, ROOT, overall};
use crate::drivers::inf::ServiceFacts;
use crate::drivers::{Category, Package};
use crate::error::{Error, Layer, Result};
use crate::plan::{Access, Content, HiveFile, RegData, hex};
use crate::windows::guest_paths;
use crate::windows::options::InjectOptions;
use crate::windows::plan_builder::Planner;
use crate::windows::record::{Action, DriverDatabaseRecord, FileRecord, Record, ServiceRecord};
use crate::windows::registration::boot_driver::{add_reg, dotted, file_version, like_a_driver, start_at_boot};
use crate::windows::registration::device_ids;
use crate::windows::registry;
use crate::windows::staging::packages::file_into;

/// Highest number of an `oemN.inf` that we take.
const OEM_MAX: usize = 4096;
/// The system's catalogue folder.
const CATALOGUES: &str = "CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";
/// Kernel and file-system drivers: what plug and play starts without user mode.
const DRIVER_KINDS: u32 = 3;

/// Marks number `n` in an `OemInfMap`: one bit for each number, the first one highest.
#[must_use]
pub fn mark_oem(map: &[u8], n: usize) -> Vec<u8> {
    let mut out = map.to_vec();
    if out.len() <= n / 8 {
        out.resize(n / 8 + 1, 0);
    }
    if let Some(byte) = out.get_mut(n / 8) {
        *byte |= 0x80 >> (n % 8);
    }
    out
}

/// Whether number `n` is marked.
fn is_marked(map: &[u8], n: usize) -> bool {
    map.get(n / 8).is_some_and(|byte| byte & (0x80 >> (n % 8)) != 0)
}

/// The classes whose packages this guest keeps in its SYSTEM hive. Windows keeps there what plug and play may need
/// before user mode runs; all other packages are in DRIVERS. The guest's own packages tell which classes those are.
fn boot_classes(planner: &Planner<'_>) -> Result<HashSet<Vec<u8>>> {
    let hive = planner.hive(HiveFile::System)?;
    let packages = format!("{ROOT}\\DriverPackages");
    let mut out = HashSet::new();
    for package in registry::subkeys(hive, &packages)? {
        let version = registry::get(hive, &format!("{packages}\\{package}"), "Version")?;
        out.extend(version.and_then(|data| data.bytes.get(8..24).map(<[u8]>::to_vec)));
    }
    Ok(out)
}

/// Whether the guest has a hive for packages that are not needed for booting.
fn has_drivers_hive(planner: &Planner<'_>) -> Result<bool> {
    Ok(planner.has_hive(HiveFile::Drivers) && registry::find(planner.hive(HiveFile::Drivers)?, ROOT)?.is_some())
}

/// Plans the full registration of every package that has an INF for this guest: those of the classes that are needed
/// early in SYSTEM, the rest in DRIVERS.
///
/// # Errors
/// When the volume or a hive is damaged, or the media cannot be read.
pub(in super::super) fn register(
    planner: &mut Planner<'_>,
    packages: &[Package],
    options: &InjectOptions,
    record: &mut Record,
) -> Result<()> {
    let mut taken = BTreeSet::new();
    let mut map =
        registry::get(planner.hive(HiveFile::System)?, ROOT, "OemInfMap")?.map(|d| d.bytes).unwrap_or_default();
    let before = map.clone();
    let classes = boot_classes(planner)?;
    let has_drivers = has_drivers_hive(planner)?;
    for package in packages.iter().filter(|p| !p.inf_name.is_empty() && !p.inf.models.is_empty()) {
        let is_early = package.category == Category::Storage || classes.contains(package.inf.class_guid.0.as_slice());
        if !is_early && !has_drivers {
            planner
                .note(format!("{}: the guest has no DRIVERS hive; the first-boot job installs it", package.stage_name));
            continue;
        }
        let hive = if is_early { HiveFile::System } else { HiveFile::Drivers };
        if stays(planner, package, hive, options, record)? {
            continue;
        }
        let number = one(planner, package, hive, &mut taken, record)?;
        map = mark_oem(&map, number);
    }
    if map != before {
        planner.because("the numbers of third-party INFs that are in use");
    }
    if !taken.is_empty() {
        planner.value(HiveFile::System, ROOT, "OemInfMap", RegData::binary(map))?;
    }
    Ok(())
}

/// Whether the guest keeps what it has: its own package serves the devices already, or is newer.
fn stays(
    planner: &mut Planner<'_>,
    package: &Package,
    hive: HiveFile,
    options: &InjectOptions,
    record: &mut Record,
) -> Result<bool> {
    let name = package_name(package, planner.guest.arch);
    if let Some(boot) = package.boot.as_ref().filter(|_| package.category == Category::Storage) {
        // the guest's own driver was kept: it has got the small records already
        if record.files_copied.iter().any(|f| f.action == Action::Kept && f.service.as_ref() == Some(&boot.service)) {
            return Ok(true);
        }
        if is_newer_there(planner, package, hive, options)? {
            return Ok(true);
        }
        // an earlier package of ours is no package of the guest: it is replaced
        if !earlier::earlier(planner, package)?.is_empty() {
            return Ok(false);
        }
        // the forms without a subsystem are winject's addition: the ids of the INF decide
        let ids = device_ids::boot_ids(&package.inf, boot);
        let (free, kept) = driver_database::split(planner, &ids, "", &name)?;
        let known: Vec<&str> = package.inf.hardware_ids().into_iter().chain(package.inf.compatible_ids()).collect();
        if kept.is_empty() || free.iter().any(|id| known.iter().any(|k| k.eq_ignore_ascii_case(&id.id))) {
            return Ok(false);
        }
        planner.note(format!("{}: the guest's own package serves all its devices", package.stage_name));
        let services: BTreeSet<String> = kept.into_iter().map(|(_, service)| service).collect();
        for service in services {
            start_at_boot(planner, &service, "the guest's own driver serves this controller", record)?;
        }
        return Ok(true);
    }
    is_newer_there(planner, package, hive, options)
}

/// Whether the guest has a package of the same INF that makes the media's needless.
fn is_newer_there(
    planner: &mut Planner<'_>,
    package: &Package,
    hive: HiveFile,
    options: &InjectOptions,
) -> Result<bool> {
    if options.force {
        return Ok(false);
    }
    let is_storage = package.category == Category::Storage;
    match earlier::newest(planner, package, hive, !is_storage)? {
        Some((other, version)) => {
            let text = format!(
                "{}: the guest has the package {other} of version {}, the media {}; --force registers it all the same",
                package.stage_name,
                dotted(version),
                package.inf.version_text()
            );
            planner.note(text);
            Ok(true)
        }
        None => Ok(false),
    }
}

fn one(
    planner: &mut Planner<'_>,
    package: &Package,
    hive: HiveFile,
    taken: &mut BTreeSet<usize>,
    record: &mut Record,
) -> Result<usize> {
    let name = package_name(package, planner.guest.arch);
    let earlier = earlier::earlier(planner, package)?;
    let (oem, number) = oem_name(planner, &name, &earlier, taken)?;
    let names = Names { oem, package: name };
    planner.because(format!("{}: driver store", package.stage_name));
    store_files(planner, package, &names)?;
    let stage = format!("{}\\{}", guest_paths::STAGE.replace('/', "\\"), package.stage_name);
    let drive = planner.guest.system_root.get(..2).unwrap_or("C:").to_owned();
    let signer = package.signature.signer.clone().filter(|_| package.signature.is_good());
    let origin = Origin { folder: format!("{drive}{stage}"), signer };
    let form = if hive == HiveFile::System { Form::Configured } else { Form::Staged };
    let records = records(&package.inf, &names, &origin, form, planner.guest.build);
    for old in &earlier {
        planner.because(format!("{}: what an earlier run registered is replaced", package.stage_name));
        earlier::remove(planner, old, &names, hive, &records)?;
    }
    planner.because(format!("{}: the records of an installed package", package.stage_name));
    let mut actions = Vec::new();
    for key in &records.keys {
        planner.key(hive, key)?;
    }
    for (key, value, data) in records.values {
        actions.push(planner.value(hive, &key, &value, data)?);
    }
    if form == Form::Configured {
        let is_storage = package.category == Category::Storage;
        services(planner, package, &names, is_storage, record)?;
        if !is_storage {
            system_files(planner, package, record)?;
        }
        if package.inf.pnp_lockdown {
            lockdown(planner, package, &names)?;
        }
        drop_minimal(planner, package)?;
    }
    record.registry_changes.driver_database.push(DriverDatabaseRecord {
        hive,
        inf: names.oem,
        package: names.package,
        ids: package.inf.hardware_ids().into_iter().chain(package.inf.compatible_ids()).map(str::to_owned).collect(),
        ids_kept: Vec::new(),
        action: overall(&actions),
    });
    Ok(number)
}

/// The `oemN.inf` under which a package, or an earlier version of it, was registered by us; else the first free one.
fn oem_name(
    planner: &Planner<'_>,
    package: &str,
    earlier: &[earlier::Earlier],
    taken: &mut BTreeSet<usize>,
) -> Result<(String, usize)> {
    let map = registry::get(planner.hive(HiveFile::System)?, ROOT, "OemInfMap")?.map(|d| d.bytes).unwrap_or_default();
    let hives = [HiveFile::System, HiveFile::Drivers];
    let mut known = Vec::new();
    for file in hives.into_iter().filter(|file| planner.has_hive(*file)) {
        known.extend(registry::text(planner.hive(file)?, &format!("{ROOT}\\DriverPackages\\{package}"), "")?);
    }
    known.extend(earlier.iter().map(|old| old.oem.clone()));
    for oem in known {
        if let Some(number) = earlier::oem_number(&oem).filter(|number| !taken.contains(number)) {
            taken.insert(number);
            return Ok((oem, number));
        }
    }
    for number in 0..OEM_MAX {
        let name = format!("oem{number}.inf");
        if is_marked(&map, number) || taken.contains(&number) {
            continue;
        }
        let mut is_free = !planner.exists(&format!("{}/INF/{name}", planner.guest.windows_dir))?;
        for file in hives.into_iter().filter(|file| planner.has_hive(*file)) {
            let key = format!("{ROOT}\\DriverInfFiles\\{name}");
            is_free &= registry::find(planner.hive(file)?, &key)?.is_none();
        }
        if is_free {
            taken.insert(number);
            return Ok((name, number));
        }
    }
    Err(Error::refused(Layer::Windows, "the guest has no free oemN.inf")
        .hint("remove unused driver packages in the guest with pnputil /delete-driver"))
}

/// Takes away what an earlier minimal registration of ours left.
fn drop_minimal(planner: &mut Planner<'_>, package: &Package) -> Result<()> {
    let Some(boot) = &package.boot else { return Ok(()) };
    let inf = format!("h2k-{}.inf", boot.service.to_lowercase());
    let keys = driver_database::Keys::new(&inf, &driver_database::package_name(&inf, planner.guest.arch));
    planner.because(format!("{}: the records of the minimal registration are replaced", boot.service));
    planner.no_key(HiveFile::System, &keys.inf_files)?;
    planner.no_key(HiveFile::System, &keys.package)?;
    for id in device_ids::boot_ids(&package.inf, boot) {
        planner.no_value(HiveFile::System, &format!("{ROOT}\\DeviceIds\\{}", id.id), &inf)?;
    }
    Ok(())
}

/// The package in the driver store, its INF in `INF`, its catalogue in `CatRoot`.
fn store_files(planner: &mut Planner<'_>, package: &Package, names: &Names) -> Result<Vec<Action>> {
    let windows = planner.guest.windows_dir.clone();
    let repository = format!("{windows}/System32/DriverStore/FileRepository");
    let folder = format!("{repository}/{}", names.package);
    let access = Access::Like(repository);
    planner.dir(&folder, &access)?;
    let mut actions = Vec::new();
    for file in &package.files {
        actions.push(file_into(planner, &folder, file, &access)?);
    }
    let find = |name: &str| package.files.iter().find(|file| file.name.eq_ignore_ascii_case(name));
    if let Some(inf) = find(&package.inf_name) {
        let path = format!("{windows}/INF/{}", names.oem);
        actions.push(planner.file_with(
            &path,
            inf.size,
            inf.sha256,
            &Access::Like(format!("{windows}/INF")),
            || Content::of_package(inf),
        )?);
    }
    if let Some(catalogue) = package.inf.catalog.as_deref().and_then(find) {
        let folder = format!("{windows}/System32/{CATALOGUES}");
        let access = Access::Like(format!("{windows}/System32"));
        planner.dir(&folder, &access)?;
        let path = format!("{folder}/{}", names.oem.replace(".inf", ".cat"));
        actions.push(
            planner.file_with(&path, catalogue.size, catalogue.sha256, &access, || Content::of_package(catalogue))?,
        );
    }
    Ok(actions)
}

/// `PnpLockdownFiles`: Windows protects the driver's files against others.
fn lockdown(planner: &mut Planner<'_>, package: &Package, names: &Names) -> Result<()> {
    const KEY: &str = "Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLockdownFiles";
    /// `Class` of a file, and of one that the boot loader reads.
    const LOCKDOWN: u32 = 4;
    const LOCKDOWN_BOOT: u32 = 5;
    planner.because(format!("{}: its files are protected", package.stage_name));
    for file in package.inf.installs.iter().flat_map(|install| &install.copy_files) {
        let folder = match file.destination.dirid {
            11 => "System32",
            12 => "System32/drivers",
            _ => continue,
        };
        let sub = file.destination.path.trim_matches('\\').replace('\\', "/");
        let folder = if sub.is_empty() { folder.to_owned() } else { format!("{folder}/{sub}") };
        let key = format!("{KEY}\\%SystemRoot%/{folder}/{}", file.name);
        let source = format!(
            "%SystemRoot%\\System32\\DriverStore\\FileRepository\\{}\\{}",
            names.package,
            if file.source.is_empty() { &file.name } else { &file.source }
        );
        let loads = |s: &&ServiceFacts| s.start == 0 && s.binary.file_name().eq_ignore_ascii_case(&file.name);
        let class = if package.inf.services().iter().any(loads) { LOCKDOWN_BOOT } else { LOCKDOWN };
        planner.value(HiveFile::Software, &key, "Class", RegData::dword(class))?;
        planner.value(HiveFile::Software, &key, "Owners", RegData::multi_sz(&[&names.oem]))?;
        planner.value(HiveFile::Software, &key, "Source", RegData::expand_sz(&source))?;
    }
    Ok(())
}

/// The services of the INF. Of storage drivers the start, the parameters and the file are set already: only what the
/// minimal form leaves out is added. Programs that are no drivers are installed by the running Windows.
fn services(
    planner: &mut Planner<'_>,
    package: &Package,
    names: &Names,
    is_storage: bool,
    record: &mut Record,
) -> Result<()> {
    let sets: Vec<String> = planner.guest.control_sets.iter().map(|set| set.name.clone()).collect();
    for service in package.inf.services().into_iter().filter(|service| service.kind & DRIVER_KINDS != 0) {
        for set in &sets {
            let key = format!("{set}\\Services\\{}", service.name);
            planner.because(format!("{}: what the INF says about the service", service.name));
            let mut actions = Vec::new();
            for (name, data) in service_values(service, names) {
                if !is_storage || ["ImagePath", "DisplayName", "Description", "Owners"].contains(&name) {
                    actions.push(planner.value(HiveFile::System, &key, name, data)?);
                }
            }
            if !is_storage {
                for line in &service.registry {
                    actions.extend(add_reg(planner, HiveFile::System, &key, line)?);
                }
                record.registry_changes.services.push(service_record(service, set, names, overall(&actions)));
            }
            if let Some(log) = &service.event_log {
                let key = format!("{set}\\Services\\EventLog\\{}\\{}", log.log, log.source);
                for line in &log.registry {
                    add_reg(planner, HiveFile::System, &key, line)?;
                }
            }
        }
    }
    Ok(())
}

fn service_record(service: &ServiceFacts, set: &str, names: &Names, action: Action) -> ServiceRecord {
    ServiceRecord {
        service: service.name.clone(),
        control_set: set.to_owned(),
        kind: service.kind,
        start: service.start,
        group: service.group.clone().unwrap_or_default(),
        image: image_path(service, names),
        action,
    }
}

/// The drivers' own files where their services look for them. A newer one of the guest stays.
fn system_files(planner: &mut Planner<'_>, package: &Package, record: &mut Record) -> Result<()> {
    for service in package.inf.services() {
        let is_there = service.kind & DRIVER_KINDS != 0 && service.binary.dirid == 12;
        let wanted = service.binary.file_name();
        let Some(file) = package.files.iter().find(|f| is_there && last(&f.name).eq_ignore_ascii_case(wanted)) else {
            continue;
        };
        let path = format!("{}/{}", planner.guest.drivers_dir(), service.binary.path.replace('\\', "/"));
        planner.because(format!("{}: the driver's file", service.name));
        let present = planner.read(&path)?;
        let theirs = present.as_deref().and_then(file_version);
        let is_newer = theirs.is_some() && theirs > file.read().ok().and_then(|data| file_version(&data));
        let (action, reason) = if is_newer {
            (Action::Kept, Some("the guest's is newer".to_owned()))
        } else {
            let access = like_a_driver(planner)?;
            (planner.file_with(&path, file.size, file.sha256, &access, || Content::of_package(file))?, None)
        };
        record.files_copied.push(FileRecord {
            name: file.name.clone(),
            action,
            reason,
            source: file.media_path().to_owned(),
            destination: path,
            size: file.size,
            sha256: hex(&file.sha256),
            service: Some(service.name.clone()),
        });
    }
    Ok(())
}

/// Last component of a name with `/`.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_of_oem_numbers() {
        // real hives: e0 with oem0 to oem2 in use, fffc with oem0 to oem13
        assert!(is_marked(&[0xe0], 2) && !is_marked(&[0xe0], 3));
        assert!(is_marked(&[0xff, 0xfc], 13) && !is_marked(&[0xff, 0xfc], 14));
        assert_eq!(mark_oem(&[0xe0], 3), [0xf0]);
        assert_eq!(mark_oem(&[0xff], 8), [0xff, 0x80]);
        assert_eq!(mark_oem(&[], 0), [0x80]);
    }
}
