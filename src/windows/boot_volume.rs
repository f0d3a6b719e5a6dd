//! The boot volume as it is: where it lies on the disk with Windows, and what of it can be edited.

use zerocopy::{FromZeros, IntoBytes};

use sha2::{Digest, Sha256};

use super::boot_check::{BOOT_STORE_BYTES_MAX, default_loader};
use super::inspect::guest::Guest;
use crate::drivers::PeFacts;
use crate::error::{Error, ErrorCode, Kind, Result};
use crate::fat::{FatSpace, FatVolume, survey_fat};
use crate::hive::reader::Reader;
use crate::hive::{Hive, HiveFile};
use crate::partition::{
    Content, Disk, MbrSector, Partition, PartitionId, PartitionKind, PartitionTable, PartitionView, Scheme,
    read_partition_id,
};
use crate::plan::{BOOT_MANAGER, BOOT_MANAGER_BYTES_MAX, BootPlace, STORES, fallback_loader, read_boot_volume};
use crate::units::ImageOffset;

/// Most EFI system partitions of a disk that are looked at.
const CANDIDATES_MAX: usize = 8;

/// Something of the guest, or the reason why it is not there or is not edited, as a clause.
pub type Known<T> = std::result::Result<T, String>;

/// The partition with the boot manager and the boot configuration.
#[derive(Debug, Clone)]
pub struct BootVolume {
    /// The partition.
    pub partition: Partition,
    /// The same for a plan.
    pub place: BootPlace,
    /// Whether UEFI firmware starts from it, else a BIOS.
    pub is_uefi: bool,
    /// The object of the loader that starts this Windows by default.
    pub loader: Known<String>,
    /// Whether its file system can be edited, and the space of a FAT volume.
    pub space: Known<Option<FatSpace>>,
    /// The fallback loader of an EFI system partition.
    pub fallback: Option<Fallback>,
}

/// The fallback loader, which firmware starts when its NVRAM has no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Its path on the EFI system partition.
    pub path: &'static str,
    /// Whether something of this name is there.
    pub exists: bool,
    /// What is in its way.
    pub obstacle: Option<String>,
    /// Length and hash of the boot manager that it is to be a copy of; read only if the loader is missing.
    pub boot_manager: Known<(u64, [u8; 32])>,
}

/// Finds the boot volume of a Windows on its own disk, with the boot configuration if it can be edited. `None` if there is
/// none on this disk.
///
/// # Errors
/// When the disk cannot be read. What is damaged is a reason in the result.
pub fn find_boot_volume(
    disk: &dyn Disk,
    table: &PartitionTable,
    windows: &Partition,
    guest: &Guest,
    allow_dirty: bool,
) -> Result<Option<(BootVolume, Option<Hive>)>> {
    let own = read_partition_id(disk, table, windows)?;
    let mut best = None;
    for (partition, is_uefi) in candidates(disk, table)? {
        let found = look_at(disk, partition, is_uefi, own, windows, guest, allow_dirty)?;
        let starts_this = found.0.loader.is_ok();
        if best.is_none() || starts_this {
            best = Some(found);
        }
        if starts_this {
            break;
        }
    }
    Ok(best)
}

/// Partitions that firmware may start from, with whether that is UEFI.
fn candidates<'t>(disk: &dyn Disk, table: &'t PartitionTable) -> Result<Vec<(&'t Partition, bool)>> {
    let mut out = Vec::new();
    // Firmware reads no encrypted volume.
    let is_plain =
        |partition: &&Partition, content: &[Content]| !partition.is_encrypted() && content.contains(&partition.content);
    if table.scheme == Scheme::Mbr {
        let mut mbr = MbrSector::new_zeroed();
        disk.read_at(ImageOffset(0), mbr.as_mut_bytes())?;
        let active: Vec<u32> =
            (1..).zip(&mbr.partitions).filter(|(_, entry)| entry.is_active()).map(|(number, _)| number).collect();
        let is_active = |partition: &&Partition| active.as_slice() == [partition.number];
        let is_readable = |partition: &&Partition| is_plain(partition, &[Content::Ntfs, Content::Fat]);
        out.extend(table.partitions.iter().filter(is_active).filter(is_readable).map(|partition| (partition, false)));
    }
    let is_system = |partition: &&Partition| {
        partition.kind == PartitionKind::EfiSystem
            && is_plain(partition, &[Content::Fat])
            && table.scheme != Scheme::Bare
    };
    out.extend(table.partitions.iter().filter(is_system).take(CANDIDATES_MAX).map(|partition| (partition, true)));
    Ok(out)
}

