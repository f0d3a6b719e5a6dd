//! Setting times, attributes and security of files.

use super::attributes::{load, remove_attribute};
use super::core::Core;
use super::guard::check_ordinary;
use super::metadata::change_standard_information;
use super::publish::store_and_publish;
use super::security::security_id_exists;
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeWrite;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::file_name::Times;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::standard_information::{StandardInformation, attribute};
use crate::ntfs::format::units::FileId;

/// Checks that NTFS can hold these times.
pub(crate) fn check_times(times: &Times) -> Result<()> {
    let all = [times.created, times.modified, times.changed, times.accessed];
    if all.iter().any(|&FileTime(t)| t == 0 || t >= 1 << 63) {
        return Err(Error::refused(Layer::Ntfs, "a time is out of range").hint("use a time between 1601 and 30828"));
    }
    Ok(())
}

/// Sets the four times.
pub(crate) fn set_times<D: VolumeWrite>(core: &mut Core<D>, file: FileId, times: &Times) -> Result<()> {
    change_information(core, file, |i| i.times = *times)
}

/// Sets the DOS attributes that a user may set (read-only, hidden, system, archive …).
pub(crate) fn set_attributes<D: VolumeWrite>(core: &mut Core<D>, file: FileId, attributes: u32) -> Result<()> {
    let now = core.clock;
    change_information(core, file, |i| {
        i.attributes = i.attributes & !attribute::SETTABLE | attributes & attribute::SETTABLE;
        i.times.changed = now;
    })
}

/// Sets the security id, which must be in `$Secure`. A descriptor of the file's own (old volumes, other drivers) goes.
pub(crate) fn set_security<D: VolumeWrite>(core: &mut Core<D>, file: FileId, id: u32) -> Result<()> {
    let now = core.clock;
    if !security_id_exists(&core.pager, id)? {
        return Err(Error::refused(Layer::Ntfs, format!("security id {id:#x} is not in $Secure"))
            .hint("use the id of an existing file"));
    }
    check_ordinary(&core.pager, file)?;
    let mut attrs = load(&core.pager, file)?;
    remove_attribute(core, &mut attrs, AttributeType::SECURITY_DESCRIPTOR, &NtfsName::default())?;
    change_standard_information(&mut attrs, |i| {
        i.security = Some(id);
        i.times.changed = now;
    })?;
    store_and_publish(core, attrs)
}

fn change_information<D: VolumeWrite>(
    core: &mut Core<D>,
    file: FileId,
    change: impl FnOnce(&mut StandardInformation),
) -> Result<()> {
    check_ordinary(&core.pager, file)?;
    let mut attrs = load(&core.pager, file)?;
    change_standard_information(&mut attrs, change)?;
    store_and_publish(core, attrs)
}
