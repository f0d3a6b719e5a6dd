//! LZX as WIM and CompactOS use it: 32 KiB chunks, each of which stands alone (MS-PATCH describes the bit format; the
//! WIM variant has no stream header, a one-bit "default size" in front of each block, and always undoes the E8
//! translation with a file size of 12,000,000).

use super::bits::Bits;
use super::huffman::Code;
use super::{bad, copy_match};
use crate::error::{Error, Result};

/// Window, and longest output, of one chunk.
pub const CHUNK: usize = 32768;

const LITERALS: usize = 256;
/// Distance slots of a 32 KiB window.
const SLOTS: usize = 30;
const MAIN_SYMBOLS: usize = LITERALS + 8 * SLOTS;
const LENGTH_SYMBOLS: usize = 249;
const PRE_SYMBOLS: usize = 20;
const ALIGNED_SYMBOLS: usize = 8;
const MIN_MATCH: usize = 2;
/// Distances are stored plus two: the slots 0 to 2 mean the last three distances.
const DISTANCE_BIAS: usize = 2;
/// The size that the WIM variant pretends all files to have.
const E8_FILE_SIZE: i32 = 12_000_000;

/// Decodes one chunk, which must fill `output` exactly (at most 32 KiB).
///
/// # Errors
/// Damaged: bad block header, no prefix code, a match outside the output, or the input ends early.
pub fn decompress(input: &[u8], output: &mut [u8]) -> Result<()> {
    if output.len() > CHUNK {
        return Err(bad("an LZX chunk is longer than 32 KiB", 0));
    }
    let mut decoder =
        Decoder { bits: Bits::new(input, 0), main: [0; MAIN_SYMBOLS], lengths: [0; LENGTH_SYMBOLS], recent: [1, 1, 1] };
    let mut at = 0;
    while at < output.len() {
        at = decoder.block(output, at)?;
    }
    undo_e8(output);
    Ok(())
}

/// What lives on from block to block.
struct Decoder<'a> {
    bits: Bits<'a>,
    main: [u8; MAIN_SYMBOLS],
    lengths: [u8; LENGTH_SYMBOLS],
    recent: [usize; 3],
}

impl Decoder<'_> {
    fn bad(&self, what: &str) -> Error {
        bad(what, self.bits.position())
    }

    fn code(&self, lengths: &[u8]) -> Result<Code> {
        Code::new(lengths).ok_or_else(|| self.bad("an LZX code table is not a prefix code"))
    }

    /// Decodes one block; returns the output position after it.
    fn block(&mut self, output: &mut [u8], at: usize) -> Result<usize> {
        let kind = self.bits.take(3);
        let size = if self.bits.take(1) == 1 { CHUNK } else { self.bits.take(16) as usize };
        let end = at.checked_add(size).filter(|&end| size != 0 && end <= output.len());
        let end = end.ok_or_else(|| self.bad("an LZX block is longer than its chunk"))?;
        match kind {
            1 => self.matches(output, at, end, None)?,
            2 => {
                let mut lengths = [0u8; ALIGNED_SYMBOLS];
                for length in &mut lengths {
                    *length = u8::try_from(self.bits.take(3)).unwrap_or(0);
                }
                let aligned = self.code(&lengths)?;
                self.matches(output, at, end, Some(&aligned))?;
            }
            3 => self.stored(output, at, end)?,
            _ => return Err(self.bad("unknown kind of LZX block")),
        }
        Ok(end)
    }

    fn stored(&mut self, output: &mut [u8], at: usize, end: usize) -> Result<()> {
        self.bits.align_after_header();
        for index in 0..3 {
            let distance = self.bits.bytes().map(u32::from_le_bytes).and_then(|d| usize::try_from(d).ok());
            self.recent[index] =
                distance.filter(|&d| d != 0).ok_or_else(|| self.bad("a stored LZX block has a bad distance"))?;
        }
        let data = self.bits.slice(end - at).ok_or_else(|| self.bad("a stored LZX block is cut off"))?;
        output[at..end].copy_from_slice(data);
        if (end - at) % 2 == 1 {
            self.bits.byte();
        }
        Ok(())
    }

    /// A block of literals and matches, with or without a code for the low three bits of distances.
    fn matches(&mut self, output: &mut [u8], mut at: usize, end: usize, aligned: Option<&Code>) -> Result<()> {
        let mut main = self.main;
        self.read_lengths(&mut main[..LITERALS])?;
        self.read_lengths(&mut main[LITERALS..])?;
        self.main = main;
        let mut lengths = self.lengths;
        self.read_lengths(&mut lengths)?;
        self.lengths = lengths;
        let (main, lengths) = (self.code(&main)?, self.code(&lengths)?);
        while at < end {
            let symbol = main.decode(&mut self.bits).filter(|_| !self.bits.is_exhausted());
            let symbol = usize::from(symbol.ok_or_else(|| self.bad("no such LZX code"))?);
            if let Ok(literal) = u8::try_from(symbol) {
                output[at] = literal;
                at += 1;
                continue;
            }
            let (slot, header) = ((symbol - LITERALS) >> 3, (symbol - LITERALS) & 7);
            let mut length = header + MIN_MATCH;
            if header == 7 {
                let more = lengths.decode(&mut self.bits).ok_or_else(|| self.bad("no such LZX length code"))?;
                length += usize::from(more);
            }
            let distance = self.distance(slot, aligned)?;
            if end - at < length || !copy_match(output, at, distance, length) {
                return Err(self.bad("an LZX match points outside its block"));
            }
            at += length;
        }
        Ok(())
    }

    fn distance(&mut self, slot: usize, aligned: Option<&Code>) -> Result<usize> {
        if slot < 3 {
            self.recent.swap(0, slot);
            return Ok(self.recent[0]);
        }
        let extra = u32::try_from(slot / 2).unwrap_or(0).saturating_sub(1);
        let base = (2 + slot % 2) << extra;
        let low = match aligned {
            Some(code) if extra >= 3 => {
                let high = (self.bits.take(extra - 3) as usize) << 3;
                high | usize::from(code.decode(&mut self.bits).ok_or_else(|| self.bad("no such LZX distance code"))?)
            }
            _ => self.bits.take(extra) as usize,
        };
        let distance = base + low - DISTANCE_BIAS;
        self.recent = [distance, self.recent[0], self.recent[1]];
        Ok(distance)
    }

    /// Reads code lengths, stored as differences from the previous block's through a code of their own.
    fn read_lengths(&mut self, lengths: &mut [u8]) -> Result<()> {
        let mut pre = [0u8; PRE_SYMBOLS];
        for length in &mut pre {
            *length = u8::try_from(self.bits.take(4)).unwrap_or(0);
        }
        let code = self.code(&pre)?;
        let mut at = 0;
        while at < lengths.len() {
            let symbol = self.length_symbol(&code)?;
            let (count, value) = match symbol {
                17 => (4 + self.bits.take(4) as usize, 0),
                18 => (20 + self.bits.take(5) as usize, 0),
                19 => {
                    let count = 4 + self.bits.take(1) as usize;
                    let delta = self.length_symbol(&code)?;
                    if delta > 16 {
                        return Err(self.bad("a repeated LZX code length repeats itself"));
                    }
                    (count, (lengths[at] + 17 - delta) % 17)
                }
                delta => (1, (lengths[at] + 17 - delta) % 17),
            };
            // a run may reach beyond the table; the surplus means nothing
            let end = (at + count).min(lengths.len());
            lengths[at..end].fill(value);
            at = end;
        }
        Ok(())
    }

    fn length_symbol(&mut self, code: &Code) -> Result<u8> {
        let symbol = code.decode(&mut self.bits).filter(|_| !self.bits.is_exhausted());
        symbol.and_then(|s| u8::try_from(s).ok()).ok_or_else(|| self.bad("no such LZX code-length code"))
    }
}

