//! Checks the hives of the Windows in an image against the rules of their format.

use super::explain::explain;
use super::hive_name::HiveName;
use super::log_replay::unreplayed;
use super::registry::{HiveRequest, find, hive_path, no_hive_file, open};
use crate::error::Result;
use crate::hive::HIVE_BYTES_MAX;
use crate::hive::check::{Fault, check};
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::PartitionView;

/// What the check of one hive found.
#[derive(Debug, Clone)]
pub struct CheckedHive {
    /// Path of the hive on the volume.
    pub path: String,
    /// The rules that it breaks.
    pub faults: Vec<Fault>,
}

/// Checks the hive `only`, or all hives in `System32\config` that the guest has, as they are on the volume; returns a warning
/// with them if the log of the volume cannot be replayed. Writes nothing.
///
/// # Errors
/// Those of [`read_hive`](super::read_hive), except what concerns the content of a hive.
pub fn check_hives(request: &HiveRequest, only: Option<HiveName>) -> Result<(Vec<CheckedHive>, Option<String>)> {
    let check_all = || {
        let stage = open(request)?;
        let installation = find(request, &stage)?;
        let view = PartitionView::new(&stage, &installation.partition)?;
        let volume = Volume::open(view, &OpenOptions { replay: request.state.replay(), ..OpenOptions::read_only() })?;
        let warning = unreplayed(&volume, &installation.partition);
        let mut checked = Vec::new();
        for name in HiveName::all().filter(|name| only.is_none_or(|only| only == *name)) {
            request.cancel.check()?;
            let path = hive_path(&installation, name);
            let Some(file) = volume.find(&path)? else {
                if only.is_some() {
                    return Err(no_hive_file(request, &path));
                }
                continue;
            };
            // One hive at a time is held.
            let bytes = volume.read(file, HIVE_BYTES_MAX).map_err(|error| error.path(&path))?;
            checked.push(CheckedHive { path, faults: check(&bytes) });
        }
        Ok((checked, warning))
    };
    check_all().map_err(explain)
}
