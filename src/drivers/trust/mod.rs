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

use super::assemble::Contents;
use super::guest::{Arch, GuestTarget};
use super::inf::Facts;
use super::pe::PeFacts;
use crate::error::{Error, Kind, Layer, Result};
use serde::{Deserialize, Serialize};

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

/// The rules of a choice.
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

/// What the catalogue says about a package.
pub(super) fn catalogue_report(facts: &Facts, contents: &Contents) -> Result<SignatureReport> {
    let fault = |report: SignatureReport, problem: String| SignatureReport { problem: Some(problem), ..report };
    let nothing = SignatureReport::default();
    let Some(name) = &facts.catalog else { return Ok(fault(nothing, "the INF names no catalogue".to_owned())) };
    let Some(file) = contents.get(name) else {
        return Ok(fault(nothing, format!("the catalogue {name} is missing")));
    };
    let present = SignatureReport { present: true, ..nothing };
    let catalogue = match Catalogue::parse(&*contents.data(file)?) {
        Ok(catalogue) => catalogue,
        Err(why) => return Ok(fault(present, format!("the catalogue {name} cannot be read ({why})"))),
    };
    let report = SignatureReport {
        parsed: true,
        signer: catalogue.signer().map(str::to_owned),
        digest: catalogue.digest_name().map(str::to_owned),
        ..present
    };
    if !catalogue.is_intact() {
        return Ok(fault(report, format!("the catalogue {name} contradicts itself: its signature is of another list")));
    }
    let missing = unlisted(facts, contents, &catalogue)?;
    if missing.is_empty() {
        return Ok(SignatureReport { matches: true, ..report });
    }
    Ok(fault(report, format!("the catalogue {name} does not list {}: it is of another package", missing.join(", "))))
}

/// The INF and the files that it installs, as far as the catalogue does not list them.
fn unlisted(facts: &Facts, contents: &Contents, catalogue: &Catalogue) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let wanted = std::iter::once(&facts.file_name).chain(&facts.source_files);
    for file in wanted.filter_map(|name| contents.get(name)) {
        if !catalogue.lists(&*contents.data(file)?) {
            missing.push(file.name.clone());
        }
    }
    Ok(missing)
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
    let is_sha2 = report.digest.as_deref().is_some_and(|digest| digest != "sha1");
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
