//! Entries about files in the indexes of `$Extend`.

use super::attributes::{Attributes, system_file};
use super::btree::BtreeEditor;
use super::core::Core;
use super::directory::find_in;
use crate::error::Result;
use crate::field::Field;
use crate::io::VolumeWrite;
use crate::ntfs::format::units::RecordNumber;

/// Removes a file's entry from `$Extend\$Reparse:$R`.
pub(crate) fn forget_reparse_point<D: VolumeWrite>(core: &mut Core<D>, attrs: &Attributes, tag: u32) -> Result<()> {
    let mut key = [0; 12];
    Field::<u32>::at(0).set(&mut key, tag);
    Field::<u64>::at(4).set(&mut key, attrs.file.to_raw());
    remove_view_entry(core, "$Reparse", "$R", &key)
}

/// Removes an entry from an index of a file in `$Extend`; it may be absent.
pub(crate) fn remove_view_entry<D: VolumeWrite>(
    core: &mut Core<D>,
    file: &str,
    index: &'static str,
    key: &[u8],
) -> Result<()> {
    let extend = system_file(&core.pager, RecordNumber::EXTEND)?;
    if let Some(file) = find_in(&core.pager, extend, &file.into())? {
        BtreeEditor::new(core, file, index).remove(key)?;
    }
    Ok(())
}
