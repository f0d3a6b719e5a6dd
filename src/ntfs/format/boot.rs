//! The boot sector: the volume's geometry.
//!
//! Layout: "NTFS boot sector" / BIOS parameter block of the public Windows documentation.

use super::error::damaged;
use super::units::Lcn;
use crate::error::{Error, ErrorCode, Layer, Place, Result};
use crate::field::Field;

/// Bytes of the boot sector that carry the geometry.
pub const BOOT_SECTOR_SIZE: usize = 512;
/// OEM id of an NTFS volume.
pub const OEM_ID: &[u8; 8] = b"NTFS    ";
/// OEM id of a locked BitLocker volume.
const BITLOCKER_ID: &[u8; 8] = b"-FVE-FS-";

/// Bytes per sector, a power of two.
pub const BYTES_PER_SECTOR: Field<u16> = Field::at(0x0B);
/// Sectors per cluster; above 0x80: 2^(256 − n).
pub const SECTORS_PER_CLUSTER: Field<u8> = Field::at(0x0D);
/// Sectors of the volume, without the one of the backup boot sector.
pub const TOTAL_SECTORS: Field<u64> = Field::at(0x28);
/// First cluster of `$MFT`.
pub const MFT_LCN: Field<u64> = Field::at(0x30);
/// First cluster of `$MFTMirr`.
pub const MIRROR_LCN: Field<u64> = Field::at(0x38);
/// Record size: positive in clusters, negative 2^−n bytes.
pub const RECORD_SIZE: Field<u8> = Field::at(0x40);
/// Index block size, same encoding.
pub const INDEX_BLOCK_SIZE: Field<u8> = Field::at(0x44);
/// Serial number of 64 bits; `vol` in Windows shows the lower half.
pub const SERIAL: Field<u64> = Field::at(0x48);
/// `0xAA55`, the end mark of every boot sector.
pub const END_MARK: Field<u16> = Field::at(0x1FE);

/// Smallest sector that is accepted, in bytes.
const SECTOR_MIN: u32 = 512;
/// Largest sector that is accepted, in bytes (4Kn disks).
const SECTOR_MAX: u32 = 4096;
/// Largest cluster that Windows formats (since Windows 10 1709).
const CLUSTER_MAX: u32 = 2 << 20;
/// Windows addresses at most 2^32 − 1 clusters.
const CLUSTERS_MAX: u64 = u32::MAX as u64;

/// The geometry of a volume, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes per sector: 512 … 4096.
    pub sector_size: u32,
    /// Bytes per cluster: sector … 2 MiB.
    pub cluster_size: u32,
    /// Sectors of the volume; the backup boot sector is the one with this index.
    pub total_sectors: u64,
    /// Whole clusters of the volume: LCNs are below.
    pub cluster_count: u64,
    /// First cluster of `$MFT`.
    pub mft: Lcn,
    /// First cluster of `$MFTMirr`.
    pub mirror: Lcn,
    /// Bytes per MFT record: 1024 or 4096 (512 … 4096 are accepted).
    pub record_size: u32,
    /// Default bytes per index block.
    pub index_block_size: u32,
    /// Serial number of the volume.
    pub serial: u64,
}

/// Whether a first sector looks like NTFS (only the OEM id; [`Geometry::parse`] checks the rest).
#[must_use]
pub fn is_ntfs(sector: &[u8]) -> bool {
    sector.get(3..11) == Some(OEM_ID)
}

/// `n` clusters or 2^−n bytes.
fn block_size(code: u8, cluster_size: u32) -> Option<u32> {
    match code as i8 {
        n @ 1.. => cluster_size.checked_mul(n as u32),
        n @ -31..=-1 => 1u32.checked_shl(u32::from(n.unsigned_abs())),
        _ => None,
    }
}

