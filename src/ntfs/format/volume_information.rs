//! `$VOLUME_INFORMATION`.

use crate::field::Field;

/// Bytes of the attribute's value.
pub const SIZE: usize = 12;
/// Major version of NTFS: 3 since Windows 2000.
pub const MAJOR: Field<u8> = Field::at(8);
/// Minor version of NTFS: 1 since Windows XP.
pub const MINOR: Field<u8> = Field::at(9);
/// Bits of [`volume_flags`](crate::ntfs::log::volume_flags), and [`FLAG_NO_SHORT_NAMES`].
pub const FLAGS: Field<u16> = Field::at(10);
/// Windows does not create 8.3 names on this volume.
pub const FLAG_NO_SHORT_NAMES: u16 = 0x0080;
