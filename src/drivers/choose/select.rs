//! The choice of packages for a guest: of each driver on the media the best candidate.

use std::collections::HashSet;

use super::assemble::assemble;
use super::candidates::{Group, discover};
use super::evaluate::{Rejection, evaluate};
use super::without_inf;
use crate::drivers::definitions::{Category, Definitions};
use crate::drivers::guest::{GuestTarget, NEWEST_BUILD_KNOWN};
use crate::drivers::package::{Package, Selection, Skipped};
use crate::drivers::source::Sources;
use crate::drivers::trust::Policy;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// Most reasons that an error lists.
const REASONS_MAX: usize = 8;

/// Chooses, for a guest, the packages to stage and the drivers to register.
///
/// # Errors
/// [`Kind::Drivers`] when the media has nothing for this Windows, only for another CPU, when an INF is broken, or a boot
/// driver's signature does not satisfy the policy. The error lists what the media has; its hint names the media to use.
pub fn select(sources: &Sources, guest: &GuestTarget, definitions: &Definitions, policy: &Policy) -> Result<Selection> {
    let selection = select_with_or_without_storage(sources, guest, definitions, policy)?;
    match &selection.no_storage {
        Some(reason) => Err(nothing_fits(sources, guest, &selection.buckets, reason)),
        None => Ok(selection),
    }
}

/// Like [`select()`], for a guest that may have its storage driver already: when the media has disk controllers, but none of
/// them for this Windows, the other packages are chosen, and [`Selection::no_storage`] says why.
///
/// # Errors
/// Those of [`select()`].
pub(crate) fn select_with_or_without_storage(
    sources: &Sources,
    guest: &GuestTarget,
    definitions: &Definitions,
    policy: &Policy,
) -> Result<Selection> {
    let mut selection = Selection {
        buckets: definitions.buckets_for(guest),
        warnings: definitions.warnings.clone(),
        ..Selection::default()
    };
    selection.warnings.extend(sources.iter().flat_map(|s| s.warnings().iter().cloned()));
    if guest.build > NEWEST_BUILD_KNOWN {
        selection.warnings.push(format!(
            "build {} is newer than any that this program knows; it is treated as {}",
            guest.build,
            guest.release().name
        ));
    }
    let groups = discover(sources, &mut selection.skipped)?;
    // a definition may name driver files that have no INF
    if groups.is_empty() && definitions.drivers.iter().all(|d| d.origin.is_none() || d.pattern.is_none()) {
        // a file that was left out may be the one that the user meant
        let left_out = sources.iter().find_map(|s| s.warnings().first()).map(|w| format!(" ({w})")).unwrap_or_default();
        return Err(Error::new(
            Kind::Drivers,
            Layer::Drivers,
            format!("no driver package (no .inf file) on the media{left_out}"),
        )
        .with_code(ErrorCode::NoDriverForWindows)
        .path(sources.describe())
        .hint("give the folder or the ISO image of the drivers, for instance virtio-win.iso"));
    }
    let mut missing = Vec::new();
    for group in &groups {
        let evaluation = evaluate(group, guest, &selection.buckets, definitions)?;
        selection.warnings.extend(evaluation.warnings);
        match evaluation.chosen {
            Some(chosen) => {
                let package = assemble(group, chosen, guest, definitions, policy, &mut selection.warnings)?;
                selection.packages.push(package);
            }
            None => {
                let reason = evaluation.rejection.to_string();
                selection.skipped.push(Skipped { name: group.driver.clone(), reason });
                missing.push((group, evaluation.rejection));
            }
        }
    }
    let buckets = selection.buckets.clone();
    let without_inf = without_inf::packages(sources, guest, &buckets, definitions, policy, &mut selection.warnings)?;
    selection.packages.extend(without_inf);
    selection.no_storage = check_outcome(sources, guest, definitions, &selection, &missing)?;
    drop_duplicates(&mut selection);
    name_folders(&mut selection.packages);
    warn_unmatched(definitions, &mut selection);
    selection.packages.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    Ok(selection)
}

