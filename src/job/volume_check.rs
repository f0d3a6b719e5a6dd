//! Checks of a volume before the first edit: what is written must land in free clusters and records, and a volume whose
//! log was replayed must be sound altogether.

use super::request::{Observer, StateOverrides, observe_passes};
use super::step::Step;
use crate::error::{Error, Result};
use crate::ntfs::Overlaid;
use crate::ntfs::check::{
    CheckOptions, Code, OnProgress, Pass, Severity, check_with_progress, cluster_owners_with_progress,
};
use crate::ntfs::log::{blame_replay, refuse_unsound};
use crate::partition::{Disk, Partition, PartitionView};

/// The warning in the report of a run without this check.
pub(super) const SKIPPED: &str = "the volume was not checked before the edit (--skip-volume-check): where its $Bitmap is \
                                  wrong, files of the guest may have been overwritten";

/// What a check of a volume before the edit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VolumeChecked {
    /// The bitmaps agree with the file records; after a replay, the whole volume is sound.
    Passed,
    /// The user did without the check, and no log was replayed.
    Skipped,
}

/// Compares the bitmaps of the volume with its file records, unless `is_skipped`. A volume whose log is replayed is always
/// checked, as it is after the replay, against every rule that [`check`](crate::ntfs::check::check) knows. Reads only.
///
/// # Errors
/// [`Kind::Damaged`](crate::Kind::Damaged) when an edit that trusts the bitmaps could overwrite something;
/// [`Kind::Refused`](crate::Kind::Refused) when the replay does not give a sound volume; and when the disk cannot be read.
pub(super) fn check_volume<D: Disk>(
    disk: D,
    partition: &Partition,
    state: &StateOverrides,
    is_skipped: bool,
    on_progress: OnProgress<'_>,
) -> Result<VolumeChecked> {
    let check = || {
        let volume = Overlaid::open_shared(PartitionView::new(disk, partition)?, &partition.replay)?;
        if volume.replay().is_some() {
            check_replayed(&volume, state.allow_dirty, on_progress)?;
        } else if is_skipped {
            return Ok(VolumeChecked::Skipped);
        }
        let owners = cluster_owners_with_progress(&volume, on_progress)?;
        tracing::debug!("{} records own {} clusters", owners.records, owners.clusters);
        Ok(VolumeChecked::Passed)
    };
    check().map_err(|error: Error| error.path(partition.label()))
}

/// Judges a volume as it is after the replay of its log.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) with the first fault, except a dirty flag that is allowed.
pub(super) fn check_replayed<D: crate::io::VolumeRead>(
    volume: &Overlaid<D>,
    allow_dirty: bool,
    on_progress: OnProgress<'_>,
) -> Result<()> {
    let report = check_with_progress(volume, &CheckOptions::default(), on_progress).map_err(blame_replay)?;
    let counts = |fault: &&crate::ntfs::check::Fault| {
        fault.severity == Severity::Error && !(allow_dirty && fault.code == Code::DirtyFlag)
    };
    report.faults.iter().find(counts).map_or(Ok(()), |fault| Err(refuse_unsound(fault)))
}

/// Makes each pass of the check of a volume a step of `observer`, with its bytes.
pub(super) fn observe_check(observer: &dyn Observer) -> impl Fn(Pass, u64, u64) {
    observe_passes(observer, |pass| match pass {
        Pass::Records => Step::CheckVolume,
        Pass::Folders => Step::CheckFolders,
    })
}
