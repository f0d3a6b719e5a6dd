//! Whether a job was done before: its output is there and stands for its image.

use std::path::Path;

use super::disks::{image_files, open_briefly};
use super::inject::inject;
use super::report::Report;
use super::request::{Destination, InjectRequest, Silent};
use crate::block::{Image, Stage};
use crate::error::Result;
use crate::host::is_same_file;
use crate::partition::{self, Content, PartitionTable};
use crate::plan::saved::{DiskFacts, disk_facts};
use crate::units::ImageOffset;

/// Where the boot sector of an NTFS volume has its serial number.
const NTFS_SERIAL: u64 = 0x48;

/// Bytes of two disks that are compared at once.
const COMPARED_AT_ONCE: usize = 1 << 20;

/// By what a disk is recognised in a copy of it: its size, its id, its partitions and the serial numbers of its NTFS volumes.
#[derive(PartialEq, Eq)]
struct Identity {
    disk: DiskFacts,
    /// Start, length and serial number.
    partitions: Vec<(u64, u64, [u8; 8])>,
}

impl Identity {
    /// The identity of a disk with a partition table, or with a volume in place of one.
    fn of(stage: &Stage, table: &PartitionTable) -> Result<Self> {
        let mut partitions = Vec::new();
        for partition in &table.partitions {
            let mut serial = [0; 8];
            if partition.content == Content::Ntfs {
                stage.read_at(ImageOffset(partition.start.0.saturating_add(NTFS_SERIAL)), &mut serial)?;
            }
            partitions.push((partition.start.0, partition.length, serial));
        }
        Ok(Self { disk: disk_facts(stage, table)?, partitions })
    }
}

/// Whether the output of a conversion without drivers, or the one that an injection would write, is there and stands for the image.
/// A new image gets its name last, so that one of the same disk is a finished one; of an injection the drivers have to be in it
/// as well. The report is that of the run, which changes nothing. `None`: the output is missing, or something else, which a run
/// refuses to replace.
///
/// # Errors
/// When the image cannot be read. What is wrong with the output is no error: the run says it.
pub fn find_finished_output(request: &InjectRequest) -> Result<Option<Report>> {
    let (out, format) = match &request.destination {
        Destination::Overlay(path) => (path, None),
        Destination::Standalone { path, format, .. } => (path, Some(*format)),
        Destination::InPlace | Destination::DryRun => return Ok(None),
    };
    if request.overwrite_output || !out.is_file() {
        return Ok(None);
    }
    if !is_of_image(request, out).unwrap_or(false) {
        return Ok(None);
    }
    let done = InjectRequest {
        image: out.clone(),
        windows_disk: request.windows_disk.is_some().then(|| out.clone()),
        format,
        // The overlay's backing file.
        path_policy: request.path_policy.clone().allow(&request.image),
        destination: Destination::DryRun,
        rehearsed: None,
        ..request.clone()
    };
    if request.drivers.is_empty() {
        let mut report = Report::of_request(&done);
        report.run.output = Some(out.display().to_string());
        return Ok(Some(report));
    }
    let Ok(mut report) = inject(&done, &Silent) else { return Ok(None) };
    if !report.virtio.unchanged {
        return Ok(None);
    }
    report.run.image = request.image.display().to_string();
    report.run.mode = request.destination.mode();
    report.run.output = Some(out.display().to_string());
    (report.run.dry_run, report.virtio.dry_run) = (false, false);
    Ok(Some(report))
}

/// Whether the output holds the disk of the request's image; of an overlay also, whether that is its backing file.
fn is_of_image(request: &InjectRequest, out: &Path) -> Result<bool> {
    let (format, is_overlay) = match &request.destination {
        Destination::Standalone { format, .. } => (Some(*format), false),
        _ => (Some(crate::block::Format::Qcow2), true),
    };
    let of_out = InjectRequest {
        format,
        disk: None,
        path_policy: request.path_policy.clone().allow(&request.image),
        ..request.clone()
    };
    let new = open_briefly(&of_out, out)?;
    if is_overlay {
        let files = image_files(out, &super::disks::block_options(&of_out))?;
        if !files.iter().skip(1).any(|file| is_same_file(file, &request.image)) {
            return Ok(false);
        }
    }
    let original = open_briefly(request, &request.image)?;
    if new.len() != original.len() {
        return Ok(false);
    }
    match (partition::read(&new), partition::read(&original)) {
        (Ok(of_new), Ok(of_original)) => Ok(Identity::of(&new, &of_new)? == Identity::of(&original, &of_original)?),
        // Nothing but its content identifies a disk that is neither divided nor a volume.
        (Err(_), Err(_)) => has_same_content(request, new.image(), original.image()),
        _ => Ok(false),
    }
}

/// Compares two disks of one length; what both know to be zeros is not read.
fn has_same_content(request: &InjectRequest, one: &dyn Image, other: &dyn Image) -> Result<bool> {
    let (mut at, mut first, mut second) = (0, vec![0; COMPARED_AT_ONCE], vec![0; COMPARED_AT_ONCE]);
    while at < one.len() {
        request.cancel.check()?;
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
