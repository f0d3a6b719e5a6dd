//! Which of several disks holds the Windows to work on: found by content, or named.

use std::path::{Path, PathBuf};

use super::disks::{open_briefly, refuse_one_chain};
use super::locate::{most_telling, no_windows, search_folders, search_installations};
use super::report::Report;
use super::request::{InjectRequest, Observer};
use super::step::Step;
use crate::block::is_same_image;
use crate::block::{self, Stage};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::{escape, shell_argument};
use crate::partition::PartitionTable;

/// Most disks of one virtual machine.
const DISKS_MAX: usize = 64;

/// Refuses sets of disks that no machine has, before any of them is opened.
///
/// # Errors
/// [`Kind::Usage`] when a file is named twice, by whatever name, when there are too many, when the disk that is to hold
/// Windows is not one of them, or when one choice of a disk would count for several OVAs.
pub(super) fn check_disks(request: &InjectRequest) -> Result<()> {
    let disks: Vec<&Path> = request.all_disks().map(PathBuf::as_path).collect();
    check_set(&disks, request.disk.as_deref())?;
    match &request.windows_disk {
        Some(chosen) if !disks.iter().any(|path| is_same_image(path, chosen)) => Err(refused(
            "the disk with Windows is not one of the given disks".to_owned(),
            chosen,
            "name it among the disks, too".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// The same for disks that are only looked at. `disk` is the choice of a disk of an OVA.
///
/// # Errors
/// Those of [`check_disks`].
pub(super) fn check_set(disks: &[&Path], disk: Option<&str>) -> Result<()> {
    let Some(first) = disks.first() else { return Ok(()) };
    if disks.len() > DISKS_MAX {
        let what = format!("cannot use {} disks: a machine may have {DISKS_MAX}", disks.len());
        let hint = "name the disk with Windows and those with boot files; data disks need not be".to_owned();
        return Err(refused(what, first, hint));
    }
    for (index, path) in disks.iter().enumerate() {
        if let Some(other) = disks.iter().take(index).find(|other| is_same_image(other, path)) {
            let what = format!("cannot use a disk twice: it is the same file as {}", other.display());
            let hint = if block::is_ova(path) {
                format!("of an OVA with several disks, unpack them and name each: {}", unpack_command(path))
            } else {
                "name each disk of the machine once".to_owned()
            };
            return Err(refused(what, path, hint));
        }
    }
    let Some(name) = disk.filter(|_| disks.len() > 1) else { return Ok(()) };
    let ovas: Vec<&&Path> = disks.iter().filter(|path| block::is_ova(path)).collect();
    match ovas.as_slice() {
        [first, .., last] => {
            let what = format!("cannot use the disk {} of several OVAs: --disk counts for each of them", escape(name));
            let hint = format!(
                "unpack them, and name the disks instead: {} && {}",
                unpack_command(first),
                unpack_command(last)
            );
            Err(refused(what, last, hint))
        }
        _ => Ok(()),
    }
}

fn refused(what: String, path: &Path, hint: String) -> Error {
    Error::new(Kind::Usage, Layer::Job, what).path(path.display().to_string()).hint(hint)
}

fn unpack_command(ova: &Path) -> String {
    format!("tar -xf {}", shell_argument(ova, "OVA"))
}

/// The same request with the disk that holds Windows as its image, and the others in an order that does not depend on that
/// of the request.
///
/// # Errors
/// Those of opening a disk; when no disk holds Windows, or several do and none was named.
pub(super) fn choose_disk(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
) -> Result<InjectRequest> {
    if request.other_disks.is_empty() {
        return Ok(request.clone());
    }
    let disks: Vec<&PathBuf> = request.all_disks().collect();
    let index = match &request.windows_disk {
        Some(chosen) => disks.iter().position(|path| is_same_image(path, chosen)),
        None => Some(search(request, &disks, observer, report)?),
    };
    let request = with_windows_on(request, index.unwrap_or_default());
    report.add_disks(&request);
    observer.image(&request.image);
    Ok(request)
}

/// The same request with this one of its disks as the image.
fn with_windows_on(request: &InjectRequest, index: usize) -> InjectRequest {
    let mut others: Vec<PathBuf> = request.all_disks().cloned().collect();
    let image = if index < others.len() { others.remove(index) } else { request.image.clone() };
    others.sort_by(|a, b| (a.file_name(), a).cmp(&(b.file_name(), b)));
    InjectRequest { image, other_disks: others, windows_disk: None, ..request.clone() }
}

/// The index of the only disk with Windows.
fn search(request: &InjectRequest, disks: &[&PathBuf], observer: &dyn Observer, report: &mut Report) -> Result<usize> {
    observer.step(Step::FindDisk);
    let mut opened: Vec<(&Path, Stage)> = Vec::new();
    let mut found: Vec<(usize, PartitionTable)> = Vec::new();
    let mut reasons: Vec<Error> = Vec::new();
    for (index, path) in disks.iter().enumerate() {
        request.cancel.check()?;
        let stage = open_briefly(request, path)?;
        for (other, known) in &opened {
            refuse_one_chain((other, known.image()), (path, stage.image()))?;
        }
        match request.bitlocker.read_partitions(&stage) {
            Ok(table) => {
                let table = table.with_replay(request.state.replay());
                let mut folders = search_folders(&stage, &table);
                // What cannot be read now may hold a Windows the next time.
                if let Some(at) = folders.faults.iter().position(|(_, error)| error.kind() == Kind::Io) {
                    return Err(folders.faults.swap_remove(at).1.within(path.display()));
                }
                if folders.found.is_empty() {
                    reasons.push(no_windows(folders).within(path.display()));
                } else {
                    found.push((index, table));
                }
            }
            Err(error) if error.kind() == Kind::Io => return Err(error.within(path.display())),
            Err(error) => reasons.push(error.within(path.display())),
        }
        opened.push((path, stage));
    }
    match found.as_slice() {
        [(index, _)] => {
            // Each of these may hide another Windows.
            let hidden = reasons.iter().filter(|error| !matches!(error.kind(), Kind::NotWindows | Kind::Unsupported));
            report.virtio.warnings.extend(hidden.map(|error| format!("not searched for Windows: {error}")));
            Ok(*index)
        }
        [] => Err(none_has_windows(reasons)),
        several => {
            let several = several.iter().filter_map(|(index, table)| Some((opened.get(*index)?, table)));
            Err(several_have_windows(several.map(|((path, stage), table)| (*path, stage, table))))
        }
    }
}

/// The error for disks without Windows: what the user can decide counts most, then damage.
pub(super) fn none_has_windows(reasons: Vec<Error>) -> Error {
    let first = most_telling(&reasons);
    let kind = first.map_or(Kind::NotWindows, Error::kind);
    let hint =
        first.and_then(Error::hint_text).unwrap_or("is the disk that Windows is installed on among them?").to_owned();
    let list: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    Error::new(kind, Layer::Job, format!("no Windows found on any of the disks: {}", list.join("; "))).hint(hint)
}

fn several_have_windows<'a>(disks: impl Iterator<Item = (&'a Path, &'a Stage, &'a PartitionTable)>) -> Error {
    let mut list = Vec::new();
    let mut count = 0;
    for (path, stage, table) in disks {
        count += 1;
        let chosen = format!("--windows-disk {}", shell_argument(path, "DISK"));
        let installations = search_installations(stage, table);
        let known = installations.found.iter().map(|one| (one.partition.number, one.guest.to_string()));
        let faults = installations.faults.iter().map(|(partition, error)| (partition.number, error.to_string()));
        list.extend(known.chain(faults).map(|(number, text)| format!("{chosen} --partition {number}: {text}")));
    }
    Error::refused(Layer::Job, format!("{count} of the disks hold a Windows"))
        .with_code(ErrorCode::SeveralWindows)
        .hint(format!("name all disks, and choose one: {}", list.join("; ")))
}
