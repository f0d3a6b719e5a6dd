//! Checks that what a plan was to remove is not there any more, by readers that share no code with the writers.

use super::independent::IndependentVolume;
use super::mismatch::mismatch;
use crate::error::{Error, Result};
use crate::hive::reader::Reader;
use crate::hive::{HIVE_BYTES_MAX, RegistryData};
use crate::io::VolumeRead;
use crate::plan::change::{GuestHive, value_name};
use crate::plan::document::Plan;

/// What must not be on a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absent {
    /// Paths of files.
    pub files: Vec<String>,
    /// Values with these data: hive, key, name, data. A value with other data passes.
    pub values: Vec<(GuestHive, String, String, RegistryData)>,
}

/// Checks that nothing of `absent` is on the volume, whose hives lie where `plan` says.
///
/// # Errors
/// [`Kind::Verify`](crate::Kind::Verify) for the first that is there, or cannot be read.
pub fn verify_absent<D: VolumeRead>(device: &D, plan: &Plan, absent: &Absent) -> Result<()> {
    if absent.files.is_empty() && absent.values.is_empty() {
        return Ok(());
    }
    let unreadable = |error: Error| mismatch("the staged volume cannot be read back").source_error(error);
    let volume = IndependentVolume::open(device).map_err(unreadable)?;
    for path in &absent.files {
        if volume.find(path).map_err(unreadable)?.is_some() {
            return Err(mismatch("a file that was to be removed is still there").path(path));
        }
    }
    for file in GuestHive::ALL {
        let of_file = || absent.values.iter().filter(|(hive, ..)| *hive == file);
        if of_file().next().is_none() {
            continue;
        }
        let path = plan.hive_path(file);
        let Some(bytes) = volume.read(&path, HIVE_BYTES_MAX).map_err(unreadable)? else { continue };
        let hive = Reader::open(&bytes).map_err(unreadable)?;
        for (_, key, name, data) in of_file() {
            if hive.value(key, name).map_err(unreadable)?.as_ref() == Some(data) {
                let what = format!("a value that was to be removed is still there: {}", value_name(name));
                return Err(mismatch(what).path(format!("{file}\\{key}")));
            }
        }
    }
    Ok(())
}
