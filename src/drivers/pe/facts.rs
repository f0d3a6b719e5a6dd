//! The facts of a whole file, with the check that nothing of it is cut off.

use serde::Serialize;

use super::format::{DIRECTORY_SECURITY, DOS_MAGIC, DataDirectory};
use super::headers::{Headers, read};
use super::version::read_file_version;
use crate::drivers::guest::Arch;

/// The facts of a Windows program, read by [`PeFacts::parse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeFacts {
    /// CPU that the program is for: `IMAGE_FILE_HEADER.Machine`.
    pub machine: u16,
    /// `Subsystem`: 1 for drivers.
    pub subsystem: u16,
    /// Version resource's file version, if there is one.
    pub file_version: Option<[u16; 4]>,
    /// File offset and length in bytes of the certificate table (the embedded signature). `None`: unsigned.
    pub certificates: Option<(u32, u32)>,
    /// Offset of the checksum field, which no digest covers.
    pub(super) checksum_offset: usize,
    /// Offset of the security entry of the data directory, if the directory is long enough to hold it.
    pub(super) security_offset: Option<usize>,
}

/// Why a file is not a sound program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// No `MZ`/`PE` signature, or headers that contradict themselves.
    #[error("not a Windows program: {0}")]
    NotPe(&'static str),
    /// A section or the signature reaches beyond the end of the file.
    #[error("truncated: {what} ends at {end}, the file has {length} bytes")]
    Truncated {
        /// The part of the file that is cut off.
        what: &'static str,
        /// File offset at which that part ends by the headers.
        end: u64,
        /// Bytes that the file has.
        length: u64,
    },
}

impl PeFacts {
    /// Reads the headers and checks that every section and the signature are inside the file.
    ///
    /// # Errors
    /// When the file is not a program, or cut short.
    pub fn parse(data: &[u8]) -> Result<Self, PeError> {
        if !data.starts_with(&DOS_MAGIC) {
            return Err(PeError::NotPe("it does not begin with MZ"));
        }
        let headers = Headers::read(data).ok_or(PeError::NotPe("its headers are missing or cut"))?;
        let length = data.len() as u64;
        let check_end = |what, end: u64| {
            if end > length { Err(PeError::Truncated { what, end, length }) } else { Ok(()) }
        };
        check_end("the headers", u64::from(headers.size_of_headers))?;
        for index in 0..headers.section_count {
            let section = headers.section(data, index).ok_or(PeError::NotPe("its section table is cut"))?;
            let size = section.size_of_raw_data.get();
            if size != 0 {
                check_end("a section", u64::from(section.pointer_to_raw_data.get()) + u64::from(size))?;
            }
        }
        let security_offset = headers.directory_offset(DIRECTORY_SECURITY);
        let certificates = security_offset
            .and_then(|offset| read::<DataDirectory>(data, offset))
            .map(|table| (table.virtual_address.get(), table.size.get()))
            .filter(|&(offset, size)| offset != 0 && size != 0);
        if let Some((offset, size)) = certificates {
            check_end("the signature", u64::from(offset) + u64::from(size))?;
        }
        Ok(Self {
            machine: headers.machine,
            subsystem: headers.subsystem,
            file_version: read_file_version(data, &headers),
            certificates,
            checksum_offset: headers.checksum_offset,
            security_offset,
        })
    }

    /// The CPU, if it is one that winject knows.
    #[must_use]
    pub fn arch(&self) -> Option<Arch> {
        Arch::from_pe_machine(self.machine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::pe::SUBSYSTEM_NATIVE;
    use crate::drivers::pe::sample::sample;

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
    fn truncation_anywhere_is_seen() {
        let whole = sample(Arch::X86, b"12345678");
        for length in 0..whole.len() {
            assert!(PeFacts::parse(&whole[..length]).is_err(), "{length}");
        }
        assert!(matches!(PeFacts::parse(&whole[..0x500]), Err(PeError::Truncated { .. })));
    }
}
