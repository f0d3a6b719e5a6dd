//! The big data record `db` ("Big data").

use crate::field::Field;

pub(crate) const SIGNATURE: &[u8; 2] = b"db";
pub(crate) const SEGMENTS: Field<u16> = Field::at(2);
pub(crate) const LIST: Field<u32> = Field::at(4);
/// Data bytes of its cell: eight, and four unused.
pub(crate) const SIZE: usize = 12;
