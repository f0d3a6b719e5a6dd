//! The on-disk structures of a hive: one declaration for reading and for writing.
//!
//! Offsets of fields are relative to the start of their structure; a *cell offset* is relative to the first bin, that
//! is to byte 4096 of the file. Everything is little-endian. The names follow the public description of the format
//! ("Windows registry file format specification", M. Suhanov, chapters "Base block", "Hive bin", "Cells").

use std::marker::PhantomData;

/// "No cell".
pub(super) const NIL: u32 = 0xFFFF_FFFF;
/// The base block, and the granularity of bins.
pub(super) const PAGE: u32 = 4096;
/// Bit 31 of a cell offset: the cell lives in memory only.
pub(super) const VOLATILE: u32 = 0x8000_0000;
/// Largest total size of bins (offsets have 31 bits, and the last page stays unused).
pub(super) const LENGTH_MAX: u32 = 0x7FFF_E000;
/// Levels of keys, the root included ("Registry element size limits").
pub(super) const DEPTH_MAX: usize = 512;
/// Characters of a key's name ("Registry element size limits").
pub(super) const KEY_NAME_MAX: usize = 255;
/// Characters of a value's name ("Registry element size limits").
pub(super) const VALUE_NAME_MAX: usize = 16383;
/// Data bytes of the largest cell that the kernel takes for a key.
pub(super) const KEY_CELL_MAX: usize = 0x45C;
/// Data bytes in one segment of big data; longer data of a hive ≥ 1.4 is big data.
pub(super) const SEGMENT: usize = 16344;
/// Largest cell that Windows allocates.
pub(super) const CELL_MAX: usize = 1 << 20;
/// Entries that Windows puts into one fast leaf (`lf`).
pub(super) const FAST_LEAF_MAX: usize = 507;
/// Entries that Windows puts into one `li` or `lh` leaf.
pub(super) const LEAF_MAX: usize = 1013;

/// A fixed-size little-endian number.
pub(super) trait Word: Copy {
    /// Its bytes on disk.
    const SIZE: usize;
    /// From exactly [`SIZE`](Self::SIZE) bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
    /// Into exactly [`SIZE`](Self::SIZE) bytes.
    fn to_bytes(self, out: &mut [u8]);
}

