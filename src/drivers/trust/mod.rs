//! Whether a driver is signed: embedded signatures, catalogues, and the policy for boot drivers.

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

use super::assemble::Contents;
use super::guest::GuestTarget;
use super::inf::Facts;
use super::pe::PeFacts;
use crate::error::{Error, Kind, Layer, Result};

/// What the catalogue says about a package.
pub(super) fn catalogue_report(facts: &Facts, contents: &Contents, _guest: &GuestTarget) -> SignatureReport {
    let Some(name) = &facts.catalog else {
        return SignatureReport { problem: Some("the INF names no catalogue".to_owned()), ..Default::default() };
    };
    match contents.get(name) {
        Some(_) => SignatureReport { present: true, ..Default::default() },
        None => SignatureReport { problem: Some(format!("the catalogue {name} is missing")), ..Default::default() },
    }
}

/// Checks a boot driver's signature as the policy asks.
#[allow(clippy::too_many_arguments)]
pub(super) fn check_driver(
    _data: &[u8],
    pe: &PeFacts,
    _contents: &Contents,
    _facts: &Facts,
    _guest: &GuestTarget,
    policy: &Policy,
    path: &str,
    warnings: &mut Vec<String>,
) -> Result<SignatureReport> {
    if pe.certificates.is_some() {
        return Ok(SignatureReport { present: true, ..Default::default() });
    }
    let problem = "the driver file has no embedded signature";
    if policy.signature == SignatureLevel::Warn {
        warnings.push(format!("{path}: {problem}"));
        return Ok(SignatureReport { problem: Some(problem.to_owned()), ..Default::default() });
    }
    Err(Error::new(Kind::Drivers, Layer::Drivers, problem).path(path).hint(
        "a 64-bit Windows does not boot with it; use signed drivers, or --signature-policy warn for a test machine",
    ))
}
