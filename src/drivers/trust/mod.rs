//! Whether a driver is signed: embedded signatures, catalogues, and the policy for boot drivers.
//!
//! "Signed" means here: a signature is present, parses, and its hashes match. The signer is reported; chains are not
//! built, because which roots the guest trusts is the guest's affair.

mod authenticode;
mod catalogue;
mod pkcs7;
mod publisher;

pub use authenticode::{report as embedded_signature, report_without_file as embedded_signature_alone};
pub use catalogue::Catalogue;
pub use publisher::{Publisher, STORE_KEY};

use super::guest::{Arch, GuestTarget};
use super::inf::Facts;
use super::pe::PeFacts;
use crate::error::{Error, Kind, Layer, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How much a boot driver's signature must prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureLevel {
    /// Present, parses, and its hashes match; anything less is refused.
    #[default]
    Require,
    /// A signature must be present; one that does not parse or match is only a warning in the report.
    Present,
    /// Nothing is refused; every fault is a warning in the report.
    Warn,
}

/// Rules for the choice of driver packages. By default a boot driver's signature must be present and match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// What a boot driver's signature must prove.
    pub signature: SignatureLevel,
}

/// What is known about the signature of a file or of a package.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SignatureReport {
    /// An embedded signature (or a catalogue) is there.
    pub present: bool,
    /// It parses as a PKCS #7 signature.
    pub parsed: bool,
    /// Its digest equals that of the file (for a package: of every file that the catalogue should list).
    pub matches: bool,
    /// Common name of the signer.
    pub signer: Option<String>,
    /// `sha1`, `sha256`, …
    pub digest: Option<String>,
    /// What is wrong, if anything is.
    pub problem: Option<String>,
}

impl SignatureReport {
    /// "present, parses, hashes match": all three.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.present && self.parsed && self.matches
    }
}

/// Gives a file of a package by its name below the package's folder; `None` when it is not there.
pub(super) type ReadFile<'a> = dyn FnMut(&str) -> Result<Option<Arc<Vec<u8>>>> + 'a;

/// What the catalogue says about a package: about the INF and each file that the INF names.
///
/// # Errors
/// Those of `read`.
pub(super) fn catalogue_report(facts: &Facts, read: &mut ReadFile<'_>) -> Result<SignatureReport> {
    let Some(name) = &facts.catalog else {
        return Ok(fault(SignatureReport::default(), "the INF names no catalogue".to_owned()));
    };
    let Some(data) = read(name)? else {
        return Ok(fault(SignatureReport::default(), format!("the catalogue {name} is missing")));
    };
    let present = SignatureReport { present: true, ..SignatureReport::default() };
    match Catalogue::parse(&data) {
        Ok(catalogue) => judge_package(facts, name, &catalogue, read),
        Err(why) => Ok(fault(present, format!("the catalogue {name} cannot be read ({why})"))),
    }
}

fn fault(report: SignatureReport, problem: String) -> SignatureReport {
    SignatureReport { problem: Some(problem), ..report }
}

/// See [`catalogue_report`], with the catalogue parsed.
fn judge_package(facts: &Facts, name: &str, catalogue: &Catalogue, read: &mut ReadFile<'_>) -> Result<SignatureReport> {
    let digest = catalogue.digest_name().map(str::to_owned);
    let report = SignatureReport {
        present: true,
        parsed: true,
        signer: catalogue.signer().map(str::to_owned),
        digest: digest.or_else(|| catalogue.other_digest().map(str::to_lowercase)),
        ..SignatureReport::default()
    };
    if let Some(digest) = catalogue.other_digest() {
        let text = format!("the catalogue {name} is signed with {digest}, which is not trusted any more");
        return Ok(fault(report, text));
    }
    if !catalogue.is_intact() {
        let text = format!("the catalogue {name} contradicts itself: its signature is of another list");
        return Ok(fault(report, text));
    }
    let missing = unlisted(facts, catalogue, read)?;
    if missing.is_empty() {
        return Ok(SignatureReport { matches: true, ..report });
    }
    let others: Vec<&str> = catalogue.other_digests().collect();
    let why = if others.is_empty() {
        "it is of another package, or the file was changed".to_owned()
    } else {
        format!("it lists files by {}, which is not trusted any more", others.join(" and "))
    };
    Ok(fault(report, format!("the catalogue {name} does not list {}: {why}", missing.join(", "))))
}

