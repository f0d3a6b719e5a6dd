//! One declaration per field of an on-disk structure, for reading and for writing.
//!
//! A [`Field`] is an offset and a little-endian integer type. Structures check their length once, when they are
//! parsed; after that a field inside that length cannot miss. Outside it, reading gives zero and writing does nothing,
//! so that no byte of an image can make the program panic.

use std::marker::PhantomData;

/// A little-endian integer as NTFS stores it.
pub trait Le: Copy + Default {
    /// Reads it from the start of `bytes`; zero when `bytes` is too short.
    fn load(bytes: &[u8]) -> Self;
    /// Writes it to the start of `bytes`; nothing happens when `bytes` is too short.
    fn store(self, bytes: &mut [u8]);
}

macro_rules! le {
    ($($t:ty),*) => {$(
        impl Le for $t {
            fn load(bytes: &[u8]) -> Self {
                bytes.first_chunk().map_or(0, |b| <$t>::from_le_bytes(*b))
            }
            fn store(self, bytes: &mut [u8]) {
                if let Some(b) = bytes.first_chunk_mut() {
                    *b = self.to_le_bytes();
                }
            }
        }
    )*};
}
le!(u8, u16, u32, u64, i64);

/// The place and type of one field.
#[derive(Debug, Clone, Copy)]
pub struct Field<T> {
    /// Offset in the structure.
    pub offset: usize,
    kind: PhantomData<T>,
}

impl<T: Le> Field<T> {
    /// Declares a field.
    #[must_use]
    pub const fn at(offset: usize) -> Self {
        Self { offset, kind: PhantomData }
    }

    /// The field's value in `structure`.
    #[must_use]
    pub fn get(self, structure: &[u8]) -> T {
        structure.get(self.offset..).map_or_else(T::default, T::load)
    }

    /// Changes the field in `structure`.
    pub fn set(self, structure: &mut [u8], value: T) {
        if let Some(bytes) = structure.get_mut(self.offset..) {
            value.store(bytes);
        }
    }
}

/// `n` rounded up to a multiple of 8, the alignment of everything inside NTFS structures.
#[must_use]
pub const fn align8(n: usize) -> usize {
    n.saturating_add(7) & !7
}

/// UTF-16 units from little-endian bytes (an odd last byte is dropped).
#[must_use]
pub fn utf16_from_le(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(u16::load).collect()
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
        Field::<u16>::at(2).set(&mut bytes, 0xFFFF);
        Field::<u16>::at(9).set(&mut bytes, 0xFFFF);
        assert_eq!(bytes, [1, 2, 3]);
        assert_eq!(align8(9), 16);
    }
}
