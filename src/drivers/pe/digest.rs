//! The Authenticode digest ("Windows Authenticode Portable Executable Signature Format").

use sha2::Digest;

use super::facts::PeFacts;
use super::format::{CERTIFICATE_ALIGNMENT, DataDirectory};

/// Bytes of the checksum field.
const CHECKSUM_SIZE: usize = 4;

impl PeFacts {
    /// The Authenticode digest: the file without its checksum, its security entry and its certificates. Page hashes are
    /// not part of it.
    ///
    /// A file whose length is not a multiple of eight is padded with zeros if `padded`, as signing tools do before they
    /// append the certificates.
    #[must_use]
    pub fn digest<D: Digest>(&self, data: &[u8], padded: bool) -> Vec<u8> {
        let mut digest = D::new();
        let slice = |from: usize, to: usize| data.get(from..to.max(from)).unwrap_or_default();
        digest.update(slice(0, self.checksum_offset));
        let mut at = self.checksum_offset + CHECKSUM_SIZE;
        if let Some(security) = self.security_offset {
            digest.update(slice(at, security));
            at = security + size_of::<DataDirectory>();
        }
        let (start, size) = match self.certificates {
            Some((start, size)) => (start as usize, size as usize),
            None => (data.len(), 0),
        };
        digest.update(slice(at, start));
        digest.update(data.get(start.saturating_add(size)..).unwrap_or_default());
        if padded && self.certificates.is_none() {
            digest.update(&[0; CERTIFICATE_ALIGNMENT][..data.len().wrapping_neg() % CERTIFICATE_ALIGNMENT]);
        }
        digest.finalize().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::Arch;
    use crate::drivers::pe::sample::sample;

    #[test]
    fn a_signature_does_not_change_the_digest() {
        let (plain, signed) = (sample(Arch::Amd64, b""), sample(Arch::Amd64, b"12345678"));
        let digest = |data: &[u8]| PeFacts::parse(data).unwrap().digest::<sha2::Sha256>(data, true);
        assert_eq!(digest(&plain), digest(&signed));
        let mut other = signed.clone();
        other[0x98 + 64] ^= 1;
        assert_eq!(digest(&other), digest(&signed), "the checksum is not covered");
        other[0x410] ^= 1;
        assert_ne!(digest(&other), digest(&signed));
    }
}
