//! Whether the Windows in an image will boot from a virtio disk.

use serde::Serialize;

use super::choose_disk::{check_disks, choose_disk};
use super::disks::{OpenedDisks, OtherDisk, disk_name, on_disk, with_boot_disks};
use super::explain::explain;
use super::locate::{Installation, edit_refusal, inspect, locate_partition};
use super::machine::Machine;
use super::report::{Report, recommend_for};
use super::request::{Destination, InjectRequest, Silent};
use super::staging::{open_to_read, open_unrecovered};
use crate::error::{Error, Kind, Layer, Result};
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
    check_disks_of(request, buses, strictness, None).map_err(explain)
}

/// Like [`check`], and describes the machine for the guest as it is.
///
/// # Errors
/// Those of [`check`], when its hives cannot be read, and those of [`Machine::of_report`].
pub fn check_and_describe(
    request: &InjectRequest,
    buses: &[Bus],
    strictness: &CheckOptions,
) -> Result<(BootAnswer, Machine)> {
    let mut described = Report::of_request(request);
    let answer = check_disks_of(request, buses, strictness, Some(&mut described)).map_err(explain)?;
    Ok((answer, Machine::of_report(&described)?))
}

/// Checks, and fills the report that a machine is described from.
fn check_disks_of(
    request: &InjectRequest,
    buses: &[Bus],
    strictness: &CheckOptions,
    described: Option<&mut Report>,
) -> Result<BootAnswer> {
    let request = InjectRequest { destination: Destination::DryRun, ..request.clone() };
    let mut report = Report::of_request(&request);
    check_disks(&request)?;
    let request = choose_disk(&request, &Silent, &mut report)?;
    let OpenedDisks { stage, others } = open_unrecovered(&request, &mut report)?;
    let read = request.bitlocker.read_partitions(&stage);
    let table = read.map_err(|error| error.path(request.image.display().to_string()))?;
    let table = table.with_replay(request.state.replay());
    report.virtio.warnings.extend(table.warnings.iter().cloned());
    let found = locate_partition(&stage, &table, request.partition);
    let partition = found.map_err(|error| on_disk(&request, error))?;
    let volume = open_to_read(&stage, &partition)?;
    let windows = VmDisk { disk: &stage, table: &table, name: &disk_name(&request, &request.image) };
    let mut answers = with_boot_disks(windows, &partition, &others, |disks| {
        windows::boot_checks(&volume, Some(disks), buses, strictness)
    })?;
    let folder = windows::windows_folders(&volume).ok().and_then(|folders| folders.into_iter().next());
    let recovery = folder.map_or_else(RecoveryEnvironment::default, |folder| {
        windows::find_recovery_of(&volume, &stage, &table, &partition, &folder, &WantedDriver::known())
    });
    if let Some(refusal) = edit_refusal(&stage, &partition) {
        answers.iter_mut().for_each(|answer| answer.add_state(refusal.to_string()));
    }
    if let Some(described) = described {
        let inspected = inspect(&partition, &volume)?;
        let (Installation { guest, .. }, hives) =
            inspected.ok_or_else(|| Error::new(Kind::NotWindows, Layer::Job, "no Windows found in this partition"))?;
        described.add_guest(stage.len(), &table, &partition, &guest);
        described.disk_files.clone_from(&report.disk_files);
        described.boot.clone_from(&answers);
        let devices = windows::driven_devices(&volume, &guest, &hives)?;
        described.recommendation = Some(recommend_for(&guest, &table, &devices, &answers));
        described.add_boot_disks(&disk_name(&request, &request.image));
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
