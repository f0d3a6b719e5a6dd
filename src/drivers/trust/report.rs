//! The result of checking a signature.

use serde::Serialize;

/// The result of checking the signature of a file or of a package.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct SignatureReport {
    /// There is an embedded signature (or a catalogue).
    pub present: bool,
    /// It parses as a PKCS #7 signature.
    pub parsed: bool,
    /// Its digest equals that of the file (for a package: of every file that the catalogue should list).
    pub matches: bool,
    /// Common name of the signer.
    pub signer: Option<String>,
    /// Name of the digest algorithm, in lower case: `sha1`, `sha256`, …
    pub digest: Option<String>,
    /// Why the signature proves nothing, or less than it should; `None` if it is good.
    pub problem: Option<String>,
}

impl SignatureReport {
    /// Whether a signature is present, parses, and its hashes match.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.present && self.parsed && self.matches
    }

    /// The same report with a problem.
    #[must_use]
    pub(super) fn with_problem(mut self, problem: impl Into<String>) -> Self {
        self.problem = Some(problem.into());
        self
    }
}
