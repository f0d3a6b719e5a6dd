//! BIOS: the MBR's code starts the active partition, whose boot sector starts `bootmgr`.

use zerocopy::{FromZeros, IntoBytes};

use super::boot_store::{BCD_BYTES_MAX, BootContext, Firmware, Read, check_boot_store};
use super::disk::BootDisk;
use super::links::{ChainFindings, readable};
use super::uefi::uefi;
use crate::error::Result;
use crate::fat::FatVolume;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{Content, MbrSector, PartitionKind, PartitionView, read_partition_id};
use crate::units::ImageOffset;
use crate::windows::boot_check::report::{Code, Gate};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// The MBR's code starts the active partition, whose boot sector starts `bootmgr`.
pub(super) fn bios(on: &BootDisk<'_>, files: &dyn GuestFiles, guest: &Guest, links: &mut ChainFindings) -> Result<()> {
    let mut mbr = MbrSector::new_zeroed();
    on.disk.read_at(ImageOffset(0), mbr.as_mut_bytes())?;
    let numbered = (1u32..).zip(&mbr.partitions);
    let active: Vec<u32> = numbered.filter(|(_, entry)| entry.is_active()).map(|(number, _)| number).collect();
    let number = match active.as_slice() {
        [] if on.table.partitions.iter().any(|partition| partition.kind == PartitionKind::EfiSystem) => {
            return uefi(on, files, guest, links);
        }
        [] => {
            links.good(Gate::Firmware, Code::Firmware, "BIOS (MBR disk)");
            links.fail(
                Gate::Partition,
                Code::NoActivePartition,
                "no partition of the MBR is active: the BIOS finds nothing to start; if the boot manager lies on another \
                 disk of the guest, Windows does not start from this one alone",
            );
            return Ok(());
        }
        &[only] => only,
        _ => {
            links.fail(Gate::Partition, Code::NoActivePartition, "several partitions of the MBR are active");
            return Ok(());
        }
    };
    links.good(Gate::Firmware, Code::Firmware, "BIOS (MBR disk)");
    let Some(system) = on.table.partitions.iter().find(|partition| partition.number == number) else {
        let text = format!("entry {number} of the MBR is active and describes no partition");
        links.fail(Gate::Partition, Code::NoActivePartition, text);
        return Ok(());
    };
    let label = system.label();
    links.good(Gate::Partition, Code::SystemPartition, format!("{label} is active, {}", system.content));
    if mbr.boot_code.iter().all(|byte| *byte == 0) {
        links.not_judged(Gate::BootCode, "the MBR has no boot code; a BIOS that has none of its own stops there");
    } else {
        links.good(Gate::BootCode, Code::BootCode, "the MBR has boot code");
        links.not_judged(Gate::BootCode, format!("what the boot code of the MBR and of {label} does"));
    }
    let own = read_partition_id(on.disk, on.table, on.partition)?;
    let place = BootContext { firmware: Firmware::Bios, own, is_boot_partition: number == on.partition.number };
    let view = || PartitionView::new(on.disk, system);
    let what = format!("the active partition, {label}");
    match system.content {
        Content::Ntfs => {
            let opened = view().and_then(|view| Volume::open(view, &OpenOptions::read_only()));
            if let Some(volume) = readable(opened, links, Gate::Partition, &what)? {
                let read = |path: &str| GuestFiles::read(&volume, path, BCD_BYTES_MAX);
                check_boot_manager(&read, &label, links)?;
                check_boot_store(&read, "/Boot/BCD", &label, &place, files, guest, links)?;
            }
        }
        Content::Fat => {
            if let Some(fat) = readable(view().and_then(FatVolume::open), links, Gate::Partition, &what)? {
                let read = |path: &str| fat.read(path, BCD_BYTES_MAX);
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
