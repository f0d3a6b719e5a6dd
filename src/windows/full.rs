//! The records that Windows itself writes when it installs a third-party package (`--registration full`): driver store,
//! `oemN.inf`, catalogue, and the whole of `DriverDatabase`.
//!
//! Which keys, values and types there are was read out of real hives; tests compare with them. What such a record says
//! about its origin is only what we know: no signer is claimed that was not found in the catalogue.

use std::collections::BTreeSet;

use super::driver_database::{self, ROOT, overall, version_record};
use super::ids;
use super::layout;
use super::planner::Planner;
use super::record::{Action, DriverDatabaseRecord, Record};
use super::registry;
use super::staging::file_into;
use super::storage::add_reg;
use crate::drivers::inf::{Install, RegAction, RegRoot, RegValue, Text};
use crate::drivers::{Category, Facts, Package};
use crate::error::{Error, Layer, Result};
use crate::plan::{Access, HiveFile, RegData};

/// Highest number of an `oemN.inf` that we take.
const OEM_MAX: usize = 4096;
/// `StatusFlags` of an installed package in real hives.
const STATUS_INSTALLED: u32 = 0x12;
/// `SignerScore` of a package signed by its publisher (not by Microsoft) in a real hive.
const SIGNER_PUBLISHER: u32 = 0x0F00_0000;
/// `ConfigScope` of the configurations of real hives.
const CONFIG_SCOPE: u32 = 7;
/// Set in the type of a value that the INF sets only if it is absent, or appends.
const TYPE_CONDITIONAL: u32 = 0x2_0000;
/// The system's catalogue folder.
const CATALOGUES: &str = "CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";

/// Names of one package in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `oem7.inf`.
    pub oem: String,
    /// `viostor.inf_amd64_0123456789abcdef`.
    pub package: String,
}

/// Values below a hive's root: key, name, data. A value without name and data stands for a key alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// Values.
    pub values: Vec<(String, String, RegData)>,
    /// Keys that must be there even without values.
    pub keys: Vec<String>,
}

impl Records {
    fn set(&mut self, key: &str, name: &str, data: RegData) {
        self.values.push((key.to_owned(), name.to_owned(), data));
    }
}

/// What is known about a package besides its INF.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The folder that it came from, as the guest sees it.
    pub folder: String,
    /// The signer found in its catalogue.
    pub signer: Option<String>,
}

/// `%Token%` as the records write it, or the text itself; the token is noted for `Strings`.
fn described(text: &Text, tokens: &mut BTreeSet<String>) -> String {
    match text.token() {
        Some(token) => {
            let token = token.to_lowercase();
            tokens.insert(token.clone());
            format!("%{token}%")
        }
        None => text.resolved.clone(),
    }
}

/// The records of a package in `DriverDatabase`.
#[must_use]
pub fn records(facts: &Facts, names: &Names, origin: &Origin) -> Records {
    let mut out = Records::default();
    let Names { oem, package } = names;
    let configurations: Vec<&Install> = facts.installs.iter().filter(|install| serves(facts, install)).collect();

    let files = format!("{ROOT}\\DriverInfFiles\\{oem}");
    out.set(&files, "", RegData::multi_sz(&[package]));
    out.set(&files, "Active", RegData::sz(package));
    let sections: Vec<&str> = configurations.iter().map(|install| install.section.as_str()).collect();
    out.set(&files, "Configurations", RegData::multi_sz(&sections));

    let base = format!("{ROOT}\\DriverPackages\\{package}");
    let version = version_record(facts.class_guid, facts.driver_date, facts.driver_version);
    out.set(&base, "", RegData::sz(oem));
    out.set(&base, "Version", RegData::binary(version));
    out.set(&base, "Provider", RegData::sz(&facts.provider.resolved));
    out.set(&base, "InfName", RegData::sz(&facts.file_name));
    out.set(&base, "OemPath", RegData::sz(&origin.folder));
    if let Some(catalog) = &facts.catalog {
        out.set(&base, "Catalog", RegData::sz(catalog));
    }
    if let Some(signer) = &origin.signer {
        out.set(&base, "SignerName", RegData::sz(signer));
    }
    // the day of the driver, not of the run: a second run must write the same
    out.set(&base, "ImportDate", RegData::binary(facts.driver_date.0.to_le_bytes()));
    out.set(&base, "SignerScore", RegData::dword(SIGNER_PUBLISHER));
    out.set(&base, "StatusFlags", RegData::dword(STATUS_INSTALLED));

    for install in &configurations {
        configuration(&mut out, facts, &base, install);
    }
    devices(&mut out, facts, names, &base);
    out
}

