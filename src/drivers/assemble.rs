//! From a chosen INF to a package: its files, its category, and the driver that is registered offline.

use super::candidates::{Candidate, Group, has_ending};
use super::definitions::{Definition, Definitions};
use super::guest::GuestTarget;
use super::inf::{Facts, Guid, ServiceFacts};
use super::package::{BootDriver, Category, Package, PackageFile};
use super::pe::{PeFacts, SUBSYSTEM_NATIVE};
use super::select::Chosen;
use super::source::{Source, SourceFile};
use super::trust::{self, Policy, SignatureReport, Subject};
use crate::error::{Error, Kind, Layer, Result};
use crate::ntfs::name::problem_with;
use sha1::Digest;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What becomes of a package whose catalogue is not in order.
const REFUSED: &str = "the running Windows will not install the package";
/// Most files of a package.
const FILES_MAX: usize = 4096;
/// The largest file that is kept in memory from the choice until it is used: nearly all files of drivers.
const KEPT_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of larger files that are kept until their package is judged, so that they need not be read again for it.
const JUDGED_BYTES_MAX: u64 = 16 << 20;

pub(super) fn assemble(
    group: &Group,
    chosen: Chosen<'_>,
    guest: &GuestTarget,
    definitions: &Definitions,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<Package> {
    let Chosen { candidate, inf_bytes, facts, reason } = chosen;
    let found = definitions.of(&facts);
    let corrected = found.and_then(|definition| with_category_of_inf(definition, &facts, warnings));
    let definition = corrected.as_ref().or(found);
    warnings.extend(facts.warnings.iter().cloned());
    let contents = Contents::read(&candidate.source, candidate.folder(), candidate.inf_name(), &facts, warnings)?;
    let signature =
        trust::catalogue_report(&facts, &mut |name| contents.get(name).map(|file| contents.data(file)).transpose())?;
    let boot = match definition.filter(|d| d.is_registered_offline()) {
        Some(definition) => Some(boot_driver(definition, &facts, &contents, &signature, guest, policy, warnings)?),
        None => {
            if let Some(problem) = &signature.problem {
                warnings.push(format!("{}: {problem}: {REFUSED}", candidate.shown()));
            }
            None
        }
    };
    let category = category(&facts, definition);
    let is_staged_only = definition.is_some_and(|definition| definition.staged_only);
    if category == Category::Storage
        && boot.is_none()
        && !is_staged_only
        && facts.function_service().is_some_and(|s| s.start == 0)
    {
        warnings.push(format!(
            "{}: a disk controller that no definition names is only staged; add it under drivers.storage of a definition \
             file to have it registered",
            candidate.shown()
        ));
    }
    Ok(Package {
        stage_name: stage_name(candidate, &facts, definition.is_some()),
        driver: group.driver.clone(),
        source_path: candidate.source.show(candidate.folder()),
        bucket: candidate.layout.bucket.unwrap_or_default().to_owned(),
        inf_name: candidate.inf_name().to_owned(),
        files: contents.files,
        category,
        boot,
        signature,
        reason,
        inf_sha1: sha1::Sha1::digest(&inf_bytes).into(),
        inf: facts,
    })
}

/// A user's definition under another category than storage, of a driver that by its INF is a disk controller's: the INF
/// wins, as the guest could not start without it.
fn with_category_of_inf(definition: &Definition, facts: &Facts, warnings: &mut Vec<String>) -> Option<Definition> {
    let origin = definition.origin.as_ref()?;
    let (name, inf, class) = (&definition.name, &facts.file_name, &facts.class);
    let mut warn = |text: String| warnings.push(format!("{}: {text}", origin.at("name")));
    let is_of_disks = category(facts, None) == Category::Storage;
    let starts_at_boot = facts.function_service().is_some_and(|service| service.start == 0);
    match (definition.category == Category::Storage, is_of_disks) {
        (false, true) if starts_at_boot => {
            let said = &definition.category;
            warn(format!("{name:?} is under {said} but drives disks ({class} in {inf}): it is taken as storage"));
            Some(Definition { category: Category::Storage, ..definition.clone() })
        }
        (true, false) => {
            warn(format!("{name:?} is under storage, but {inf} is of the class {class}"));
            None
        }
        _ => None,
    }
}

/// Known drivers: the service's name in lower case; without a service the INF's stem. Others: the driver's folder on the
/// media, or the top folder below the source.
fn stage_name(candidate: &Candidate, facts: &Facts, is_known: bool) -> String {
    let layout = &candidate.layout;
    let folder = if layout.bucket.is_some() { layout.driver.as_deref() } else { layout.top.as_deref() };
    let service = facts.function_service().map(|s| s.name.as_str());
    let stem = candidate.stem();
    let name = if is_known { service } else { folder.or(service) }.unwrap_or(&stem).to_lowercase();
    let safe: String =
        name.chars().map(|c| if c.is_control() || "\\/:*?\"<>|%&^!".contains(c) { '_' } else { c }).collect();
    let safe = safe.trim_matches([' ', '.']).to_owned();
    if safe.is_empty() { "driver".to_owned() } else { safe }
}

fn category(facts: &Facts, definition: Option<&Definition>) -> Category {
    if let Some(definition) = definition {
        return definition.category.clone();
    }
    match facts.class.to_ascii_lowercase().as_str() {
        "scsiadapter" | "hdc" => Category::Storage,
        "net" => Category::Network,
        "display" => Category::Gpu,
        "hidclass" | "keyboard" | "mouse" => Category::Input,
        "" => Category::Other("other".to_owned()),
        other => Category::Other(other.to_owned()),
    }
}

/// The files of a package with their digests.
#[derive(Default)]
pub(super) struct Contents {
    pub files: Vec<PackageFile>,
    /// Larger files, by their path on the media.
    judged: HashMap<String, Arc<Vec<u8>>>,
    judged_bytes: u64,
}

impl Contents {
    fn read(source: &Arc<Source>, folder: &str, inf: &str, facts: &Facts, warnings: &mut Vec<String>) -> Result<Self> {
        let mut out = Self::default();
        let listed = listing(source, folder, inf, facts, warnings);
        for (name, path) in what_windows_can_hold(listed, source, inf, facts, warnings)? {
            if out.files.len() >= FILES_MAX {
                return Err(Error::new(
                    Kind::Drivers,
                    Layer::Drivers,
                    format!("more than {FILES_MAX} files in a package"),
                )
                .path(source.show(folder))
                .hint("give each driver a folder of its own"));
            }
            out.add(source, name, path)?;
        }
        Ok(out)
    }

    /// Some files of one folder.
    pub fn of(source: &Arc<Source>, files: &[&SourceFile]) -> Result<Self> {
        let mut out = Self::default();
        for file in files {
            out.add(source, file.name().to_owned(), file.path.clone())?;
        }
        Ok(out)
    }

    fn add(&mut self, source: &Arc<Source>, name: String, path: String) -> Result<()> {
        let listed = source.find(&path).map_or(u64::MAX, |file| file.size);
        let is_kept = listed <= KEPT_BYTES_MAX && source.may_keep(listed);
        let judged = self.judged_bytes.saturating_add(listed);
        let mut hash = sha2::Sha256::new();
        let (size, content) = if is_kept || judged <= JUDGED_BYTES_MAX {
            let data = Arc::new(source.read(&path)?);
            hash.update(&*data);
            if !is_kept {
                self.judged_bytes = judged;
                self.judged.insert(path.clone(), Arc::clone(&data));
            }
            (data.len() as u64, is_kept.then_some(data))
        } else {
            (source.stream(&path, &mut |piece| hash.update(piece))?, None)
        };
        let sha256 = hash.finalize().into();
        self.files.push(PackageFile { name, size, sha256, source: Arc::clone(source), path, content });
        Ok(())
    }

    /// The content of one of the files.
    pub fn data(&self, file: &PackageFile) -> Result<Arc<Vec<u8>>> {
        self.judged.get(file.media_path()).map_or_else(|| file.read(), |data| Ok(Arc::clone(data)))
    }

    pub fn get(&self, name: &str) -> Option<&PackageFile> {
        self.files.iter().find(|file| file.name.eq_ignore_ascii_case(name))
    }
}

/// Names and media paths of a package's files: the whole folder without debug symbols; in a folder with several INFs
/// what this INF lists and what no INF's name is on.
fn listing(
    source: &Source,
    folder: &str,
    inf: &str,
    facts: &Facts,
    warnings: &mut Vec<String>,
) -> Vec<(String, String)> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let here: Vec<&str> = source
        .files()
        .iter()
        .filter(|f| f.folder() == folder && !has_ending(f.name(), "pdb"))
        .map(|f| f.name())
        .collect();
    let alone = here.iter().filter(|name| has_ending(name, "inf")).count() <= 1 && !folder.is_empty();
    let listed: Vec<&str> = facts.source_files.iter().map(String::as_str).chain(facts.catalog.as_deref()).collect();
    let listed_names: HashSet<String> = listed.iter().map(|name| name.to_lowercase()).collect();
    let stem = inf.rsplit_once('.').map_or(inf, |(stem, _)| stem);
    let is_companion = |name: &str| {
        name.rsplit_once('.')
            .is_some_and(|(s, ending)| s.eq_ignore_ascii_case(stem) && !ending.eq_ignore_ascii_case("inf"))
    };
    let is_ours = |name: &str| {
        alone || name.eq_ignore_ascii_case(inf) || listed_names.contains(&name.to_lowercase()) || is_companion(name)
    };
    let mut out: Vec<(String, String)> =
        here.iter().filter(|name| is_ours(name)).map(|name| ((*name).to_owned(), format!("{prefix}{name}"))).collect();
    let mut taken: HashSet<String> = out.iter().map(|(name, _)| name.to_lowercase()).collect();
    for name in listed {
        if !taken.insert(name.to_lowercase()) {
            continue;
        }
        match source.find(&format!("{prefix}{name}")) {
            // a name with ".." in it would leave the package's folder
            Some(file) if !name.split('/').any(|part| part == "..") => out.push((name.to_owned(), file.path.clone())),
            _ => warnings
                .push(format!("{}: lists {name}, which is not on the media", source.show(&format!("{prefix}{inf}")))),
        }
    }
    out
}

