//! From a chosen INF to a package: its files, its category, and the driver that is registered offline.

use sha1::Digest;

use super::boot_driver::boot_driver;
use super::candidates::{Candidate, Group};
use super::contents::Contents;
use super::evaluate::Chosen;
use crate::drivers::definitions::{Category, Definition, Definitions};
use crate::drivers::guest::GuestTarget;
use crate::drivers::inf::Facts;
use crate::drivers::package::Package;
use crate::drivers::trust::{self, Policy};
use crate::error::Result;

/// Consequence of a catalogue that does not match its package.
const REFUSED: &str = "the running Windows will not install the package";

/// Makes a package of a chosen candidate.
///
/// # Errors
/// When the media cannot be read, or the boot driver does not satisfy the policy.
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
