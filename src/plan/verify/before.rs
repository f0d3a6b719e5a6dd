//! Checks of the untouched volume: damage that is older than the change is reported as such.

use std::collections::HashSet;

use super::independent::IndependentVolume;
use crate::error::{Error, Kind, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::RecordNumber;
use crate::ntfs::check::{CheckOptions, CheckReport, Code, Fault, Severity, check, check_touched};
use crate::plan::change::Change;
use crate::plan::document::Plan;

/// Checks on the untouched volume what [`verify`](super::verify) checks on the staged one, so that older damage is
/// reported as such. `is_marked` means the same as for [`verify`](super::verify); such a volume may also have a log
/// that is discarded.
///
/// # Errors
/// [`Kind::Damaged`] when the volume's frame, or a file or folder that the plan touches, has a fault.
pub fn check_before<D: VolumeRead>(device: &D, plan: &Plan, is_marked: bool) -> Result<()> {
    if plan.is_empty() {
        return Ok(());
    }
    let volume = IndependentVolume::open(device)?;
    let mut records = Vec::new();
    let mut planned: Vec<(String, bool)> = Vec::new();
    for step in plan.files() {
        let is_there = match &step.change {
            Change::WriteFile { replaces, .. } => *replaces,
            Change::Protect { .. } | Change::DeleteFile { .. } => true,
            _ => false,
        };
        planned.extend(step.change.file().map(|path| (path.to_owned(), is_there)));
    }
    planned.extend(plan.hive_paths().map(|path| (path, true)));
    let made: HashSet<&str> = plan.files().filter_map(|step| step.change.file()).collect();
    for (path, is_there) in &planned {
        let found = volume.record(path)?;
        if *is_there && found.is_none() && !made.contains(folder_of(path)) {
            return Err(unreachable_file(path));
        }
        // The folder that changes when the path is new: its nearest ancestor that exists.
        let mut nearest = path.as_str();
        let mut record = found;
        while record.is_none() && !nearest.is_empty() {
            nearest = folder_of(nearest);
            record = volume.record(nearest)?;
        }
        records.extend(record.map(RecordNumber));
    }
    check_records_before(device, records, is_marked)
}

/// Checks the untouched volume for files that are going to be overwritten, which are there. See [`check_before`].
///
/// # Errors
/// [`Kind::Damaged`] when the volume's frame, or one of the files, has a fault.
pub fn check_files_before<D: VolumeRead>(device: &D, paths: &[String], is_marked: bool) -> Result<()> {
    let volume = IndependentVolume::open(device)?;
    let mut records = Vec::new();
    for path in paths {
        let record = volume.record(path)?;
        records.push(RecordNumber(record.ok_or_else(|| unreachable_file(path))?));
    }
    check_records_before(device, records, is_marked)
}

fn unreachable_file(path: &str) -> Error {
    damaged("a directory index does not lead to this file").path(path)
}

fn check_records_before<D: VolumeRead>(device: &D, mut records: Vec<RecordNumber>, is_marked: bool) -> Result<()> {
    records.sort_unstable();
    records.dedup();
    match old_fault(&check_touched(device, &records, &CheckOptions::default())?, is_marked) {
        Some(fault) => Err(damaged(format!("the volume has a fault: {fault}"))),
        None => Ok(()),
    }
}

/// The first fault of an untouched volume. One that is marked for a check may be marked, and have a log to discard.
fn old_fault(report: &CheckReport, is_marked: bool) -> Option<&Fault> {
    let is_excused = |fault: &Fault| is_marked && matches!(fault.code, Code::DirtyFlag | Code::Log);
    report.faults.iter().find(|fault| fault.severity == Severity::Error && !is_excused(fault))
}

/// Finds the cause of a failed verification: checks the whole volume below the stage, and returns the damage that it
/// already had. Any other error is returned unchanged.
pub fn blame<D: VolumeRead>(before: &D, is_marked: bool, error: Error) -> Error {
    if error.kind() != Kind::Verify {
        return error;
    }
    let Ok(report) = check(before, &CheckOptions::default()) else { return error };
    match old_fault(&report, is_marked) {
        Some(fault) => damaged(format!("the volume had a fault before it was changed: {fault}")).source_error(error),
        None => error,
    }
}

fn damaged(what: impl Into<String>) -> Error {
    Error::damaged(Layer::Plan, what).hint(
        "nothing was written; run chkdsk /f on this volume in the guest, shut it down cleanly and export it again \
         (winject fsck IMAGE lists all faults)",
    )
}

/// The folder of a path; empty for the root.
fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
