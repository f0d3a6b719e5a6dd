//! Whether a job was done before: its output is there, whole, and holds what the run would write.

use std::path::Path;

use super::disks::{block_options, open_briefly};
use super::inject::prepare;
use super::locate::locate_partition;
use super::report::Report;
use super::request::{Destination, InjectRequest, Silent};
use super::staging::{Staged, open_to_read};
use crate::block::convert;
use crate::block::formats::qcow2;
use crate::block::{Format, Image, Stage, is_same_image};
use crate::cancel::Cancel;
use crate::clock::FileTime;
use crate::error::Result;
use crate::host::is_nbd_name;
use crate::units::ImageOffset;
use crate::windows::MANIFEST;

/// Bytes of two disks that are compared at once.
const COMPARED_AT_ONCE: usize = 1 << 20;

/// An output that is there, whole.
#[derive(Debug)]
pub struct FinishedOutput {
    /// The report of the run that would write it, which writes nothing.
    pub report: Report,
    /// Length of its disk in bytes.
    pub virtual_size: u64,
}

/// Whether the output of a conversion without drivers, or the one that an injection would write, is there, whole, and holds
/// what the run would write into it: every byte is compared. An injection is staged for it, at the time of the run that made
/// the output.
///
/// `None`: the output is missing, or something else, or cannot be compared; a run refuses to replace it and says why.
///
/// # Errors
/// When the image cannot be read. An output that is wrong gives `None`: the run says why.
pub fn find_finished_output(request: &InjectRequest) -> Result<Option<FinishedOutput>> {
    let (out, format) = match &request.destination {
        Destination::Overlay(path) => (path, Format::Qcow2),
        Destination::Standalone { path, format, .. } => (path, *format),
        Destination::InPlace | Destination::DryRun => return Ok(None),
    };
    // An export is always there, and overwritten if it holds something else.
    if !is_nbd_name(out) && (request.overwrite_output || !out.is_file()) {
        return Ok(None);
    }
    let Ok(Some(new)) = open_whole(request, out, format) else { return Ok(None) };
    if request.drivers.is_empty() {
        let original = open_briefly(request, &request.image)?;
        if !has_same_content(&original, new.image(), &request.cancel).unwrap_or(false) {
            return Ok(None);
        }
        let mut report = Report::of_request(request);
        report.run.image_format = Some(original.image().format().to_string());
        report.run.bytes_read = original.image().bytes_read();
        return of_output(request, report, out, (&new, original.len())).map(Some);
    }
    // What is wrong with the guest, the run says.
    let found = injected_before(request, &new).unwrap_or(None);
    found.map(|(report, size)| of_output(request, report, out, (&new, size))).transpose()
}

/// What is said of an output that is there, with the sum of its file, or of the disk in an export, if that is asked for.
/// `virtual_size`: bytes of the disk, after which an export may have more.
fn of_output(
    request: &InjectRequest,
    report: Report,
    out: &Path,
    (new, virtual_size): (&Stage, u64),
) -> Result<FinishedOutput> {
    let mut report = report;
    report.run.output = Some(out.display().to_string());
    if let Destination::Standalone { checksum: true, .. } = request.destination {
        let cancel = &request.cancel;
        report.run.output_sha256 = Some(if is_nbd_name(out) {
            convert::checksum_of_disk(new.image(), virtual_size, cancel)?
        } else {
            convert::checksum_of(out, cancel)?
        });
    }
    Ok(FinishedOutput { report, virtual_size })
}

/// Opens an output if its container has all that its tables point at, and is made of the files that the destination says: of
/// a new image its own, of an overlay also the image's.
fn open_whole(request: &InjectRequest, out: &Path, format: Format) -> Result<Option<Stage>> {
    let of_out = InjectRequest {
        format: Some(format),
        disk: None,
        // The overlay's backing file.
        path_policy: request.path_policy.clone().allow(&request.image),
        ..request.clone()
    };
    if format == Format::Qcow2 && qcow2::check(out, &block_options(&of_out))?.corruptions > 0 {
        return Ok(None);
    }
    let new = open_briefly(&of_out, out)?;
    let files = new.image().files();
    let is_made_so = match request.destination {
        Destination::Overlay(_) => {
            let mut disks = request.all_disks();
            files.get(1).is_some_and(|file| disks.any(|disk| is_same_image(file, disk)))
        }
        _ => files.len() == 1,
    };
    Ok(is_made_so.then_some(new))
}

