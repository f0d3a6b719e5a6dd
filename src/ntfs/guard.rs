//! Which files and directories may be changed.

use super::attributes::base_record;
use super::pager::Pager;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::format::record::FLAG_IN_EXTEND;
use crate::ntfs::format::units::{FileId, RecordNumber};

/// Checks that files may be added to or removed from a directory.
pub(crate) fn check_parent<D: VolumeRead>(pager: &Pager<D>, parent: FileId) -> Result<()> {
    let record = base_record(pager, parent)?;
    if !record.is_directory() {
        return Err(Error::refused(Layer::Ntfs, format!("{parent} is not a directory")).hint("name a directory"));
    }
    let own = parent.record < RecordNumber::FIRST_USER && parent.record != RecordNumber::ROOT;
    if own || record.flags() & FLAG_IN_EXTEND != 0 {
        return Err(refused_system_file(parent));
    }
    Ok(())
}

/// Checks that a file is an ordinary one.
pub(crate) fn check_ordinary<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<()> {
    let record = base_record(pager, file)?;
    if file.record < RecordNumber::FIRST_USER || record.flags() & FLAG_IN_EXTEND != 0 {
        return Err(refused_system_file(file));
    }
    Ok(())
}

fn refused_system_file(file: FileId) -> Error {
    Error::refused(Layer::Ntfs, format!("{file} belongs to the file system itself")).hint("name an ordinary file")
}
