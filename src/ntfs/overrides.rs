//! What must be done before the first edit of a volume whose refusal was overridden.

use super::attributes::{load, store, stream_of, system_file};
use super::core::Core;
use super::directory::find_path;
use super::log::{Admission, HIBERNATION_FILE, Hibernation, volume_flags};
use super::stream::Stream;
use crate::error::Result;
use crate::io::VolumeWrite;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::units::{FileId, RecordNumber};
use crate::ntfs::format::volume_information::{FLAGS, SIZE as VOLUME_INFORMATION_SIZE};

/// Empties the log, removes the hibernation state and marks the volume as dirty, as far as `admission` says.
pub(crate) fn apply<D: VolumeWrite>(core: &mut Core<D>, admission: Admission) -> Result<()> {
    if admission.clear_hibernation
        && let Some(file) = find_path(&core.pager, HIBERNATION_FILE)?
    {
        fill_stream(core, file, 0, Hibernation::HEADER as u64)?;
    }
    if admission.empty_log {
        let log = system_file(&core.pager, RecordNumber::LOG_FILE)?;
        fill_stream(core, log, 0xFF, u64::MAX)?;
    }
    if admission.set_dirty {
        set_dirty_flag(core)?;
    }
    Ok(())
}

/// Overwrites the beginning of a file's content with one byte.
fn fill_stream<D: VolumeWrite>(core: &mut Core<D>, file: FileId, byte: u8, limit: u64) -> Result<()> {
    let stream = stream_of(&core.pager, file, AttributeType::DATA, &NtfsName::default())?;
    if let Some(stream) = &stream {
        // a hole takes no bytes, and may be endless
        stream.check_metadata("what is to be erased")?;
    }
    let Some(Stream::Runs { runs, sizes }) = stream else {
        let Some(Stream::Resident(value)) = stream else { return Ok(()) };
        let mut attrs = load(&core.pager, file)?;
        attrs.set_value(AttributeType::DATA, "", &vec![byte; value.len()]);
        return store(core, attrs);
    };
    let chunk = vec![byte; 1 << 16];
    let end = sizes.data.min(limit);
    let mut at = 0;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
        core.pager.write_runs(&runs, at, &chunk[..length])?;
        at += length as u64;
    }
    Ok(())
}

/// Marks the volume to be checked by Windows.
fn set_dirty_flag<D: VolumeWrite>(core: &mut Core<D>) -> Result<()> {
    let mut record = (*core.pager.record(RecordNumber::VOLUME)?).clone();
    let value = record.value_mut(AttributeType::VOLUME_INFORMATION).filter(|v| v.len() >= VOLUME_INFORMATION_SIZE);
    let value = value.ok_or_else(|| damaged("$Volume has no $VOLUME_INFORMATION"))?;
    FLAGS.set(value, FLAGS.get(value) | volume_flags::DIRTY);
    core.pager.patch_record(RecordNumber::VOLUME, record);
    Ok(())
}