/// Whether some model is installed by this section.
fn serves(facts: &Facts, install: &Install) -> bool {
    facts.models.iter().any(|model| model.install.eq_ignore_ascii_case(&install.name))
}

/// One install section.
fn configuration(out: &mut Records, facts: &Facts, base: &str, install: &Install) {
    let key = format!("{base}\\Configurations\\{}", install.section);
    let service = install.services.iter().find(|service| service.is_function_driver());
    out.set(&key, "Service", RegData::sz(service.map_or("", |service| &service.name)));
    out.set(&key, "ConfigScope", RegData::dword(CONFIG_SCOPE));
    if !facts.includes.is_empty() {
        out.set(&key, "IncludedInfs", RegData::multi_sz(&facts.includes));
    }
    out.set(&key, "ConfigFlags", RegData::dword(0));
    for line in &install.hardware {
        // filters of the device are values of the configuration itself
        let is_filter = line.subkey.is_empty()
            && ["UpperFilters", "LowerFilters"].iter().any(|name| line.name.eq_ignore_ascii_case(name));
        if is_filter {
            out.set(&key, &line.name, RegData::new(line.kind, line.data.clone()));
        } else {
            stored(out, &format!("{key}\\Device"), line);
        }
    }
    for line in &install.software {
        stored(out, &format!("{key}\\Driver"), line);
    }
    for service in &install.services {
        for line in &service.registry {
            stored(out, &format!("{key}\\Services\\{}", service.name), line);
        }
    }
}

/// One `AddReg` line as a configuration stores it.
fn stored(out: &mut Records, base: &str, line: &RegValue) {
    if line.root != RegRoot::Relative {
        return;
    }
    let key = if line.subkey.is_empty() { base.to_owned() } else { format!("{base}\\{}", line.subkey) };
    let kind = match line.action {
        RegAction::KeyOnly => {
            out.keys.push(key);
            return;
        }
        RegAction::Delete => return,
        RegAction::Set => line.kind,
        RegAction::SetIfAbsent | RegAction::OverwriteOnly | RegAction::Append => line.kind | TYPE_CONDITIONAL,
    };
    out.set(&key, &line.name, RegData::new(kind, line.data.clone()));
}

/// `Descriptors`, `Strings` and `DeviceIds`.
fn devices(out: &mut Records, facts: &Facts, names: &Names, base: &str) {
    let mut tokens = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for model in &facts.models {
        let section = facts.install_of(model).map_or(&model.install, |install| &install.section);
        let manufacturer = described(&model.manufacturer, &mut tokens);
        let description = described(&model.description, &mut tokens);
        let hardware = std::iter::once((&model.hardware_id, 1u8));
        for (id, rank) in hardware.chain(model.compatible_ids.iter().map(|id| (id, 2))) {
            if !seen.insert(id.to_uppercase()) {
                continue;
            }
            let key = format!("{base}\\Descriptors\\{id}");
            out.set(&key, "Configuration", RegData::sz(section));
            out.set(&key, "Manufacturer", RegData::sz(&manufacturer));
            out.set(&key, "Description", RegData::sz(&description));
            let key = format!("{ROOT}\\DeviceIds\\{id}");
            out.set(&key, &names.oem, RegData::binary([rank, 0xff, 0, 0]));
        }
    }
    for token in tokens {
        if let Some(text) = facts.strings.get(&token) {
            out.set(&format!("{base}\\Strings"), &token, RegData::sz(text));
        }
    }
    let class = facts.class_guid.to_string().to_lowercase();
    out.set(&format!("{ROOT}\\DeviceIds\\{class}"), &names.oem, RegData::none());
}

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

