//! Which security id a new file gets.

use std::ops::ControlFlow;

use super::sds::SII;
use crate::error::{Error, Layer, Result};
use crate::field::Field;
use crate::io::VolumeRead;
use crate::ntfs::attributes::system_file;
use crate::ntfs::btree::Btree;
use crate::ntfs::directory::Directory;
use crate::ntfs::metadata::standard_information;
use crate::ntfs::options::Security;
use crate::ntfs::pager::Pager;
use crate::ntfs::units::{FileId, RecordNumber};

/// Children of a directory that are searched for a security id.
const CHILDREN_MAX: usize = 256;

/// The security id for a new file.
pub(crate) fn choose_security<D: VolumeRead>(
    pager: &Pager<D>,
    parent: FileId,
    wanted: Security,
    directory: bool,
) -> Result<u32> {
    let id =
        |file: FileId| -> Result<Option<u32>> { Ok(standard_information(pager, file)?.security.filter(|&id| id != 0)) };
    let found = match wanted {
        Security::Id(wanted) => {
            if !security_id_exists(pager, wanted)? {
                return Err(Error::refused(Layer::Ntfs, format!("security id {wanted:#x} is not in $Secure"))
                    .hint("use the id of an existing file"));
            }
            Some(wanted)
        }
        Security::Like(file) => id(file)?,
        Security::LikeParent => None,
    };
    if let Some(found) = found.or(id(parent)?) {
        return Ok(found);
    }
    let children = Directory::open(pager, parent)?.first_children(CHILDREN_MAX)?;
    let (same, other): (Vec<_>, Vec<_>) = children.into_iter().partition(|c| c.1 == directory);
    for (child, _) in same.into_iter().chain(other) {
        if let Some(found) = id(child)? {
            return Ok(found);
        }
    }
    last_security_id(pager)
}

/// Whether `$Secure` has a descriptor with this id.
pub(crate) fn security_id_exists<D: VolumeRead>(pager: &Pager<D>, id: u32) -> Result<bool> {
    let index = Btree::open(pager, system_file(pager, RecordNumber::SECURE)?, SII)?;
    Ok(index.find(&id.to_le_bytes(), true, |_| ())?.is_some())
}

/// The last id in `$Secure`: on volumes without any file to learn from, what its formatter meant for users.
fn last_security_id<D: VolumeRead>(pager: &Pager<D>) -> Result<u32> {
    let index = Btree::open(pager, system_file(pager, RecordNumber::SECURE)?, SII)?;
    let mut last = None;
    index.walk(&mut |entry| {
        last = Some(Field::<u32>::at(0).get(entry.key()));
        Ok(ControlFlow::Continue(()))
    })?;
    last.filter(|&id| id != 0).ok_or_else(|| {
        Error::refused(Layer::Ntfs, "the volume has no security descriptor that a new file could share")
            .hint("create any file in the guest first")
    })
}
