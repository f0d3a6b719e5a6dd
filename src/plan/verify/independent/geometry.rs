//! The boot sector.

use super::bytes::{damaged, short_at, slice, u8_at, u64_at};
use crate::error::Result;

/// What the boot sector says. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub cluster: u64,
    pub cluster_count: u64,
    pub record: u64,
    /// Volume offset of `$MFT`.
    pub mft: u64,
}

/// A size that is given as a number of clusters, or as the negative exponent of a power of two.
fn coded_size(code: u8, cluster: u64) -> Option<u64> {
    let size = match code.cast_signed() {
        clusters @ 1.. => cluster.checked_mul(u64::from(clusters.unsigned_abs()))?,
        exponent => 1u64.checked_shl(u32::from(exponent.unsigned_abs()))?,
    };
    (size.is_power_of_two() && (512..=65536).contains(&size)).then_some(size)
}

impl Geometry {
    pub(super) fn read(boot: &[u8], volume_size: u64) -> Result<Self> {
        let wrong = || damaged("the boot sector is not that of an NTFS volume");
        if slice(boot, 3, 8)? != b"NTFS    " {
            return Err(wrong());
        }
        let sector = short_at(boot, 0x0B)? as u64;
        let per_cluster = match u8_at(boot, 0x0D)? {
            code @ ..=0x80 => u64::from(code),
            code => 1u64.checked_shl(u32::from(code.cast_signed().unsigned_abs())).ok_or_else(wrong)?,
        };
        let cluster = sector.checked_mul(per_cluster).ok_or_else(wrong)?;
        let is_size = |size: u64, most: u64| size.is_power_of_two() && (512..=most).contains(&size);
        if !is_size(sector, 4096) || !is_size(cluster, 2 << 20) {
            return Err(wrong());
        }
        let cluster_count = (u64_at(boot, 0x28)? / per_cluster).min(volume_size / cluster);
        let record = coded_size(u8_at(boot, 0x40)?, cluster).ok_or_else(wrong)?;
        let mft = u64_at(boot, 0x30)?;
        if mft >= cluster_count {
            return Err(wrong());
        }
        Ok(Self { cluster, cluster_count, record, mft: mft.checked_mul(cluster).ok_or_else(wrong)? })
    }
}
