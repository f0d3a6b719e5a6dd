//! LZNT1 (MS-XCA 2.5): what a `$DATA` attribute with flag 0x0001 holds.

use super::{bad, copy_match};
use crate::error::Result;

/// Each chunk holds this many bytes of output; only the last of a unit may hold fewer.
pub const CHUNK: usize = 4096;

const COMPRESSED: u16 = 0x8000;
const LENGTH_MASK: u16 = 0x0FFF;

/// Decodes one compression unit into `output` (as long as the unit), and zeroes what the data do not reach.
///
/// Returns how many bytes the stream itself gave.
///
/// # Errors
/// Damaged: a chunk runs over the input, or a match points before its chunk.
pub fn decompress(input: &[u8], output: &mut [u8]) -> Result<usize> {
    let (mut from, mut filled) = (0usize, 0usize);
    for chunk in output.chunks_mut(CHUNK) {
        let Some(&[low, high]) = input.get(from..).and_then(|rest| rest.first_chunk::<2>()) else {
            chunk.fill(0);
            continue;
        };
        let header = u16::from_le_bytes([low, high]);
        if header == 0 {
            from = input.len();
            chunk.fill(0);
            continue;
        }
        let start = from + 2;
        let end = start + usize::from(header & LENGTH_MASK) + 1;
        let data = input.get(start..end).ok_or_else(|| bad("an LZNT1 chunk runs over its unit", from))?;
        let got = if header & COMPRESSED == 0 {
            let count = data.len().min(chunk.len());
            chunk[..count].copy_from_slice(&data[..count]);
            count
        } else {
            chunk_data(data, chunk).ok_or_else(|| bad("an LZNT1 match points outside its chunk", from))?
        };
        chunk[got..].fill(0);
        filled += got;
        from = end;
    }
    Ok(filled)
}

/// Decodes the groups of one compressed chunk: a byte of flags, then eight literals (0) or matches (1).
fn chunk_data(data: &[u8], out: &mut [u8]) -> Option<usize> {
    let (mut from, mut at) = (0usize, 0usize);
    while let Some(&flags) = data.get(from) {
        from += 1;
        for bit in 0..8 {
            let Some(&first) = data.get(from) else { return Some(at) };
            if at == out.len() {
                return Some(at);
            }
            if flags >> bit & 1 == 0 {
                out[at] = first;
                (from, at) = (from + 1, at + 1);
                continue;
            }
            let pair = u16::from_le_bytes([first, *data.get(from + 1)?]);
            let length_bits = length_bits(at);
            let distance = usize::from(pair >> length_bits) + 1;
            let length = usize::from(pair & ((1 << length_bits) - 1)) + 3;
            // the last match of a unit may reach beyond the bytes that are wanted
            let length = length.min(out.len() - at);
            if !copy_match(out, at, distance, length) {
                return None;
            }
            (from, at) = (from + 2, at + length);
        }
    }
    Some(at)
}

/// How many of a match's 16 bits are its length: the further into the chunk, the more bits the distance needs.
fn length_bits(position: usize) -> u32 {
    let mut bits = 12;
    let mut reach = position.saturating_sub(1) >> 4;
    while reach != 0 && bits > 4 {
        reach >>= 1;
        bits -= 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of MS-XCA 3.3.
    #[test]
    fn published_example() {
        let input = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01, 0xa0, 0x45,
            0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4,
            0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00,
            0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let expected =
            b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# \
                         G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let mut output = vec![0xAA; expected.len()];
        assert_eq!(decompress(&input, &mut output).unwrap(), expected.len());
        assert_eq!(output, expected);
    }

    #[test]
    fn a_match_before_the_chunk_is_damage() {
        let input = [0x03, 0xb0, 0x02, b'a', 0xff, 0xff];
        assert!(decompress(&input, &mut [0; 4096]).is_err());
    }

    #[test]
    fn length_bits_at_the_published_steps() {
        for (position, bits) in [(1, 12), (16, 12), (17, 11), (32, 11), (33, 10), (2048, 5), (2049, 4), (4095, 4)] {
            assert_eq!(length_bits(position), bits, "{position}");
        }
    }
}