/// Turns the absolute targets of x86 call instructions (opcode E8) back into relative ones.
fn undo_e8(data: &mut [u8]) {
    /// The last bytes of a chunk are never translated.
    const TAIL: usize = 10;
    let end = data.len().saturating_sub(TAIL);
    let mut at = 0;
    while let Some(found) = data.get(at..end).and_then(|rest| rest.iter().position(|&b| b == 0xE8)) {
        at += found;
        let (Some(target), Ok(position)) = (data[at + 1..].first_chunk_mut::<4>(), i32::try_from(at)) else { return };
        let absolute = i32::from_le_bytes(*target);
        if (0..E8_FILE_SIZE).contains(&absolute) {
            *target = (absolute - position).to_le_bytes();
        } else if (-position..0).contains(&absolute) {
            *target = (absolute + E8_FILE_SIZE).to_le_bytes();
        }
        at += 5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_block() {
        // kind 3, size bit 0, size 5; then padding, three distances, five bytes
        let mut input = Vec::new();
        let header: u32 = 0b0110 << 28 | 5 << 12;
        input.extend(u16::try_from(header >> 16).unwrap().to_le_bytes());
        input.extend(u16::try_from(header & 0xFFFF).unwrap().to_le_bytes());
        input.extend([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        input.extend(b"hello\0");
        let mut output = [0; 5];
        decompress(&input, &mut output).unwrap();
        assert_eq!(&output, b"hello");
    }

    #[test]
    fn damage_is_told() {
        assert!(decompress(&[], &mut [0; 100]).is_err());
        assert!(decompress(&[0xFF; 64], &mut [0; 100]).is_err());
        assert!(decompress(&[0; 64], &mut [0; CHUNK + 1]).is_err());
    }

    #[test]
    fn call_targets() {
        let mut data = [0u8; 32];
        data[4] = 0xE8;
        data[5..9].copy_from_slice(&100i32.to_le_bytes());
        data[12] = 0xE8;
        data[13..17].copy_from_slice(&(-5i32).to_le_bytes());
        undo_e8(&mut data);
        assert_eq!(data[5..9], 96i32.to_le_bytes());
        assert_eq!(data[13..17], (E8_FILE_SIZE - 5).to_le_bytes());
    }
}
