//! BIOS: the MBR's code starts the active partition, whose boot sector starts `bootmgr`.

use zerocopy::{FromZeros, IntoBytes};

use super::boot_store::{BCD_BYTES_MAX, BootContext, Read, check_boot_store};
use super::disk::{BootDisks, VmDisk};
use super::links::{BestChain, ChainFindings, readable};
use crate::error::Result;
use crate::fat::FatVolume;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{Content, MbrSector, Partition, PartitionView, Scheme};
use crate::units::ImageOffset;
use crate::windows::boot_check::code::Code;
use crate::windows::boot_check::report::{Firmware, Gate};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// The chains that begin at the active partitions of all MBR disks: the best of them.
pub(super) fn bios<'a>(on: &BootDisks<'a>, files: &dyn GuestFiles, guest: &Guest) -> Result<BestChain<'a>> {
    let mut best = BestChain::default();
    for disk in on.all().filter(|disk| disk.table.scheme == Scheme::Mbr) {
        let mut mbr = MbrSector::new_zeroed();
        disk.disk.read_at(ImageOffset(0), mbr.as_mut_bytes())?;
        let mut seen = ChainFindings::default();
        if check_disk(on, disk, &mbr, files, guest, &mut seen)? && best.offer(seen, on.start(disk)) {
            break;
        }
    }
    Ok(best)
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
        _ if system.is_encrypted() => {
            links.not_judged(Gate::BootManager, format!("{what}, is encrypted with BitLocker"));
        }
        Content::Ntfs => {
            let open = |view| Volume::open_shared(view, &system.replay, &OpenOptions::read_only());
            let opened = view().and_then(open);
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
