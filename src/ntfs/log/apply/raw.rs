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
        let mut change = |number: u64, mask: u8| {
            let byte = number.checked_sub(at).and_then(|inside| part.get_mut(usize::try_from(inside).ok()?));
            if let Some(byte) = byte {
                *byte = if set { *byte | mask } else { *byte & !mask };
            }
        };
        // the bits from the first one on in its byte, and those before the end in the last byte
        let (from, to) = (0xFF << (self.first % 8), !(0xFF << (self.end % 8)));
        let (first, last) = (self.first / 8, self.end / 8);
        if first == last {
            return change(first, from & to);
        }
        change(first, from);
        change(last, to);
        let inside = |number: u64| usize::try_from(number.saturating_sub(at)).unwrap_or(usize::MAX).min(part.len());
        let whole = inside(first + 1)..inside(last);
        part.get_mut(whole).unwrap_or_default().fill(if set { 0xFF } else { 0 });
    }
}

/// Replaces `part`, which begins at byte `at` of what is written, by the bytes there.
pub fn put(part: &mut [u8], at: usize, data: &[u8]) {
    for (byte, new) in part.iter_mut().zip(data.get(at..).unwrap_or_default()) {
        *byte = *new;
    }
}
