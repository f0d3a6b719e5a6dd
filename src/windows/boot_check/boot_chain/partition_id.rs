//! The ids by which the boot configuration names a disk and a partition.

use std::fmt;

use super::disk::BootDisk;
use crate::error::Result;
use crate::guid::Guid;
use crate::partition::Scheme;
use crate::units::ImageOffset;

/// The ids by which the boot configuration names the partition of Windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartitionId {
    Gpt { disk: Guid, partition: Guid },
    Mbr { disk: u32, start: u64 },
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt { disk, partition } => write!(f, "GPT partition {partition} of disk {disk}"),
            Self::Mbr { disk, start } => write!(f, "MBR partition at {start:#x} of disk {disk:#010x}"),
        }
    }
}

/// The ids of the partition of Windows; `None` if the partition table has none that identifies it.
pub(super) fn read_partition_id(on: &BootDisk<'_>) -> Result<Option<PartitionId>> {
    match on.table.scheme {
        Scheme::Mbr => {
            let mut signature = [0u8; 4];
            on.disk.read_at(ImageOffset(440), &mut signature)?;
            Ok(Some(PartitionId::Mbr { disk: u32::from_le_bytes(signature), start: on.partition.start.0 }))
        }
        Scheme::Gpt => {
            let sector = u64::from(on.table.sector);
            let last = (on.disk.len() / sector.max(1)).saturating_sub(1);
            for header in [1, last] {
                if let Some(found) = read_gpt_id(on, sector, header)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
        Scheme::Bare => Ok(None),
    }
}

fn read_gpt_id(on: &BootDisk<'_>, sector: u64, header: u64) -> Result<Option<PartitionId>> {
    let read = |at: Option<u64>, buf: &mut [u8]| -> Result<bool> {
        let inside = at.filter(|at| at.checked_add(buf.len() as u64).is_some_and(|end| end <= on.disk.len()));
        let Some(at) = inside else { return Ok(false) };
        on.disk.read_at(ImageOffset(at), buf)?;
        Ok(true)
    };
    let mut head = [0u8; 92];
    if !read(header.checked_mul(sector), &mut head)? || !head.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let field = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let guid = |bytes: &[u8], at: usize| bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map(Guid);
    let step = u64::from(u32::try_from(field(80) >> 32).unwrap_or(0));
    let index = u64::from(on.partition.number).saturating_sub(1);
    let at = field(72).checked_mul(sector).and_then(|start| start.checked_add(index.checked_mul(step)?));
    let mut entry = [0u8; 48];
    if !read(at, &mut entry)? {
        return Ok(None);
    }
    let first = entry.get(32..40).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    if first.checked_mul(sector) != Some(on.partition.start.0) {
        return Ok(None);
    }
    Ok(guid(&head, 56).zip(guid(&entry, 16)).map(|(disk, partition)| PartitionId::Gpt { disk, partition }))
}
