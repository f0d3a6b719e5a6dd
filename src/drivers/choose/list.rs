//! The list of all packages on driver media, for `winject drivers list`.
//!
//! The files that an INF names are read, so that each signature is checked against them.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::candidates::{Candidate, discover};
use super::evaluate::evaluate;
use super::select::select;
use crate::drivers::definitions::Definitions;
use crate::drivers::guest::{Arch, GuestTarget};
use crate::drivers::inf::{Facts, Inf, TargetOs};
use crate::drivers::package::Skipped;
use crate::drivers::pe::PeFacts;
use crate::drivers::source::Sources;
use crate::drivers::trust::{self, Policy, SignatureReport};
use crate::error::Result;

/// All packages of the media.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Listing {
    /// The sources, as given.
    pub sources: Vec<String>,
    /// The guest for which the choice was made, if there is one.
    pub guest: Option<String>,
    /// The folders tried for that guest's release, best first.
    pub buckets: Vec<String>,
    /// One entry for each INF of the media.
    pub packages: Vec<Listed>,
    /// INFs that are never used.
    pub skipped: Vec<Skipped>,
    /// Oddities of media, INFs and definitions, for the user.
    pub warnings: Vec<String>,
    /// Why a guest would get nothing, if so.
    pub problem: Option<String>,
    /// What can be done about it.
    pub remedy: Option<String>,
}

/// One INF of the media.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Listed {
    /// The driver's folder, or the INF's stem.
    pub driver: String,
    /// Path of the INF below its source.
    pub path: String,
    /// The folder that stands for the Windows release; empty without one.
    pub bucket: String,
    /// `Class` of the INF.
    pub class: String,
    /// Service that the devices bind to.
    pub service: Option<String>,
    /// `Provider` of the INF, with its strings expanded.
    pub provider: String,
    /// `DriverVer`: version and date.
    pub version: String,
    /// Date of `DriverVer` as ISO 8601 text.
    pub date: String,
    /// Windows versions and CPUs of the INF's decorations, as text.
    pub systems: Vec<String>,
    /// Signature of the catalogue, checked against the files of the package.
    pub catalogue: SignatureReport,
    /// Embedded signature of the service's driver file.
    pub driver_file: SignatureReport,
    /// For a guest: whether this one is used.
    pub chosen: Option<bool>,
    /// For a guest: why it is used or not. Without one: the fault of the package, if it has one.
    pub reason: Option<String>,
}

/// Lists the media; with a guest, says of each package whether it would be used and why.
///
/// # Errors
/// When the media cannot be read. A broken package is part of the answer.
pub fn list(
    sources: &Sources,
    guest: Option<&GuestTarget>,
    definitions: &Definitions,
    policy: &Policy,
) -> Result<Listing> {
    let mut out = Listing {
        sources: sources.iter().map(|s| s.root().display().to_string()).collect(),
        guest: guest.map(ToString::to_string),
        buckets: guest.map(|g| definitions.buckets_for(g)).unwrap_or_default(),
        packages: Vec::new(),
        skipped: Vec::new(),
        warnings: definitions.warnings.clone(),
        problem: None,
        remedy: None,
    };
    out.warnings.extend(sources.iter().flat_map(|s| s.warnings().iter().cloned()));
    let groups = discover(sources, &mut out.skipped)?;
    let mut decisions: HashMap<(usize, String), (bool, String)> = HashMap::new();
    if let Some(guest) = guest {
        for group in &groups {
            match evaluate(group, guest, &out.buckets, definitions) {
                Ok(evaluation) => {
                    for (candidate, reason) in evaluation.rejected {
                        decisions.insert((candidate.source_index, candidate.path.clone()), (false, reason));
                    }
                    if let Some(chosen) = evaluation.chosen {
                        let key = (chosen.candidate.source_index, chosen.candidate.path.clone());
                        decisions.insert(key, (true, chosen.reason));
                    }
                }
                Err(error) => out.warnings.push(error.to_string()),
            }
        }
        match select(sources, guest, definitions, policy) {
            Ok(selection) => out.warnings.extend(selection.warnings),
            Err(error) => {
                out.remedy = error.hint_text().map(str::to_owned);
                out.problem = Some(error.to_string());
            }
        }
    }
    for group in &groups {
        for candidate in &group.candidates {
            let mut listed = read_package(&group.driver, candidate)?;
            if guest.is_some() {
                let decision = decisions.remove(&(candidate.source_index, candidate.path.clone()));
                let (chosen, reason) = decision.unwrap_or((false, "not examined".to_owned()));
                listed.chosen = Some(chosen);
                listed.reason = Some(reason);
            }
            out.packages.push(listed);
        }
    }
    out.warnings.sort();
    out.warnings.dedup();
    Ok(out)
}