fn sort_key(package: &Package) -> (u8, &str) {
    let first = match package.category {
        Category::Storage => 0,
        Category::Network => 1,
        _ => 2,
    };
    (first, &package.stage_name)
}

/// Why the guest gets no storage driver, although the media has some; `None` if it gets one, or the media has none.
///
/// # Errors
/// When nothing at all is chosen.
fn check_outcome(
    sources: &Sources,
    guest: &GuestTarget,
    definitions: &Definitions,
    selection: &Selection,
    missing: &[(&Group, Rejection)],
) -> Result<Option<String>> {
    let is_boot = |group: &Group| {
        definitions
            .drivers
            .iter()
            .any(|d| d.category == Category::Storage && !d.staged_only && d.names_inf(&group.inf_name))
    };
    let has_boot = selection.packages.iter().any(|p| p.boot.is_some());
    let boot_missing: Vec<_> = missing.iter().filter(|(group, _)| is_boot(group)).collect();
    if has_boot || (boot_missing.is_empty() && !selection.packages.is_empty()) {
        return Ok(None);
    }
    let relevant: Vec<_> = if boot_missing.is_empty() { missing.iter().collect() } else { boot_missing };
    let all_cpu = !relevant.is_empty() && relevant.iter().all(|(_, rejection)| matches!(rejection, Rejection::Cpu(_)));
    let mut reasons: Vec<String> =
        relevant.iter().map(|(group, rejection)| format!("{}: {rejection}", group.driver)).collect();
    reasons.truncate(REASONS_MAX);
    let what = if all_cpu {
        format!("the drivers on the media are for another CPU; the guest is {guest}")
    } else {
        format!("no driver for {guest} on the media")
    };
    let reason = format!("{what} ({})", reasons.join("; "));
    if selection.packages.is_empty() {
        Err(nothing_fits(sources, guest, &selection.buckets, &reason))
    } else {
        Ok(Some(reason))
    }
}

fn nothing_fits(sources: &Sources, guest: &GuestTarget, buckets: &[String], reason: &str) -> Error {
    Error::new(Kind::Drivers, Layer::Drivers, reason)
        .with_code(ErrorCode::NoDriverForWindows)
        .path(sources.describe())
        .hint(format!(
            "use media with drivers for {} ({}, folder {}); older systems need an older virtio-win",
            guest.release().name,
            guest.arch,
            buckets.join(" or ")
        ))
}

/// Drops packages whose files are those of an earlier one: the same package found through two layouts.
fn drop_duplicates(selection: &mut Selection) {
    let mut seen: HashSet<Vec<(String, [u8; 32])>> = HashSet::new();
    let packages = std::mem::take(&mut selection.packages);
    for package in packages {
        let mut content: Vec<_> = package.files.iter().map(|f| (f.name.to_lowercase(), f.sha256)).collect();
        content.sort();
        if seen.insert(content) {
            selection.packages.push(package);
        } else {
            let reason = "the same files are staged from another folder".to_owned();
            selection.skipped.push(Skipped { name: package.source_path, reason });
        }
    }
}

/// Gives clashing packages different folders: `name`, `name-2`, `name-3` …
fn name_folders(packages: &mut [Package]) {
    let mut taken: HashSet<String> = HashSet::new();
    for package in packages {
        let wanted = package.stage_name.clone();
        let mut number = 2;
        while !taken.insert(package.stage_name.to_lowercase()) {
            package.stage_name = format!("{wanted}-{number}");
            number += 1;
        }
    }
}

/// Warns about a user's definitions without a package: probably a mistake.
fn warn_unmatched(definitions: &Definitions, selection: &mut Selection) {
    for definition in &definitions.drivers {
        let Some(origin) = &definition.origin else { continue };
        if !selection.packages.iter().any(|p| definition.describes(&p.inf)) {
            selection.warnings.push(format!(
                "{}: no driver for this Windows on the media has the service {:?}{}",
                origin.at("name"),
                definition.service,
                definition.inf_hint.as_ref().map(|i| format!(" or the INF {i:?}")).unwrap_or_default()
            ));
        }
    }
}
