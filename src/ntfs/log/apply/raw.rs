//! Operations on bytes that no fix-up protects, part by part: a part is what lies in one cluster.

use std::ops::Range;

use crate::ntfs::field::Field;

/// A range of bits in a bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitRange {
    first: u64,
    end: u64,
}

impl BitRange {
    /// From the bytes of an operation; `None` when they are not a range.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let first = u64::from(Field::<u32>::at(0).get(data));
        let count = u64::from(Field::<u32>::at(4).get(data));
        (data.len() == 8).then_some(Self { first, end: first + count })
    }

    /// The bytes that it touches, from where its bits are counted.
    pub fn bytes(self) -> Range<u64> {
        self.first / 8..self.end.div_ceil(8).max(self.first / 8)
    }

    /// Sets or clears its bits in `part`, which begins at byte `at` of the bitmap.
    pub fn apply(self, part: &mut [u8], at: u64, set: bool) {
        for (number, byte) in (at..).zip(part) {
            for bit in 0..8 {
                if (self.first..self.end).contains(&(number * 8 + bit)) {
                    let mask = 1 << bit;
                    *byte = if set { *byte | mask } else { *byte & !mask };
                }
            }
        }
    }
}

/// Replaces `part`, which begins at byte `at` of what is written, by the bytes there.
pub fn put(part: &mut [u8], at: usize, data: &[u8]) {
    for (byte, new) in part.iter_mut().zip(data.get(at..).unwrap_or_default()) {
        *byte = *new;
    }
}
