//! Master boot records and the chains of logical partitions behind them.

use super::bytes::{u16_at, u32_at};
use super::{Content, Disk, Partition, PartitionKind, PartitionTable, Scheme};
use crate::error::Result;
use crate::units::ImageOffset;
use std::collections::BTreeSet;

/// Linux numbers no more logical partitions than this either (minor numbers); it also ends a hostile chain.
const LOGICAL_MAX: usize = 251;
const PROTECTIVE: u8 = 0xEE;
const DYNAMIC: u8 = 0x42;
const RECOVERY: u8 = 0x27;
const EFI_SYSTEM: u8 = 0xEF;

/// One of the four entries: 16 bytes from offset 446.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    kind: u8,
    /// In sectors; from the disk's begin, or in a chain from what the entry's role says.
    first: u32,
    sectors: u32,
}

impl Entry {
    fn is_used(&self) -> bool {
        self.kind != 0 && self.sectors != 0
    }
    /// The container of logical partitions, in its three spellings.
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0F | 0x85) && self.is_used()
    }
}

/// A sector that looks like an MBR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mbr([Entry; 4]);

impl Mbr {
    /// `None` without the signature, or when an entry's first byte is neither "active" nor "not active": then the
    /// sector is something else that ends in 55 AA.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let entries = entries(sector)?;
        let flags = (0..4usize).filter_map(|index| sector.get(446 + 16 * index));
        flags.into_iter().all(|flag| matches!(flag, 0x00 | 0x80)).then_some(Self(entries))
    }

    /// Whether it announces a GPT.
    pub fn is_protective(&self) -> bool {
        self.0.iter().any(|entry| entry.kind == PROTECTIVE)
    }

    /// Whether it announces a GPT and names partitions beside.
    pub fn is_hybrid(&self) -> bool {
        self.is_protective() && self.0.iter().any(|entry| entry.is_used() && entry.kind != PROTECTIVE)
    }

    /// Whether it names no partition at all.
    pub fn is_empty(&self) -> bool {
        !self.0.iter().any(Entry::is_used)
    }
}

fn entries(sector: &[u8]) -> Option<[Entry; 4]> {
    if u16_at(sector, 510)? != 0xAA55 {
        return None;
    }
    let entry = |index: usize| {
        let at = 446 + 16 * index;
        Some(Entry { kind: *sector.get(at + 4)?, first: u32_at(sector, at + 8)?, sectors: u32_at(sector, at + 12)? })
    };
    Some([entry(0)?, entry(1)?, entry(2)?, entry(3)?])
}

/// The partitions that an MBR names, logical ones from number 5 in the order of their chain.
pub fn read<D: Disk + ?Sized>(disk: &D, mbr: &Mbr) -> Result<PartitionTable> {
    let sector = sector_size(disk, mbr)?;
    let mut table = PartitionTable { scheme: Scheme::Mbr, sector, partitions: Vec::new(), warnings: Vec::new() };
    for (number, entry) in (1u32..).zip(mbr.0) {
        if entry.is_used() && !entry.is_extended() {
            table.partitions.push(partition(number, entry, u64::from(entry.first), sector));
        }
    }
    let mut seen = BTreeSet::new();
    let mut number = 5;
    for extended in mbr.0.iter().filter(|entry| entry.is_extended()) {
        read_chain(disk, extended, &mut table, &mut seen, &mut number)?;
    }
    Ok(table)
}

fn partition(number: u32, entry: Entry, first: u64, sector: u32) -> Partition {
    Partition {
        number,
        // Both factors have 33 bits at most, but for chains that are checked by the caller.
        start: ImageOffset(first.saturating_mul(u64::from(sector))),
        length: u64::from(entry.sectors) * u64::from(sector),
        kind: match entry.kind {
            DYNAMIC => PartitionKind::Dynamic,
            RECOVERY => PartitionKind::Recovery,
            EFI_SYSTEM => PartitionKind::EfiSystem,
            _ => PartitionKind::Data,
        },
        content: Content::Unknown,
        name: None,
        type_id: format!("{:#04x}", entry.kind),
    }
}

/// Follows one chain. Each link is a sector like an MBR: its data entry counts from the link itself, its pointer to
/// the next link from the begin of the whole extended partition. Links need not ascend; they must not repeat.
fn read_chain<D: Disk + ?Sized>(
    disk: &D,
    extended: &Entry,
    table: &mut PartitionTable,
    seen: &mut BTreeSet<u64>,
    number: &mut u32,
) -> Result<()> {
    let base = u64::from(extended.first);
    let mut next = Some(base);
    while let Some(link) = next.take() {
        if seen.len() == LOGICAL_MAX || !seen.insert(link) {
            table.warnings.push("the chain of logical partitions runs in a circle or is too long".into());
            return Ok(());
        }
        let start = link.saturating_mul(u64::from(table.sector));
        let mut bytes = [0u8; 512];
        if start.checked_add(512).is_none_or(|end| end > disk.len()) {
            table.warnings.push("the chain of logical partitions leads beyond the disk".into());
            return Ok(());
        }
        disk.read_at(ImageOffset(start), &mut bytes)?;
        let Some(entries) = entries(&bytes) else {
            table.warnings.push(format!("the chain of logical partitions ends in a damaged link at {start:#x}"));
            return Ok(());
        };
        for entry in entries {
            if entry.is_extended() {
                next = next.or(Some(base.saturating_add(u64::from(entry.first))));
            } else if entry.is_used() {
                let first = link.saturating_add(u64::from(entry.first));
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
            let start = u64::from(entry.first) * size;
            if start.checked_add(512).is_some_and(|end| end <= disk.len()) {
                let mut bytes = [0u8; 512];
                disk.read_at(ImageOffset(start), &mut bytes)?;
                let link = entry.is_extended() && u16_at(&bytes, 510) == Some(0xAA55);
                *count += usize::from(link || Content::of_sector(&bytes).is_volume());
            }
        }
    }
    Ok(if volumes[0] == 0 && volumes[1] > 0 { 4096 } else { 512 })
}
