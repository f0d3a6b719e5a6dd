//! Canonical Huffman codes, decoded by one table look-up for short codes and a short search for long ones.

use super::bits::Bits;

/// Longest code of XPRESS (15) and LZX (16).
const MAX_LENGTH: usize = 16;
/// Codes up to this length are found in one look-up.
const TABLE_BITS: u32 = 10;

/// A decoder for one code.
///
/// Incomplete codes are taken (a stream with one symbol has one); meeting a bit pattern that no symbol has is an error
/// of the stream. Over-full codes are refused.
pub(super) struct Code {
    /// Index: the next [`TABLE_BITS`] bits. Value: symbol << 8 | length, or 0 when the code is longer or unused.
    table: Vec<u32>,
    /// Symbols ordered by (length, symbol).
    sorted: Vec<u16>,
    /// For each length: the first code, and where its symbols begin in `sorted`.
    first: [(u32, usize); MAX_LENGTH + 2],
    counts: [u32; MAX_LENGTH + 1],
}

impl Code {
    /// Builds the decoder from the code length of each symbol; `None` when the lengths are not a prefix code.
    pub(super) fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0u32; MAX_LENGTH + 1];
        for &length in lengths {
            *counts.get_mut(usize::from(length))? += 1;
        }
        counts[0] = 0;
        let mut first = [(0u32, 0usize); MAX_LENGTH + 2];
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=MAX_LENGTH {
            code <<= 1;
            first[length] = (code, index);
            code += counts[length];
            index += counts[length] as usize;
            if code > 1 << length {
                return None;
            }
        }
        let mut next = first;
        let mut sorted = vec![0u16; index];
        let mut table = vec![0u32; 1 << TABLE_BITS];
        for (symbol, &length) in lengths.iter().enumerate().filter(|&(_, &length)| length != 0) {
            let (code, place) = &mut next[usize::from(length)];
            *sorted.get_mut(*place)? = u16::try_from(symbol).ok()?;
            if u32::from(length) <= TABLE_BITS {
                let shift = TABLE_BITS - u32::from(length);
                let start = (*code as usize) << shift;
                let entry = u32::try_from(symbol).ok()? << 8 | u32::from(length);
                table.get_mut(start..start + (1 << shift))?.fill(entry);
            }
            *code += 1;
            *place += 1;
        }
        Some(Self { table, sorted, first, counts })
    }

    /// Takes one symbol; `None` when the bits are no code.
    pub(super) fn decode(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let ahead = bits.peek(16);
        let entry = *self.table.get((ahead >> (16 - TABLE_BITS)) as usize)?;
        if entry != 0 {
            bits.skip(entry & 0xFF);
            return u16::try_from(entry >> 8).ok();
        }
        for length in TABLE_BITS as usize + 1..=MAX_LENGTH {
            let (first, index) = self.first[length];
            let relative = (ahead >> (16 - length)).wrapping_sub(first);
            if relative < self.counts[length] {
                bits.skip(u32::try_from(length).ok()?);
                return self.sorted.get(index + relative as usize).copied();
            }
        }
        None
    }
}
