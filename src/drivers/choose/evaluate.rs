//! The best candidate of one driver for a guest.
//!
//! The folders made for the guest's release come first, in the order of the release table; then folders that name no
//! release; then, except for disk controllers, folders of older releases of the same kernel family. In each step the INF
//! itself must be for the guest.

use super::candidates::{Candidate, Group};
use crate::drivers::definitions::Definitions;
use crate::drivers::guest::GuestTarget;
use crate::drivers::inf::{Facts, Inf, Misfit};
use crate::drivers::source::layout::{bucket_build, is_for_servers};
use crate::error::Result;

/// A candidate that fits, with its INF read.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub candidate: &'a Candidate,
    pub inf_bytes: Vec<u8>,
    pub facts: Facts,
    pub reason: String,
}

/// Why no candidate of a group was chosen; the reasons nearest to success come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rejection {
    /// A package is for the CPU, but its INF is for newer Windows, or another product.
    Inf(String),
    /// There are folders for the CPU, but not for this release.
    Release(Vec<String>),
    /// The INF cannot be read.
    Broken(String),
    /// All packages are for other CPUs.
    Cpu(Vec<String>),
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inf(reason) => f.write_str(reason),
            Self::Release(buckets) => write!(f, "the media has it for {} only", buckets.join(", ")),
            Self::Broken(error) => f.write_str(error),
            Self::Cpu(arches) => write!(f, "the media has it for another CPU only ({})", arches.join(", ")),
        }
    }
}

impl Rejection {
    /// The reason in the words for a single package.
    fn describe_one(&self, guest: &GuestTarget) -> String {
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

/// The best candidate of a group, and why the others were not chosen.
pub(super) struct Evaluation<'a> {
    pub chosen: Option<Chosen<'a>>,
    pub rejection: Rejection,
    pub warnings: Vec<String>,
    /// Every candidate that was not chosen, with the reason.
    pub rejected: Vec<(&'a Candidate, String)>,
}

/// The order in which candidates are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Its folder is in the list of the guest's release, at this position.
    Listed(usize),
    /// Its path names no release: the INF decides.
    Unnamed,
    /// Made for another release that is not newer; the newest first, of two for the same kernel the one for the guest's
    /// kind of product.
    Older(std::cmp::Reverse<u32>, bool),
}

/// Finds the best candidate of a group.
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
        Evaluation { chosen: None, rejection: Rejection::Cpu(Vec::new()), warnings: Vec::new(), rejected: Vec::new() };
    let mut rejections = Vec::new();
    let mut ranked = Vec::new();
    for candidate in &group.candidates {
        match rank(candidate, guest, buckets, is_storage) {
            Ok(rank) => ranked.push((rank, candidate)),
            Err(rejection) => {
                out.rejected.push((candidate, rejection.describe_one(guest)));
                rejections.push(rejection);
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
        match read_candidate(candidate, guest, rank, is_storage) {
            Ok(Ok(chosen)) if rank == Rank::Unnamed => {
                let better = unnamed.as_ref().is_none_or(|best| is_newer(&chosen.facts, &best.facts));
                let loser = if better { unnamed.replace(chosen) } else { Some(chosen) };
                if let Some(loser) = loser {
                    out.rejected.push((loser.candidate, "a newer package of the same driver is used".to_owned()));
                }
            }
            Ok(Ok(chosen)) => out.chosen = Some(chosen),
            Ok(Err(rejection)) => {
                out.rejected.push((candidate, rejection.describe_one(guest)));
                rejections.push(rejection);
            }
            Err(error) if is_storage => return Err(error),
            Err(error) => {
                out.warnings.push(format!("left out: {error}"));
                out.rejected.push((candidate, error.to_string()));
                rejections.push(Rejection::Broken(error.to_string()));
            }
        }
    }
    out.chosen = out.chosen.or(unnamed);
    out.rejection = combine(rejections);
    Ok(out)
}

/// The most telling of several reasons; those of the same kind are merged.
fn combine(rejections: Vec<Rejection>) -> Rejection {
    let mut best = Rejection::Cpu(Vec::new());
    for rejection in rejections {
        match (&mut best, rejection) {
            (Rejection::Cpu(all), Rejection::Cpu(more)) | (Rejection::Release(all), Rejection::Release(more)) => {
                all.extend(more);
                all.sort();
                all.dedup();
            }
            (best, rejection) if rejection < *best => *best = rejection,
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
) -> std::result::Result<Rank, Rejection> {
    if let Some(arch) = candidate.layout.arch.filter(|&arch| arch != guest.arch) {
        return Err(Rejection::Cpu(vec![arch.to_string()]));
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
        _ => Err(Rejection::Release(vec![bucket.to_owned()])),
    }
}

/// Whether the kernel of a build is of a later version than the guest's: 6.3 before 10.0; Windows 10 and 11 are both 10.0.
fn has_newer_kernel(build: u32, guest: &GuestTarget) -> bool {
    let other = GuestTarget::of_build(guest.arch, build, guest.server);
    (other.major, other.minor) > (guest.major, guest.minor)
}

/// Reads a candidate's INF and checks that it is for the guest.
fn read_candidate<'a>(
    candidate: &'a Candidate,
    guest: &GuestTarget,
    rank: Rank,
    is_storage: bool,
) -> Result<std::result::Result<Chosen<'a>, Rejection>> {
    let inf_bytes = candidate.source.read(&candidate.path)?;
    let inf = Inf::parse(&inf_bytes, &candidate.shown())?;
    if let Some((misfit, reason)) = inf.misfit(guest) {
        return Ok(Err(match misfit {
            Misfit::Cpu => Rejection::Cpu(vec![reason]),
            _ => Rejection::Inf(reason),
        }));
    }
    let facts = inf.facts(guest)?;
    if facts.models.is_empty() {
        return Ok(Err(Rejection::Inf("its INF has no devices for this Windows".to_owned())));
    }
    if let Rank::Older(std::cmp::Reverse(build), _) = rank {
        // a disk controller that no definition names by its INF is found by its class; a driver of another kernel family
        // is never taken, an INF that only names a device is
        let is_disk = is_storage || facts.class.eq_ignore_ascii_case("SCSIAdapter");
        let is_foreign = GuestTarget::of_build(guest.arch, build, false).major != guest.major;
        if is_disk || (is_foreign && facts.function_service().is_some()) {
            let bucket = candidate.layout.bucket.unwrap_or_default().to_owned();
            return Ok(Err(Rejection::Release(vec![bucket])));
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
fn is_newer(a: &Facts, b: &Facts) -> bool {
    (a.driver_date, a.driver_version) > (b.driver_date, b.driver_version)
}