/// The folder of a package in the driver store. The number is a hash of the INF there; so is ours.
#[must_use]
pub(super) fn package_name(package: &Package, arch: crate::drivers::Arch) -> String {
    let number: String = package.inf_sha1.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}_{}_{number}", package.inf_name.to_lowercase(), arch.store_name())
}

/// The `oemN.inf` under which a package is registered already, or the first free one.
fn oem_name(planner: &Planner<'_>, package: &str, taken: &mut BTreeSet<usize>) -> Result<(String, usize)> {
    let map = registry::get(planner.hive(HiveFile::System)?, ROOT, "OemInfMap")?.map(|d| d.bytes).unwrap_or_default();
    for file in [HiveFile::System, HiveFile::Drivers] {
        if !planner.has_hive(file) {
            continue;
        }
        let hive = planner.hive(file)?;
        if let Some(oem) = registry::text(hive, &format!("{ROOT}\\DriverPackages\\{package}"), "")? {
            let digits = oem.to_ascii_lowercase();
            let number = digits.strip_prefix("oem").and_then(|rest| rest.strip_suffix(".inf"));
            if let Some(number) = number.and_then(|text| text.parse().ok()) {
                taken.insert(number);
                return Ok((oem, number));
            }
        }
    }
    for number in 0..OEM_MAX {
        let name = format!("oem{number}.inf");
        let is_free = !is_marked(&map, number)
            && !taken.contains(&number)
            && !planner.exists(&format!("{}/INF/{name}", planner.guest.windows_dir))?;
        if is_free {
            taken.insert(number);
            return Ok((name, number));
        }
    }
    Err(Error::refused(Layer::Windows, "the guest has no free oemN.inf")
        .hint("remove unused driver packages in the guest with pnputil /delete-driver"))
}

/// Plans the full registration of every package that has an INF for this guest: storage in SYSTEM, the rest in DRIVERS.
///
/// # Errors
/// When the volume or a hive is damaged, or the media cannot be read.
pub(super) fn register<'p>(
    planner: &mut Planner<'_>,
    packages: impl Iterator<Item = &'p Package>,
    record: &mut Record,
) -> Result<()> {
    let mut taken = BTreeSet::new();
    let mut numbers = Vec::new();
    for package in packages.filter(|p| !p.inf_name.is_empty() && !p.inf.models.is_empty()) {
        let storage = package.category == Category::Storage;
        if !storage && !planner.has_hive(HiveFile::Drivers) {
            planner
                .note(format!("{}: the guest has no DRIVERS hive; the first-boot job installs it", package.stage_name));
            continue;
        }
        if let Some(boot) = package.boot.as_ref().filter(|_| storage) {
            let ids = ids::boot_ids(&package.inf, boot);
            let name = package_name(package, planner.guest.arch);
            let (_, kept) = driver_database::split(planner, &ids, "", &name)?;
            if kept.len() == ids.len() {
                continue;
            }
        }
        numbers.push(one(planner, package, storage, &mut taken, record)?);
    }
    let map = registry::get(planner.hive(HiveFile::System)?, ROOT, "OemInfMap")?.map(|d| d.bytes).unwrap_or_default();
    let marked = numbers.iter().fold(map, |map, number| mark_oem(&map, *number));
    if !numbers.is_empty() {
        planner.because("the numbers of third-party INFs that are in use");
        planner.value(HiveFile::System, ROOT, "OemInfMap", RegData::binary(marked))?;
    }
    Ok(())
}

