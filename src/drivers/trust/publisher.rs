//! A publisher's certificate for the guest's store `TrustedPublisher`, so that its packages install without a question.

use cms::cert::x509::Certificate;
use der::{Decode, DecodePem};
use sha1::Digest;

use super::pkcs7;
use crate::error::{Error, Kind, Layer, Result};
use crate::hex;

/// The store's key in the SOFTWARE hive; below it one key for each certificate, named by its SHA-1.
pub const STORE_KEY: &str = "Microsoft\\SystemCertificates\\TrustedPublisher\\Certificates";

/// `CERT_SHA1_HASH_PROP_ID` and `CERT_CERT_PROP_ID` of a serialised certificate (MS-GPEF and wincrypt.h).
const PROPERTY_SHA1: u32 = 3;
const PROPERTY_CERTIFICATE: u32 = 32;
/// Largest certificate file, in bytes.
const SIZE_MAX: usize = 1 << 20;

/// A certificate, ready for the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// Common name of the subject.
    pub subject: String,
    /// SHA-1 of the certificate.
    pub sha1: [u8; 20],
    /// Data of the value `Blob` (`REG_BINARY`).
    pub blob: Vec<u8>,
}

impl Publisher {
    /// Reads a certificate, DER or PEM, or takes it out of the catalogue (`.cat`) that it signed. `name` is for messages.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it is not an X.509 certificate.
    pub fn parse(data: &[u8], name: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::new(Kind::Usage, Layer::Drivers, format!("not an X.509 certificate{why}"))
                .path(name)
                .hint("give the publisher's certificate as a .cer, .crt or .pem file, or a .cat file that it signed")
        };
        if data.len() > SIZE_MAX {
            return Err(bad(format!(": it has {} bytes", data.len())));
        }
        let in_catalogue = pkcs7::parse(data).ok().and_then(|signed| signed.certificate);
        let data = in_catalogue.as_deref().unwrap_or(data);
        let is_pem = data.trim_ascii_start().starts_with(b"-----BEGIN");
        let parsed = if is_pem { Certificate::from_pem(data) } else { Certificate::from_der(data) };
        // The words of the decoder are for programmers.
        let other_label = || pem_label(data).filter(|_| is_pem).map(|label| format!(": it holds a {label}"));
        let certificate = parsed.map_err(|_| bad(other_label().unwrap_or_default()))?;
        // the signature covers exactly these bytes: never encode them again where they are at hand
        let der =
            if is_pem { der::Encode::to_der(&certificate).map_err(|_| bad(String::new()))? } else { data.to_vec() };
        let sha1: [u8; 20] = sha1::Sha1::digest(&der).into();
        let mut blob = Vec::with_capacity(der.len() + 44);
        for (property, value) in [(PROPERTY_SHA1, sha1.as_slice()), (PROPERTY_CERTIFICATE, &der)] {
            blob.extend(property.to_le_bytes());
            blob.extend(1u32.to_le_bytes());
            blob.extend(u32::try_from(value.len()).unwrap_or(0).to_le_bytes());
            blob.extend(value);
        }
        Ok(Self { subject: pkcs7::subject(&certificate).unwrap_or_default(), sha1, blob })
    }

    /// Name of the certificate's key: its SHA-1 in upper case.
    #[must_use]
    pub fn key_name(&self) -> String {
        hex::encode_upper(&self.sha1)
    }

    /// The key below the root of the SOFTWARE hive.
    #[must_use]
    pub fn key_path(&self) -> String {
        format!("{STORE_KEY}\\{}", self.key_name())
    }
}

/// What a PEM file says that it holds, if that is anything else than a certificate: `PRIVATE KEY`.
fn pem_label(data: &[u8]) -> Option<String> {
    const LABEL_MAX: usize = 40;
    let line = std::str::from_utf8(data.trim_ascii_start().split(|byte| matches!(byte, b'\n' | b'\r')).next()?).ok()?;
    let label = line.strip_prefix("-----BEGIN ")?.trim_end().strip_suffix("-----")?;
    let is_label = label.len() <= LABEL_MAX && label.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b' ');
    (is_label && label != "CERTIFICATE").then(|| label.to_owned())
}