/// Leaves out, with a warning each, the files whose names Windows does not accept (`con.dll`, a dot at the end) and those
/// whose names differ from another one in case only.
///
/// # Errors
/// When the INF needs such a file.
fn what_windows_can_hold(
    files: Vec<(String, String)>,
    source: &Source,
    inf: &str,
    facts: &Facts,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, String)>> {
    let needed: Vec<&str> =
        facts.source_files.iter().map(String::as_str).chain(facts.catalog.as_deref()).chain([inf]).collect();
    let exact: HashSet<&str> =
        files.iter().map(|(name, _)| name.as_str()).filter(|name| needed.contains(name)).collect();
    let spelled: HashSet<String> = exact.iter().map(|name| name.to_lowercase()).collect();
    let exact: HashSet<String> = exact.into_iter().map(str::to_owned).collect();
    let (mut out, mut taken) = (Vec::with_capacity(files.len()), HashSet::new());
    for (name, path) in files {
        let folded = name.to_lowercase();
        if let Some(why) = name.split('/').find_map(|part| problem_with(&part.into())) {
            if needed.iter().any(|needed| needed.eq_ignore_ascii_case(&name)) {
                return Err(Error::new(Kind::Drivers, Layer::Drivers, format!("Windows cannot hold this file: {why}"))
                    .path(source.show(&path))
                    .hint("the INF needs the file under this name; leave the package out of the driver media"));
            }
            warnings.push(format!("{}: left out, as Windows cannot hold it: {why}", source.show(&path)));
        } else if (spelled.contains(&folded) && !exact.contains(&name)) || !taken.insert(folded) {
            let shown = source.show(&path);
            warnings.push(format!("{shown}: left out, as another file has the same name in upper or lower case"));
        } else {
            out.push((name, path));
        }
    }
    Ok(out)
}

