//! Keeping the copies of a file's metadata in its directory entries up to date.

use super::attributes::{Attributes, base_record, load, store, stream_of};
use super::btree::BtreeEditor;
use super::core::Core;
use super::directory::{I30, name_key};
use super::metadata::{change_standard_information, duplicate_of, names_of, standard_information};
use crate::error::Result;
use crate::io::VolumeWrite;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::file_name::{Duplicate, FileName};
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::units::{FileId, RecordNumber};

/// Puts a file's attributes back and brings all its directory entries up to date.
pub(crate) fn store_and_publish<D: VolumeWrite>(core: &mut Core<D>, attrs: Attributes) -> Result<()> {
    let file = attrs.file;
    let names = names_of(&attrs)?;
    let duplicate = store_with_duplicate(core, attrs)?;
    publish(core, file, &duplicate, &names)
}

/// Puts a file's attributes back; what its directory entries should say then, for data may have left the record.
pub(crate) fn store_with_duplicate<D: VolumeWrite>(core: &mut Core<D>, attrs: Attributes) -> Result<Duplicate> {
    let file = attrs.file;
    let record = base_record(&core.pager, file)?;
    let before = duplicate_of(&core.pager, &record, &attrs)?;
    let is_resident = attrs.value(AttributeType::DATA).is_some();
    store(core, attrs)?;
    if !is_resident {
        return Ok(before);
    }
    let data = stream_of(&core.pager, file, AttributeType::DATA, &NtfsName::default())?;
    let allocated = data.map_or(before.allocated, |data| data.allocated_for_directory(&core.pager.geometry));
    Ok(Duplicate { allocated, ..before })
}

/// Writes a file's metadata into its directory entries.
pub(crate) fn publish<D: VolumeWrite>(
    core: &mut Core<D>,
    file: FileId,
    duplicate: &Duplicate,
    names: &[FileName],
) -> Result<()> {
    if file.record < RecordNumber::FIRST_USER {
        // the entries of system files keep what the formatter wrote
        return Ok(());
    }
    for name in names {
        let mut index = BtreeEditor::new(core, name.parent, I30);
        if !index.patch_key(&name_key(&name.name), |key| duplicate.store(key))? {
            return Err(damaged(format!("{file} is missing in its directory")).path(name.name.to_string()));
        }
    }
    Ok(())
}

/// Notes that the entries of a directory changed.
pub(crate) fn touch_directory<D: VolumeWrite>(core: &mut Core<D>, dir: FileId) -> Result<()> {
    let now = core.clock;
    let times = standard_information(&core.pager, dir)?.times;
    if times.modified == now && times.changed == now {
        return Ok(());
    }
    let mut attrs = load(&core.pager, dir)?;
    change_standard_information(&mut attrs, |i| {
        i.times.modified = now;
        i.times.changed = now;
    })?;
    store_and_publish(core, attrs)
}
