//! Packages that an earlier run registered in full: recognised, and removed when a newer one replaces them.
//!
//! The number in our package names is the beginning of the SHA-1 of the INF in the package's folder. Windows computes
//! another number, so that a package is ours exactly if its number fits the INF that lies there.

use sha1::{Digest, Sha1};

use super::driver_store::CATALOGUES;
use super::oem_number::oem_number;
use super::records::{Names, Records};
use crate::drivers::{Arch, Package};
use crate::error::Result;
use crate::plan::GuestHive;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registration::driver_database::{ROOT, parse_version};
use crate::windows::registry;

/// How deep a driver-store folder is looked into.
const DEPTH_MAX: usize = 8;

/// A package of an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Earlier {
    pub hive: GuestHive,
    pub package: String,
    pub oem: String,
}

/// The number of a package by the SHA-1 of its INF.
fn number(sha1: &[u8]) -> String {
    crate::hex::encode(sha1.get(..8).unwrap_or(sha1))
}

/// The folder of a package in the driver store. The number is a hash of the INF there; so is ours.
#[must_use]
pub(in super::super) fn package_name(package: &Package, arch: Arch) -> String {
    format!("{}_{}_{}", package.inf_name.to_lowercase(), arch.store_name(), number(&package.inf_sha1))
}

/// The folder of a package on the volume.
fn folder(builder: &PlanBuilder<'_>, package: &str) -> String {
    format!("{}/System32/DriverStore/FileRepository/{package}", builder.guest.windows_dir)
}

/// Whether a package of the guest was registered by us, not by Windows.
pub(crate) fn is_ours(builder: &PlanBuilder<'_>, package: &str) -> Result<bool> {
    // name.inf_arch_number
    let mut parts = package.rsplitn(3, '_');
    let (Some(hash), Some(_), Some(inf)) = (parts.next(), parts.next(), parts.next()) else { return Ok(false) };
    let bytes = builder.read_file(&format!("{}/{inf}", folder(builder, package)))?;
    Ok(bytes.is_some_and(|bytes| number(&Sha1::digest(&bytes)).eq_ignore_ascii_case(hash)))
}

/// The packages of the guest that have this INF name, in both hives.
fn same_name(builder: &PlanBuilder<'_>, package: &Package) -> Result<Vec<(GuestHive, String)>> {
    let prefix = format!("{}_{}_", package.inf_name.to_lowercase(), builder.guest.arch.store_name());
    let mut out = Vec::new();
    for hive in [GuestHive::System, GuestHive::Drivers].into_iter().filter(|hive| builder.has_hive(*hive)) {
        for name in registry::subkey_names(builder.hive(hive)?, &format!("{ROOT}\\DriverPackages"))? {
            if name.to_lowercase().starts_with(&prefix) {
                out.push((hive, name));
            }
        }
    }
    Ok(out)
}

/// What earlier runs registered for this INF, other than this very package in its place.
pub(super) fn earlier(builder: &PlanBuilder<'_>, package: &Package) -> Result<Vec<Earlier>> {
    let current = package_name(package, builder.guest.arch);
    let mut out = Vec::new();
    for (hive, name) in same_name(builder, package)? {
        if name.eq_ignore_ascii_case(&current) || !is_ours(builder, &name)? {
            continue;
        }
        let oem = registry::get_string(builder.hive(hive)?, &format!("{ROOT}\\DriverPackages\\{name}"), "")?;
        if let Some(oem) = oem.filter(|oem| oem_number(oem).is_some()) {
            out.push(Earlier { hive, package: name, oem });
        }
    }
    Ok(out)
}

/// The newest package of the same INF name in a hive that is newer than the media's: ours, and, where `with_foreign`
/// says so, one of the guest's own, which counts already when it is as new. (A boot driver's own package may only be
/// staged, so that nothing is bound to it; there the device ids decide.)
pub(super) fn newest(
    builder: &PlanBuilder<'_>,
    package: &Package,
    hive: GuestHive,
    with_foreign: bool,
) -> Result<Option<(String, [u16; 4])>> {
    let media = (package.inf.driver_date, package.inf.driver_version);
    let current = package_name(package, builder.guest.arch);
    let mut best = None;
    for (_, name) in same_name(builder, package)?.into_iter().filter(|(file, _)| *file == hive) {
        let key = format!("{ROOT}\\DriverPackages\\{name}");
        let version =
            registry::get_value(builder.hive(hive)?, &key, "Version")?.and_then(|data| parse_version(&data.bytes));
        let Some(version) = version.filter(|version| *version >= media) else { continue };
        if name.eq_ignore_ascii_case(&current) {
            continue;
        }
        let counts = if is_ours(builder, &name)? { version > media } else { with_foreign };
        if counts && best.as_ref().is_none_or(|(_, known)| version > *known) {
            best = Some((name, version));
        }
    }
    Ok(best.map(|(name, (_, version))| (name, version)))
}

/// Removes an earlier package. The new one may take over its `oemN.inf`.
pub(super) fn remove(
    builder: &mut PlanBuilder<'_>,
    old: &Earlier,
    names: &Names,
    hive: GuestHive,
    new: &Records,
) -> Result<()> {
    builder.remove_key_unrecorded(old.hive, &format!("{ROOT}\\DriverPackages\\{}", old.package))?;
    let lives_on = old.oem.eq_ignore_ascii_case(&names.oem) && old.hive == hive;
    if !lives_on {
        builder.remove_key_unrecorded(old.hive, &format!("{ROOT}\\DriverInfFiles\\{}", old.oem))?;
    }
    for key in ids_naming(builder, old)? {
        let is_new =
            lives_on && new.values.iter().any(|(k, name, _)| name == &names.oem && k.eq_ignore_ascii_case(&key));
        if !is_new {
            builder.remove_value(old.hive, &key, &old.oem)?;
        }
    }
    let windows = builder.guest.windows_dir.clone();
    if !old.oem.eq_ignore_ascii_case(&names.oem) {
        builder.remove_file(&format!("{windows}/INF/{}", old.oem))?;
        builder.remove_file(&format!("{windows}/System32/{CATALOGUES}/{}", old.oem.replace(".inf", ".cat")))?;
    }
    let folder = folder(builder, &old.package);
    remove_folder(builder, &folder, 0)
}

/// A folder with all that is in it.
fn remove_folder(builder: &mut PlanBuilder<'_>, folder: &str, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for name in builder.file_names(folder)? {
        builder.remove_file(&format!("{folder}/{name}"))?;
    }
    for name in builder.folders(folder)? {
        remove_folder(builder, &format!("{folder}/{name}"), depth + 1)?;
    }
    builder.remove_file(folder)
}

/// The keys below `DeviceIds` that name an INF: ids have one or two levels.
fn ids_naming(builder: &PlanBuilder<'_>, old: &Earlier) -> Result<Vec<String>> {
    let hive = builder.hive(old.hive)?;
    let mut out = Vec::new();
    let mut open = vec![(format!("{ROOT}\\DeviceIds"), 0)];
    while let Some((key, depth)) = open.pop() {
        if registry::get_value(hive, &key, &old.oem)?.is_some() {
            out.push(key.clone());
        }
        if depth < 2 {
            open.extend(
                registry::subkey_names(hive, &key)?.into_iter().map(|name| (format!("{key}\\{name}"), depth + 1)),
            );
        }
    }
    out.sort();
    Ok(out)
}
