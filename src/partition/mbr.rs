//! Master boot records and the chains of logical partitions that start in them.

use std::collections::BTreeSet;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::content::Content;
use super::disk::Disk;
use super::format::{BOOT_SIGNATURE, MbrEntry, MbrSector};
use super::table::{Partition, PartitionKind, PartitionTable, Scheme};
use crate::error::Result;
use crate::units::ImageOffset;

/// Linux numbers no more logical partitions than this either (minor numbers); it also ends a hostile chain.
const LOGICAL_MAX: usize = 251;
/// Status of the partition that a BIOS starts.
const ACTIVE: u8 = 0x80;

const PROTECTIVE: u8 = 0xEE;
const DYNAMIC: u8 = 0x42;
const RECOVERY: u8 = 0x27;
const EFI_SYSTEM: u8 = 0xEF;

impl MbrEntry {
    /// Whether a BIOS starts this partition.
    pub(crate) fn is_active(&self) -> bool {
        self.status == ACTIVE
    }

    fn is_used(&self) -> bool {
        self.kind != 0 && self.sectors != 0
    }

    /// The container of logical partitions, in its three spellings.
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0F | 0x85) && self.is_used()
    }
}

impl MbrSector {
    fn has_signature(&self) -> bool {
        self.signature == BOOT_SIGNATURE
    }
}

/// The entries of a sector that looks like an MBR.
#[derive(Debug, Clone, Copy)]
pub struct Mbr([MbrEntry; 4]);

impl Mbr {
    /// `None` without the signature, or when an entry's first byte is neither "active" nor "not active": then the
    /// sector is something else that ends in 55 AA.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let (mbr, _) = MbrSector::ref_from_prefix(sector).ok()?;
        let is_mbr = mbr.has_signature() && mbr.partitions.iter().all(|entry| matches!(entry.status, 0x00 | ACTIVE));
        is_mbr.then_some(Self(mbr.partitions))
    }

    /// Whether it announces a GPT.
    pub fn is_protective(&self) -> bool {
        self.0.iter().any(|entry| entry.kind == PROTECTIVE)
    }

    /// Whether it announces a GPT and names other partitions too.
    pub fn is_hybrid(&self) -> bool {
        self.is_protective() && self.0.iter().any(|entry| entry.is_used() && entry.kind != PROTECTIVE)
    }

    /// Whether it names no partition at all.
    pub fn is_empty(&self) -> bool {
        !self.0.iter().any(MbrEntry::is_used)
    }
}

/// The partitions that an MBR names, logical ones from number 5 in the order of their chain.
pub fn read<D: Disk + ?Sized>(disk: &D, mbr: &Mbr) -> Result<PartitionTable> {
    let sector = sector_size(disk, mbr)?;
    let mut table = PartitionTable { scheme: Scheme::Mbr, sector, ..PartitionTable::empty() };
    for (number, entry) in (1u32..).zip(mbr.0) {
        if entry.is_used() && !entry.is_extended() {
            table.partitions.push(partition(number, entry, u64::from(entry.first_sector.get()), sector));
        }
    }
    let mut seen = BTreeSet::new();
    let mut number = 5;
    for extended in mbr.0.iter().filter(|entry| entry.is_extended()) {
        read_chain(disk, extended, &mut table, &mut seen, &mut number)?;
    }
    Ok(table)
}

fn partition(number: u32, entry: MbrEntry, first: u64, sector: u32) -> Partition {
    Partition {
        number,
        // Both factors have 33 bits at most, but for chains that are checked by the caller.
        start: ImageOffset(first.saturating_mul(u64::from(sector))),
        length: u64::from(entry.sectors.get()) * u64::from(sector),
        kind: match entry.kind {
            DYNAMIC => PartitionKind::Dynamic,
            RECOVERY => PartitionKind::Recovery,
            EFI_SYSTEM => PartitionKind::EfiSystem,
            _ => PartitionKind::Data,
        },
        content: Content::Unknown,
        name: None,
        type_id: format!("{:#04x}", entry.kind),
        bitlocker: None,
        replay: Default::default(),
        unique_guid: None,
    }
}

/// Follows one chain. Each link is a sector like an MBR: its data entry counts from the link itself, its pointer to
/// the next link from the begin of the whole extended partition. Links need not ascend; they must not repeat.
fn read_chain<D: Disk + ?Sized>(
    disk: &D,
    extended: &MbrEntry,
    table: &mut PartitionTable,
    seen: &mut BTreeSet<u64>,
    number: &mut u32,
) -> Result<()> {
    let base = u64::from(extended.first_sector.get());
    let mut next = Some(base);
    while let Some(link) = next.take() {
        if seen.len() == LOGICAL_MAX || !seen.insert(link) {
            table.warnings.push("the chain of logical partitions runs in a circle or is too long".into());
            return Ok(());
        }
        let start = link.saturating_mul(u64::from(table.sector));
        let mut sector = MbrSector::new_zeroed();
        if start.checked_add(512).is_none_or(|end| end > disk.len()) {
            table.warnings.push("the chain of logical partitions leads beyond the disk".into());
            return Ok(());
        }
        disk.read_at(ImageOffset(start), sector.as_mut_bytes())?;
        if !sector.has_signature() {
            table.warnings.push(format!("the chain of logical partitions ends in a damaged link at {start:#x}"));
            return Ok(());
        }
        for entry in sector.partitions {
            if entry.is_extended() {
                next = next.or(Some(base.saturating_add(u64::from(entry.first_sector.get()))));
            } else if entry.is_used() {
                let first = link.saturating_add(u64::from(entry.first_sector.get()));
                table.partitions.push(partition(*number, entry, first, table.sector));
                *number = number.saturating_add(1);
            }
        }
    }
    Ok(())
}

/// An MBR does not say how large its sectors are. If only the places for sectors of 4096 bytes hold volumes, it is
/// that; nearly always it is 512.
fn sector_size<D: Disk + ?Sized>(disk: &D, mbr: &Mbr) -> Result<u32> {
    let mut volumes = [0usize; 2];
    for entry in mbr.0.iter().filter(|entry| entry.is_used()) {
        for (count, size) in volumes.iter_mut().zip([512u64, 4096]) {
            let start = u64::from(entry.first_sector.get()) * size;
            if start.checked_add(512).is_some_and(|end| end <= disk.len()) {
                let mut sector = MbrSector::new_zeroed();
                disk.read_at(ImageOffset(start), sector.as_mut_bytes())?;
                let is_link = entry.is_extended() && sector.has_signature();
                *count += usize::from(is_link || Content::of_sector(sector.as_bytes()).is_volume());
            }
        }
    }
    Ok(if volumes[0] == 0 && volumes[1] > 0 { 4096 } else { 512 })
}