/// The driver that is registered offline, after all checks.
pub(super) fn boot_driver(
    definition: &Definition,
    facts: &Facts,
    contents: &Contents,
    package: &SignatureReport,
    guest: &GuestTarget,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<BootDriver> {
    let service = service_of(definition, facts)?;
    let file_name = service.binary.file_name().to_owned();
    let Some(file) = contents.get(&file_name) else {
        return Err(Error::new(Kind::Drivers, Layer::Drivers, format!("the driver file {file_name} is missing"))
            .path(facts.file_name.clone())
            .hint("the package is incomplete; take the driver media from its maker again"));
    };
    let path = file.source.show(file.media_path());
    let data = contents.data(file)?;
    let pe = check_pe(&data, guest, &path)?;
    let signature =
        trust::check_driver(&Subject { data: &data, pe: &pe, path: &path, package }, guest, policy, warnings)?;
    let is_storage = definition.category == Category::Storage;
    compare(definition, facts, service, warnings);
    let mut hardware_ids: Vec<String> =
        facts.hardware_ids().into_iter().map(str::to_owned).filter(|id| !id.is_empty()).collect();
    let compatible_ids: Vec<String> = facts.compatible_ids().into_iter().map(str::to_owned).collect();
    for id in &definition.pci_ids {
        if !hardware_ids.iter().chain(&compatible_ids).any(|known| known.eq_ignore_ascii_case(id)) {
            hardware_ids.push(id.clone());
        }
    }
    let start = definition.start.unwrap_or(if is_storage { 0 } else { service.start });
    Ok(BootDriver {
        service: service.name.clone(),
        file_name,
        data,
        sha256: file.sha256,
        kind: definition.kind.unwrap_or(service.kind),
        start,
        error_control: definition.error_control.unwrap_or(service.error_control),
        group: service.group.clone(),
        class_guid: facts.class_guid,
        hardware_ids,
        compatible_ids,
        critical_device_database: definition.critical_device_database.unwrap_or(is_storage && start == 0),
        file_version: pe.file_version,
        signature,
    })
}

/// The INF's service that the definition names, else the one that the devices bind to.
fn service_of<'a>(definition: &Definition, facts: &'a Facts) -> Result<&'a ServiceFacts> {
    let named = facts.services().into_iter().find(|s| s.name.eq_ignore_ascii_case(&definition.service));
    named.or_else(|| facts.function_service()).ok_or_else(|| {
        Error::new(Kind::Drivers, Layer::Drivers, "the INF installs no service that could be registered")
            .path(facts.file_name.clone())
            .hint("leave out start_type in the definition of this driver; it is then only staged")
    })
}

