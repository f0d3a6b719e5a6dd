//! The certificate table (the embedded signature).

use super::format::{CERTIFICATE_ALIGNMENT, CERTIFICATE_PKCS_SIGNED_DATA, CertificateHeader};
use super::headers::read;

/// Most entries of a certificate table that are searched.
const ENTRIES_MAX: usize = 16;

/// The PKCS #7 signed data of the first entry that has one; `None` if no entry has it, or the table is truncated.
pub(crate) fn signed_data(table: &[u8]) -> Option<&[u8]> {
    let mut rest = table;
    for _ in 0..ENTRIES_MAX {
        let header: CertificateHeader = read(rest, 0)?;
        let length = usize::try_from(header.length.get()).ok()?;
        let content = rest.get(size_of::<CertificateHeader>()..length)?;
        if header.certificate_type.get() == CERTIFICATE_PKCS_SIGNED_DATA {
            return Some(content);
        }
        rest = rest.get(length.checked_next_multiple_of(CERTIFICATE_ALIGNMENT)?..)?;
    }
    None
}
