//! Multi-sector protection ("fix-up", the update sequence array) of `FILE`, `INDX`, `RSTR` and `RCRD` blocks.
//!
//! The last word of every 512-byte stride is swapped for a counter on disk; the array keeps the real words. A block
//! whose counters disagree was torn while it was written. Terms: `MULTI_SECTOR_HEADER`, `UPDATE_SEQUENCE_ARRAY` of the
//! public Windows documentation ("Master File Table"); the stride is a constant 512 also on 4Kn disks
//! (`SEQUENCE_NUMBER_STRIDE`).

use super::error::damaged;
use crate::error::Result;
use crate::field::{Field, Le};

/// Bytes protected by one word of the array, whatever the sector size.
pub const STRIDE: usize = 512;
/// Magic of an MFT record.
pub const FILE: [u8; 4] = *b"FILE";
/// Magic of an index block.
pub const INDX: [u8; 4] = *b"INDX";

/// Offset of the update sequence array.
pub const ARRAY_OFFSET: Field<u16> = Field::at(4);
/// Words in the array: one counter and one word for each stride.
pub const ARRAY_COUNT: Field<u16> = Field::at(6);

/// The array's offset, after checking that it fits the block and lies in the first stride before its last word.
fn array_offset(block: &[u8]) -> Result<usize> {
    let offset = usize::from(ARRAY_OFFSET.get(block));
    let count = usize::from(ARRAY_COUNT.get(block));
    let strides = block.len() / STRIDE;
    if strides == 0 || !block.len().is_multiple_of(STRIDE) || count != strides + 1 {
        return Err(damaged("wrong length of the update sequence array").expected_found(strides + 1, count));
    }
    if offset < 8 || offset % 2 != 0 || offset + 2 * count > STRIDE - 2 {
        return Err(damaged("update sequence array outside the first 510 bytes").expected_found("8..510", offset));
    }
    Ok(offset)
}

/// Checks the magic and every stride, and puts the real words back.
///
/// # Errors
/// Damaged, when the magic or the array is wrong or the block is torn.
pub fn unseal(block: &mut [u8], magic: [u8; 4]) -> Result<()> {
    if block.get(..4) != Some(&magic) {
        let found = block.get(..4).unwrap_or_default().escape_ascii().to_string();
        return Err(damaged("wrong block signature").expected_found(magic.escape_ascii(), found));
    }
    let offset = array_offset(block)?;
    let counter = u16::load(&block[offset..]);
    for index in 0..block.len() / STRIDE {
        let last = (index + 1) * STRIDE - 2;
        let found = u16::load(&block[last..]);
        if found != counter {
            return Err(damaged("torn block: its sectors are from different writes").expected_found(counter, found));
        }
        // the array ends before the last word of the first stride
        let word = u16::load(&block[offset + 2 + 2 * index..]);
        word.store(&mut block[last..]);
    }
    Ok(())
}

/// Advances the counter and moves every stride's last word into the array: the form that goes to disk.
///
/// # Errors
/// Damaged, when the block has no valid array.
pub fn seal(block: &mut [u8]) -> Result<()> {
    let offset = array_offset(block)?;
    let counter = match u16::load(&block[offset..]) {
        0xFFFE.. => 1,
        n => n + 1,
    };
    counter.store(&mut block[offset..]);
    for index in 0..block.len() / STRIDE {
        let last = (index + 1) * STRIDE - 2;
        let word = u16::load(&block[last..]);
        counter.store(&mut block[last..]);
        word.store(&mut block[offset + 2 + 2 * index..]);
    }
    Ok(())
}

/// Appends the form of `block` that goes to disk to `out`; the counter advances in both.
///
/// # Errors
/// Damaged, when the block has no valid array.
pub fn seal_copy(block: &mut [u8], out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    out.extend_from_slice(block);
    let sealed = &mut out[start..];
    if let Err(e) = seal(sealed) {
        out.truncate(start);
        return Err(e);
    }
    let counter = counter(sealed);
    set_counter(block, counter);
    Ok(())
}

/// The counter of a block: which of its writes is on disk. Zero when the block has no room for it.
#[must_use]
pub fn counter(block: &[u8]) -> u16 {
    Field::at(usize::from(ARRAY_OFFSET.get(block))).get(block)
}

/// Sets the counter of a block; [`seal`] advances it.
pub fn set_counter(block: &mut [u8], counter: u16) {
    Field::at(usize::from(ARRAY_OFFSET.get(block))).set(block, counter);
}

/// Writes magic and an empty array into a fresh block.
pub fn format(block: &mut [u8], magic: [u8; 4], offset: u16) {
    if let Some(head) = block.first_chunk_mut() {
        *head = magic;
    }
    ARRAY_OFFSET.set(block, offset);
    ARRAY_COUNT.set(block, (block.len() / STRIDE + 1) as u16);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seal_then_unseal_gives_the_block_back_with_an_advanced_counter() {
        let mut block: Vec<u8> = (0..2048u32).map(|i| (i % 251) as u8).collect();
        format(&mut block, INDX, 0x28);
        block[0x28..0x2A].copy_from_slice(&0xFFFEu16.to_le_bytes());
        let before = block.clone();
        seal(&mut block).unwrap();
        assert_eq!(block[510..512], [1, 0]);
        unseal(&mut block, INDX).unwrap();
        assert_eq!(block[0x32..], before[0x32..]);
        block[511] ^= 1;
        seal(&mut block).unwrap();
        block[1023] ^= 1;
        assert!(unseal(&mut block, INDX).is_err());
    }

    #[test]
    fn a_bad_array_is_damage_not_a_panic() {
        for (offset, count) in [(0, 3), (0x1FC, 3), (0x31, 3), (0x30, 2), (0xFFFF, 3)] {
            let mut block = vec![0u8; 1024];
            format(&mut block, FILE, offset);
            ARRAY_COUNT.set(&mut block, count);
            assert!(unseal(&mut block.clone(), FILE).is_err(), "{offset} {count}");
            assert!(seal(&mut block).is_err());
        }
        assert!(unseal(&mut [], FILE).is_err());
    }
}
