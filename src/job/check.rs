//! Whether the Windows in an image will boot from a virtio disk.

use serde::Serialize;

use super::choose_disk::{check_disks, choose_disk};
use super::disks::{OpenedDisks, OtherDisk, disk_name, on_disk, with_boot_disks};
use super::explain::explain;
use super::locate::{edit_refusal, locate_partition};
use super::report::Report;
use super::request::{Destination, InjectRequest, Silent};
use super::staging::{open_unrecovered, read_options};
use crate::error::Result;
use crate::ntfs::Volume;
use crate::partition::PartitionView;
use crate::windows::{self, BootCheck, Bus, CheckOptions, RecoveryEnvironment, VmDisk, WantedDriver};

/// Whether a guest boots, as [`check`] answers.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct BootAnswer {
    /// Path of the image file; of several disks, the one with Windows.
    pub image: String,
    /// Paths of the other disks; left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_disks: Vec<String>,
    /// Number of the partition with Windows.
    pub partition: u32,
    /// Whether the guest boots from at least one of the buses.
    pub boots: bool,
    /// The answer for each bus, with all findings.
    pub buses: Vec<BootCheck>,
    /// The recovery environment, and whether it will see a virtio disk: no part of the answer.
    pub recovery: RecoveryEnvironment,
    /// What may make the answer out of date: signs that a disk is in use, and volumes that were not searched for
    /// Windows. Left out when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Bytes read from the image's files.
    pub bytes_read: u64,
}

/// Walks the boot chain of the Windows on one of a request's disks for each of the buses. Of the request count the disks,
/// how they are read, and the partition. Writes nothing.
///
/// # Errors
/// When a disk cannot be read, or none holds a Windows. That the guest does not boot is an answer, not an error.
pub fn check(request: &InjectRequest, buses: &[Bus], strictness: &CheckOptions) -> Result<BootAnswer> {
    check_machine(request, buses, strictness).map_err(explain)
}

fn check_machine(request: &InjectRequest, buses: &[Bus], strictness: &CheckOptions) -> Result<BootAnswer> {
    let request = InjectRequest { destination: Destination::DryRun, ..request.clone() };
    let mut report = Report::of_request(&request);
    check_disks(&request)?;
    let request = choose_disk(&request, &Silent, &mut report)?;
    let OpenedDisks { stage, others } = open_unrecovered(&request, &mut report)?;
    let read = request.bitlocker.read_partitions(&stage);
    let table = read.map_err(|error| error.path(request.image.display().to_string()))?;
    report.virtio.warnings.extend(table.warnings.iter().cloned());
    let found = locate_partition(&stage, &table, request.state.replay(), request.partition);
    let partition = found.map_err(|error| on_disk(&request, error))?;
    let volume = Volume::open(PartitionView::new(&stage, &partition)?, &read_options(&request))?;
    let windows = VmDisk { disk: &stage, table: &table, name: &disk_name(&request, &request.image) };
    let mut answers = with_boot_disks(windows, &partition, &others, |disks| {
        windows::boot_checks(&volume, Some(disks), buses, strictness)
    })?;
    let folder = windows::windows_folders(&volume).ok().and_then(|folders| folders.into_iter().next());
    let recovery = folder.map_or_else(RecoveryEnvironment::default, |folder| {
        windows::find_recovery_of(&volume, &stage, &table, &partition, &folder, &WantedDriver::known())
    });
    if let Some(refusal) = edit_refusal(&stage, &partition, request.state.replay()) {
        answers.iter_mut().for_each(|answer| answer.add_state(refusal.to_string()));
    }
    Ok(BootAnswer {
        image: report.run.image,
        other_disks: report.run.other_disks,
        partition: partition.number,
        boots: answers.iter().any(|answer| answer.boots),
        buses: answers,
        recovery,
        bytes_read: stage.image().bytes_read() + others.iter().map(OtherDisk::bytes_read).sum::<u64>(),
        warnings: report.virtio.warnings,
    })
}
