//! Where the partitions of a disk end, as its first two sectors show it: as much of MBR and GPT as decides between two
//! sizes of a VHD. (The layer `partition`, which reads them in full, is above this one.)

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Bytes of the guest's sector.
const SECTOR: u64 = 512;

/// An entry of the partition table in the MBR (UEFI 2.10, table 5-2).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MbrEntry {
    boot_indicator: u8,
    starting_chs: [u8; 3],
    /// 0 for an unused entry.
    os_type: u8,
    ending_chs: [u8; 3],
    starting_lba: U32,
    size_in_lba: U32,
}

const _: () = assert!(size_of::<MbrEntry>() == 16);

/// The first two sectors: the MBR (UEFI 2.10, table 5-1), and what a GPT header begins with (table 5-5).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FirstSectors {
    boot_code: [u8; 446],
    entries: [MbrEntry; 4],
    mbr_signature: [u8; 2],
    gpt_signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc32: U32,
    reserved: U32,
    my_lba: U64,
    /// The last sector of the disk, which has the backup header.
    alternate_lba: U64,
    rest: [u8; 472],
}

const _: () = assert!(size_of::<FirstSectors>() == FIRST_SECTORS);

const MBR_SIGNATURE: [u8; 2] = [0x55, 0xAA];
const GPT_SIGNATURE: [u8; 8] = *b"EFI PART";

/// Bytes of the first two sectors.
pub(super) const FIRST_SECTORS: usize = 2 * SECTOR as usize;

/// The byte offset at which the last partition (or the backup GPT) ends; `None` without a partition table.
pub(super) fn partitions_end(sectors: &[u8; FIRST_SECTORS]) -> Option<u64> {
    let first = FirstSectors::ref_from_bytes(sectors).ok().filter(|first| first.mbr_signature == MBR_SIGNATURE)?;
    if first.gpt_signature == GPT_SIGNATURE {
        return first.alternate_lba.get().checked_add(1)?.checked_mul(SECTOR);
    }
    let used = first.entries.iter().filter(|entry| entry.os_type != 0);
    used.map(|entry| (u64::from(entry.starting_lba.get()) + u64::from(entry.size_in_lba.get())) * SECTOR).max()
}
