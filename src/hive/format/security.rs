//! The security cell `sk` ("Key security").

use crate::field::Field;

pub(crate) const SIGNATURE: &[u8; 2] = b"sk";
pub(crate) const NEXT: Field<u32> = Field::at(4);
pub(crate) const PREVIOUS: Field<u32> = Field::at(8);
pub(crate) const REFERENCES: Field<u32> = Field::at(12);
pub(crate) const LENGTH: Field<u32> = Field::at(16);
pub(crate) const DESCRIPTOR: usize = 20;
