//! The one way to put the attributes of a file back.

use super::mft::{allocate_record, store_mft};
use super::owned::Attributes;
use super::write::store_with;
use crate::error::Result;
use crate::io::VolumeWrite;
use crate::ntfs::core::Core;
use crate::ntfs::format::units::RecordNumber;

/// Puts all attributes of a file back into its records; see the description of the folder's module `write`.
///
/// # Errors
/// Refused when there is no space, or the file has more than its records can hold.
pub(crate) fn store<D: VolumeWrite>(core: &mut Core<D>, attributes: Attributes) -> Result<()> {
    if attributes.file.record == RecordNumber::MFT {
        return store_mft(core, attributes);
    }
    store_with(core, attributes, |core, _, _| allocate_record(core))
}
