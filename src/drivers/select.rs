//! The choice of packages for a guest.
//!
//! For each driver on the media: the folders made for the guest's release come first, in the order of the release table;
//! then folders that name no release; then, except for disk controllers, folders of older releases of the same kernel
//! family. In each step the INF itself must be for the guest.

use super::assemble::assemble;
use super::bare;
use super::candidates::{Candidate, Group, discover};
use super::definitions::Definitions;
use super::guest::{GuestTarget, NEWEST_BUILD_KNOWN};
use super::inf::{Facts, Inf, Misfit};
use super::layout::{bucket_build, is_for_servers};
use super::package::{Category, Package, Selection, Skipped};
use super::source::Sources;
use super::trust::Policy;
use crate::error::{Error, Kind, Layer, Result};
use std::collections::HashSet;

/// Chooses, for a guest, the packages to stage and the drivers to register.
///
/// # Errors
/// [`Kind::Drivers`] when the media has nothing for this Windows, only for another CPU, when an INF is broken, or a boot
/// driver's signature does not satisfy the policy. Each names what is there and what can be done.
pub fn select(sources: &Sources, guest: &GuestTarget, definitions: &Definitions, policy: &Policy) -> Result<Selection> {
    let selection = select_with_or_without_storage(sources, guest, definitions, policy)?;
    match &selection.no_storage {
        Some(reason) => Err(nothing_fits(sources, guest, &selection.buckets, reason)),
        None => Ok(selection),
    }
}

/// As [`select`], for a guest that may have its storage driver already: when the media has disk controllers, but none of
/// them for this Windows, the other packages are chosen, and [`Selection::no_storage`] says why.
///
/// # Errors
/// As [`select`].
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
        // what was left out may be what was looked for
        let left_out = sources.iter().find_map(|s| s.warnings().first()).map(|w| format!(" ({w})")).unwrap_or_default();
        return Err(Error::new(
            Kind::Drivers,
            Layer::Drivers,
            format!("there is no driver package (no .inf file) on the media{left_out}"),
        )
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
                let reason = evaluation.verdict.to_string();
                selection.skipped.push(Skipped { name: group.driver.clone(), reason });
                missing.push((group, evaluation.verdict));
            }
        }
    }
    let buckets = selection.buckets.clone();
    let bare = bare::packages(sources, guest, &buckets, definitions, policy, &mut selection.warnings)?;
    selection.packages.extend(bare);
    selection.no_storage = check_outcome(sources, guest, definitions, &selection, &missing)?;
    drop_duplicates(&mut selection);
    name_folders(&mut selection.packages);
    warn_unmatched(definitions, &mut selection);
    selection.packages.sort_by(|a, b| order(a).cmp(&order(b)));
    Ok(selection)
}

fn order(package: &Package) -> (u8, &str) {
    let first = match package.category {
        Category::Storage => 0,
        Category::Network => 1,
        _ => 2,
    };
    (first, &package.stage_name)
}

/// A candidate that fits, with its INF read.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub candidate: &'a Candidate,
    pub inf_bytes: Vec<u8>,
    pub facts: Facts,
    pub reason: String,
}

/// Why nothing of a group was chosen, the reason nearest to success.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// There is a package of the right CPU, but its INF is for newer Windows, or another product.
    Inf(String),
    /// Folders of the right CPU, but not for this release.
    Release(Vec<String>),
    /// The INF cannot be read.
    Broken(String),
    /// Only for other CPUs.
    Cpu(Vec<String>),
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inf(reason) => f.write_str(reason),
            Self::Release(buckets) => write!(f, "the media has it for {} only", buckets.join(", ")),
            Self::Broken(error) => f.write_str(error),
            Self::Cpu(arches) => write!(f, "the media has it for another CPU only ({})", arches.join(", ")),
        }
    }
}

impl Verdict {
    /// The reason as it is told of a single package.
    fn of_one(&self, guest: &GuestTarget) -> String {
        match self {
            Self::Release(buckets) => {
                let is_newer = buckets.iter().any(|b| bucket_build(b).is_some_and(|build| build > guest.build));
                let what = if is_newer { "a newer Windows" } else { "another Windows" };
                format!("it is made for {what} ({})", buckets.join(", "))
            }
            Self::Cpu(arches) => format!("it is for another CPU ({})", arches.join(", ")),
            _ => self.to_string(),
        }
    }
}

