//! The boot sector of a FAT volume: Microsoft, "FAT: General Overview of On-Disk Format" 1.03, section "Boot Sector and
//! BPB".

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

use super::entry::ENTRY;
use super::error::damaged;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// Bytes of a [`BootSector`], whatever the volume's sectors have.
const BOOT_SECTOR: usize = size_of::<BootSector>();
/// Last two bytes of a boot sector.
const SIGNATURE: u16 = 0xAA55;
/// Fewer clusters than this make FAT12, at least so many FAT16.
const CLUSTERS_FAT16: u32 = 4085;
/// In the flags of FAT32: only one copy of the table is in use.
const ONE_FAT_ACTIVE: u16 = 0x80;
/// In the byte that Windows NT keeps in the boot sector: the volume is in use, or was not unmounted.
const MARK_DIRTY: u8 = 1;
/// Cluster numbers of FAT32 have 28 bits, the last of which mean other things.
const CLUSTERS_MAX: u32 = 0x0FFF_FFF5;

/// What all widths of FAT have in common; [`fat16`](Self::fat16) and [`fat32`](Self::fat32) read what differs.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct BootSector {
    pub jump: [u8; 3],
    /// The formatting program; other file systems have their name here.
    pub oem_name: [u8; 8],
    pub bytes_per_sector: U16,
    pub sectors_per_cluster: u8,
    /// Sectors before the first FAT.
    pub reserved_sectors: U16,
    pub fats: u8,
    /// Entries of the root folder's fixed area; 0 for FAT32.
    pub root_entries: U16,
    /// 0 when the number does not fit: see `total_sectors_32`.
    pub total_sectors_16: U16,
    pub media: u8,
    /// 0 for FAT32: see [`ExtendedFat32::sectors_per_fat`].
    pub sectors_per_fat_16: U16,
    pub sectors_per_track: U16,
    pub heads: U16,
    pub hidden_sectors: U32,
    pub total_sectors_32: U32,
    extended: [u8; 474],
    pub signature: U16,
}

/// From byte 36 of the boot sector of FAT12 and FAT16.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ExtendedFat16 {
    pub drive: u8,
    pub reserved: u8,
    pub extended_signature: u8,
    pub volume_id: U32,
    pub volume_label: [u8; 11],
    /// `FAT12`, `FAT16` or `FAT32`; informative, the number of clusters decides.
    pub type_text: [u8; 8],
    boot_code: [u8; 448],
}

/// From byte 36 of the boot sector of FAT32.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ExtendedFat32 {
    pub sectors_per_fat: U32,
    pub flags: U16,
    pub version: U16,
    pub root_cluster: U32,
    pub fs_info_sector: U16,
    pub backup_boot_sector: U16,
    pub reserved: [u8; 12],
    pub drive: u8,
    pub reserved_1: u8,
    pub extended_signature: u8,
    pub volume_id: U32,
    pub volume_label: [u8; 11],
    /// `FAT12`, `FAT16` or `FAT32`; informative, the number of clusters decides.
    pub type_text: [u8; 8],
    boot_code: [u8; 420],
}

const _: () = {
    assert!(size_of::<BootSector>() == 512);
    assert!(size_of::<ExtendedFat16>() == 474);
    assert!(size_of::<ExtendedFat32>() == 474);
};

/// Bits of a number in the file allocation table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    /// Offset and length of a cluster's entry in the table, in bytes.
    pub(super) fn entry(self, cluster: u32) -> (u64, usize) {
        let cluster = u64::from(cluster);
        match self {
            Self::Fat12 => (cluster + cluster / 2, 2),
            Self::Fat16 => (cluster * 2, 2),
            Self::Fat32 => (cluster * 4, 4),
        }
    }

    /// What the stored bits of a cluster's entry say, and the mark of a bad cluster: higher values end a chain.
    pub(super) fn value(self, cluster: u32, raw: u32) -> (u32, u32) {
        match self {
            Self::Fat12 => ((raw >> (4 * (cluster % 2))) & 0xFFF, 0xFF7),
            Self::Fat16 => (raw, 0xFFF7),
            Self::Fat32 => (raw & 0x0FFF_FFFF, 0x0FFF_FFF7),
        }
    }
}

/// Where the root folder is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Root {
    /// FAT12 and FAT16: a fixed area, in bytes.
    Area { start: u64, length: u64 },
    /// FAT32: its first cluster.
    Cluster(u32),
}

