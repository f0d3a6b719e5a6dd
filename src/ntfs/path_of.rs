//! The path of a file by its number.

use super::attributes::load;
use super::metadata::names_of;
use super::pager::Pager;
use crate::io::VolumeRead;
use crate::ntfs::format::name::Namespace;
use crate::ntfs::format::units::{FileId, RecordNumber};

/// Folders that are followed upwards.
const DEPTH_MAX: usize = 256;

/// The path of the file in this record by its first long name and those of its folders; `None` if one of them has no name,
/// or cannot be read.
pub(crate) fn path_of<D: VolumeRead>(pager: &Pager<D>, record: RecordNumber) -> Option<String> {
    let sequence = pager.record(record).ok()?.sequence();
    let (mut names, mut at) = (Vec::new(), FileId { record, sequence });
    for _ in 0..DEPTH_MAX {
        if at.record == RecordNumber::ROOT {
            names.reverse();
            return Some(format!("/{}", names.join("/")));
        }
        let all = names_of(&load(pager, at).ok()?).ok()?;
        let name = all.iter().min_by_key(|name| name.namespace == Namespace::Dos)?;
        names.push(name.name.to_string());
        at = name.parent;
    }
    None
}
