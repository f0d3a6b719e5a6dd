//! The services that winject registered for drivers, and whether each is still wholly winject's.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Ledger;
use super::manifest::Listed;
use super::usage::Usage;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::upcase::Fold;
use crate::windows::guest_paths::{SERVICE, STAGE};
use crate::windows::plan_builder::{PlanBuilder, Present};
use crate::windows::registry;

/// The values without which a service was not created by winject.
const ESSENTIAL: [&str; 4] = ["Type", "Start", "ErrorControl", "ImagePath"];

/// A service that the manifest lists as a whole.
#[derive(Debug)]
pub(super) struct Service {
    /// Its name, as it is listed.
    pub name: String,
    /// Its keys in the guest, one for each control set that has it.
    pub keys: Vec<String>,
    /// Index of its file among the listed ones; `None` unless winject wrote it.
    pub file: Option<usize>,
    /// Keys of `CriticalDeviceDatabase` that name it.
    pub critical: Vec<String>,
    /// Why it stays.
    pub left: Option<String>,
}

impl Service {
    /// Whether this is its name in lower case.
    pub(super) fn is_named(&self, lower: &str) -> bool {
        self.name.folded() == lower
    }
}

/// The services that are listed as a whole, each judged on its own.
///
/// # Errors
/// When the guest is damaged there.
pub(super) fn find(builder: &PlanBuilder<'_>, listed: &Listed, usage: &Usage) -> Result<Vec<Service>> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for value in listed.values.iter().filter(|value| value.hive == GuestHive::System) {
        if let Some(name) = service_of(&value.key) {
            names.entry(name.folded()).or_insert_with(|| name.to_owned());
        }
    }
    let is_whole = |name: &str| {
        let has_all = |set: &&str| {
            let key = format!("{set}\\Services\\{name}");
            ESSENTIAL.iter().all(|value| listed.value(GuestHive::System, &key, value).is_some())
        };
        listed.control_sets().iter().any(has_all)
    };
    let own = names.into_values().filter(|name| !name.eq_ignore_ascii_case(SERVICE) && is_whole(name));
    own.map(|name| judge(builder, listed, usage, name)).collect()
}

/// The service that a key in a control set belongs to.
pub(super) fn service_of(key: &str) -> Option<&str> {
    let mut names = key.split('\\');
    let (_, services, name) = (names.next()?, names.next()?, names.next()?);
    (services.eq_ignore_ascii_case("Services") && !name.eq_ignore_ascii_case("EventLog")).then_some(name)
}

fn judge(builder: &PlanBuilder<'_>, listed: &Listed, usage: &Usage, name: String) -> Result<Service> {
    let mut service = Service { name, keys: Vec::new(), file: None, critical: Vec::new(), left: None };
    service.left = find_reason(builder, listed, usage, &mut service)?;
    Ok(service)
}

/// Why a service is not winject's any more. Fills in the keys and the file as far as they are found.
fn find_reason(
    builder: &PlanBuilder<'_>,
    listed: &Listed,
    usage: &Usage,
    service: &mut Service,
) -> Result<Option<String>> {
    let hive = builder.hive(GuestHive::System)?;
    let lower = service.name.folded();
    let rest = format!("Services\\{}", service.name);
    let mut reason = None;
    for set in &usage.sets {
        let key = format!("{set}\\{rest}");
        if let Some(id) = registry::find_key(hive, &key)? {
            let difference = listed.difference(hive, id, &listed.subtree_of_set(set, &rest))?;
            reason = reason.or(difference.map(|difference| format!("{difference} ({set})")));
            service.keys.push(key);
        }
    }
    for device in usage.critical.iter().filter(|device| device.service == lower) {
        let rest = format!("Control\\CriticalDeviceDatabase\\{}", device.name);
        let key = format!("{}\\{rest}", device.set);
        if let Some(id) = registry::find_key(hive, &key)?
            && let Some(difference) = listed.difference(hive, id, &listed.subtree_of_set(&device.set, &rest))?
        {
            reason = reason.or_else(|| Some(format!("{key} names it, and {difference}")));
        }
        service.critical.push(key);
    }
    let images = images(listed, &rest);
    let paths: Vec<String> = images.iter().filter_map(|image| builder.guest.image_path(image)).collect();
    let (Some(path), true) = (paths.first(), paths.len() == images.len()) else {
        return Ok(reason.or_else(|| Some("its ImagePath is not on this volume".to_owned())));
    };
    if paths.iter().any(|other| !other.eq_ignore_ascii_case(path)) {
        return Ok(reason.or_else(|| Some("its control sets name different files".to_owned())));
    }
    let Some((index, file)) = listed.file(path).and_then(|at| Some((at, listed.files.get(at)?))) else {
        return Ok(reason.or_else(|| Some(format!("its file {path} is the guest's own"))));
    };
    service.file = Some(index);
    if reason.is_some() {
        return Ok(reason);
    }
    match builder.compare_file(path, &file.sha256)? {
        Present::Absent | Present::AsWritten => {}
        Present::Changed => return Ok(Some(format!("its file {path} is not the one that winject wrote"))),
        Present::Link => return Ok(Some(format!("its file {path} has other names, too"))),
    }
    if !is_staged(builder, listed, &file.sha256)? {
        return Ok(Some(format!("no staged package in {STAGE} holds its driver, so that it may be the guest's own")));
    }
    if let Some(other) = usage.images.get(&path.folded()).and_then(|names| names.iter().find(|name| **name != lower)) {
        return Ok(Some(format!("the service {other} starts the same file")));
    }
    Ok(usage.services.get(&lower).cloned())
}

/// Removes driver files that an earlier run wrote, and that no service starts any more: a later run registered the driver in
/// another place.
///
/// # Errors
/// When the volume is damaged there.
pub(super) fn remove_unused_drivers(
    builder: &mut PlanBuilder<'_>,
    listed: &Listed,
    usage: &Usage,
    ledger: &mut Ledger,
) -> Result<()> {
    builder.set_reason("driver files of winject that no service starts");
    let folder = format!("{}/drivers/", builder.guest.system32().folded());
    for index in ledger.open_files(listed) {
        let Some(file) = listed.files.get(index).filter(|file| file.path.folded().starts_with(&folder)) else {
            continue;
        };
        let is_unused = usage.images.get(&file.path.folded()).is_none_or(BTreeSet::is_empty);
        if is_unused
            && builder.compare_file(&file.path, &file.sha256)? == Present::AsWritten
            && is_staged(builder, listed, &file.sha256)?
        {
            builder.remove_file(&file.path)?;
            ledger.file_is_gone(index);
            ledger.remove(format!("driver file {}", file.path));
        }
    }
    Ok(())
}

/// The `ImagePath` values that are listed for a service, each once.
fn images(listed: &Listed, rest: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for set in listed.control_sets() {
        let index = listed.value(GuestHive::System, &format!("{set}\\{rest}"), "ImagePath");
        let image = index.and_then(|index| listed.data(index)).and_then(RegistryData::as_text);
        out.extend(image.filter(|image| !out.contains(image)));
    }
    out
}

/// Whether a staged package, which only administrators of the guest can have written, holds a file with this content. A
/// driver of Windows itself has no copy there, whatever the manifest says.
fn is_staged(builder: &PlanBuilder<'_>, listed: &Listed, sha256: &[u8; 32]) -> Result<bool> {
    for (_, file) in listed.files_below(STAGE).filter(|(_, file)| file.sha256 == *sha256) {
        if builder.compare_file(&file.path, sha256)? == Present::AsWritten && builder.is_trusted(&file.path)? {
            return Ok(true);
        }
    }
    Ok(false)
}
