//! The signature inside a PE file ("Windows Authenticode Portable Executable Signature Format").

use super::SignatureReport;
use super::pkcs7::{self, Algorithm};
use crate::drivers::pe::PeFacts;
use der::asn1::ObjectIdentifier;

/// `SPC_INDIRECT_DATA_OBJID`
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
/// `WIN_CERT_TYPE_PKCS_SIGNED_DATA`
const PKCS_SIGNED_DATA: u16 = 2;

/// What the embedded signature of a file says.
#[must_use]
pub fn report(data: &[u8], pe: &PeFacts) -> SignatureReport {
    let Some((at, size)) = pe.certificates else {
        return problem(SignatureReport::default(), "there is no embedded signature");
    };
    let table = data.get(at as usize..(at as usize).saturating_add(size as usize)).unwrap_or_default();
    let (mut out, digest) = match read(table) {
        Ok(read) => read,
        Err(report) => return report,
    };
    if file_digest(data, pe, digest.0, true) != digest.1 {
        return problem(out, "the embedded signature is of another file: the digests differ");
    }
    out.matches = true;
    out
}

/// What an embedded signature says by itself, without the file: whether it is of this file stays open.
#[must_use]
pub fn report_without_file(table: &[u8]) -> SignatureReport {
    read(table).map_or_else(|report| report, |(report, _)| report)
}

/// Reads the attribute certificates; the file's digest that they sign. As error: a report that says what is wrong.
fn read(table: &[u8]) -> Result<(SignatureReport, (Algorithm, Vec<u8>)), SignatureReport> {
    let mut out = SignatureReport { present: true, ..SignatureReport::default() };
    let Some(certificate) = certificate(table) else {
        return Err(problem(out, "the embedded signature is cut or of an unknown kind"));
    };
    let signed = match pkcs7::parse(certificate) {
        Ok(signed) if signed.content_type == INDIRECT_DATA => signed,
        Ok(_) => return Err(problem(out, "the embedded signature is not one of a program")),
        Err(why) => return Err(problem(out, &format!("the embedded signature cannot be read ({why})"))),
    };
    out.signer = signed.signer;
    let Some((oid, digest)) = pkcs7::indirect_digest(&signed.content) else {
        return Err(problem(out, "the embedded signature holds no digest"));
    };
    let Some(algorithm) = Algorithm::from_oid(&oid) else {
        let name = pkcs7::digest_name(&oid);
        out.digest = Some(name.to_lowercase());
        let text = format!("the embedded signature holds the file's {name} digest, which is not trusted any more");
        return Err(problem(out, &text));
    };
    if let Some(name) = &signed.other_digest {
        out.digest = Some(name.to_lowercase());
        return Err(problem(
            out,
            &format!("the embedded signature is made with {name}, which is not trusted any more"),
        ));
    }
    out.digest = Some(algorithm.name().to_owned());
    out.parsed = true;
    if !signed.content_matches {
        let text = "the embedded signature contradicts itself: its message digest is not that of its content";
        return Err(problem(out, text));
    }
    Ok((out, (algorithm, digest)))
}

/// The Authenticode digest of a file.
pub(super) fn file_digest(data: &[u8], pe: &PeFacts, algorithm: Algorithm, padded: bool) -> Vec<u8> {
    match algorithm {
        Algorithm::Sha1 => pe.digest::<sha1::Sha1>(data, padded),
        Algorithm::Sha256 => pe.digest::<sha2::Sha256>(data, padded),
        Algorithm::Sha384 => pe.digest::<sha2::Sha384>(data, padded),
        Algorithm::Sha512 => pe.digest::<sha2::Sha512>(data, padded),
    }
}

/// The first `WIN_CERTIFICATE` with signed data: length, revision, type, content; entries are aligned to eight bytes.
fn certificate(table: &[u8]) -> Option<&[u8]> {
    let mut rest = table;
    for _ in 0..16 {
        let length = usize::try_from(u32::from_le_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_le_bytes(rest.get(6..8)?.try_into().ok()?);
        let content = rest.get(8..length)?;
        if kind == PKCS_SIGNED_DATA {
            return Some(content);
        }
        rest = rest.get(length.checked_next_multiple_of(8)?..)?;
    }
    None
}

fn problem(mut report: SignatureReport, text: &str) -> SignatureReport {
    report.problem = Some(text.to_owned());
    report
}
