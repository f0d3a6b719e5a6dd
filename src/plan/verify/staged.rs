//! The staged volume: everything that a plan touched is read back and compared with the plan.

use serde::Serialize;

use super::hive_edits::verify_edits;
use super::independent::{Found, IndependentVolume};
use super::mismatch::mismatch;
use crate::error::{Error, Kind, Result};
use crate::hive::Edited;
use crate::hive::HIVE_BYTES_MAX;
use crate::hive::check::{self as hive_check, Severity as HiveSeverity};
use crate::io::VolumeRead;
use crate::ntfs::RecordNumber;
use crate::ntfs::check::{CheckOptions, Code, Fault, Severity, check_touched};
use crate::plan::apply::Applied;
use crate::plan::change::{Change, GuestHive};
use crate::plan::document::Plan;

/// How much of the staged volume was compared with the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Verified {
    /// Number of files and folders that were looked up and compared.
    pub files: usize,
    /// Bytes of file content that were compared.
    pub bytes: u64,
    /// Number of registry keys and values that were looked up.
    pub values: usize,
    /// Hives that were checked as a whole.
    pub hives: usize,
    /// File records that were checked against the structural rules of NTFS.
    pub records: usize,
}

/// Compares files of the staged volume with what they are to hold, and checks them and the volume's frame.
///
/// # Errors
/// [`Kind::Verify`] at the first difference or structural fault.
pub fn verify_files<D: VolumeRead>(device: &D, files: &[(String, Vec<u8>)], is_marked: bool) -> Result<()> {
    let verify = || {
        let volume = IndependentVolume::open(device)?;
        for (path, bytes) in files {
            if volume.holds(path, bytes)? != Some(true) {
                return Err(mismatch("a staged file is not what was to be written").path(path));
            }
        }
        let paths: Vec<String> = files.iter().map(|(path, _)| path.clone()).collect();
        verify_structure(device, &volume, &paths, is_marked).map(drop)
    };
    verify().map_err(unread)
}

/// Turns damage into a failed verification. Whether it is older than the change, [`super::check_before`] and
/// [`super::blame`] find out.
fn unread(error: Error) -> Error {
    match error.kind() {
        Kind::Damaged => mismatch("the staged volume cannot be read back").source_error(error),
        _ => error,
    }
}

/// Compares the staged volume with the plan that was applied to it. What `applied` holds must be there byte for byte.
/// Every changed hive is checked as a whole. `is_marked` says that the volume may carry the mark for a check by
/// Windows: the user allowed it, or an override set it.
///
/// # Errors
/// [`Kind::Verify`] at the first difference or structural fault.
pub fn verify<D: VolumeRead>(device: &D, plan: &Plan, applied: &Applied, is_marked: bool) -> Result<Verified> {
    verify_all(device, plan, applied, is_marked).map_err(unread)
}

fn verify_all<D: VolumeRead>(device: &D, plan: &Plan, applied: &Applied, is_marked: bool) -> Result<Verified> {
    let volume = IndependentVolume::open(device)?;
    let mut done = Verified::default();
    for step in plan.files() {
        verify_file(&volume, &step.change, &mut done)?;
    }
    for file in GuestHive::ALL {
        if plan.of_hive(file).next().is_some() {
            verify_hive(&volume, plan, file, applied.hives.get(&file), &mut done)?;
        }
    }
    if !plan.is_empty() {
        let mut paths: Vec<String> = plan.hive_paths().collect();
        paths.extend(plan.files().filter_map(|step| step.change.file()).map(str::to_owned));
        done.records = verify_structure(device, &volume, &paths, is_marked)?;
    }
    Ok(done)
}

/// The structural rules of NTFS on the records of the paths, and on the volume's frame. Returns the number of records.
fn verify_structure<D: VolumeRead>(
    device: &D,
    volume: &IndependentVolume<'_>,
    paths: &[String],
    is_marked: bool,
) -> Result<usize> {
    let mut records = Vec::new();
    for path in paths {
        records.extend(volume.record(path)?.map(RecordNumber));
    }
    let report = check_touched(device, &records, &CheckOptions::default())?;
    let is_fault = |fault: &&Fault| fault.severity == Severity::Error && !(is_marked && fault.code == Code::DirtyFlag);
    if let Some(fault) = report.faults.iter().find(is_fault) {
        return Err(mismatch(format!("the staged volume has a fault: {fault}")));
    }
    // Last, because the crate is made for sound volumes.
    volume.compare_with_third_opinion(paths)?;
    Ok(records.len())
}

fn verify_file(volume: &IndependentVolume<'_>, change: &Change, done: &mut Verified) -> Result<()> {
    let Some(path) = change.file() else { return Ok(()) };
    let found = volume.find(path)?;
    let right = match (change, found) {
        (Change::CreateDir { .. }, Some(Found::Folder))
        | (Change::DeleteFile { .. }, None)
        | (Change::Protect { .. }, Some(_)) => true,
        (Change::WriteFile { content, .. }, Some(Found::File)) => {
            done.bytes = done.bytes.saturating_add(content.size());
            match content.held() {
                Ok(bytes) => volume.holds(path, bytes)? == Some(true),
                Err(_) => volume.hash(path)?.is_some_and(|(length, sha256)| content.is_hashed(length, sha256)),
            }
        }
        _ => false,
    };
    if !right {
        let found = match found {
            Some(Found::Folder) => "a folder",
            Some(Found::File) => "a file with another content",
            None => "nothing",
        };
        return Err(mismatch("a staged file is not what was planned").path(path).expected_found(change, found));
    }
    done.files += 1;
    Ok(())
}

fn verify_hive(
    volume: &IndependentVolume<'_>,
    plan: &Plan,
    file: GuestHive,
    edited: Option<&Edited>,
    done: &mut Verified,
) -> Result<()> {
    let path = plan.hive_path(file);
    let not_there = || mismatch("a staged hive is not there").path(&path);
    let Some(edited) = edited else {
        let bytes = volume.read(&path, HIVE_BYTES_MAX)?.ok_or_else(not_there)?;
        if let Some(fault) = hive_check::check(&bytes).iter().find(|fault| fault.severity() == HiveSeverity::Error) {
            return Err(mismatch(format!("a staged hive is damaged: {fault}")).path(path));
        }
        done.values += verify_edits(&bytes, plan, file).map_err(|e| e.path(path))?;
        done.hives += 1;
        return Ok(());
    };
    if !volume.holds(&path, &edited.bytes)?.ok_or_else(not_there)? {
        return Err(mismatch("a staged hive is not what was written").path(path));
    }
    // This check also knows which faults were there before.
    let compared = edited.check().and_then(|()| verify_edits(&edited.bytes, plan, file));
    done.values += compared.map_err(|e| e.path(path))?;
    done.hives += 1;
    Ok(())
}