macro_rules! word {
    ($($t:ty),*) => {$(
        impl Word for $t {
            const SIZE: usize = size_of::<$t>();
            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }
            fn to_bytes(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
word!(u8, u16, u32, u64);

/// A field: where it is in its structure, and its type.
pub(super) struct Field<T> {
    /// Bytes from the start of the structure.
    pub(super) offset: usize,
    kind: PhantomData<T>,
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Field<T> {}

impl<T: Word> Field<T> {
    const fn at(offset: usize) -> Self {
        Self { offset, kind: PhantomData }
    }

    /// The field's value in a structure; `None` when the structure is too short.
    pub(super) fn get(self, structure: &[u8]) -> Option<T> {
        T::from_bytes(structure.get(self.offset..)?.get(..T::SIZE)?)
    }

    /// Writes the field; `None` when the structure is too short.
    pub(super) fn put(self, structure: &mut [u8], value: T) -> Option<()> {
        value.to_bytes(structure.get_mut(self.offset..)?.get_mut(..T::SIZE)?);
        Some(())
    }
}

/// Base block: the first 4096 bytes of the file.
pub(super) mod base {
    use super::Field;
    pub(in super::super) const SIGNATURE: &[u8; 4] = b"regf";
    pub(in super::super) const PRIMARY_SEQUENCE: Field<u32> = Field::at(4);
    pub(in super::super) const SECONDARY_SEQUENCE: Field<u32> = Field::at(8);
    pub(in super::super) const LAST_WRITTEN: Field<u64> = Field::at(12);
    pub(in super::super) const MAJOR: Field<u32> = Field::at(20);
    pub(in super::super) const MINOR: Field<u32> = Field::at(24);
    pub(in super::super) const TYPE: Field<u32> = Field::at(28);
    pub(in super::super) const FORMAT: Field<u32> = Field::at(32);
    pub(in super::super) const ROOT: Field<u32> = Field::at(36);
    pub(in super::super) const LENGTH: Field<u32> = Field::at(40);
    pub(in super::super) const CLUSTER: Field<u32> = Field::at(44);
    pub(in super::super) const FLAGS: Field<u32> = Field::at(144);
    /// `rmtm` when the transaction fields around it are in use.
    pub(in super::super) const TRANSACTION_SIGNATURE: Field<u32> = Field::at(164);
    pub(in super::super) const CHECKSUM: Field<u32> = Field::at(508);
    /// Bytes that the checksum covers, and that a log repeats.
    pub(in super::super) const HEAD: usize = 512;
    pub(in super::super) const TYPE_PRIMARY: u32 = 0;
    pub(in super::super) const TYPE_OLD_LOG: [u32; 2] = [1, 2];
    pub(in super::super) const TYPE_NEW_LOG: u32 = 6;
    /// [`FLAGS`]: layered keys are allowed (1.6).
    pub(in super::super) const FLAG_LAYERED: u32 = 2;
}

/// Hive bin header, 32 bytes.
pub(super) mod bin {
    use super::Field;
    pub(in super::super) const SIGNATURE: &[u8; 4] = b"hbin";
    pub(in super::super) const OFFSET: Field<u32> = Field::at(4);
    pub(in super::super) const SIZE: Field<u32> = Field::at(8);
    pub(in super::super) const LAST_WRITTEN: Field<u64> = Field::at(20);
    pub(in super::super) const HEADER: u32 = 32;
}

/// Key node `nk`.
pub(super) mod key {
    use super::Field;
    pub(in super::super) const SIGNATURE: &[u8; 2] = b"nk";
    pub(in super::super) const FLAGS: Field<u16> = Field::at(2);
    pub(in super::super) const LAST_WRITTEN: Field<u64> = Field::at(4);
    pub(in super::super) const LAYER: Field<u8> = Field::at(13);
    pub(in super::super) const PARENT: Field<u32> = Field::at(16);
    pub(in super::super) const SUBKEYS: Field<u32> = Field::at(20);
    pub(in super::super) const VOLATILE_SUBKEYS: Field<u32> = Field::at(24);
    pub(in super::super) const SUBKEY_LIST: Field<u32> = Field::at(28);
    pub(in super::super) const VOLATILE_LIST: Field<u32> = Field::at(32);
    pub(in super::super) const VALUES: Field<u32> = Field::at(36);
    pub(in super::super) const VALUE_LIST: Field<u32> = Field::at(40);
    pub(in super::super) const SECURITY: Field<u32> = Field::at(44);
    pub(in super::super) const CLASS: Field<u32> = Field::at(48);
    pub(in super::super) const LARGEST_NAME: Field<u16> = Field::at(52);
    /// Low nibble: user flags; high nibble: virtualization flags.
    pub(in super::super) const VIRTUALIZATION: Field<u8> = Field::at(54);
    pub(in super::super) const LARGEST_CLASS: Field<u32> = Field::at(56);
    pub(in super::super) const LARGEST_VALUE_NAME: Field<u32> = Field::at(60);
    pub(in super::super) const LARGEST_VALUE_DATA: Field<u32> = Field::at(64);
    pub(in super::super) const NAME_LENGTH: Field<u16> = Field::at(72);
    pub(in super::super) const CLASS_LENGTH: Field<u16> = Field::at(74);
    pub(in super::super) const NAME: usize = 76;
    pub(in super::super) const VOLATILE: u16 = 0x1;
    pub(in super::super) const EXIT: u16 = 0x2;
    pub(in super::super) const ENTRY: u16 = 0x4;
    pub(in super::super) const NO_DELETE: u16 = 0x8;
    pub(in super::super) const LINK: u16 = 0x10;
    pub(in super::super) const LATIN_NAME: u16 = 0x20;
    pub(in super::super) const PREDEFINED: u16 = 0x40;
    /// In [`VIRTUALIZATION`]: new children get the same virtualization flags.
    pub(in super::super) const RECURSE: u8 = 0x80;
}

/// Subkey lists `li`, `lf`, `lh`, `ri`: signature, count, entries.
pub(super) mod list {
    use super::Field;
    pub(in super::super) const INDEX: &[u8; 2] = b"li";
    pub(in super::super) const FAST: &[u8; 2] = b"lf";
    pub(in super::super) const HASHED: &[u8; 2] = b"lh";
    pub(in super::super) const ROOT: &[u8; 2] = b"ri";
    pub(in super::super) const COUNT: Field<u16> = Field::at(2);
    pub(in super::super) const ENTRIES: usize = 4;
}

/// Key value `vk`.
pub(super) mod value {
    use super::Field;
    pub(in super::super) const SIGNATURE: &[u8; 2] = b"vk";
    pub(in super::super) const NAME_LENGTH: Field<u16> = Field::at(2);
    pub(in super::super) const DATA_LENGTH: Field<u32> = Field::at(4);
    pub(in super::super) const DATA: Field<u32> = Field::at(8);
    pub(in super::super) const TYPE: Field<u32> = Field::at(12);
    pub(in super::super) const FLAGS: Field<u16> = Field::at(16);
    pub(in super::super) const NAME: usize = 20;
    pub(in super::super) const LATIN_NAME: u16 = 1;
    pub(in super::super) const TOMBSTONE: u16 = 2;
    /// In [`DATA_LENGTH`]: the data stand in [`DATA`] itself.
    pub(in super::super) const RESIDENT: u32 = 0x8000_0000;
}

/// Big data record `db`.
pub(super) mod big {
    use super::Field;
    pub(in super::super) const SIGNATURE: &[u8; 2] = b"db";
    pub(in super::super) const SEGMENTS: Field<u16> = Field::at(2);
    pub(in super::super) const LIST: Field<u32> = Field::at(4);
    /// Data bytes of its cell: eight, and four that nobody reads.
    pub(in super::super) const SIZE: usize = 12;
}

/// Security cell `sk`.
pub(super) mod security {
    use super::Field;
    pub(in super::super) const SIGNATURE: &[u8; 2] = b"sk";
    pub(in super::super) const NEXT: Field<u32> = Field::at(4);
    pub(in super::super) const PREVIOUS: Field<u32> = Field::at(8);
    pub(in super::super) const REFERENCES: Field<u32> = Field::at(12);
    pub(in super::super) const LENGTH: Field<u32> = Field::at(16);
    pub(in super::super) const DESCRIPTOR: usize = 20;
}

/// The checksum of a base block's first 508 bytes (XOR of its words; 0 and -1 are avoided); `None` if it is shorter.
pub(super) fn checksum(head: &[u8]) -> Option<u32> {
    let words = head.get(..base::CHECKSUM.offset)?.chunks_exact(4);
    let sum = words.fold(0u32, |sum, w| sum ^ u32::from_bytes(w).unwrap_or(0));
    Some(match sum {
        0 => 1,
        0xFFFF_FFFF => 0xFFFF_FFFE,
        sum => sum,
    })
}

/// Entry `index` of an array of `u32` that starts at byte `start` of a cell.
pub(super) fn entry(cell: &[u8], start: usize, index: usize, stride: usize) -> Option<u32> {
    let at = index.checked_mul(stride)?.checked_add(start)?;
    u32::from_bytes(cell.get(at..)?.get(..4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_avoids_zero_and_minus_one() {
        assert_eq!(checksum(&[0; 512]), Some(1));
        let mut head = [0u8; 512];
        head[..4].fill(0xFF);
        assert_eq!(checksum(&head), Some(0xFFFF_FFFE));
        assert_eq!(checksum(&[0; 507]), None);
    }

    #[test]
    fn fields_of_the_structures_end_where_the_next_begins() {
        assert_eq!(key::CLASS_LENGTH.offset + 2, key::NAME);
        assert_eq!(key::LAST_WRITTEN.offset + 8, 12);
        assert_eq!(value::FLAGS.offset + 4, value::NAME);
        assert_eq!(security::LENGTH.offset + 4, security::DESCRIPTOR);
        assert_eq!(base::CHECKSUM.offset + 4, base::HEAD);
        assert_eq!(bin::LAST_WRITTEN.offset + 12, bin::HEADER as usize);
        assert_eq!(SEGMENT + 4 + 4 + bin::HEADER as usize, 16384, "a segment fills a bin of four pages");
    }
}
