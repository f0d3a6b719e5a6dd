//! The whole chain, by the partition table of the disk with Windows.

use super::bios::bios;
use super::disk::BootDisks;
use super::links::ChainFindings;
use super::uefi::uefi;
use crate::error::Result;
use crate::partition::{DiskId, Scheme, read_disk_id};
use crate::windows::boot_check::report::{Code, Finding, Gate};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// What was found from the firmware to the loader.
#[derive(Debug, Default)]
pub(crate) struct BootChain {
    /// Findings at the links.
    pub(crate) findings: Vec<Finding>,
    /// Name of the disk that the firmware has to start, if that is not the disk with Windows.
    pub(crate) start_disk: Option<String>,
}

/// Walks from the firmware to the loader's file on the Windows volume.
///
/// # Errors
/// When a disk cannot be read. What is missing or wrong in the guest is a finding.
pub(crate) fn walk(on: &BootDisks<'_>, files: &dyn GuestFiles, guest: &Guest) -> Result<BootChain> {
    let mut links = ChainFindings::default();
    let start = match on.windows.table.scheme {
        Scheme::Bare => {
            links.not_judged(
                Gate::Firmware,
                "the image is a volume without a partition table; boot manager and BCD lie on the disk that it belongs to",
            );
            None
        }
        Scheme::Gpt => uefi(on, files, guest, &mut links)?,
        Scheme::Mbr => bios(on, files, guest, &mut links)?,
    };
    compare_ids(on, &mut links)?;
    Ok(BootChain { findings: links.0, start_disk: start.map(str::to_owned) })
}

/// Warns of disks with the same id.
fn compare_ids(on: &BootDisks<'_>, links: &mut ChainFindings) -> Result<()> {
    if on.others.is_empty() {
        return Ok(());
    }
    let mut seen: Vec<(DiskId, &str)> = Vec::new();
    for disk in on.all() {
        // Windows gives a signature to a disk that has none.
        let id = read_disk_id(disk.disk, disk.table)?.filter(|id| *id != DiskId::Mbr(0));
        let Some(id) = id else { continue };
        match seen.iter().find(|(other, _)| *other == id) {
            Some((_, other)) => {
                let text = format!(
                    "{other} and {} have the same disk id, {id}: Windows takes one of them offline, and the order of the \
                     disks decides from which one it starts",
                    disk.name
                );
                links.warn(Gate::Partition, Code::DuplicateDiskId, text);
            }
            None => seen.push((id, disk.name)),
        }
    }
    Ok(())
}
