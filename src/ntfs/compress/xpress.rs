//! XPRESS with Huffman codes (MS-XCA 2.2), as CompactOS and WIM store chunks of up to 64 KiB.

use super::bits::Bits;
use super::huffman::Code;
use super::{bad, copy_match};
use crate::error::Result;

/// 512 symbols of 4 bits each stand before the bit stream.
const TABLE: usize = 256;
/// Longest output of one code table.
pub const MAX_CHUNK: usize = 65536;
const MIN_MATCH: usize = 3;

/// Decodes one chunk, which must fill `output` exactly.
///
/// # Errors
/// Damaged: no prefix code, a match outside the output, or the input ends early.
pub fn decompress(input: &[u8], output: &mut [u8]) -> Result<()> {
    let table = input.get(..TABLE).ok_or_else(|| bad("an XPRESS chunk is shorter than its code table", 0))?;
    if output.len() > MAX_CHUNK {
        return Err(bad("an XPRESS chunk is longer than 64 KiB", 0));
    }
    let lengths: Vec<u8> = table.iter().flat_map(|&two| [two & 15, two >> 4]).collect();
    let code = Code::new(&lengths).ok_or_else(|| bad("the XPRESS code table is not a prefix code", 0))?;
    let mut bits = Bits::new(input, TABLE);
    let mut at = 0;
    while at < output.len() {
        let symbol = code.decode(&mut bits).filter(|_| !bits.is_exhausted());
        let symbol = symbol.ok_or_else(|| bad("no such XPRESS code", bits.position()))?;
        match u8::try_from(symbol) {
            Ok(literal) => {
                output[at] = literal;
                at += 1;
            }
            Err(_) => {
                let (distance, length) =
                    pair(symbol, &mut bits).ok_or_else(|| bad("an XPRESS match is cut off", bits.position()))?;
                if !copy_match(output, at, distance, length) {
                    return Err(bad("an XPRESS match points outside its chunk", bits.position()));
                }
                at += length;
            }
        }
    }
    Ok(())
}

/// Distance and length of a match: the symbol's high nibble is the number of distance bits, its low nibble the length,
/// which goes on in bytes when it is 15.
fn pair(symbol: u16, bits: &mut Bits<'_>) -> Option<(usize, usize)> {
    let distance_bits = u32::from((symbol >> 4) & 15);
    let mut length = usize::from(symbol & 15);
    bits.ensure_word();
    let distance = (1usize << distance_bits) | bits.take(distance_bits) as usize;
    if length == 15 {
        length += usize::from(bits.byte()?);
        if length == 15 + 255 {
            length = usize::from(u16::from_le_bytes(bits.bytes()?));
            if length == 0 {
                length = usize::try_from(u32::from_le_bytes(bits.bytes()?)).ok()?;
            }
        }
    }
    Some((distance, length.checked_add(MIN_MATCH)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of MS-XCA 3.2 begin with the alphabet as 26 literals.
    #[test]
    fn published_example() {
        let mut input = vec![0u8; 256];
        input[0x30..0x3E]
            .copy_from_slice(&[0x50, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x45, 0x44, 0x04]);
        input[0x80] = 0x04;
        input.extend([
            0xd8, 0x52, 0x3e, 0xd7, 0x94, 0x11, 0x5b, 0xe9, 0x19, 0x5f, 0xf9, 0xd6, 0x7c, 0xdf, 0x8d, 0x04, 0, 0, 0, 0,
        ]);
        let mut output = [0; 26];
        decompress(&input, &mut output).unwrap();
        assert_eq!(&output, b"abcdefghijklmnopqrstuvwxyz");
    }

    #[test]
    fn an_overfull_table_is_damage() {
        let mut input = vec![0x11u8; 256];
        input.extend([0; 64]);
        assert!(decompress(&input, &mut [0; 4096]).is_err());
        assert!(decompress(&[0; 300], &mut [0; 1]).is_err());
    }
}