fn look_at(
    disk: &dyn Disk,
    partition: &Partition,
    is_uefi: bool,
    own: Option<PartitionId>,
    windows: &Partition,
    guest: &Guest,
    allow_dirty: bool,
) -> Result<(BootVolume, Option<Hive>)> {
    let [uefi_store, bios_store] = STORES;
    let store = if is_uefi { uefi_store } else { bios_store };
    let view = || PartitionView::new(disk, partition);
    let space = match partition.content {
        Content::Fat => known(view().and_then(|view| survey_fat(&view, allow_dirty)))?.map(Some),
        _ => known(view())?.map(|_| None),
    };
    let is_boot_partition = partition.number == windows.number;
    let (loader, hive) = match known(read_store(disk, partition, store))? {
        Ok(Ok(hive)) => {
            let found = hive
                .unchanged_bytes()
                .map(|bytes| Reader::open(bytes).and_then(|reader| default_loader(&reader, own, is_boot_partition)));
            let found = found.unwrap_or_else(|| Ok(Err("it is dirty".to_owned())));
            (known(found)?.and_then(|loader| loader), Some(hive))
        }
        Ok(Err(reason)) | Err(reason) => (Err(reason), None),
    };
    let hive = hive.filter(|_| loader.is_ok());
    let place = BootPlace {
        partition: partition.number,
        start: partition.start.0,
        length: partition.length,
        store: store.to_owned(),
    };
    let label = partition.label();
    let loader = loader.map_err(|reason| format!("{store} on {label}: {reason}"));
    let fallback = if is_uefi { known(find_fallback(disk, partition, guest))?.ok() } else { None };
    Ok((BootVolume { partition: partition.clone(), place, is_uefi, loader, space, fallback }, hive))
}

/// What is wrong in the guest is a reason; that the disk cannot be read is an error.
fn known<T>(found: Result<T>) -> Result<Known<T>> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Unsupported | Kind::Refused) => {
            let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
            Ok(Err(format!("{error}{hint}")))
        }
        Err(error) => Err(error),
    }
}

/// The boot configuration. One whose last changes are only in its log is not edited: what of them is on the disk, the boot
/// manager decides, which does not write to it.
fn read_store(disk: &dyn Disk, partition: &Partition, store: &str) -> Result<Known<Hive>> {
    let read =
        |path: &str| read_boot_volume(PartitionView::new(disk, partition)?, partition, path, BOOT_STORE_BYTES_MAX);
    let Some(bytes) = read(store)? else { return Ok(Err("it is missing".to_owned())) };
    let file = HiveFile::open(bytes, |log| read(&format!("{store}{log}")))?;
    let is_dirty = file.replay.is_some();
    Ok(if is_dirty {
        Err("it is dirty: its last changes are only in its log; start Windows once and shut it down cleanly".to_owned())
    } else {
        Ok(file.hive)
    })
}

fn find_fallback(disk: &dyn Disk, partition: &Partition, guest: &Guest) -> Result<Fallback> {
    let fat = FatVolume::open(PartitionView::new(disk, partition)?)?;
    let path = fallback_loader(guest.arch);
    let exists = fat.exists(path)?;
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let is_taken = fat.is_file(folder)?;
    let obstacle = is_taken.then(|| format!("a file has the name of the folder {folder}"));
    let boot_manager = if exists { Err("not looked at".to_owned()) } else { find_boot_manager(&fat, guest)? };
    Ok(Fallback { path, exists, obstacle, boot_manager })
}

fn find_boot_manager<D: crate::io::VolumeRead>(fat: &FatVolume<D>, guest: &Guest) -> Result<Known<(u64, [u8; 32])>> {
    let Some(bytes) = fat.read(BOOT_MANAGER, BOOT_MANAGER_BYTES_MAX)? else {
        return Ok(Err(format!("{BOOT_MANAGER} is missing")));
    };
    Ok(match PeFacts::parse(&bytes) {
        Ok(facts) if facts.arch() == Some(guest.arch) => Ok((bytes.len() as u64, Sha256::digest(&bytes).into())),
        Ok(_) => Err(format!("{BOOT_MANAGER} is for another CPU than Windows")),
        Err(error) => Err(format!("{BOOT_MANAGER}: {error}")),
    })
}

/// The error for a boot volume that is not edited.
pub(super) fn not_editable(what: &str, reason: &str) -> Error {
    Error::refused(crate::error::Layer::Windows, format!("cannot {what}: {reason}")).with_code(ErrorCode::BootVolume)
}
