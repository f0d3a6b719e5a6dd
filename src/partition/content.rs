//! What the first sector of a volume says that it is.

use std::fmt;

use serde::Serialize;
use zerocopy::FromBytes;

use crate::bitlocker;
use crate::fat::BootSector;

/// Kind of a volume, by the content of its first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Content {
    /// NTFS, the only one that is edited.
    Ntfs,
    /// BitLocker, also "to go" and suspended: the data are encrypted.
    BitLocker,
    /// ReFS, refused by name.
    Refs,
    /// exFAT, refused by name.
    ExFat,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// Anything else: empty, another file system, the container of logical partitions.
    Unknown,
}

impl Content {
    /// What a volume is by its first 512 bytes; unknown when there are fewer.
    #[must_use]
    pub fn of_sector(sector: &[u8]) -> Self {
        let Ok((boot, _)) = BootSector::ref_from_prefix(sector) else { return Self::Unknown };
        if bitlocker::is_header(sector) {
            return Self::BitLocker;
        }
        match &boot.oem_name {
            b"NTFS    " => Self::Ntfs,
            b"ReFS\0\0\0\0" => Self::Refs,
            b"EXFAT   " => Self::ExFat,
            _ if is_fat(boot) => Self::Fat,
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

/// The type texts are only informative, but an MBR has code in their place; with the signature, the jump and a legal
/// sector size they suffice to tell a volume from an MBR.
fn is_fat(boot: &BootSector) -> bool {
    let has_jump = matches!(boot.jump[0], 0xEB | 0xE9);
    let has_text =
        matches!(&boot.fat16().type_text, b"FAT12   " | b"FAT16   ") || &boot.fat32().type_text == b"FAT32   ";
    has_jump && boot.has_legal_sector_size() && has_text && boot.has_signature()
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
    fn fat() {
        let mut bytes = sector(b"MSDOS5.0");
        bytes[0] = 0xEB;
        bytes[11..13].copy_from_slice(&512u16.to_le_bytes());
        bytes[82..90].copy_from_slice(b"FAT32   ");
        assert_eq!(Content::of_sector(&bytes), Content::Fat);
    }
}