/// Where the parts of a volume lie, in bytes from its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub width: Width,
    pub sector_bytes: u64,
    pub cluster_bytes: u64,
    pub fat_start: u64,
    pub fat_bytes: u64,
    /// Copies of the table, one after the other.
    pub fats: u64,
    /// Whether all copies are kept equal; FAT32 can do with one.
    pub is_mirrored: bool,
    /// FAT32: the sector with the number of free clusters.
    pub fs_info: Option<u64>,
    /// Whether the boot sector says that the volume was not unmounted.
    pub is_marked_dirty: bool,
    pub root: Root,
    pub data_start: u64,
    /// Clusters of the data area; they are numbered from 2.
    pub clusters: u32,
}

impl BootSector {
    /// Reads the boot sector of a volume.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::error::Kind::Unsupported) when the volume is not FAT,
    /// [`Kind::Damaged`](crate::error::Kind::Damaged) when its boot sector contradicts itself.
    pub(super) fn read_geometry<D: VolumeRead>(volume: &D) -> Result<Geometry> {
        let not_fat = || Error::unsupported(Layer::Partition, "not a FAT file system");
        if volume.len() < BOOT_SECTOR as u64 {
            return Err(not_fat());
        }
        let mut boot = Self::new_zeroed();
        volume.read_at(VolumeOffset(0), boot.as_mut_bytes())?;
        boot.geometry(volume.len())?.ok_or_else(not_fat)
    }

    pub(crate) fn has_signature(&self) -> bool {
        self.signature.get() == SIGNATURE
    }

    /// Whether the sector size is one that FAT allows.
    pub(crate) fn has_legal_sector_size(&self) -> bool {
        matches!(self.bytes_per_sector.get(), 512 | 1024 | 2048 | 4096)
    }

    pub(crate) fn fat16(&self) -> &ExtendedFat16 {
        transmute_ref!(&self.extended)
    }

    pub(crate) fn fat32(&self) -> &ExtendedFat32 {
        transmute_ref!(&self.extended)
    }

    /// Computes where everything lies on a volume of `volume_bytes`; `None` when the sector is not FAT's.
    ///
    /// # Errors
    /// [`Kind::Damaged`](crate::error::Kind::Damaged) when the numbers leave no room for data.
    pub(super) fn geometry(&self, volume_bytes: u64) -> Result<Option<Geometry>> {
        let sector = u64::from(self.bytes_per_sector.get());
        let reserved = u64::from(self.reserved_sectors.get());
        let is_fat = self.has_signature()
            && self.has_legal_sector_size()
            && self.sectors_per_cluster.is_power_of_two()
            && reserved != 0
            && matches!(self.fats, 1 | 2);
        if !is_fat {
            return Ok(None);
        }
        let root_bytes = u64::from(self.root_entries.get()) * ENTRY as u64;
        let either = |short: U16, long: U32| if short == 0 { u64::from(long.get()) } else { u64::from(short.get()) };
        let total = either(self.total_sectors_16, self.total_sectors_32);
        let fat_sectors = either(self.sectors_per_fat_16, self.fat32().sectors_per_fat);
        // all factors have 32 bits at most
        let fat_start = reserved * sector;
        let fat_bytes = fat_sectors * sector;
        let root_start = fat_start + u64::from(self.fats) * fat_bytes;
        let data_start = root_start + root_bytes.div_ceil(sector) * sector;
        let end = (total * sector).min(volume_bytes);
        let cluster_bytes = u64::from(self.sectors_per_cluster) * sector;
        let count = end.checked_sub(data_start).ok_or_else(|| damaged("it has no data area"))? / cluster_bytes;
        let clusters = u32::try_from(count).unwrap_or(u32::MAX).min(CLUSTERS_MAX);
        let (width, root) = if self.sectors_per_fat_16 == 0 {
            (Width::Fat32, Root::Cluster(self.fat32().root_cluster.get()))
        } else {
            let width = if clusters < CLUSTERS_FAT16 { Width::Fat12 } else { Width::Fat16 };
            (width, Root::Area { start: root_start, length: root_bytes })
        };
        if fat_bytes == 0 || clusters == 0 {
            return Err(damaged("it has no clusters"));
        }
        let (marks, is_mirrored, fs_info) = match width {
            Width::Fat12 | Width::Fat16 => (self.fat16().reserved, true, None),
            Width::Fat32 => {
                let fat32 = self.fat32();
                let at = u64::from(fat32.fs_info_sector.get());
                let fs_info = (1..reserved).contains(&at).then(|| at * sector);
                (fat32.reserved_1, fat32.flags.get() & ONE_FAT_ACTIVE == 0, fs_info)
            }
        };
        Ok(Some(Geometry {
            width,
            sector_bytes: sector,
            cluster_bytes,
            fat_start,
            fat_bytes,
            fats: u64::from(self.fats),
            is_mirrored,
            fs_info,
            is_marked_dirty: marks & MARK_DIRTY != 0,
            root,
            data_start,
            clusters,
        }))
    }
}
