//! The staged boot volume: what the plan writes is there, and nothing else has changed.

mod compare;
mod fat;

use fat::FatImage;

use super::before::check_files_before;
use super::hive_edits::verify_edits;
use super::mismatch::mismatch;
use super::staged::verify_files;
use crate::error::{Error, Kind, Result};
use crate::hive::check::{self as hive_check, Severity};
use crate::io::VolumeRead;
use crate::ntfs::Overlaid;
use crate::partition::{Content as FileSystem, Partition};
use crate::plan::boot::BootFiles;
use crate::plan::change::GuestHive;
use crate::plan::document::Plan;

/// Compares the staged boot volume with what the plan writes to it (`files`), and with the volume as it was before. Returns
/// how many files were compared. `is_marked` says that the volume may carry the mark for a check by Windows.
///
/// # Errors
/// [`Kind::Verify`] at the first difference.
pub fn verify_boot<B: VolumeRead, A: VolumeRead>(
    before: &B,
    after: &A,
    partition: &Partition,
    plan: &Plan,
    files: &BootFiles,
    is_marked: bool,
) -> Result<usize> {
    let unread = |error: Error| match error.kind() {
        Kind::Damaged => mismatch("the staged boot volume cannot be read back").source_error(error),
        _ => error,
    };
    if let Some(store) = plan.boot.as_ref().and_then(|place| files.get(&place.store)) {
        if let Some(fault) = hive_check::check(store).iter().find(|fault| fault.severity() == Severity::Error) {
            return Err(mismatch(format!("the staged boot configuration is damaged: {fault}")));
        }
        verify_edits(store, plan, GuestHive::Bcd)?;
    }
    match partition.content {
        FileSystem::Fat => {
            let (old, new) = (FatImage::read(before)?, FatImage::read(after).map_err(unread)?);
            compare::compare(&old, &new, files).map_err(unread)
        }
        FileSystem::Ntfs => {
            let expected: Vec<(String, Vec<u8>)> =
                files.files.iter().map(|file| (file.path.clone(), file.bytes.to_vec())).collect();
            if let Err(error) = verify_files(after, &expected, is_marked) {
                // Older damage is not a fault of the change.
                let paths: Vec<String> = expected.iter().map(|(path, _)| path.clone()).collect();
                check_files_before(&Overlaid::open_shared(before, &partition.replay)?, &paths, is_marked)?;
                return Err(error);
            }
            Ok(expected.len())
        }
        other => Err(mismatch(format!("the boot volume holds {other} now"))),
    }
}
