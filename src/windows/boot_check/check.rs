//! Entry points of the boot check: one answer for each bus.

use std::borrow::Cow;

use super::boot_chain::{self, BootChain, BootDisks};
use super::context::CheckOptions;
use super::controller::Bus;
use super::gates::{add_guest_state, check_gates};
use super::report::{BootCheck, Code, Gate};
use super::subject::{BootSubject, EarlyVerdict, read_subject};
use crate::error::{Kind, Result};
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

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

/// Like [`boot_checks`], for a guest that was inspected already. `system` is the SYSTEM hive as it is on the volume now; it
/// has passed the check of the whole hive.
///
/// # Errors
/// See [`boot_check`].
pub fn boot_checks_of<D: VolumeRead>(
    volume: &Volume<D>,
    disks: Option<&BootDisks<'_>>,
    guest: &Guest,
    system: &[u8],
    buses: &[Bus],
    options: &CheckOptions,
) -> Result<Vec<BootCheck>> {
    let chain = walk_chain(disks, volume, guest)?;
    let subject = BootSubject { guest: Cow::Borrowed(guest), system: Cow::Borrowed(system), fault: None, chain };
    buses.iter().map(|bus| check_bus(volume, &subject, *bus, options)).collect()
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
