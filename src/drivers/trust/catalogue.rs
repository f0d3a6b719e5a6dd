//! Security catalogues (`.cat`): a signed list of digests ("certificate trust list" with catalogue attributes).

use std::collections::{BTreeSet, HashSet};

use der::asn1::ObjectIdentifier;
use der::{Tag, Tagged};

use super::authenticode::file_digest;
use super::pkcs7::{self, Algorithm};
use crate::drivers::pe::PeFacts;
use crate::hex;

/// Content of a catalogue (`szOID_CTL`).
const TRUST_LIST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.10.1");
/// The attribute with a member's digest.
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");

/// Largest catalogue that is parsed, in bytes; those of driver packages have some ten kilobytes.
const SIZE_MAX: usize = 32 << 20;

/// A parsed catalogue, asked by [`lists`](Self::lists).
#[derive(Debug)]
pub struct Catalogue {
    digests: HashSet<Vec<u8>>,
    /// Names of digests in the list that are not computed here.
    other_digests: BTreeSet<String>,
    /// Name of the signer's digest where it is not computed here.
    other_digest: Option<String>,
    signer: Option<String>,
    algorithm: Option<Algorithm>,
    content_matches: bool,
}

impl Catalogue {
    /// Parses a catalogue (DER).
    ///
    /// # Errors
    /// The reason, as text, when the data is not a signed list of digests.
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        if data.len() > SIZE_MAX {
            return Err(format!("the catalogue has {} bytes", data.len()));
        }
        let signed = pkcs7::parse(data)?;
        if signed.content_type != TRUST_LIST {
            return Err("it is signed, but not a catalogue".to_owned());
        }
        let (digests, other_digests) = members(&signed.content).ok_or("its list of files cannot be read")?;
        Ok(Self {
            digests,
            other_digests,
            other_digest: signed.other_digest,
            signer: signed.signer,
            algorithm: signed.algorithm,
            content_matches: signed.content_matches,
        })
    }

    /// Common name of the signer.
    #[must_use]
    pub fn signer(&self) -> Option<&str> {
        self.signer.as_deref()
    }

    /// The signer's digest algorithm.
    #[must_use]
    pub fn digest_name(&self) -> Option<&'static str> {
        self.algorithm.map(Algorithm::name)
    }

    /// The name of the signer's digest, if it is one that is not computed here: MD5 on old media.
    #[must_use]
    pub fn other_digest(&self) -> Option<&str> {
        self.other_digest.as_deref()
    }

    /// The names of digests in the list that are not computed here.
    pub fn other_digests(&self) -> impl Iterator<Item = &str> {
        self.other_digests.iter().map(String::as_str)
    }

    /// Whether the signature is about this very list.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.content_matches
    }

    /// How many files it lists.
    #[must_use]
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether it lists nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether it lists a file: by the digest of its bytes, and of a program by its Authenticode digest.
    #[must_use]
    pub fn lists(&self, data: &[u8]) -> bool {
        let pe = PeFacts::parse(data).ok();
        let lengths: HashSet<usize> = self.digests.iter().map(Vec::len).collect();
        [(20, Algorithm::Sha1), (32, Algorithm::Sha256), (48, Algorithm::Sha384), (64, Algorithm::Sha512)]
            .into_iter()
            .filter(|(length, _)| lengths.contains(length))
            .any(|(_, algorithm)| {
                self.digests.contains(&algorithm.digest(data))
                    || pe.as_ref().is_some_and(|pe| {
                        [true, false].iter().any(|&p| self.digests.contains(&file_digest(data, pe, algorithm, p)))
                    })
            })
    }
}

/// The digests of a trust list: usage, identifier, numbers and times, algorithm, then the list of members.
fn members(content: &[u8]) -> Option<(HashSet<Vec<u8>>, BTreeSet<String>)> {
    let parts = pkcs7::elements(content)?;
    let list = parts.iter().filter(|p| p.tag() == Tag::Sequence).nth(2)?;
    let mut out = HashSet::new();
    let mut others = BTreeSet::new();
    for member in pkcs7::elements(list.value())? {
        let fields = pkcs7::elements(member.value())?;
        let identifier = fields.first().filter(|f| f.tag() == Tag::OctetString)?.value();
        // new catalogues name a member by its digest, old ones by the digest as UTF-16 text
        if matches!(identifier.len(), 20 | 32 | 48 | 64) {
            out.insert(identifier.to_vec());
        } else if let Some(digest) = from_text(identifier) {
            out.insert(digest);
        }
        for attribute in fields.get(1).and_then(|set| pkcs7::elements(set.value())).unwrap_or_default() {
            let Some(parts) = pkcs7::elements(attribute.value()) else { continue };
            if parts.first().and_then(|oid| oid.decode_as::<ObjectIdentifier>().ok()) != Some(INDIRECT_DATA) {
                continue;
            }
            let values = parts.get(1).and_then(|set| pkcs7::elements(set.value())).unwrap_or_default();
            for (oid, digest) in values.iter().filter_map(|v| pkcs7::indirect_digest(v.value())) {
                if Algorithm::from_oid(&oid).is_none() {
                    others.insert(pkcs7::digest_name(&oid));
                }
                out.insert(digest);
            }
        }
    }
    Some((out, others))
}

/// A digest written as hexadecimal digits in UTF-16LE.
fn from_text(identifier: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = identifier
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u8::try_from(u16::from_le_bytes(*pair)))
        .take_while(|c| *c != Ok(0))
        .collect::<Result<_, _>>()
        .ok()?;
    let text = std::str::from_utf8(&text).ok()?;
    matches!(text.len(), 40 | 64).then(|| hex::decode(text))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_as_text() {
        let text = "00112233445566778899AABBCCDDEEFF00112233";
        let units: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        assert_eq!(from_text(&units).unwrap()[..3], [0, 0x11, 0x22]);
        assert_eq!(from_text(&units[..20]), None);
        assert_eq!(from_text(&[0xFF; 80]), None);
    }
}
