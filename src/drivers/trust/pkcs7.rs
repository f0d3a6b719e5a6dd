//! PKCS #7 signed data, as Authenticode and catalogues use it.
//!
//! Outer structure and signers are those of the crate `cms`. Certificates are read one by one and only for the signer's
//! name: a certificate with an oddity must not make a signature unreadable.

use cms::cert::x509::Certificate;
use cms::content_info::ContentInfo;
use cms::signed_data::{EncapsulatedContentInfo, SignerIdentifier, SignerInfo};
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use sha2::Digest;

/// Most elements of a constructed value that are read.
const ELEMENTS_MAX: usize = 100_000;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// A digest algorithm that signatures of drivers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Algorithm {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    pub fn from_oid(oid: &ObjectIdentifier) -> Option<Self> {
        match oid.to_string().as_str() {
            "1.3.14.3.2.26" => Some(Self::Sha1),
            "2.16.840.1.101.3.4.2.1" => Some(Self::Sha256),
            "2.16.840.1.101.3.4.2.2" => Some(Self::Sha384),
            "2.16.840.1.101.3.4.2.3" => Some(Self::Sha512),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => sha1::Sha1::digest(data).to_vec(),
            Self::Sha256 => sha2::Sha256::digest(data).to_vec(),
            Self::Sha384 => sha2::Sha384::digest(data).to_vec(),
            Self::Sha512 => sha2::Sha512::digest(data).to_vec(),
        }
    }
}

/// The name of a digest, also of those that are not computed here; the number alone where no name is known.
pub(super) fn digest_name(oid: &ObjectIdentifier) -> String {
    let number = oid.to_string();
    match number.as_str() {
        "1.2.840.113549.2.2" | "1.2.840.113549.1.1.2" => "MD2",
        "1.2.840.113549.2.4" | "1.2.840.113549.1.1.3" | "1.3.14.3.2.2" | "1.3.14.3.2.4" => "MD4",
        "1.2.840.113549.2.5" | "1.2.840.113549.1.1.4" | "1.3.14.3.2.3" => "MD5",
        "1.3.14.3.2.18" | "1.3.14.3.2.15" => "SHA-0",
        "1.3.14.3.2.26" | "1.3.14.3.2.29" | "1.2.840.113549.1.1.5" => "SHA-1",
        "1.3.36.3.2.1" => "RIPEMD-160",
        "2.16.840.1.101.3.4.2.4" | "1.2.840.113549.1.1.14" => "SHA-224",
        "2.16.840.1.101.3.4.2.1" | "1.2.840.113549.1.1.11" => "SHA-256",
        "2.16.840.1.101.3.4.2.2" | "1.2.840.113549.1.1.12" => "SHA-384",
        "2.16.840.1.101.3.4.2.3" | "1.2.840.113549.1.1.13" => "SHA-512",
        "2.16.840.1.101.3.4.2.5" => "SHA-512/224",
        "2.16.840.1.101.3.4.2.6" => "SHA-512/256",
        "2.16.840.1.101.3.4.2.7" => "SHA3-224",
        "2.16.840.1.101.3.4.2.8" => "SHA3-256",
        "2.16.840.1.101.3.4.2.9" => "SHA3-384",
        "2.16.840.1.101.3.4.2.10" => "SHA3-512",
        "1.2.643.2.2.9" | "1.2.643.7.1.1.2.2" | "1.2.643.7.1.1.2.3" => "GOST",
        "1.2.156.10197.1.401" => "SM3",
        _ => return number,
    }
    .to_owned()
}

/// Signed data, as far as it is needed here.
#[derive(Debug)]
pub(super) struct Signed {
    /// Type of the content: digest of a file, or catalogue.
    pub content_type: ObjectIdentifier,
    /// The content without its outermost tag and length.
    pub content: Vec<u8>,
    /// The signer's digest algorithm.
    pub algorithm: Option<Algorithm>,
    /// The name of that algorithm where it is not one of those.
    pub other_digest: Option<String>,
    /// Common name of the signer, if its certificate is included.
    pub signer: Option<String>,
    /// The signer's certificate (DER), if it is included.
    pub certificate: Option<Vec<u8>>,
    /// Whether the signer's message digest is that of the content.
    pub content_matches: bool,
}