fn check_pe(data: &[u8], guest: &GuestTarget, path: &str) -> Result<PeFacts> {
    let error = |message: String| Error::new(Kind::Drivers, Layer::Drivers, message).path(path);
    let again = "take the driver media from its maker again";
    let pe = PeFacts::parse(data).map_err(|e| error(format!("the driver file is {e}")).hint(again))?;
    if pe.machine != guest.arch.pe_machine() {
        let found = pe.arch().map_or_else(|| format!("machine {:#06x}", pe.machine), |a| a.to_string());
        return Err(error("the driver file is for another CPU than the guest's".to_owned())
            .expected_found(guest.arch, found)
            .hint("the media is put together wrongly: its folder or INF says otherwise"));
    }
    if pe.subsystem != SUBSYSTEM_NATIVE {
        return Err(error("the driver file is no kernel driver".to_owned())
            .expected_found("subsystem 1 (native)", pe.subsystem)
            .hint(again));
    }
    Ok(pe)
}

/// Where a definition contradicts the INF, the INF wins and the user hears of it.
fn compare(definition: &Definition, facts: &Facts, service: &ServiceFacts, warnings: &mut Vec<String>) {
    let Some(origin) = &definition.origin else { return };
    let inf = &facts.file_name;
    let mut warn = |key: &str, text: String| warnings.push(format!("{}: {text}", origin.at(key)));
    if !service.name.eq_ignore_ascii_case(&definition.service) {
        warn(
            "service",
            format!("service {:?} is called {:?} in {inf}; the INF wins", definition.service, service.name),
        );
    }
    if let Some(guid) = definition.class_guid.filter(|guid| *guid != facts.class_guid) {
        let hint = if guid == Guid::DISK_DRIVE { " (the class of disks, not of their controllers)" } else { "" };
        warn(
            "class_guid",
            format!("class_guid {}{hint} is {} in {inf}; the INF wins", guid.braced(), facts.class_guid.braced()),
        );
    }
    if let Some(hint) = definition.inf_hint.as_ref().filter(|hint| !hint.eq_ignore_ascii_case(inf)) {
        warn("inf_hint", format!("inf_hint {hint:?}: the driver's INF is {inf}"));
    }
    let known: Vec<String> =
        facts.hardware_ids().into_iter().chain(facts.compatible_ids()).map(str::to_ascii_uppercase).collect();
    for id in &definition.pci_ids {
        // "PCI\\VEN_1AF4&DEV_1042" is in the INF also if only longer forms of it are
        if !known.iter().any(|k| k == id || k.strip_prefix(id.as_str()).is_some_and(|rest| rest.starts_with('&'))) {
            warn("pci_ids", format!("{inf} does not know {id}; it is registered because the definition says so"));
        }
    }
    // the key in the spelling that the user chose
    let start_key = if origin.keys.contains_key("start") { "start" } else { "start_type" };
    for (key, wanted, has) in [
        (start_key, definition.start, service.start),
        ("type", definition.kind, service.kind),
        ("error_control", definition.error_control, service.error_control),
    ] {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != has) {
            warn(key, format!("{key} is {has} in {inf}, {wanted} here; the definition wins"));
        }
    }
}
