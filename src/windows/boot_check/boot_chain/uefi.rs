//! UEFI: the firmware takes the boot manager from an EFI system partition.

use super::boot_store::{BCD_BYTES_MAX, BootContext, check_boot_store};
use super::disk::{BootDisks, VmDisk};
use super::links::{BestChain, ChainFindings, readable};
use super::program::{PROGRAM_BYTES_MAX, check_program};
use crate::error::Result;
use crate::fat::FatVolume;
use crate::partition::{Partition, PartitionKind, PartitionView};
use crate::plan::{BOOT_MANAGER, fallback_loader};
use crate::windows::boot_check::code::Code;
use crate::windows::boot_check::report::{Firmware, Gate};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// Largest number of EFI system partitions that are read of a disk.
const SYSTEM_PARTITIONS_MAX: usize = 8;

/// The chains that begin at the EFI system partitions of all disks: the best of them.
pub(super) fn uefi<'a>(on: &BootDisks<'a>, files: &dyn GuestFiles, guest: &Guest) -> Result<BestChain<'a>> {
    let mut best = BestChain::default();
    for disk in on.all() {
        let system = disk.table.partitions.iter().filter(|partition| partition.kind == PartitionKind::EfiSystem);
        for esp in system.take(SYSTEM_PARTITIONS_MAX) {
            let mut seen = ChainFindings::default();
            check_system_partition(on, disk, esp, files, guest, &mut seen)?;
            if best.offer(seen, on.start(disk)) {
                return Ok(best);
            }
        }
    }
    Ok(best)
}

fn check_system_partition(
    on: &BootDisks<'_>,
    disk: &VmDisk<'_>,
    esp: &Partition,
    files: &dyn GuestFiles,
    guest: &Guest,
    links: &mut ChainFindings,
) -> Result<()> {
    let label = on.label(disk, esp);
    let opened = PartitionView::new(disk.disk, esp).and_then(FatVolume::open);
    let Some(fat) = readable(opened, links, Gate::Partition, &format!("the EFI system partition, {label}"))? else {
        return Ok(());
    };
    links.good(Gate::Partition, Code::SystemPartition, format!("EFI system partition, {label}, FAT"));
    let fallback = fallback_loader(guest.arch);
    let planned = on.planned_on(disk, esp);
    let read = |path: &str, limit: u64| match planned.and_then(|files| files.get(path)) {
        Some(bytes) => Ok(Some(bytes.to_vec())),
        None => fat.read(path, limit),
    };
    let look = |path: &str| -> Result<std::result::Result<(), String>> {
        check_program(read(path, PROGRAM_BYTES_MAX), guest.arch, &format!("{path} on {label}"))
    };
    match (look(BOOT_MANAGER)?, look(fallback)?) {
        (Ok(()), Ok(())) => {
            let text = format!(
                "{BOOT_MANAGER} and {fallback}, {}: a new machine with empty NVRAM finds Windows by itself",
                guest.arch
            );
            links.good(Gate::BootManager, Code::BootManager, text);
        }
        (Ok(()), Err(problem)) => {
            links.good(Gate::BootManager, Code::BootManager, format!("{BOOT_MANAGER}, {}", guest.arch));
            let text = format!("{problem}: a new machine with empty NVRAM does not find Windows by itself");
            links.warn(Gate::BootManager, Code::NoFallbackLoader, text);
        }
        (Err(problem), Ok(())) => {
            links.good(Gate::BootManager, Code::BootManager, format!("{fallback}, {}", guest.arch));
            links.warn(Gate::BootManager, Code::NoBootManager, problem);
        }
        (Err(problem), Err(other)) => {
            links.fail(
                Gate::BootManager,
                Code::NoBootManager,
                format!("no boot manager (bootmgfw): {problem}; {other}"),
            );
        }
    }
    let read = |path: &str| read(path, BCD_BYTES_MAX);
    let place = BootContext { firmware: Firmware::Uefi, on, own: on.windows_id()?, is_boot_partition: false };
    check_boot_store(&read, "/EFI/Microsoft/Boot/BCD", &label, &place, files, guest, links)
}
