//! LZNT1, the compression of NTFS: chunks of 4 KiB, each with a header word of its own.

use super::bytes::{damaged, short_at};
use crate::error::Result;

const CHUNK: usize = 4096;

/// Unpacks one compression unit into `out`; what the data does not fill is zero.
pub(super) fn decompress(data: &[u8], out: &mut [u8]) -> Result<()> {
    let mut rest = data;
    for chunk in out.chunks_mut(CHUNK) {
        let header = if rest.len() < 2 { 0 } else { short_at(rest, 0)? };
        if header == 0 {
            chunk.fill(0);
            rest = &[];
            continue;
        }
        let length = (header & 0x0FFF) + 1;
        let body = super::bytes::slice(rest, 2, length)?;
        let filled = if header & 0x8000 == 0 {
            let count = body.len().min(chunk.len());
            let (to, _) = chunk.split_at_mut(count);
            to.copy_from_slice(super::bytes::slice(body, 0, count)?);
            count
        } else {
            decompress_chunk(body, chunk)?
        };
        chunk.iter_mut().skip(filled).for_each(|byte| *byte = 0);
        rest = rest.get(2 + length..).unwrap_or_default();
    }
    Ok(())
}

/// Returns how many bytes of `out` were filled.
fn decompress_chunk(body: &[u8], out: &mut [u8]) -> Result<usize> {
    let wrong = || damaged("a compressed chunk is malformed");
    let (mut at, mut filled) = (0, 0);
    while let Some(&flags) = body.get(at) {
        at += 1;
        for bit in 0..8 {
            if at >= body.len() {
                break;
            }
            if flags >> bit & 1 == 0 {
                *out.get_mut(filled).ok_or_else(wrong)? = *body.get(at).ok_or_else(wrong)?;
                (at, filled) = (at + 1, filled + 1);
                continue;
            }
            let token = short_at(body, at)?;
            at += 2;
            // the more bytes of the chunk are unpacked, the more bits of the token are distance, and the fewer are length
            let mut length_bits = 12;
            while length_bits > 4 && filled > 0x10 << (12 - length_bits) {
                length_bits -= 1;
            }
            let length = (token & ((1 << length_bits) - 1)) + 3;
            let distance = (token >> length_bits) + 1;
            let from = filled.checked_sub(distance).ok_or_else(wrong)?;
            if filled + length > out.len() {
                return Err(wrong());
            }
            for step in 0..length {
                let byte = *out.get(from + step).ok_or_else(wrong)?;
                *out.get_mut(filled + step).ok_or_else(wrong)? = byte;
            }
            filled += length;
        }
    }
    Ok(filled)
}