/// The report of the run that made this output, if it holds what the run writes, and the size of the disk.
///
/// A run depends on its request and on the time. When the output was made, the manifest in the guest shows, which the run wrote;
/// of a run that left an older one there, it is seen where the staged disk has the time of now.
fn injected_before(request: &InjectRequest, new: &Stage) -> Result<Option<(Report, u64)>> {
    if let Some(clock) = time_of_manifest(request, new).unwrap_or(None)
        && let Some(found) = injected_at(request, clock, new.image())?
    {
        return Ok(Some(found));
    }
    let (staged, _) = stage_at(request, request.clock)?;
    if !has_fitting_size(&staged.stage, new.image()) {
        return Ok(None);
    }
    let clock = time_in(&staged.stage, request.clock, new.image())?;
    drop(staged);
    injected_at(request, clock.unwrap_or(request.clock), new.image())
}

/// The report of a run at this time, and the size of its disk, if this is the disk that it writes.
fn injected_at(request: &InjectRequest, clock: FileTime, new: &dyn Image) -> Result<Option<(Report, u64)>> {
    let (staged, mut report) = stage_at(request, clock)?;
    if !has_same_content(&staged.stage, new, &request.cancel)? {
        return Ok(None);
    }
    report.run.bytes_read = staged.bytes_read();
    report.succeed();
    report.summary = report.outcome(staged.scheme);
    Ok(Some((report, staged.stage.len())))
}

fn stage_at(request: &InjectRequest, clock: FileTime) -> Result<(Staged, Report)> {
    let request = InjectRequest { clock, ..request.clone() };
    let mut report = Report::of_request(&request);
    let staged = prepare(&request, &Silent, &mut report)?;
    Ok((staged, report))
}

/// When the manifest of the guest in `new` was written.
fn time_of_manifest(request: &InjectRequest, new: &Stage) -> Result<Option<FileTime>> {
    let table = request.bitlocker.read_partitions(new)?.with_replay(request.state.replay());
    let partition = locate_partition(new, &table, request.partition)?;
    let volume = open_to_read(new, &partition)?;
    let Some(manifest) = volume.find(MANIFEST)? else { return Ok(None) };
    Ok(Some(volume.stat(manifest)?.times.modified))
}

/// What `new` has in the first place where a stage has written the time `clock`. `None` if it has written no time.
fn time_in(stage: &Stage, clock: FileTime, new: &dyn Image) -> Result<Option<FileTime>> {
    let wanted = clock.0.to_le_bytes();
    let mut bytes = vec![0; COMPARED_AT_ONCE];
    for (start, length) in stage.dirty_ranges() {
        let mut at = 0;
        while at < length {
            let count = usize::try_from(length - at).unwrap_or(COMPARED_AT_ONCE).min(COMPARED_AT_ONCE);
            let Some(part) = bytes.get_mut(..count) else { return Ok(None) };
            let offset = ImageOffset(start.0.saturating_add(at));
            stage.read_at(offset, part)?;
            if let Some(place) = part.windows(wanted.len()).position(|bytes| bytes == wanted) {
                let mut time = [0; 8];
                new.read_at(ImageOffset(offset.0.saturating_add(place as u64)), &mut time)?;
                return Ok(Some(FileTime(u64::from_le_bytes(time))));
            }
            at += count as u64;
        }
    }
    Ok(None)
}

/// Whether an image can hold the disk: of the same size, but for an export, which may be longer.
fn has_fitting_size(disk: &Stage, image: &dyn Image) -> bool {
    let is_export = image.files().first().is_some_and(|file| is_nbd_name(file));
    image.len() == disk.len() || (is_export && image.len() > disk.len())
}

/// Compares a disk with an image; what both know to be zeros is not read.
fn has_same_content(one: &Stage, other: &dyn Image, cancel: &Cancel) -> Result<bool> {
    if !has_fitting_size(one, other) {
        return Ok(false);
    }
    let (mut at, mut first, mut second) = (0, vec![0; COMPARED_AT_ONCE], vec![0; COMPARED_AT_ONCE]);
    while at < one.len() {
        cancel.check()?;
        let offset = ImageOffset(at);
        let extents = (one.extent_at(offset, one.len() - at)?, other.extent_at(offset, one.len() - at)?);
        let common = extents.0.length.min(extents.1.length);
        if extents.0.kind.is_zero() && extents.1.kind.is_zero() {
            at += common.max(1);
            continue;
        }
        let count = usize::try_from(common.max(1)).unwrap_or(COMPARED_AT_ONCE).min(COMPARED_AT_ONCE);
        let (Some(first), Some(second)) = (first.get_mut(..count), second.get_mut(..count)) else { return Ok(false) };
        one.read_at(offset, first)?;
        other.read_at(offset, second)?;
        if first != second {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}
