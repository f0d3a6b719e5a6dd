//! The two restart pages at the head of `$LogFile`.
//!
//! Layout: `LFS_RESTART_PAGE_HEADER` and `LFS_RESTART_AREA` of the public descriptions of the log file service. Versions
//! up to 1.1 are what every clean dismount leaves; 2.0 is the form that Windows 8 and later use while a volume is
//! mounted and convert back on dismount (Microsoft: "Windows 8 volume compatibility considerations").

use crate::error::{Error, Layer, Result};
use crate::ntfs::field::Field;
use crate::ntfs::fixup;

/// Magic of a restart page.
pub const RSTR: [u8; 4] = *b"RSTR";
/// Magic of a restart page that chkdsk wrote.
pub const CHKD: [u8; 4] = *b"CHKD";
/// Size of a restart page on every Windows platform of today.
pub const PAGE: usize = 4096;

/// Size of a page of restart information.
#[cfg(test)]
pub const SYSTEM_PAGE_SIZE: Field<u32> = Field::at(0x10);
/// Where the restart area begins in the page.
pub const AREA_OFFSET: Field<u16> = Field::at(0x18);
/// Minor version of the log format: 0 in 2.0, 1 in 1.1.
pub const MINOR: Field<u16> = Field::at(0x1A);
/// Major version of the log format: 1, or 2 since Windows 8.
pub const MAJOR: Field<u16> = Field::at(0x1C);

/// In the restart area: the last log sequence number.
pub const CURRENT_LSN: Field<u64> = Field::at(0x00);
/// In the restart area: first client in use; `0xFFFF` when there is none.
pub const IN_USE: Field<u16> = Field::at(0x0C);
/// In the restart area: flags.
pub const FLAGS: Field<u16> = Field::at(0x0E);
/// In the restart area: size of the log file.
pub const FILE_SIZE: Field<u64> = Field::at(0x18);

/// Value of [`IN_USE`] for "no client".
pub const NO_CLIENT: u16 = 0xFFFF;
/// Bit of [`FLAGS`]: the volume was dismounted cleanly.
pub const CLEAN: u16 = 0x0002;
/// Bytes of the restart area that are read.
const AREA_LENGTH: usize = 0x20;

/// What a restart page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPage {
    /// Major and minor version.
    pub version: (u16, u16),
    /// Last log sequence number.
    pub current_lsn: u64,
    /// First client in use.
    pub in_use: u16,
    /// Flags of the restart area.
    pub flags: u16,
    /// Size of the log file.
    pub file_size: u64,
}

impl RestartPage {
    /// Reads a page as it lies on disk.
    ///
    /// # Errors
    /// Damaged: no restart page, torn, or its area lies outside.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        let mut page = raw.to_vec();
        let magic = if page.starts_with(&CHKD) { CHKD } else { RSTR };
        fixup::unseal(&mut page, magic)?;
        let at = usize::from(AREA_OFFSET.get(&page));
        let area = page.get(at..).filter(|area| at >= 0x1E && area.len() >= AREA_LENGTH).ok_or_else(|| {
            Error::damaged(Layer::Ntfs, "the log's restart area lies outside its page")
                .expected_found(format!("0x1e..{:#x}", page.len() - AREA_LENGTH), format!("{at:#x}"))
        })?;
        Ok(Self {
            version: (MAJOR.get(&page), MINOR.get(&page)),
            current_lsn: CURRENT_LSN.get(area),
            in_use: IN_USE.get(area),
            flags: FLAGS.get(area),
            file_size: FILE_SIZE.get(area),
        })
    }

    /// Whether the page says that nothing is pending.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.flags & CLEAN != 0 || self.in_use == NO_CLIENT
    }
}
