//! BIOS: the MBR's code starts the active partition, whose boot sector starts `bootmgr`.

use zerocopy::{FromZeros, IntoBytes};

use super::boot_store::{BCD_BYTES_MAX, BootContext, Firmware, Read, check_boot_store};
use super::disk::{BootDisks, VmDisk};
use super::links::{BestChain, ChainFindings, Reach, readable};
use super::uefi::uefi;
use crate::error::Result;
use crate::fat::FatVolume;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{Content, MbrSector, Partition, PartitionKind, PartitionView, Scheme};
use crate::units::ImageOffset;
use crate::windows::boot_check::report::{Code, Gate};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// The MBR's code starts the active partition, whose boot sector starts `bootmgr`; the disk may be any of them. Returns its
/// name, if it is not the one with Windows.
pub(super) fn bios<'a>(
    on: &BootDisks<'a>,
    files: &dyn GuestFiles,
    guest: &Guest,
    links: &mut ChainFindings,
) -> Result<Option<&'a str>> {
    let mut best = BestChain::default();
    for disk in on.all().filter(|disk| disk.table.scheme == Scheme::Mbr) {
        let mut mbr = MbrSector::new_zeroed();
        disk.disk.read_at(ImageOffset(0), mbr.as_mut_bytes())?;
        let mut seen = ChainFindings::default();
        if check_disk(on, disk, &mbr, files, guest, &mut seen)? && best.offer(seen, on.start(disk)) {
            break;
        }
    }
    let has_system_partition =
        |disk: &VmDisk<'_>| disk.table.partitions.iter().any(|partition| partition.kind == PartitionKind::EfiSystem);
    // An active partition of a data disk says nothing of what the firmware of the guest is.
    if !best.leads_to_loader() && on.all().any(has_system_partition) {
        let mut seen = ChainFindings::default();
        let start = uefi(on, files, guest, &mut seen)?;
        if best.is_empty() || seen.reach() == Reach::Loader {
            links.0.append(&mut seen.0);
            return Ok(start);
        }
    }
    links.good(Gate::Firmware, Code::Firmware, "BIOS (MBR disk)");
    if !best.is_empty() {
        return Ok(best.add_to(links));
    }
    let text = if on.others.is_empty() {
        "no partition of the MBR is active: the BIOS finds nothing to start; if the boot manager lies on another disk of the \
         guest, Windows does not start from this one alone"
    } else {
        "no partition of the MBR of any disk is active: the BIOS finds nothing to start"
    };
    links.fail(Gate::Partition, Code::NoActivePartition, text);
    Ok(None)
}

/// Checks a disk that a BIOS may start. Returns whether it has an active partition.
fn check_disk(
    on: &BootDisks<'_>,
    disk: &VmDisk<'_>,
    mbr: &MbrSector,
    files: &dyn GuestFiles,
    guest: &Guest,
    links: &mut ChainFindings,
) -> Result<bool> {
    let numbered = (1u32..).zip(&mbr.partitions);
    let active: Vec<u32> = numbered.filter(|(_, entry)| entry.is_active()).map(|(number, _)| number).collect();
    let of_disk = if on.others.is_empty() { String::new() } else { format!(" of {}", disk.name) };
    let number = match active.as_slice() {
        [] => return Ok(false),
        &[only] => only,
        _ => {
            let text = format!("several partitions of the MBR{of_disk} are active");
            links.fail(Gate::Partition, Code::NoActivePartition, text);
            return Ok(true);
        }
    };
    let Some(system) = disk.table.partitions.iter().find(|partition| partition.number == number) else {
        let text = format!("entry {number} of the MBR{of_disk} is active and describes no partition");
        links.fail(Gate::Partition, Code::NoActivePartition, text);
        return Ok(true);
    };
    check_active_partition(on, disk, mbr, system, files, guest, links)?;
    Ok(true)
}

fn check_active_partition(
    on: &BootDisks<'_>,
    disk: &VmDisk<'_>,
    mbr: &MbrSector,
    system: &Partition,
    files: &dyn GuestFiles,
    guest: &Guest,
    links: &mut ChainFindings,
) -> Result<()> {
    let label = on.label(disk, system);
    links.good(Gate::Partition, Code::SystemPartition, format!("{label} is active, {}", system.content));
    if mbr.boot_code.iter().all(|byte| *byte == 0) {
        links.not_judged(Gate::BootCode, "the MBR has no boot code; a BIOS that has none of its own stops there");
    } else {
        links.good(Gate::BootCode, Code::BootCode, "the MBR has boot code");
        links.not_judged(Gate::BootCode, format!("what the boot code of the MBR and of {label} does"));
    }
    let is_boot_partition = on.has_windows(disk) && system.number == on.partition.number;
    let place = BootContext { firmware: Firmware::Bios, on, own: on.windows_id()?, is_boot_partition };
    let planned = on.planned_on(disk, system);
    let planned = |path: &str| planned.and_then(|files| files.get(path)).map(|bytes| Ok(Some(bytes.to_vec())));
    let view = || PartitionView::new(disk.disk, system);
    let what = format!("the active partition, {label}");
    match system.content {
        Content::Ntfs => {
            let opened = view().and_then(|view| Volume::open(view, &OpenOptions::read_only()));
            if let Some(volume) = readable(opened, links, Gate::Partition, &what)? {
                let read = |path: &str| planned(path).unwrap_or_else(|| GuestFiles::read(&volume, path, BCD_BYTES_MAX));
                check_boot_manager(&read, &label, links)?;
                check_boot_store(&read, "/Boot/BCD", &label, &place, files, guest, links)?;
            }
        }
        Content::Fat => {
            if let Some(fat) = readable(view().and_then(FatVolume::open), links, Gate::Partition, &what)? {
                let read = |path: &str| planned(path).unwrap_or_else(|| fat.read(path, BCD_BYTES_MAX));
                check_boot_manager(&read, &label, links)?;
                check_boot_store(&read, "/Boot/BCD", &label, &place, files, guest, links)?;
            }
        }
        Content::BitLocker => links.not_judged(Gate::BootManager, format!("{what}, is encrypted with BitLocker")),
        other => {
            let text = format!("{what}, holds neither NTFS nor FAT but {other}: its boot sector starts no Windows");
            links.fail(Gate::Partition, Code::NoSystemPartition, text);
        }
    }
    Ok(())
}

/// `bootmgr` is real-mode code with a PE appended: only its presence can be checked.
fn check_boot_manager(read: Read<'_>, label: &str, links: &mut ChainFindings) -> Result<()> {
    let found = read("/bootmgr");
    match readable(found, links, Gate::BootManager, &format!("/bootmgr on {label}"))? {
        Some(Some(bytes)) if bytes.iter().any(|byte| *byte != 0) => {
            links.good(Gate::BootManager, Code::BootManager, format!("/bootmgr on {label}"));
        }
        Some(Some(_)) => {
            links.fail(
                Gate::BootManager,
                Code::NoBootManager,
                format!("no boot manager: /bootmgr on {label} is empty"),
            );
        }
        Some(None) => {
            let text = format!("no boot manager: /bootmgr on {label}, the active partition, is missing");
            links.fail(Gate::BootManager, Code::NoBootManager, text);
        }
        None => {}
    }
    Ok(())
}
