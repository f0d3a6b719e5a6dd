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
