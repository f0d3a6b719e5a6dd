//! Master boot record and GUID partition table as they lie on the disk.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Last two bytes of an MBR, of every link of a chain of logical partitions, and of boot sectors.
pub(super) const BOOT_SIGNATURE: u16 = 0xAA55;
/// First bytes of a GPT header.
pub(super) const GPT_SIGNATURE: [u8; 8] = *b"EFI PART";

/// A master boot record, or a link of a chain of logical partitions (UEFI 2.10, table 5.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct MbrSector {
    pub boot_code: [u8; 440],
    /// By which Windows' boot configuration names the disk.
    pub disk_signature: U32,
    pub reserved: U16,
    pub partitions: [MbrEntry; 4],
    pub signature: U16,
}

/// One of the four entries of an [`MbrSector`] (UEFI 2.10, table 5.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct MbrEntry {
    /// 0x80 for the active partition, 0 for others; anything else is not an MBR.
    pub status: u8,
    pub first_chs: [u8; 3],
    /// Partition type; 0 for an unused entry.
    pub kind: u8,
    pub last_chs: [u8; 3],
    /// In sectors; from the disk's begin, or in a chain from what the entry's role says.
    pub first_sector: U32,
    pub sectors: U32,
}

/// The fields of a GPT header; the rest of its sector is reserved (UEFI 2.10, table 5.5).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct GptHeader {
    pub signature: [u8; 8],
    pub revision: U32,
    /// Bytes that the checksum covers.
    pub header_size: U32,
    /// CRC-32 of the header, made with this field as zero.
    pub header_crc: U32,
    pub reserved: U32,
    /// Sector of this header.
    pub own_sector: U64,
    /// Sector of the other copy.
    pub alternate_sector: U64,
    pub first_usable_sector: U64,
    pub last_usable_sector: U64,
    pub disk_id: [u8; 16],
    /// First sector of the entries.
    pub entries_sector: U64,
    pub entry_count: U32,
    /// 128 × 2ⁿ bytes.
    pub entry_size: U32,
    pub entries_crc: U32,
}

/// The fields of an entry of a GPT (UEFI 2.10, table 5.6).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct GptEntry {
    /// Zero for an unused entry.
    pub type_id: [u8; 16],
    pub partition_id: [u8; 16],
    pub first_sector: U64,
    /// The last sector that belongs to the partition.
    pub last_sector: U64,
    pub attributes: U64,
    /// UTF-16, padded with zeros.
    pub name: [U16; 36],
}

const _: () = {
    assert!(size_of::<MbrSector>() == 512);
    assert!(size_of::<MbrEntry>() == 16);
    assert!(size_of::<GptHeader>() == 92);
    assert!(size_of::<GptEntry>() == 128);
};