/// What became of a group.
pub(super) struct Evaluation<'a> {
    pub chosen: Option<Chosen<'a>>,
    pub verdict: Verdict,
    pub warnings: Vec<String>,
    /// For every candidate that was looked at and not chosen: its path and why.
    pub rejected: Vec<(&'a Candidate, String)>,
}

/// How early a candidate is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// In the list of the guest's release.
    Listed(usize),
    /// No release in its path: the INF decides.
    Unnamed,
    /// Made for another release that is not newer; the newest first, of two for the same kernel the one for the guest's
    /// kind of product.
    Older(std::cmp::Reverse<u32>, bool),
}

/// Looks for the best candidate of a group.
///
/// # Errors
/// When the INF of a disk controller's best candidate is broken.
pub(super) fn evaluate<'a>(
    group: &'a Group,
    guest: &GuestTarget,
    buckets: &[String],
    definitions: &Definitions,
) -> Result<Evaluation<'a>> {
    let is_storage = definitions.drivers.iter().any(|d| d.is_registered_offline() && d.names_inf(&group.inf_name));
    let mut out =
        Evaluation { chosen: None, verdict: Verdict::Cpu(Vec::new()), warnings: Vec::new(), rejected: Vec::new() };
    let mut verdicts = Vec::new();
    let mut ranked = Vec::new();
    for candidate in &group.candidates {
        match rank(candidate, guest, buckets, is_storage) {
            Ok(rank) => ranked.push((rank, candidate)),
            Err(verdict) => {
                out.rejected.push((candidate, verdict.of_one(guest)));
                verdicts.push(verdict);
            }
        }
    }
    ranked.sort_by_key(|(rank, c)| (*rank, c.source_index, c.layout.shared, c.path.clone()));
    let mut unnamed: Option<Chosen<'a>> = None;
    for (rank, candidate) in ranked {
        if unnamed.is_some() && rank > Rank::Unnamed {
            break;
        }
        if out.chosen.is_some() {
            out.rejected
                .push((candidate, "a better fitting folder, or the same in an earlier one, is used".to_owned()));
            continue;
        }
        match look_at(candidate, guest, rank, is_storage) {
            Ok(Ok(chosen)) if rank == Rank::Unnamed => {
                let better = unnamed.as_ref().is_none_or(|best| newer(&chosen.facts, &best.facts));
                let loser = if better { unnamed.replace(chosen) } else { Some(chosen) };
                if let Some(loser) = loser {
                    out.rejected.push((loser.candidate, "a newer package of the same driver is used".to_owned()));
                }
            }
            Ok(Ok(chosen)) => out.chosen = Some(chosen),
            Ok(Err(verdict)) => {
                out.rejected.push((candidate, verdict.of_one(guest)));
                verdicts.push(verdict);
            }
            Err(error) if is_storage => return Err(error),
            Err(error) => {
                out.warnings.push(format!("left out: {error}"));
                out.rejected.push((candidate, error.to_string()));
                verdicts.push(Verdict::Broken(error.to_string()));
            }
        }
    }
    out.chosen = out.chosen.or(unnamed);
    out.verdict = combine(verdicts);
    Ok(out)
}

/// The telling reason of several: those of one kind are put together.
fn combine(verdicts: Vec<Verdict>) -> Verdict {
    let mut best = Verdict::Cpu(Vec::new());
    for verdict in verdicts {
        match (&mut best, verdict) {
            (Verdict::Cpu(all), Verdict::Cpu(more)) | (Verdict::Release(all), Verdict::Release(more)) => {
                all.extend(more);
                all.sort();
                all.dedup();
            }
            (best, verdict) if verdict < *best => *best = verdict,
            _ => {}
        }
    }
    best
}

fn rank(
    candidate: &Candidate,
    guest: &GuestTarget,
    buckets: &[String],
    is_storage: bool,
) -> std::result::Result<Rank, Verdict> {
    if let Some(arch) = candidate.layout.arch.filter(|&arch| arch != guest.arch) {
        return Err(Verdict::Cpu(vec![arch.to_string()]));
    }
    let Some(bucket) = candidate.layout.bucket else { return Ok(Rank::Unnamed) };
    let build = bucket_build(bucket).unwrap_or(0);
    // builds of one release differ; a folder is "newer" only if its release is
    let is_newer = build > guest.build && !guest.release().buckets.contains(&bucket);
    match buckets.iter().position(|b| b.eq_ignore_ascii_case(bucket)) {
        // a newer release's folder is in the list only if the user's definitions put it there: the INF decides, but a
        // driver of a newer kernel may call what this one does not have
        Some(index) if !(is_storage && is_newer && has_newer_kernel(build, guest)) => Ok(Rank::Listed(index)),
        None if !is_storage && !is_newer => {
            Ok(Rank::Older(std::cmp::Reverse(build), is_for_servers(bucket) != guest.server))
        }
        _ => Err(Verdict::Release(vec![bucket.to_owned()])),
    }
}

