//! The key node `nk` ("Key node").

use crate::field::Field;

pub(crate) const SIGNATURE: &[u8; 2] = b"nk";
pub(crate) const FLAGS: Field<u16> = Field::at(2);
pub(crate) const LAST_WRITTEN: Field<u64> = Field::at(4);
pub(crate) const LAYER: Field<u8> = Field::at(13);
pub(crate) const PARENT: Field<u32> = Field::at(16);
pub(crate) const SUBKEYS: Field<u32> = Field::at(20);
pub(crate) const VOLATILE_SUBKEYS: Field<u32> = Field::at(24);
pub(crate) const SUBKEY_LIST: Field<u32> = Field::at(28);
pub(crate) const VOLATILE_LIST: Field<u32> = Field::at(32);
pub(crate) const VALUES: Field<u32> = Field::at(36);
pub(crate) const VALUE_LIST: Field<u32> = Field::at(40);
pub(crate) const SECURITY: Field<u32> = Field::at(44);
pub(crate) const CLASS: Field<u32> = Field::at(48);
pub(crate) const LARGEST_NAME: Field<u16> = Field::at(52);
/// Low nibble: user flags; high nibble: virtualization flags.
pub(crate) const VIRTUALIZATION: Field<u8> = Field::at(54);
pub(crate) const LARGEST_CLASS: Field<u32> = Field::at(56);
pub(crate) const LARGEST_VALUE_NAME: Field<u32> = Field::at(60);
pub(crate) const LARGEST_VALUE_DATA: Field<u32> = Field::at(64);
pub(crate) const NAME_LENGTH: Field<u16> = Field::at(72);
pub(crate) const CLASS_LENGTH: Field<u16> = Field::at(74);
pub(crate) const NAME: usize = 76;
pub(crate) const VOLATILE: u16 = 0x1;
pub(crate) const EXIT: u16 = 0x2;
pub(crate) const ENTRY: u16 = 0x4;
pub(crate) const NO_DELETE: u16 = 0x8;
pub(crate) const LINK: u16 = 0x10;
pub(crate) const LATIN_NAME: u16 = 0x20;
pub(crate) const PREDEFINED: u16 = 0x40;
/// In [`VIRTUALIZATION`]: new children get the same virtualization flags.
pub(crate) const RECURSE: u8 = 0x80;
