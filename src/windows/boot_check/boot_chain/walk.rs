//! The whole chain: the firmware that the disk with Windows suggests, or the other one where only that leads to Windows.

use super::bios::bios;
use super::disk::BootDisks;
use super::links::{BestChain, ChainFindings, Reach};
use super::uefi::uefi;
use crate::error::Result;
use crate::partition::{DiskId, Scheme, read_disk_id};
use crate::windows::boot_check::code::Code;
use crate::windows::boot_check::report::{Finding, Firmware, Gate};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// What was found from the firmware to the loader.
#[derive(Debug, Default)]
pub(crate) struct BootChain {
    /// Findings at the links.
    pub(crate) findings: Vec<Finding>,
    /// Name of the disk that the firmware has to start, if that is not the disk with Windows.
    pub(crate) start_disk: Option<String>,
    /// The firmware; `None` if no disk shows which one it is.
    pub(crate) firmware: Option<Firmware>,
}

/// Walks from the firmware to the loader's file on the Windows volume.
///
/// # Errors
/// When a disk cannot be read. What is missing or wrong in the guest is a finding.
pub(crate) fn walk(on: &BootDisks<'_>, files: &dyn GuestFiles, guest: &Guest) -> Result<BootChain> {
    let mut links = ChainFindings::default();
    let scheme = on.windows.table.scheme;
    let (firmware, start) = match choose_firmware(on, files, guest)? {
        Some((firmware, best)) => {
            let name = if firmware == Firmware::Uefi { "UEFI" } else { "BIOS" };
            links.good(Gate::Firmware, Code::Firmware, format!("{name} ({})", disk_of(scheme)));
            (Some(firmware), best.add_to(&mut links))
        }
        None => (add_missing_start(on, &mut links), None),
    };
    compare_ids(on, &mut links)?;
    Ok(BootChain { findings: links.0, start_disk: start.map(str::to_owned), firmware })
}

fn disk_of(scheme: Scheme) -> String {
    match scheme {
        Scheme::Bare => "volume without a partition table".to_owned(),
        _ => format!("{scheme} disk"),
    }
}

/// The firmware that starts this Windows, and its best chain; `None` if no disk has anything to start.
fn choose_firmware<'a>(
    on: &BootDisks<'a>,
    files: &dyn GuestFiles,
    guest: &Guest,
) -> Result<Option<(Firmware, BestChain<'a>)>> {
    let chains = |firmware| match firmware {
        Firmware::Uefi => uefi(on, files, guest),
        Firmware::Bios => bios(on, files, guest),
    };
    let scheme = on.windows.table.scheme;
    let (usual, unusual) =
        if scheme == Scheme::Mbr { (Firmware::Bios, Firmware::Uefi) } else { (Firmware::Uefi, Firmware::Bios) };
    let first = chains(usual)?;
    if first.reach() == Some(Reach::Loader) {
        return Ok(Some((usual, first)));
    }
    let second = chains(unusual)?;
    let is_second = match scheme {
        // An active partition of a data disk says nothing of what the firmware of the guest is, nor does an ESP.
        Scheme::Mbr => second.reach() == Some(Reach::Loader) || (first.reach().is_none() && second.reach().is_some()),
        // Without an ESP it is UEFI that finds nothing, unless a BIOS may find this Windows.
        Scheme::Gpt => {
            second.reach() == Some(Reach::Loader) || (first.reach().is_none() && second.reach() == Some(Reach::Unknown))
        }
        Scheme::Bare => second.reach() > first.reach(),
    };
    let (firmware, best) = if is_second { (unusual, second) } else { (usual, first) };
    let counts = match best.reach() {
        None => false,
        // A volume may belong to a disk that was not given: what starts no Windows on the others proves nothing.
        Some(Reach::Failure) => scheme != Scheme::Bare,
        Some(_) => true,
    };
    Ok(counts.then_some((firmware, best)))
}

/// Adds what it means that no disk has anything to start; returns the firmware that the table of the disk with Windows asks
/// for.
fn add_missing_start(on: &BootDisks<'_>, links: &mut ChainFindings) -> Option<Firmware> {
    let (firmware, code, missing, consequence) = match on.windows.table.scheme {
        Scheme::Bare => {
            links.not_judged(
                Gate::Firmware,
                "the image is a volume without a partition table; boot manager and BCD lie on the disk that it belongs to",
            );
            return None;
        }
        Scheme::Gpt => {
            links.good(Gate::Firmware, Code::Firmware, "UEFI (GPT disk)");
            let missing = "EFI system partition (ESP)";
            (Firmware::Uefi, Code::NoSystemPartition, missing, "UEFI firmware finds no boot manager")
        }
        Scheme::Mbr => {
            links.good(Gate::Firmware, Code::Firmware, "BIOS (MBR disk)");
            let missing = "active partition in its MBR";
            (Firmware::Bios, Code::NoActivePartition, missing, "the BIOS finds nothing to start")
        }
    };
    let text = match (on.others, on.unread) {
        ([], _) => format!(
            "the disk has no {missing}: {consequence}; if the boot manager lies on another disk of the guest, Windows does \
             not start from this one alone"
        ),
        (_, []) => format!("none of the disks has an {missing}: {consequence}"),
        (_, unread) => format!(
            "none of the disks whose partitions could be read has an {missing}: {consequence}; not read: {}",
            unread.join("; ")
        ),
    };
    links.fail(Gate::Partition, code, text);
    Some(firmware)
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
