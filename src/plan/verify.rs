//! Reads everything back that a plan touched, from the first sector on, with readers that share no code with the
//! writers, and compares it with the plan.

use serde::Serialize;

use super::independent::{Found, IndependentVolume};
use super::{Applied, Change, HiveFile, Plan, RegData};
use crate::error::{Error, Kind, Layer, Result};
use crate::hive::Edited;
use crate::hive::check;
use crate::hive::check::Severity;
use crate::hive::reader::Reader;
use crate::io::VolumeRead;
use crate::ntfs::check::{CheckOptions, Code, Fault, check_touched};
use crate::ntfs::{self, RecordNumber};

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

/// Compares the staged volume with the plan that was applied to it. What `applied` holds must be there byte for byte.
/// Every changed hive is checked as a whole. `is_marked` says that the volume may carry the mark for a check by
/// Windows: the user allowed it, or an override set it.
///
/// # Errors
/// [`Kind::Verify`] at the first difference or structural fault.
pub fn verify<D: VolumeRead>(device: &D, plan: &Plan, applied: &Applied, is_marked: bool) -> Result<Verified> {
    let volume = IndependentVolume::open(device)?;
    let mut done = Verified::default();
    for step in plan.files() {
        verify_file(&volume, &step.change, &mut done)?;
    }
    for file in HiveFile::ALL {
        if plan.of_hive(file).next().is_some() {
            verify_hive(&volume, plan, file, applied.hives.get(&file), &mut done)?;
        }
    }
    if !plan.is_empty() {
        verify_structure(device, &volume, plan, is_marked, &mut done)?;
    }
    Ok(done)
}

/// The structural rules of NTFS on every record that the plan touched, and on the volume's frame.
fn verify_structure<D: VolumeRead>(
    device: &D,
    volume: &IndependentVolume<'_, D>,
    plan: &Plan,
    is_marked: bool,
    done: &mut Verified,
) -> Result<()> {
    let hives = HiveFile::ALL.into_iter().filter(|file| plan.of_hive(*file).next().is_some());
    let mut paths: Vec<String> = hives.map(|file| plan.hive_path(file)).collect();
    paths.extend(plan.files().filter_map(|step| step.change.file()).map(str::to_owned));
    let mut records = Vec::new();
    for path in &paths {
        records.extend(volume.record(path)?.map(RecordNumber));
    }
    let report = check_touched(device, &records, &CheckOptions::default())?;
    done.records = records.len();
    let is_fault =
        |fault: &&Fault| fault.severity == ntfs::check::Severity::Error && !(is_marked && fault.code == Code::D11);
    match report.faults.iter().find(is_fault) {
        Some(fault) => Err(mismatch(format!("the staged volume has a fault: {fault}"))),
        None => Ok(()),
    }
}

fn verify_file<D: VolumeRead>(volume: &IndependentVolume<'_, D>, change: &Change, done: &mut Verified) -> Result<()> {
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

fn verify_hive<D: VolumeRead>(
    volume: &IndependentVolume<'_, D>,
    plan: &Plan,
    file: HiveFile,
    edited: Option<&Edited>,
    done: &mut Verified,
) -> Result<()> {
    let path = plan.hive_path(file);
    let not_there = || mismatch("a staged hive is not there").path(&path);
    let Some(edited) = edited else {
        let bytes = volume.read(&path, HIVE_BYTES_MAX)?.ok_or_else(not_there)?;
        if let Some(fault) = check::check(&bytes).iter().find(|fault| fault.severity() == Severity::Error) {
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
fn verify_edits(bytes: &[u8], plan: &Plan, file: HiveFile, done: &mut Verified) -> Result<()> {
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
