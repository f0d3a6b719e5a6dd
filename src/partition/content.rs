//! What the first sector of a volume says that it is.

use super::bytes::{array, u16_at};
use crate::guid::Guid;
use serde::Serialize;
use std::fmt;

/// Kind of a volume, by the content of its first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Content {
    /// NTFS, of any version.
    Ntfs,
    /// BitLocker, also "to go" and suspended: the data are encrypted.
    BitLocker,
    /// ReFS, which winject refuses.
    Refs,
    /// exFAT, which never holds Windows.
    ExFat,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// Anything else: empty, another file system, the container of logical partitions.
    Unknown,
}

/// BitLocker of Windows 7 and later, at offset 160, and of "BitLocker To Go", at offset 424 of a boot sector that
/// looks like FAT32.
const BITLOCKER: Guid = Guid::new(0x4967_D63B, 0x2E29, 0x4AD8, [0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0, 0x01]);
/// The same of a volume where only the used space is encrypted.
const BITLOCKER_USED_SPACE: Guid =
    Guid::new(0x92A8_4D3B, 0xDD80, 0x4D0E, [0x9E, 0x4E, 0xB1, 0xE3, 0x28, 0x4E, 0xAE, 0xD8]);

impl Content {
    /// Looks at the first 512 bytes of a volume.
    #[must_use]
    pub fn of_sector(sector: &[u8]) -> Self {
        // The OEM name of the boot sector, or what stands in its place.
        let name: [u8; 8] = array(sector, 3).unwrap_or_default();
        let is_bitlocker = |offset| {
            array::<16>(sector, offset).map(Guid).is_some_and(|id| id == BITLOCKER || id == BITLOCKER_USED_SPACE)
        };
        if &name == b"-FVE-FS-" || (ends_as_boot_sector(sector) && (is_bitlocker(160) || is_bitlocker(424))) {
            return Self::BitLocker;
        }
        match &name {
            b"NTFS    " => Self::Ntfs,
            b"ReFS\0\0\0\0" => Self::Refs,
            b"EXFAT   " => Self::ExFat,
            _ if is_fat(sector) => Self::Fat,
            _ => Self::Unknown,
        }
    }

    /// Whether the sector is a volume's, so that a disk beginning with it has no partition table.
    #[must_use]
    pub fn is_volume(self) -> bool {
        self != Self::Unknown
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ntfs => "NTFS",
            Self::BitLocker => "BitLocker",
            Self::Refs => "ReFS",
            Self::ExFat => "exFAT",
            Self::Fat => "FAT",
            Self::Unknown => "unknown",
        })
    }
}

fn ends_as_boot_sector(sector: &[u8]) -> bool {
    u16_at(sector, 510) == Some(0xAA55)
}

/// The type texts are only informative, but an MBR has code in their place; with the signature, the jump and a legal
/// sector size they suffice to tell a volume from an MBR.
fn is_fat(sector: &[u8]) -> bool {
    let jump = matches!(sector.first(), Some(0xEB | 0xE9));
    let sector_size = u16_at(sector, 11).is_some_and(|size| matches!(size, 512 | 1024 | 2048 | 4096));
    let text = array(sector, 54) == Some(*b"FAT12   ")
        || array(sector, 54) == Some(*b"FAT16   ")
        || array(sector, 82) == Some(*b"FAT32   ");
    jump && sector_size && text && ends_as_boot_sector(sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(name: &[u8; 8]) -> Vec<u8> {
        let mut sector = vec![0u8; 512];
        sector[3..11].copy_from_slice(name);
        sector[510..].copy_from_slice(&[0x55, 0xAA]);
        sector
    }

    #[test]
    fn names() {
        assert_eq!(Content::of_sector(&sector(b"NTFS    ")), Content::Ntfs);
        assert_eq!(Content::of_sector(&sector(b"-FVE-FS-")), Content::BitLocker);
        assert_eq!(Content::of_sector(&sector(b"ReFS\0\0\0\0")), Content::Refs);
        assert_eq!(Content::of_sector(&sector(b"EXFAT   ")), Content::ExFat);
        assert_eq!(Content::of_sector(&sector(b"MSDOS5.0")), Content::Unknown);
        assert_eq!(Content::of_sector(&[]), Content::Unknown);
    }

    #[test]
    fn bitlocker_hides_behind_other_names() {
        for (offset, id) in [(160, BITLOCKER), (424, BITLOCKER), (160, BITLOCKER_USED_SPACE)] {
            let mut bytes = sector(b"MSWIN4.1");
            bytes[offset..offset + 16].copy_from_slice(&id.0);
            assert_eq!(Content::of_sector(&bytes), Content::BitLocker);
        }
    }

    #[test]
    fn fat() {
        let mut bytes = sector(b"MSDOS5.0");
        bytes[0] = 0xEB;
        bytes[11..13].copy_from_slice(&512u16.to_le_bytes());
        bytes[82..90].copy_from_slice(b"FAT32   ");
        assert_eq!(Content::of_sector(&bytes), Content::Fat);
    }
}
