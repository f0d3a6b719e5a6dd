//! One declaration per field of an on-disk structure that is patched in place, for reading and for writing.
//!
//! A [`Field`] is an offset and a little-endian integer type; NTFS records and registry cells are made of them. NTFS
//! structures check their length once, when they are parsed, and use [`Field::get`] and [`Field::set`], for which a
//! field outside the structure reads as zero and is not written: no byte of an image can make the program panic. Where
//! a short structure is an answer of its own, [`Field::try_get`] and [`Field::try_set`] say so.

use std::marker::PhantomData;

/// A little-endian integer.
pub trait Le: Copy + Default {
    /// Reads it from the start of `bytes`; `None` when `bytes` is too short.
    fn try_load(bytes: &[u8]) -> Option<Self>;
    /// Writes it to the start of `bytes`; `None` when `bytes` is too short.
    fn try_store(self, bytes: &mut [u8]) -> Option<()>;

    /// Reads it from the start of `bytes`; zero when `bytes` is too short.
    fn load(bytes: &[u8]) -> Self {
        Self::try_load(bytes).unwrap_or_default()
    }
    /// Writes it to the start of `bytes`; nothing happens when `bytes` is too short.
    fn store(self, bytes: &mut [u8]) {
        let _ = self.try_store(bytes);
    }
}

macro_rules! le {
    ($($t:ty),*) => {$(
        impl Le for $t {
            fn try_load(bytes: &[u8]) -> Option<Self> {
                bytes.first_chunk().map(|b| <$t>::from_le_bytes(*b))
            }
            fn try_store(self, bytes: &mut [u8]) -> Option<()> {
                *bytes.first_chunk_mut()? = self.to_le_bytes();
                Some(())
            }
        }
    )*};
}
le!(u8, u16, u32, u64, i64);

/// Offset and type of one field of a structure.
#[derive(Debug, Clone, Copy)]
pub struct Field<T> {
    /// Bytes from the start of the structure.
    pub offset: usize,
    kind: PhantomData<T>,
}

impl<T: Le> Field<T> {
    /// Declares a field at `offset` bytes from the start of its structure.
    #[must_use]
    pub const fn at(offset: usize) -> Self {
        Self { offset, kind: PhantomData }
    }

    /// The field's value in `structure`; zero when the structure ends before it.
    #[must_use]
    pub fn get(self, structure: &[u8]) -> T {
        self.try_get(structure).unwrap_or_default()
    }

    /// The field's value in `structure`; `None` when the structure ends before it.
    #[must_use]
    pub fn try_get(self, structure: &[u8]) -> Option<T> {
        T::try_load(structure.get(self.offset..)?)
    }

    /// Changes the field in `structure`; nothing happens when the structure ends before it.
    pub fn set(self, structure: &mut [u8], value: T) {
        let _ = self.try_set(structure, value);
    }

    /// Changes the field in `structure`; `None` when the structure ends before it.
    pub fn try_set(self, structure: &mut [u8], value: T) -> Option<()> {
        value.try_store(structure.get_mut(self.offset..)?)
    }
}

/// `n` rounded up to a multiple of 8, the alignment of what lies inside NTFS records and hive bins.
#[must_use]
pub const fn align8(n: usize) -> usize {
    n.saturating_add(7) & !7
}

/// UTF-16 units from little-endian bytes (an odd last byte is dropped).
#[must_use]
pub fn utf16_from_le(bytes: &[u8]) -> Vec<u16> {
    utf16_units(bytes).collect()
}

/// Like [`utf16_from_le`], one by one.
pub fn utf16_units(bytes: &[u8]) -> impl Iterator<Item = u16> + Clone + '_ {
    bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair))
}

/// Appends UTF-16 units as little-endian bytes.
pub fn push_utf16(out: &mut Vec<u8>, units: &[u16]) {
    out.reserve(2 * units.len());
    for unit in units {
        out.extend_from_slice(&unit.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_end_reads_zero_and_writes_nothing() {
        let mut bytes = [1u8, 2, 3];
        assert_eq!(Field::<u16>::at(0).get(&bytes), 0x0201);
        assert_eq!(Field::<u32>::at(0).get(&bytes), 0);
        assert_eq!(Field::<u32>::at(0).try_get(&bytes), None);
        Field::<u16>::at(2).set(&mut bytes, 0xFFFF);
        Field::<u16>::at(9).set(&mut bytes, 0xFFFF);
        assert_eq!(Field::<u16>::at(2).try_set(&mut bytes, 0xFFFF), None);
        assert_eq!(Field::<u16>::at(1).try_set(&mut bytes, 0x0302), Some(()));
        assert_eq!(bytes, [1, 2, 3]);
        assert_eq!(align8(9), 16);
    }
}