fn read_package(driver: &str, candidate: &Candidate) -> Result<Listed> {
    let mut out = Listed {
        driver: driver.to_owned(),
        path: candidate.path.clone(),
        bucket: candidate.layout.bucket.unwrap_or_default().to_owned(),
        class: String::new(),
        service: None,
        provider: String::new(),
        version: String::new(),
        date: String::new(),
        systems: Vec::new(),
        catalogue: SignatureReport::default(),
        driver_file: SignatureReport::default(),
        chosen: None,
        reason: None,
    };
    let bytes = candidate.source.read(&candidate.path)?;
    let facts = match Inf::parse(&bytes, &candidate.shown()).and_then(|inf| facts_of(&inf, candidate, &mut out)) {
        Ok(facts) => facts,
        Err(error) => {
            out.reason = Some(error.to_string());
            return Ok(out);
        }
    };
    out.class = facts.class.clone();
    out.provider = facts.provider.resolved.clone();
    out.version = facts.version_text();
    out.date = facts.driver_date_text.clone();
    out.service = facts.function_service().map(|s| s.name.clone());
    out.catalogue = trust::catalogue_report(&facts, &mut |name| read_file(candidate, name))?;
    out.driver_file = driver_signature(candidate, &facts)?;
    Ok(out)
}

/// A file of the package, if it is on the media.
fn read_file(candidate: &Candidate, name: &str) -> Result<Option<Arc<Vec<u8>>>> {
    let Some(file) = candidate.source.find(&path_of(candidate, name)) else { return Ok(None) };
    candidate.source.read(&file.path).map(|data| Some(Arc::new(data)))
}

/// Path below the source of a file of the package.
fn path_of(candidate: &Candidate, name: &str) -> String {
    match candidate.folder() {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

/// The facts for the newest Windows that the INF is for, on the CPU of its folder.
fn facts_of(inf: &Inf, candidate: &Candidate, out: &mut Listed) -> Result<Facts> {
    let targets = inf.targets();
    out.systems = targets.iter().filter(|t| !t.undecorated || targets.len() == 1).map(TargetOs::describe).collect();
    let arch = candidate.layout.arch.or_else(|| targets.iter().find_map(|t| t.arch)).unwrap_or(Arch::X86);
    let tried = [26100, 9600, 7601, 6002, 3790].into_iter().flat_map(|build| [false, true].map(|s| (build, s)));
    let guests = tried.map(|(build, server)| GuestTarget::of_build(arch, build, server));
    let best = guests.clone().find(|guest| inf.misfit(guest).is_none());
    inf.facts(&best.unwrap_or_else(|| GuestTarget::of_build(arch, 26100, false)))
}

/// The embedded signature of the file of the driver's service.
fn driver_signature(candidate: &Candidate, facts: &Facts) -> Result<SignatureReport> {
    let fault = |problem: String| SignatureReport { problem: Some(problem), ..SignatureReport::default() };
    let Some(service) = facts.function_service() else { return Ok(fault("the INF installs no service".to_owned())) };
    let name = service.binary.file_name();
    let Some(data) = read_file(candidate, name)? else {
        return Ok(fault(format!("{name} is not on the media")));
    };
    Ok(match PeFacts::parse(&data) {
        Ok(pe) if pe.certificates.is_some() => trust::embedded_signature(&data, &pe),
        Ok(_) => fault("not signed".to_owned()),
        Err(error) => fault(format!("{name} is {error}")),
    })
}
