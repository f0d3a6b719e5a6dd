//! The policy for boot drivers: what a signature must prove.

use serde::{Deserialize, Serialize};

use super::authenticode::embedded_signature;
use super::report::SignatureReport;
use crate::drivers::guest::{Arch, GuestTarget};
use crate::drivers::pe::PeFacts;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// How much a boot driver's signature must prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
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

/// Requirements on the packages that [`select`](crate::drivers::select()) chooses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// What a boot driver's signature must prove.
    pub signature: SignatureLevel,
}

/// A driver file that is to be registered, with the report about its package.
pub(crate) struct Subject<'a> {
    pub data: &'a [u8],
    pub pe: &'a PeFacts,
    /// Where the file is, for messages.
    pub path: &'a str,
    /// Result of checking the package's catalogue.
    pub package: &'a SignatureReport,
}

/// Checks a boot driver's signature by the policy.
///
/// # Errors
/// When the policy refuses the signature. Other faults are added to `warnings`.
pub(crate) fn check_driver(
    subject: &Subject<'_>,
    guest: &GuestTarget,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<SignatureReport> {
    let report = embedded_signature(subject.data, subject.pe);
    let refuse = |problem: &str, level: SignatureLevel| {
        let hint = "use signed drivers for this Windows from their maker; for a test machine, --signature-policy warn";
        let error = Error::new(Kind::Drivers, Layer::Drivers, problem)
            .with_code(ErrorCode::DriverUnsigned)
            .path(subject.path)
            .hint(hint);
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

/// The problem of a signature that the guest cannot check, and whether it is certain: Windows 7 and Server 2008 R2 know
/// SHA-2 signatures only after an update, and only 64-bit systems insist on signatures.
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