/// Whether the kernel of a build is of a later version than the guest's: 6.3 before 10.0; Windows 10 and 11 are both 10.0.
fn has_newer_kernel(build: u32, guest: &GuestTarget) -> bool {
    let other = GuestTarget::of_build(guest.arch, build, guest.server);
    (other.major, other.minor) > (guest.major, guest.minor)
}

/// Reads a candidate's INF and asks it.
fn look_at<'a>(
    candidate: &'a Candidate,
    guest: &GuestTarget,
    rank: Rank,
    is_storage: bool,
) -> Result<std::result::Result<Chosen<'a>, Verdict>> {
    let inf_bytes = candidate.source.read(&candidate.path)?;
    let inf = Inf::parse(&inf_bytes, &candidate.shown())?;
    if let Some((misfit, reason)) = inf.misfit(guest) {
        return Ok(Err(match misfit {
            Misfit::Cpu => Verdict::Cpu(vec![reason]),
            _ => Verdict::Inf(reason),
        }));
    }
    let facts = inf.facts(guest)?;
    if facts.models.is_empty() {
        return Ok(Err(Verdict::Inf("its INF has no devices for this Windows".to_owned())));
    }
    if let Rank::Older(std::cmp::Reverse(build), _) = rank {
        // a disk controller that no definition names by its INF is found by its class; a driver of another kernel family
        // is never taken, an INF that only names a device is
        let is_disk = is_storage || facts.class.eq_ignore_ascii_case("SCSIAdapter");
        let is_foreign = GuestTarget::of_build(guest.arch, build, false).major != guest.major;
        if is_disk || (is_foreign && facts.function_service().is_some()) {
            let bucket = candidate.layout.bucket.unwrap_or_default().to_owned();
            return Ok(Err(Verdict::Release(vec![bucket])));
        }
    }
    let section = facts.models.first().map_or("", |m| m.section.as_str());
    let reason = match (rank, candidate.layout.bucket) {
        (Rank::Listed(0), Some(bucket)) => format!("{bucket} is made for this Windows; its INF agrees ([{section}])"),
        (Rank::Listed(_), Some(bucket)) => {
            format!("nothing better than {bucket}; its INF accepts this Windows ([{section}])")
        }
        (Rank::Older(..), Some(bucket)) => format!("only older folders fit; {bucket} is the newest ([{section}])"),
        _ => format!("its INF is for this Windows ([{section}])"),
    };
    Ok(Ok(Chosen { candidate, inf_bytes, facts, reason }))
}

/// Whether a package outranks another as Windows compares them: date, then version.
fn newer(a: &Facts, b: &Facts) -> bool {
    (a.driver_date, a.driver_version) > (b.driver_date, b.driver_version)
}

/// Nothing at all for this guest is an error; known disk controllers, but none of them for this guest, give the reason.
fn check_outcome(
    sources: &Sources,
    guest: &GuestTarget,
    definitions: &Definitions,
    selection: &Selection,
    missing: &[(&Group, Verdict)],
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
    let all_cpu = !relevant.is_empty() && relevant.iter().all(|(_, verdict)| matches!(verdict, Verdict::Cpu(_)));
    let mut there: Vec<String> =
        relevant.iter().map(|(group, verdict)| format!("{}: {verdict}", group.driver)).collect();
    there.truncate(8);
    let what = if all_cpu {
        format!("the drivers on the media are for another CPU; the guest is {guest}")
    } else {
        format!("there is no driver for {guest} on the media")
    };
    let reason = format!("{what} ({})", there.join("; "));
    if selection.packages.is_empty() {
        Err(nothing_fits(sources, guest, &selection.buckets, &reason))
    } else {
        Ok(Some(reason))
    }
}

fn nothing_fits(sources: &Sources, guest: &GuestTarget, buckets: &[String], reason: &str) -> Error {
    Error::new(Kind::Drivers, Layer::Drivers, reason).path(sources.describe()).hint(format!(
        "use media with drivers for {} ({}, folder {}); older systems need an older virtio-win",
        guest.release().name,
        guest.arch,
        buckets.join(" or ")
    ))
}

/// The same package found through two layouts is kept once.
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

/// A user's definition that fits nothing is probably a slip.
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
