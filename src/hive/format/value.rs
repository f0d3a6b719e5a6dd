//! The key value `vk` ("Key value").

use crate::field::Field;

pub(crate) const SIGNATURE: &[u8; 2] = b"vk";
pub(crate) const NAME_LENGTH: Field<u16> = Field::at(2);
pub(crate) const DATA_LENGTH: Field<u32> = Field::at(4);
pub(crate) const DATA: Field<u32> = Field::at(8);
pub(crate) const TYPE: Field<u32> = Field::at(12);
pub(crate) const FLAGS: Field<u16> = Field::at(16);
pub(crate) const NAME: usize = 20;
pub(crate) const LATIN_NAME: u16 = 1;
pub(crate) const TOMBSTONE: u16 = 2;
/// In [`DATA_LENGTH`]: the data stand in [`DATA`] itself.
pub(crate) const RESIDENT: u32 = 0x8000_0000;
