//! Reads everything back that a plan touched, from the first sector on, with readers that share no code with the
//! writers, and compares it with the plan.

pub mod independent;

use std::collections::HashSet;

use serde::Serialize;

use super::{Applied, Change, GuestHive, Plan, RegData};
use crate::error::{Error, Kind, Layer, Result};
use crate::hive::Edited;
use crate::hive::check as hive_check;
use crate::hive::check::Severity;
use crate::hive::reader::Reader;
use crate::io::VolumeRead;
use crate::ntfs::check::{CheckOptions, CheckReport, Code, Fault, check, check_touched};
use crate::ntfs::{self, RecordNumber};
use crate::plan::verify::independent::{Found, IndependentVolume};

/// The largest hive that is read back.
const HIVE_BYTES_MAX: u64 = 1 << 30;

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Verified {
    /// Files and folders.
    pub files: usize,
    /// Bytes of files.
    pub bytes: u64,
    /// Keys and values.
    pub values: usize,
    /// Hives that were checked as a whole.
    pub hives: usize,
    /// File records that were checked against the structural rules of NTFS.
    pub records: usize,
}

fn mismatch(what: impl Into<String>) -> Error {
    Error::new(Kind::Verify, Layer::Plan, what)
        .hint("nothing was written; this is a defect of winject, please report it")
}

/// Checks the untouched volume for what [`verify`] will judge on the staged one, so that damage which was there before is
/// reported as such. `is_marked` is as in [`verify`]; such a volume may also have a log that is discarded.
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
    planned.extend(hive_paths(plan).map(|path| (path, true)));
    let made: HashSet<&str> = plan.files().filter_map(|step| step.change.file()).collect();
    for (path, is_there) in &planned {
        let found = volume.record(path)?;
        if *is_there && found.is_none() && !made.contains(folder_of(path)) {
            return Err(unreachable_file(path));
        }
        // The folder that changes when the path is new: the last one on the way that is there.
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
pub fn check_files_before<D: VolumeRead>(device: &D, paths: &[String]) -> Result<()> {
    let volume = IndependentVolume::open(device)?;
    let mut records = Vec::new();
    for path in paths {
        let record = volume.record(path)?;
        records.push(RecordNumber(record.ok_or_else(|| unreachable_file(path))?));
    }
    check_records_before(device, records, false)
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
    let is_excused = |fault: &Fault| is_marked && matches!(fault.code, Code::D11 | Code::A4);
    report.faults.iter().find(|fault| is_error(fault) && !is_excused(fault))
}

/// Decides whose fault a failed verification is: the volume below the stage is checked as a whole, and damage that it
/// already had is the reason that counts. Any other error comes back as it is.
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

/// Compares files of the staged volume with what they are to hold, and checks them and the volume's frame.
///
/// # Errors
/// [`Kind::Verify`] at the first difference or structural fault.
pub fn verify_files<D: VolumeRead>(device: &D, files: &[(String, Vec<u8>)]) -> Result<()> {
    let verify = || {
        let volume = IndependentVolume::open(device)?;
        for (path, bytes) in files {
            if volume.holds(path, bytes)? != Some(true) {
                return Err(mismatch("a staged file is not what was to be written").path(path));
            }
        }
        let paths: Vec<String> = files.iter().map(|(path, _)| path.clone()).collect();
        verify_structure(device, &volume, &paths, false).map(drop)
    };
    verify().map_err(unread)
}

/// Whether the damage is older than the change is for [`check_before`] and [`blame`] to say.
fn unread(error: Error) -> Error {
    match error.kind() {
        Kind::Damaged => mismatch("the staged volume cannot be read back").source_error(error),
        _ => error,
    }
}

fn is_error(fault: &Fault) -> bool {
    fault.severity == ntfs::check::Severity::Error
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

fn hive_paths(plan: &Plan) -> impl Iterator<Item = String> {
    GuestHive::ALL.into_iter().filter(|file| plan.of_hive(*file).next().is_some()).map(|file| plan.hive_path(file))
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
        let mut paths: Vec<String> = hive_paths(plan).collect();
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
    let is_fault = |fault: &&Fault| is_error(fault) && !(is_marked && fault.code == Code::D11);
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
        if let Some(fault) = hive_check::check(&bytes).iter().find(|fault| fault.severity() == Severity::Error) {
            return Err(mismatch(format!("a staged hive is damaged: {fault}")).path(path));
        }
        return verify_edits(&bytes, plan, file, done).map_err(|e| e.path(path));
    };
    if !volume.holds(&path, &edited.bytes)?.ok_or_else(not_there)? {
        return Err(mismatch("a staged hive is not what was written").path(path));
    }
    // This check also knows which faults were there before.
    edited.check().and_then(|()| verify_edits(&edited.bytes, plan, file, done)).map_err(|e| e.path(path))
}

/// Reads the whole hive with the reader that shares no code with the editor, and looks for the plan's edits.
fn verify_edits(bytes: &[u8], plan: &Plan, file: GuestHive, done: &mut Verified) -> Result<()> {
    let unreadable = |e: Error| mismatch("a staged hive cannot be read").source_error(e);
    let hive = Reader::open(bytes).map_err(unreadable)?;
    // every key can be reached, not only ours
    hive.reach_all().map_err(unreadable)?;
    for step in plan.of_hive(file) {
        verify_edit(&hive, &step.change)?;
        done.values += 1;
    }
    done.hives += 1;
    Ok(())
}

fn verify_edit(hive: &Reader<'_>, change: &Change) -> Result<()> {
    let (key, right) = match change {
        Change::CreateKey { key, .. } => (key, hive.key(key)?.is_some()),
        Change::DeleteKey { key, .. } => (key, hive.key(key)?.is_none()),
        Change::SetValue { key, name, data, .. } => (key, value(hive, key, name)?.as_ref() == Some(data)),
        Change::DeleteValue { key, name, .. } => (key, value(hive, key, name)?.is_none()),
        Change::CreateDir { .. } | Change::WriteFile { .. } | Change::Protect { .. } | Change::DeleteFile { .. } => {
            return Ok(());
        }
    };
    if right { Ok(()) } else { Err(mismatch(format!("the registry is not as planned: {change}")).path(key)) }
}

fn value(hive: &Reader<'_>, key: &str, name: &str) -> Result<Option<RegData>> {
    let Some(key) = hive.key(key)? else { return Ok(None) };
    Ok(key.value(name)?.map(|value| RegData::new(value.kind.0, value.data)))
}
