//! An entry of a transaction log since Windows 8.1, 40 bytes and its pages ("New format").
//!
//! The header is followed by [`PAGES`] references to pages and then by the pages themselves, in the same order.

use crate::field::Field;

pub(crate) const SIGNATURE: &[u8; 4] = b"HvLE";
/// Bytes of the whole entry, a multiple of 512.
pub(crate) const SIZE: Field<u32> = Field::at(4);
/// Copied to the base block's flags (bit 0 only).
pub(crate) const FLAGS: Field<u32> = Field::at(8);
pub(crate) const SEQUENCE: Field<u32> = Field::at(12);
/// Bytes of bins after the entry has been applied.
pub(crate) const BINS_LENGTH: Field<u32> = Field::at(16);
/// Number of pages.
pub(crate) const PAGES: Field<u32> = Field::at(20);
/// Marvin32 of all bytes from [`HEADER`] on.
pub(crate) const DATA_HASH: Field<u64> = Field::at(24);
/// Marvin32 of the first [`HASHED_HEADER`] bytes.
pub(crate) const HEADER_HASH: Field<u64> = Field::at(32);
/// Bytes of the header that [`HEADER_HASH`] covers.
pub(crate) const HASHED_HEADER: usize = 32;
/// Bytes of the header.
pub(crate) const HEADER: usize = 40;

/// A reference to a page: where it belongs.
pub(crate) mod page {
    use crate::field::Field;

    /// Bytes from the start of the first bin.
    pub(crate) const OFFSET: Field<u32> = Field::at(0);
    /// Bytes of the page.
    pub(crate) const LENGTH: Field<u32> = Field::at(4);
    /// Bytes of a reference.
    pub(crate) const SIZE: usize = 8;
}
