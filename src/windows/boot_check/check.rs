//! Entry points of the boot check: one answer for each bus.

use std::borrow::Cow;

use super::boot_chain::{self, BootChain, BootDisks};
use super::code::Code;
use super::context::CheckOptions;
use super::controller::Bus;
use super::gates::{add_guest_state, check_gates};
use super::report::{BootCheck, Gate};
use super::subject::{BootSubject, EarlyVerdict, read_subject};
use crate::error::{Kind, Result};
use crate::hive::check::Fault;
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::plan::Plan;
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;
use crate::windows::planned_files::PlannedFiles;

/// Checks one bus, from the kernel on: the links before it need the disk around the volume, see [`boot_checks`].
///
/// # Errors
/// When the volume cannot be read. That the guest does not boot is an answer, not an error.
pub fn boot_check<D: VolumeRead>(volume: &Volume<D>, bus: Bus, options: &CheckOptions) -> Result<BootCheck> {
    Ok(boot_checks(volume, None, &[bus], options)?.swap_remove(0))
}

/// Checks several buses; the hives are read once. With `disks`, the chain begins at the firmware.
///
/// # Errors
/// See [`boot_check`].
pub fn boot_checks<D: VolumeRead>(
    volume: &Volume<D>,
    disks: Option<&BootDisks<'_>>,
    buses: &[Bus],
    options: &CheckOptions,
) -> Result<Vec<BootCheck>> {
    if buses.is_empty() {
        return Ok(Vec::new());
    }
    let mut subject = match read_subject(volume)? {
        Ok(subject) => subject,
        Err(finding) => return Ok(buses.iter().map(|bus| early_report(*bus, &finding)).collect()),
    };
    subject.chain = walk_chain(disks, volume, &subject.guest)?;
    buses.iter().map(|bus| check_bus(volume, &subject, *bus, options)).collect()
}

/// A guest that was inspected already, and its SYSTEM hive as the files to be checked have it.
#[derive(Clone, Copy)]
pub struct KnownGuest<'a> {
    /// The guest.
    pub guest: &'a Guest,
    /// The bytes of the SYSTEM hive.
    pub system: &'a [u8],
    /// The first fault of the hive's structure, as the check of the whole hive found it.
    pub fault: Option<&'a Fault>,
}

/// Like [`boot_checks`], for a guest that was inspected already.
///
/// # Errors
/// See [`boot_check`].
pub fn boot_checks_of<D: VolumeRead>(
    volume: &Volume<D>,
    disks: Option<&BootDisks<'_>>,
    known: KnownGuest<'_>,
    buses: &[Bus],
    options: &CheckOptions,
) -> Result<Vec<BootCheck>> {
    boot_checks_of_files(volume, disks, known, buses, options)
}

/// Like [`boot_checks_of`], for the guest as a plan is going to leave it: the files are those of the plan, and `known` has
/// the SYSTEM hive with the plan's edits.
///
/// # Errors
/// See [`boot_check`], and when a file of the driver media cannot be read.
pub fn boot_checks_of_plan<D: VolumeRead>(
    volume: &Volume<D>,
    plan: &Plan,
    disks: Option<&BootDisks<'_>>,
    known: KnownGuest<'_>,
    buses: &[Bus],
    options: &CheckOptions,
) -> Result<Vec<BootCheck>> {
    boot_checks_of_files(&PlannedFiles::new(volume, plan), disks, known, buses, options)
}

fn boot_checks_of_files(
    files: &dyn GuestFiles,
    disks: Option<&BootDisks<'_>>,
    known: KnownGuest<'_>,
    buses: &[Bus],
    options: &CheckOptions,
) -> Result<Vec<BootCheck>> {
    let KnownGuest { guest, system, fault } = known;
    let chain = walk_chain(disks, files, guest)?;
    let fault = fault.map(ToString::to_string);
    let subject = BootSubject { guest: Cow::Borrowed(guest), system: Cow::Borrowed(system), fault, chain };
    buses.iter().map(|bus| check_bus(files, &subject, *bus, options)).collect()
}

/// Checks the links from the firmware to the loader.
fn walk_chain(disks: Option<&BootDisks<'_>>, files: &dyn GuestFiles, guest: &Guest) -> Result<BootChain> {
    disks.map_or_else(|| Ok(BootChain::default()), |disks| boot_chain::walk(disks, files, guest))
}

/// Like [`boot_check`], on any source of files.
#[cfg(test)]
pub(super) fn check_files(files: &dyn GuestFiles, bus: Bus, options: &CheckOptions) -> Result<BootCheck> {
    match read_subject(files)? {
        Ok(subject) => check_bus(files, &subject, bus, options),
        Err(finding) => Ok(early_report(bus, &finding)),
    }
}

fn early_report(bus: Bus, (code, windows, text): &EarlyVerdict) -> BootCheck {
    let mut report = BootCheck::new(bus);
    report.windows.clone_from(windows);
    report.fail(Gate::Loader, *code, text.as_str());
    report.done()
}

/// Checks the gates for one bus.
fn check_bus(files: &dyn GuestFiles, subject: &BootSubject<'_>, bus: Bus, options: &CheckOptions) -> Result<BootCheck> {
    let mut report = BootCheck::new(bus);
    report.windows = Some(subject.guest.to_string());
    report.findings.clone_from(&subject.chain.findings);
    report.start_disk.clone_from(&subject.chain.start_disk);
    report.firmware = subject.chain.firmware;
    if let Some(fault) = &subject.fault {
        report.fail(Gate::Loader, Code::HiveDamaged, format!("the SYSTEM hive is damaged: {fault}"));
    }
    match check_gates(files, &subject.guest, &subject.system, &mut report, options) {
        Err(error) if error.kind() == Kind::Damaged => {
            report.fail(Gate::Loader, Code::HiveDamaged, format!("the SYSTEM hive is damaged: {error}"));
        }
        other => other?,
    }
    add_guest_state(&subject.guest, &mut report);
    Ok(report.done())
}