impl Geometry {
    /// Reads and checks the geometry in a boot sector.
    ///
    /// # Errors
    /// Refused for BitLocker, unsupported for what is not NTFS, damaged for values that no formatter writes.
    pub fn parse(sector: &[u8]) -> Result<Self> {
        if sector.get(3..11) == Some(BITLOCKER_ID) {
            return Err(Error::refused(Layer::Ntfs, "the volume is encrypted with BitLocker")
                .with_code(ErrorCode::BitLockerLocked)
                .hint("turn BitLocker off in the guest (manage-bde -off), wait for decryption, and export again"));
        }
        if sector.len() < BOOT_SECTOR_SIZE || !is_ntfs(sector) || END_MARK.get(sector) != 0xAA55 {
            return Err(Error::unsupported(Layer::Ntfs, "this is not an NTFS volume").at(Place::Inner(0)));
        }
        let sector_size = u32::from(BYTES_PER_SECTOR.get(sector));
        if !sector_size.is_power_of_two() || !(SECTOR_MIN..=SECTOR_MAX).contains(&sector_size) {
            return Err(damaged("impossible sector size")
                .expected_found("512..4096", sector_size)
                .at(Place::Inner(0x0B)));
        }
        let per_cluster = match SECTORS_PER_CLUSTER.get(sector) {
            n @ 0..=0x80 => u32::from(n),
            n => 1u32.checked_shl(256 - u32::from(n)).unwrap_or(0),
        };
        let cluster_size = per_cluster.checked_mul(sector_size).unwrap_or(0);
        if !cluster_size.is_power_of_two() || cluster_size > CLUSTER_MAX || cluster_size < sector_size {
            return Err(damaged("impossible cluster size")
                .expected_found("512..2 MiB", cluster_size)
                .at(Place::Inner(0x0D)));
        }
        let size = |field: Field<u8>, max: u32, what: &str| {
            block_size(field.get(sector), cluster_size)
                .filter(|s| s.is_power_of_two() && (SECTOR_MIN..=max).contains(s))
                .ok_or_else(|| damaged(format!("impossible {what} size")).at(Place::Inner(field.offset as u64)))
        };
        let record_size = size(RECORD_SIZE, 4096, "record")?;
        let index_block_size = size(INDEX_BLOCK_SIZE, 65536, "index block")?;
        let total_sectors = TOTAL_SECTORS.get(sector);
        let cluster_count = total_sectors / u64::from(per_cluster);
        if cluster_count == 0 || cluster_count > CLUSTERS_MAX {
            return Err(damaged("impossible number of clusters")
                .expected_found("1..2^32", cluster_count)
                .at(Place::Inner(0x28)));
        }
        let mft = Lcn(MFT_LCN.get(sector));
        let mirror = Lcn(MIRROR_LCN.get(sector));
        if mft.0 >= cluster_count || mirror.0 >= cluster_count || mft.0 == 0 || mirror.0 == 0 {
            return Err(damaged("the master file table or its mirror is outside the volume").at(Place::Inner(0x30)));
        }
        Ok(Self {
            sector_size,
            cluster_size,
            total_sectors,
            cluster_count,
            mft,
            mirror,
            record_size,
            index_block_size,
            serial: SERIAL.get(sector),
        })
    }

    /// Clusters that hold `bytes`.
    #[must_use]
    pub fn clusters_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.cluster_size))
    }

    /// Bytes in `clusters` clusters; saturates (nothing that large passes the volume's bounds).
    #[must_use]
    pub fn bytes_in(&self, clusters: u64) -> u64 {
        clusters.saturating_mul(u64::from(self.cluster_size))
    }

    /// Unit of the child VCNs of an index with blocks of `block_size` bytes: clusters, or 512-byte units when a
    /// cluster is larger than a block.
    #[must_use]
    pub fn index_unit(&self, block_size: u32) -> u32 {
        if self.cluster_size <= block_size { self.cluster_size } else { 512 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(per_cluster: u8, record: u8, index: u8) -> Vec<u8> {
        let mut s = vec![0u8; 512];
        s[3..11].copy_from_slice(OEM_ID);
        BYTES_PER_SECTOR.set(&mut s, 512);
        SECTORS_PER_CLUSTER.set(&mut s, per_cluster);
        TOTAL_SECTORS.set(&mut s, 1 << 24);
        MFT_LCN.set(&mut s, 4);
        MIRROR_LCN.set(&mut s, 2);
        RECORD_SIZE.set(&mut s, record);
        INDEX_BLOCK_SIZE.set(&mut s, index);
        END_MARK.set(&mut s, 0xAA55);
        s
    }

    #[test]
    fn both_encodings_of_sizes() {
        let g = Geometry::parse(&sector(8, 0xF6, 1)).unwrap();
        assert_eq!((g.cluster_size, g.record_size, g.index_block_size), (4096, 1024, 4096));
        let g = Geometry::parse(&sector(0xF4, 0xF6, 0xF4)).unwrap();
        assert_eq!((g.cluster_size, g.record_size, g.index_block_size, g.index_unit(4096)), (2 << 20, 1024, 4096, 512));
    }

    #[test]
    fn every_single_byte_value_is_an_answer_not_a_panic() {
        let good = sector(8, 0xF6, 1);
        for at in 0..good.len() {
            for value in 0..=255 {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = Geometry::parse(&bad);
            }
        }
        assert!(Geometry::parse(&[]).is_err());
    }
}
