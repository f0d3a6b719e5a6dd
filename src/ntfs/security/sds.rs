//! Entries of `$Secure:$SDS`, and where a new one goes.
//!
//! The stream is cut into blocks of 256 KiB; each block with entries is followed by its copy. No entry crosses the end
//! of a block. `$SII` (by id) and `$SDH` (by hash, then id) point to the entries; both repeat the entry's header.

use crate::ntfs::field::Field;

/// Size of a block; an entry at `o` is repeated at `o + BLOCK`.
pub const BLOCK: u64 = 0x4_0000;
/// Bytes in front of each descriptor.
pub const HEADER: usize = 20;
/// Name of the index by id.
pub const SII: &str = "$SII";
/// Name of the index by hash, then id.
pub const SDH: &str = "$SDH";
/// The lowest security id.
pub const FIRST_ID: u32 = 0x100;

/// Hash of the descriptor.
pub const HASH: Field<u32> = Field::at(0);
/// Security id, as `$STANDARD_INFORMATION` stores it.
pub const ID: Field<u32> = Field::at(4);
/// Offset of the entry in the stream.
pub const OFFSET: Field<u64> = Field::at(8);
/// Length of the entry, header included.
pub const LENGTH: Field<u32> = Field::at(16);

/// Header of an entry: what the stream and both indexes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SdsEntry {
    /// Hash of the descriptor.
    pub hash: u32,
    /// Security id, at least [`FIRST_ID`].
    pub id: u32,
    /// Offset of the entry in the stream.
    pub offset: u64,
    /// Length of the entry, header included.
    pub length: u32,
}

impl SdsEntry {
    /// Reads a header; `None` when `bytes` is too short.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        Some(Self { hash: HASH.get(bytes), id: ID.get(bytes), offset: OFFSET.get(bytes), length: LENGTH.get(bytes) })
    }

    /// The header as stream and indexes store it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        HASH.set(&mut out, self.hash);
        ID.set(&mut out, self.id);
        OFFSET.set(&mut out, self.offset);
        LENGTH.set(&mut out, self.length);
        out
    }

    /// Whether the entry lies as the format demands: aligned, in one block that is not a copy, and with its copy inside
    /// a stream of `size` bytes.
    #[must_use]
    pub fn is_in_place(&self, size: u64) -> bool {
        let (block, inside) = (self.offset / BLOCK, self.offset % BLOCK);
        let length = u64::from(self.length);
        self.offset.is_multiple_of(16)
            && block % 2 == 0
            && self.length as usize > HEADER
            && inside + length <= BLOCK
            && (self.offset.checked_add(BLOCK)).and_then(|o| o.checked_add(length)).is_some_and(|end| end <= size)
    }
}

/// Where an entry of `length` bytes goes when the last one ends at `end`: at the next multiple of 16, or at the start of
/// the next pair of blocks when it does not fit into this one.
#[must_use]
pub fn place(end: u64, length: u64) -> Option<u64> {
    let mut at = end.checked_next_multiple_of(16)?;
    if (at / BLOCK) % 2 == 1 || at % BLOCK + length > BLOCK {
        at = (at / (2 * BLOCK) + 1).checked_mul(2 * BLOCK)?;
    }
    (length <= BLOCK).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(place(0, 0x78), Some(0));
        assert_eq!(place(0x78, 0x78), Some(0x80));
        assert_eq!(place(0x3_FF80, 0x80), Some(0x3_FF80));
        assert_eq!(place(0x3_FF81, 0x80), Some(0x8_0000));
        assert_eq!(place(0x4_0000, 0x80), Some(0x8_0000));
        assert_eq!(place(u64::MAX, 0x80), None);
        assert_eq!(place(0, BLOCK + 1), None);
    }

    #[test]
    fn header_both_ways() {
        let entry = SdsEntry { hash: 1, id: 0x105, offset: 0x8_0000, length: 0x78 };
        assert_eq!(SdsEntry::parse(&entry.to_bytes()), Some(entry));
        assert!(entry.is_in_place(0xC_0078));
        assert!(!entry.is_in_place(0xC_0077));
        assert!(!SdsEntry { offset: 0x4_0000, ..entry }.is_in_place(u64::MAX));
        assert!(!SdsEntry { offset: 0x8_0008, ..entry }.is_in_place(u64::MAX));
    }
}