/// Reads signed data; padding after it is ignored.
pub(super) fn parse(data: &[u8]) -> Result<Signed, String> {
    let mut reader = SliceReader::new(data).map_err(|e| e.to_string())?;
    let info = ContentInfo::decode(&mut reader).map_err(|e| format!("not PKCS #7: {e}"))?;
    if info.content_type != SIGNED_DATA {
        return Err("not PKCS #7 signed data".to_owned());
    }
    let parts = elements(info.content.value()).ok_or("the signed data are cut")?;
    // version, digest algorithms, content, [0] certificates, [1] revocations, signers
    let content = parts.iter().find(|p| p.tag() == Tag::Sequence).ok_or("the signed data have no content")?;
    let content: EncapsulatedContentInfo = content.decode_as().map_err(|e| e.to_string())?;
    let signers = parts.iter().rfind(|p| p.tag() == Tag::Set).ok_or("the signed data have no signer")?;
    let signer =
        elements(signers.value()).and_then(|all| all.first().copied()).ok_or("the signed data have no signer")?;
    let signer: SignerInfo = signer.decode_as().map_err(|e| format!("the signer is unreadable: {e}"))?;
    let certificates = parts.iter().find(|p| matches!(p.tag(), Tag::ContextSpecific { .. })).map(|p| p.value());
    let inner = content.econtent.as_ref().map(|any| any.value().to_vec()).unwrap_or_default();
    let algorithm = Algorithm::from_oid(&signer.digest_alg.oid);
    let content_matches = match (algorithm, message_digest(&signer)) {
        (Some(algorithm), Some(digest)) => algorithm.digest(&inner) == digest,
        _ => false,
    };
    let (name, certificate) = certificates.and_then(|all| signer_certificate(&signer.sid, all)).unzip();
    Ok(Signed {
        content_type: content.econtent_type,
        content: inner,
        algorithm,
        other_digest: algorithm.is_none().then(|| digest_name(&signer.digest_alg.oid)),
        signer: name.flatten(),
        certificate,
        content_matches,
    })
}

fn message_digest(signer: &SignerInfo) -> Option<Vec<u8>> {
    let attribute = signer.signed_attrs.as_ref()?.iter().find(|a| a.oid == MESSAGE_DIGEST)?;
    Some(attribute.values.iter().next()?.value().to_vec())
}

/// The elements of a constructed value, one level deep.
pub(super) fn elements(value: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(value).ok()?;
    let mut out = Vec::new();
    while !reader.is_finished() {
        out.push(AnyRef::decode(&mut reader).ok()?);
        if out.len() > ELEMENTS_MAX {
            return None;
        }
    }
    Some(out)
}

/// The certificate that the signer's identifier means, with the name in it.
fn signer_certificate(sid: &SignerIdentifier, certificates: &[u8]) -> Option<(Option<String>, Vec<u8>)> {
    let SignerIdentifier::IssuerAndSerialNumber(id) = sid else { return None };
    elements(certificates)?.iter().find_map(|element| {
        let der = element.to_der().ok()?;
        let certificate = Certificate::from_der(&der).ok()?;
        let tbs = &certificate.tbs_certificate;
        let is_meant = tbs.serial_number == id.serial_number && tbs.issuer == id.issuer;
        is_meant.then(|| (subject(&certificate), der))
    })
}

/// The common name of a certificate's subject, else its organisation.
pub(super) fn subject(certificate: &Certificate) -> Option<String> {
    [COMMON_NAME, ORGANIZATION].into_iter().find_map(|oid| {
        let names = &certificate.tbs_certificate.subject.0;
        let value = names.iter().flat_map(|rdn| rdn.0.iter()).find(|attribute| attribute.oid == oid)?;
        Some(match value.value.tag() {
            Tag::BmpString => {
                let units = value.value.value().as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair));
                char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
            _ => String::from_utf8_lossy(value.value.value()).into_owned(),
        })
    })
}

/// `DigestInfo`: algorithm and digest of the `SpcIndirectDataContent` whose content is given.
pub(super) fn indirect_digest(content: &[u8]) -> Option<(ObjectIdentifier, Vec<u8>)> {
    let info = *elements(content)?.get(1)?;
    let parts = elements(info.value())?;
    let algorithm = elements(parts.first()?.value())?.first()?.decode_as::<ObjectIdentifier>().ok()?;
    let digest = parts.get(1).filter(|p| p.tag() == Tag::OctetString)?.value().to_vec();
    Some((algorithm, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_names() {
        let name = |oid: &str| digest_name(&ObjectIdentifier::new(oid).unwrap());
        assert_eq!(name("1.2.840.113549.2.2"), "MD2");
        assert_eq!(name("1.2.840.113549.2.5"), "MD5");
        assert_eq!(name("1.2.840.113549.1.1.4"), "MD5");
        assert_eq!(name("1.3.14.3.2.26"), "SHA-1");
        assert_eq!(name("1.2.3.4"), "1.2.3.4");
    }
}
