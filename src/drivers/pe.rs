//! Windows programs: what the boot loader looks at before it loads a driver.
//!
//! Format: "PE Format" of Microsoft's documentation; the digest: "Windows Authenticode Portable Executable Signature
//! Format".

use super::guest::Arch;
use serde::Serialize;
use sha2::Digest;

/// Subsystem of drivers (`IMAGE_SUBSYSTEM_NATIVE`).
pub const SUBSYSTEM_NATIVE: u16 = 1;
/// Most sections that Windows loads.
const SECTIONS_MAX: u16 = 96;
/// `RT_VERSION`.
const RESOURCE_VERSION: u32 = 16;

/// The facts of a PE file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeFacts {
    /// `IMAGE_FILE_HEADER.Machine`.
    pub machine: u16,
    /// `Subsystem`: 1 for drivers.
    pub subsystem: u16,
    /// Version resource's file version, if there is one.
    pub file_version: Option<[u16; 4]>,
    /// Where the attribute certificates (the embedded signature) lie: offset and length. None: unsigned.
    pub certificates: Option<(u32, u32)>,
    /// Offset of the checksum field, which no digest covers.
    checksum_at: usize,
    /// Offset of the security entry of the data directory, if the directory is long enough to hold it.
    security_at: Option<usize>,
}