fn one(
    planner: &mut Planner<'_>,
    package: &Package,
    storage: bool,
    taken: &mut BTreeSet<usize>,
    record: &mut Record,
) -> Result<usize> {
    let name = package_name(package, planner.guest.arch);
    let (oem, number) = oem_name(planner, &name, taken)?;
    let names = Names { oem, package: name };
    planner.because(format!("{}: driver store", package.stage_name));
    store_files(planner, package, &names)?;
    let stage = format!("{}\\{}", layout::STAGE.replace('/', "\\"), package.stage_name);
    let drive = planner.guest.system_root.get(..2).unwrap_or("C:").to_owned();
    let signer = package.signature.signer.clone().filter(|_| package.signature.is_good());
    let origin = Origin { folder: format!("{drive}{stage}"), signer };
    let hive = if storage { HiveFile::System } else { HiveFile::Drivers };
    planner.because(format!("{}: the records of an installed package", package.stage_name));
    let records = records(&package.inf, &names, &origin);
    let mut actions = Vec::new();
    for key in &records.keys {
        planner.key(hive, key)?;
    }
    for (key, value, data) in records.values {
        actions.push(planner.value(hive, &key, &value, data)?);
    }
    if package.inf.pnp_lockdown {
        lockdown(planner, package, &names)?;
    }
    if storage {
        services(planner, package, &names)?;
        drop_minimal(planner, package)?;
    }
    record.registry_changes.driver_database.push(DriverDatabaseRecord {
        inf: names.oem,
        package: names.package,
        ids: package.inf.hardware_ids().into_iter().chain(package.inf.compatible_ids()).map(str::to_owned).collect(),
        ids_kept: Vec::new(),
        action: overall(&actions),
    });
    Ok(number)
}

/// Takes away what an earlier minimal registration of ours left.
fn drop_minimal(planner: &mut Planner<'_>, package: &Package) -> Result<()> {
    let Some(boot) = &package.boot else { return Ok(()) };
    let inf = format!("h2k-{}.inf", boot.service.to_lowercase());
    let keys = driver_database::Keys::new(&inf, &driver_database::package_name(&inf, planner.guest.arch));
    planner.because(format!("{}: the records of the minimal registration are replaced", boot.service));
    planner.no_key(HiveFile::System, &keys.inf_files)?;
    planner.no_key(HiveFile::System, &keys.package)?;
    for id in ids::boot_ids(&package.inf, boot) {
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
            || inf.read(),
        )?);
    }
    if let Some(catalogue) = package.inf.catalog.as_deref().and_then(find) {
        let folder = format!("{windows}/System32/{CATALOGUES}");
        let access = Access::Like(format!("{windows}/System32"));
        planner.dir(&folder, &access)?;
        let path = format!("{folder}/{}", names.oem.replace(".inf", ".cat"));
        actions.push(planner.file_with(&path, catalogue.size, catalogue.sha256, &access, || catalogue.read())?);
    }
    Ok(actions)
}

/// `PnpLockdownFiles`: Windows protects the driver's files against others.
fn lockdown(planner: &mut Planner<'_>, package: &Package, names: &Names) -> Result<()> {
    const KEY: &str = "Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLockdownFiles";
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
        planner.value(HiveFile::Software, &key, "Class", RegData::dword(4))?;
        planner.value(HiveFile::Software, &key, "Owners", RegData::multi_sz(&[&names.oem]))?;
        planner.value(HiveFile::Software, &key, "Source", RegData::expand_sz(&source))?;
    }
    Ok(())
}

/// The parts of a service's key that the minimal form leaves out.
fn services(planner: &mut Planner<'_>, package: &Package, names: &Names) -> Result<()> {
    let sets: Vec<String> = planner.guest.control_sets.iter().map(|set| set.name.clone()).collect();
    for service in package.inf.services() {
        for set in &sets {
            let key = format!("{set}\\Services\\{}", service.name);
            planner.because(format!("{}: what the INF says about the service", service.name));
            if let Some(text) = &service.display_name {
                let shown = match text.token() {
                    Some(token) => format!("@{},%{token}%;{}", names.oem, text.resolved),
                    None => text.resolved.clone(),
                };
                planner.value(HiveFile::System, &key, "DisplayName", RegData::sz(&shown))?;
            }
            planner.value(HiveFile::System, &key, "Owners", RegData::multi_sz(&[&names.oem]))?;
            if service.binary.dirid == 13 {
                let image =
                    format!("System32\\DriverStore\\FileRepository\\{}\\{}", names.package, service.binary.path);
                planner.value(HiveFile::System, &key, "ImagePath", RegData::expand_sz(&image))?;
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
