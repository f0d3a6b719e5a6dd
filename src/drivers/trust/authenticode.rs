//! The signature inside a PE file ("Windows Authenticode Portable Executable Signature Format").

use der::asn1::ObjectIdentifier;

use super::pkcs7::{self, Algorithm};
use super::report::SignatureReport;
use crate::drivers::pe::{PeFacts, signed_data};

/// `SPC_INDIRECT_DATA_OBJID`: the signed content is the digest of a file.
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");

/// Checks the embedded signature of a file.
#[must_use]
pub fn embedded_signature(data: &[u8], pe: &PeFacts) -> SignatureReport {
    let Some((at, size)) = pe.certificates else {
        return SignatureReport::default().with_problem("no embedded signature");
    };
    let table = data.get(at as usize..(at as usize).saturating_add(size as usize)).unwrap_or_default();
    let (mut out, digest) = match read(table) {
        Ok(read) => read,
        Err(report) => return report,
    };
    if file_digest(data, pe, digest.0, true) != digest.1 {
        return out.with_problem("the embedded signature is of another file: the digests differ");
    }
    out.matches = true;
    out
}

/// Checks a certificate table alone. Without the file it stays open whether the signature is of that file.
#[must_use]
pub fn embedded_signature_alone(table: &[u8]) -> SignatureReport {
    read(table).map_or_else(|report| report, |(report, _)| report)
}

/// Reads a certificate table: the report so far, and the signed digest of the file. As error: a report with its problem.
fn read(table: &[u8]) -> Result<(SignatureReport, (Algorithm, Vec<u8>)), SignatureReport> {
    let mut out = SignatureReport { present: true, ..SignatureReport::default() };
    let Some(certificate) = signed_data(table) else {
        return Err(out.with_problem("the embedded signature is cut or of an unknown kind"));
    };
    let signed = match pkcs7::parse(certificate) {
        Ok(signed) if signed.content_type == INDIRECT_DATA => signed,
        Ok(_) => return Err(out.with_problem("the embedded signature is not one of a program")),
        Err(why) => return Err(out.with_problem(format!("the embedded signature cannot be read ({why})"))),
    };
    out.signer = signed.signer;
    let Some((oid, digest)) = pkcs7::indirect_digest(&signed.content) else {
        return Err(out.with_problem("the embedded signature holds no digest"));
    };
    let Some(algorithm) = Algorithm::from_oid(&oid) else {
        let name = pkcs7::digest_name(&oid);
        out.digest = Some(name.to_lowercase());
        let text = format!("the embedded signature holds the file's {name} digest, which is not trusted any more");
        return Err(out.with_problem(text));
    };
    if let Some(name) = &signed.other_digest {
        out.digest = Some(name.to_lowercase());
        return Err(
            out.with_problem(format!("the embedded signature is made with {name}, which is not trusted any more"))
        );
    }
    out.digest = Some(algorithm.name().to_owned());
    out.parsed = true;
    if !signed.content_matches {
        let text = "the embedded signature contradicts itself: its message digest is not that of its content";
        return Err(out.with_problem(text));
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