/// The INF and the files that it installs, as far as the catalogue does not list them.
fn unlisted(facts: &Facts, catalogue: &Catalogue, read: &mut ReadFile<'_>) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let copied = facts.installs.iter().flat_map(|install| &install.copy_files).map(|file| &file.source);
    for name in std::iter::once(&facts.file_name).chain(&facts.source_files).chain(copied) {
        if seen.insert(name.to_lowercase())
            && let Some(data) = read(name)?
            && !catalogue.lists(&data)
        {
            out.push(name.clone());
        }
    }
    Ok(out)
}

/// A driver file that is to be registered, and what belongs to it.
pub(super) struct Subject<'a> {
    pub data: &'a [u8],
    pub pe: &'a PeFacts,
    /// For messages.
    pub path: &'a str,
    /// What the package's catalogue says.
    pub package: &'a SignatureReport,
}

/// Checks a boot driver's signature as the policy asks.
pub(super) fn check_driver(
    subject: &Subject<'_>,
    guest: &GuestTarget,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<SignatureReport> {
    let report = embedded_signature(subject.data, subject.pe);
    let refuse = |problem: &str, level: SignatureLevel| {
        let hint = "use signed drivers for this Windows from their maker; for a test machine, --signature-policy warn";
        let error = Error::new(Kind::Drivers, Layer::Drivers, problem).path(subject.path).hint(hint);
        if policy.signature <= level { Err(error) } else { Ok(()) }
    };
    let mut faults = Vec::new();
    if !report.present {
        let problem = "the driver file is not signed: it has no embedded signature, and the boot loader wants one";
        refuse(problem, SignatureLevel::Present)?;
        faults.push(problem.to_owned());
    } else if let Some(problem) = &report.problem {
        refuse(problem, SignatureLevel::Require)?;
        faults.push(problem.clone());
    }
    if subject.package.present
        && let Some(problem) = &subject.package.problem
    {
        refuse(problem, SignatureLevel::Require)?;
        faults.push(problem.clone());
    }
    if !subject.package.present
        && let Some(problem) = &subject.package.problem
    {
        faults.push(format!("{problem}: the running Windows will not install the package"));
    }
    if let Some((problem, is_certain)) = too_new_digest(&report, guest) {
        if is_certain {
            refuse(&problem, SignatureLevel::Require)?;
        }
        faults.push(problem);
    }
    warnings.extend(faults.iter().map(|problem| format!("{}: {problem}", subject.path)));
    Ok(report)
}

/// Windows 7 and Server 2008 R2 know SHA-2 signatures only after an update; only 64-bit systems insist on signatures.
/// The answer says whether it is certain that the update is missing.
pub(crate) fn too_new_digest(report: &SignatureReport, guest: &GuestTarget) -> Option<(String, bool)> {
    let is_old = (guest.major, guest.minor) <= (6, 1);
    let is_sha2 = report.digest.as_deref().is_some_and(|digest| digest.starts_with("sha") && digest != "sha1");
    if !is_old || !is_sha2 || guest.sha2_update == Some(true) {
        return None;
    }
    let name = guest.release().name;
    let certain = guest.sha2_update == Some(false) && guest.arch == Arch::Amd64;
    let state = if guest.sha2_update == Some(false) { "lacks" } else { "may lack" };
    Some((
        format!("the signature is SHA-2 only, and this {name} {state} the update that knows it (KB4474419)"),
        certain,
    ))
}
