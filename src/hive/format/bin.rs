//! The header of a hive bin, 32 bytes ("Hive bin").

use crate::field::Field;

pub(crate) const SIGNATURE: &[u8; 4] = b"hbin";
pub(crate) const OFFSET: Field<u32> = Field::at(4);
pub(crate) const SIZE: Field<u32> = Field::at(8);
pub(crate) const LAST_WRITTEN: Field<u64> = Field::at(20);
pub(crate) const HEADER: u32 = 32;