/// Why a file is not a sound PE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// No `MZ`/`PE` signature, or headers that contradict themselves.
    #[error("not a Windows program: {0}")]
    NotPe(&'static str),
    /// A section or the signature reaches beyond the end of the file.
    #[error("truncated: {what} ends at {end}, the file has {length} bytes")]
    Truncated {
        /// What is cut.
        what: &'static str,
        /// Where it should end.
        end: u64,
        /// The file's length.
        length: u64,
    },
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(data.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Where the parts of the headers lie.
struct Headers {
    machine: u16,
    subsystem: u16,
    checksum_at: usize,
    /// First data directory.
    directories_at: usize,
    directory_count: usize,
    sections_at: usize,
    section_count: usize,
    size_of_headers: u32,
}

/// `COFF` header after `PE\0\0`, then the optional header of PE32 or PE32+.
fn headers(data: &[u8]) -> Option<Headers> {
    let pe = usize::try_from(u32_at(data, 0x3C)?).ok()?;
    let coff = pe.checked_add(4)?;
    let optional = coff.checked_add(20)?;
    if data.get(..2)? != b"MZ" || data.get(pe..coff)? != b"PE\0\0" {
        return None;
    }
    // offsets in the optional header: data directories behind 96 bytes of PE32, 112 of PE32+
    let directories = match u16_at(data, optional)? {
        0x10B => 96,
        0x20B => 112,
        _ => return None,
    };
    let optional_size = usize::from(u16_at(data, coff.checked_add(16)?)?);
    let directories_at = optional.checked_add(directories)?;
    let declared = usize::try_from(u32_at(data, directories_at.checked_sub(4)?)?).ok()?;
    Some(Headers {
        machine: u16_at(data, coff)?,
        subsystem: u16_at(data, optional.checked_add(68)?)?,
        checksum_at: optional.checked_add(64)?,
        directories_at,
        directory_count: declared.min(16).min(optional_size.checked_sub(directories)? / 8),
        sections_at: optional.checked_add(optional_size)?,
        section_count: usize::from(u16_at(data, coff.checked_add(2)?)?.min(SECTIONS_MAX)),
        size_of_headers: u32_at(data, optional.checked_add(60)?)?,
    })
}

struct SectionHeader {
    address: u32,
    raw_size: u32,
    raw_at: u32,
}

fn section(data: &[u8], headers: &Headers, index: usize) -> Option<SectionHeader> {
    let at = headers.sections_at.checked_add(index.checked_mul(40)?)?;
    Some(SectionHeader {
        address: u32_at(data, at.checked_add(12)?)?,
        raw_size: u32_at(data, at.checked_add(16)?)?,
        raw_at: u32_at(data, at.checked_add(20)?)?,
    })
}

impl PeFacts {
    /// Reads the headers and checks that every section and the signature are inside the file.
    ///
    /// # Errors
    /// When the file is no PE, or cut short.
    pub fn parse(data: &[u8]) -> Result<Self, PeError> {
        Self::parse_head(data, data.len() as u64)
    }

    /// Like [`parse`](Self::parse) for a file of which only the beginning is at hand; `length` is that of the whole file.
    /// There is no file version then, unless the version resource is in the beginning.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_head(data: &[u8], length: u64) -> Result<Self, PeError> {
        if data.get(..2) != Some(b"MZ") {
            return Err(PeError::NotPe("it does not begin with MZ"));
        }
        let headers = headers(data).ok_or(PeError::NotPe("its headers are missing or cut"))?;
        let inside = |what, end: u64| {
            if end > length { Err(PeError::Truncated { what, end, length }) } else { Ok(()) }
        };
        inside("the headers", u64::from(headers.size_of_headers))?;
        for index in 0..headers.section_count {
            let section = section(data, &headers, index).ok_or(PeError::NotPe("its section table is cut"))?;
            if section.raw_size != 0 {
                inside("a section", u64::from(section.raw_at) + u64::from(section.raw_size))?;
            }
        }
        // data directory 4: a file offset, not an address
        let security_at = (headers.directory_count > 4).then_some(headers.directories_at + 32);
        let certificates = security_at
            .and_then(|at| Some((u32_at(data, at)?, u32_at(data, at.checked_add(4)?)?)))
            .filter(|&(at, size)| at != 0 && size != 0);
        if let Some((at, size)) = certificates {
            inside("the signature", u64::from(at) + u64::from(size))?;
        }
        Ok(Self {
            machine: headers.machine,
            subsystem: headers.subsystem,
            file_version: file_version(data, &headers),
            certificates,
            checksum_at: headers.checksum_at,
            security_at,
        })
    }

    /// The CPU, if it is one that winject knows.
    #[must_use]
    pub fn arch(&self) -> Option<Arch> {
        Arch::from_pe_machine(self.machine)
    }

    /// The Authenticode digest: the file without its checksum, its security entry and its certificates. Page hashes are
    /// not part of it.
    ///
    /// A file whose length is no multiple of eight is padded with zeros if `padded`, as signing tools do before they
    /// append the certificates.
    #[must_use]
    pub fn digest<D: Digest>(&self, data: &[u8], padded: bool) -> Vec<u8> {
        let mut digest = D::new();
        let slice = |from: usize, to: usize| data.get(from..to.max(from)).unwrap_or_default();
        digest.update(slice(0, self.checksum_at));
        let mut at = self.checksum_at + 4;
        if let Some(security) = self.security_at {
            digest.update(slice(at, security));
            at = security + 8;
        }
        let (start, size) = match self.certificates {
            Some((start, size)) => (start as usize, size as usize),
            None => (data.len(), 0),
        };
        digest.update(slice(at, start));
        digest.update(data.get(start.saturating_add(size)..).unwrap_or_default());
        if padded && self.certificates.is_none() {
            digest.update(&[0u8; 8][..data.len().wrapping_neg() % 8]);
        }
        digest.finalize().to_vec()
    }
}

/// The first version resource's `VS_FIXEDFILEINFO.dwFileVersion`, by type, first name, first language.
fn file_version(data: &[u8], headers: &Headers) -> Option<[u16; 4]> {
    if headers.directory_count < 3 {
        return None;
    }
    let address = u32_at(data, headers.directories_at.checked_add(16)?)?;
    let base = offset_of(data, headers, address)?;
    // three levels: type, name, language
    let mut directory = base;
    for level in 0..3 {
        let named = usize::from(u16_at(data, directory.checked_add(12)?)?);
        let ids = usize::from(u16_at(data, directory.checked_add(14)?)?);
        let mut found = None;
        for index in 0..named.checked_add(ids)?.min(4096) {
            let entry = directory.checked_add(16)?.checked_add(index.checked_mul(8)?)?;
            let (id, to) = (u32_at(data, entry)?, u32_at(data, entry.checked_add(4)?)?);
            if level > 0 || id == RESOURCE_VERSION {
                found = Some(to);
                break;
            }
        }
        let to = found?;
        let is_directory = to & 0x8000_0000 != 0;
        directory = base.checked_add(usize::try_from(to & 0x7FFF_FFFF).ok()?)?;
        if is_directory != (level < 2) {
            return None;
        }
    }
    let at = offset_of(data, headers, u32_at(data, directory)?)?;
    // VS_VERSIONINFO: three words and the key "VS_VERSION_INFO", aligned to 40 bytes, then the fixed part
    let fixed = at.checked_add(40)?;
    if u32_at(data, fixed)? != 0xFEEF_04BD {
        return None;
    }
    let (high, low) = (u32_at(data, fixed.checked_add(8)?)?, u32_at(data, fixed.checked_add(12)?)?);
    let word = |n: u32| (n & 0xFFFF) as u16;
    Some([word(high >> 16), word(high), word(low >> 16), word(low)])
}

/// The file offset of a relative virtual address.
fn offset_of(data: &[u8], headers: &Headers, address: u32) -> Option<usize> {
    (0..headers.section_count).find_map(|index| {
        let section = section(data, headers, index)?;
        let inside = address.checked_sub(section.address)?;
        (inside < section.raw_size).then(|| usize::try_from(section.raw_at.checked_add(inside)?).ok())?
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small PE32+ driver with one section and, if asked for, some bytes in place of a signature.
    pub(crate) fn sample(arch: Arch, signature: &[u8]) -> Vec<u8> {
        let wide = arch != Arch::X86;
        let optional_size: u16 = if wide { 240 } else { 224 };
        let mut out = vec![0u8; 0x400];
        out[..2].copy_from_slice(b"MZ");
        out[0x3C] = 0x80;
        out[0x80..0x84].copy_from_slice(b"PE\0\0");
        let mut put16 = |at: usize, value: u16| out[at..at + 2].copy_from_slice(&value.to_le_bytes());
        put16(0x84, arch.pe_machine());
        put16(0x86, 1);
        put16(0x94, optional_size);
        put16(0x98, if wide { 0x20B } else { 0x10B });
        put16(0x98 + 60, 0x400);
        put16(0x98 + 68, SUBSYSTEM_NATIVE);
        let directories = 0x98 + if wide { 112 } else { 96 };
        put16(directories - 4, 16);
        let section = 0x98 + usize::from(optional_size);
        put16(section + 12, 0x1000);
        put16(section + 16, 0x200);
        put16(section + 20, 0x400);
        if !signature.is_empty() {
            put16(directories + 32, 0x600);
            put16(directories + 36, u16::try_from(signature.len() + 8).unwrap());
        }
        out.extend((0..0x200).map(|i| i as u8));
        if !signature.is_empty() {
            out.extend(u32::try_from(signature.len() + 8).unwrap().to_le_bytes());
            out.extend([0, 2, 2, 0]);
            out.extend(signature);
        }
        out
    }

    #[test]
    fn facts_of_a_driver() {
        for arch in Arch::ALL {
            let facts = PeFacts::parse(&sample(arch, b"12345678")).unwrap();
            assert_eq!((facts.arch(), facts.subsystem), (Some(arch), SUBSYSTEM_NATIVE));
            assert_eq!(facts.certificates, Some((0x600, 16)));
            assert_eq!(PeFacts::parse(&sample(arch, b"")).unwrap().certificates, None);
        }
    }

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

    #[test]
    fn truncation_anywhere_is_seen() {
        let whole = sample(Arch::X86, b"12345678");
        for length in 0..whole.len() {
            assert!(PeFacts::parse(&whole[..length]).is_err(), "{length}");
        }
        assert!(matches!(PeFacts::parse(&whole[..0x500]), Err(PeError::Truncated { .. })));
    }
}
