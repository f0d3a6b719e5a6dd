//! The whole chain, by the disk's partition table.

use super::bios::bios;
use super::disk::BootDisk;
use super::links::ChainFindings;
use super::uefi::uefi;
use crate::error::Result;
use crate::partition::Scheme;
use crate::windows::boot_check::report::{Finding, Gate};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// Walks from the firmware to the loader's file on the Windows volume.
///
/// # Errors
/// When the image cannot be read. What is missing or wrong in the guest is a finding.
pub(crate) fn walk(on: &BootDisk<'_>, files: &dyn GuestFiles, guest: &Guest) -> Result<Vec<Finding>> {
    let mut links = ChainFindings::default();
    match on.table.scheme {
        Scheme::Bare => links.not_judged(
            Gate::Firmware,
            "the image is a volume without a partition table; boot manager and BCD lie on the disk that it belongs to",
        ),
        Scheme::Gpt => uefi(on, files, guest, &mut links)?,
        Scheme::Mbr => bios(on, files, guest, &mut links)?,
    }
    Ok(links.0)
}
