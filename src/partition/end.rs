//! Where the partitions of a disk end, by its first two sectors alone: what decides between two sizes of a VHD, whose
//! table cannot be read in full before its size is known.

use zerocopy::FromBytes;

use super::format::{BOOT_SIGNATURE, GPT_SIGNATURE, GptHeader, MbrSector};

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Bytes of the first two sectors.
pub(crate) const FIRST_SECTORS: usize = 2 * SECTOR as usize;

/// The byte offset at which the last partition (or the backup GPT) ends; `None` without a partition table.
pub(crate) fn partitions_end(sectors: &[u8; FIRST_SECTORS]) -> Option<u64> {
    let (mbr, second) = MbrSector::ref_from_prefix(sectors).ok()?;
    if mbr.signature != BOOT_SIGNATURE {
        return None;
    }
    let (gpt, _) = GptHeader::ref_from_prefix(second).ok()?;
    if gpt.signature == GPT_SIGNATURE {
        return gpt.alternate_sector.get().checked_add(1)?.checked_mul(SECTOR);
    }
    let used = mbr.partitions.iter().filter(|entry| entry.kind != 0);
    used.map(|entry| (u64::from(entry.first_sector.get()) + u64::from(entry.sectors.get())) * SECTOR).max()
}
