//! Little-endian fields of a block, never read beyond its end.

use crate::error::{Error, Layer, Result};

/// The error for everything that contradicts NTFS.
pub(super) fn damaged(what: &'static str) -> Error {
    Error::damaged(Layer::Plan, format!("cannot read the NTFS volume: {what}"))
        .hint("run chkdsk /f on this volume in the guest, shut it down cleanly and export it again")
}

/// `length` bytes from `at`.
pub(super) fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    at.checked_add(length).and_then(|end| bytes.get(at..end)).ok_or_else(|| damaged("a field is beyond its block"))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    slice(bytes, at, N)?.try_into().map_err(|_| damaged("a field is beyond its block"))
}

pub(super) fn u8_at(bytes: &[u8], at: usize) -> Result<u8> {
    array::<1>(bytes, at).map(|[byte]| byte)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// A 16-bit field that counts or addresses bytes.
pub(super) fn short_at(bytes: &[u8], at: usize) -> Result<usize> {
    u16_at(bytes, at).map(usize::from)
}

/// A 32-bit field that counts or addresses bytes.
pub(super) fn long_at(bytes: &[u8], at: usize) -> Result<usize> {
    size(u64::from(u32_at(bytes, at)?))
}

/// A number of bytes that fits into memory.
pub(super) fn size(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| damaged("a size is larger than memory"))
}

/// `units` UTF-16 code units from `at`.
pub(super) fn utf16_at(bytes: &[u8], at: usize, units: usize) -> Result<Vec<u16>> {
    let text = slice(bytes, at, units.saturating_mul(2))?;
    Ok(text.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect())
}

/// Stride of the fix-ups, in bytes, whatever the size of a sector.
const STRIDE: usize = 512;

/// Checks the signature of a record or an index block and puts the protected words back.
pub(super) fn unprotect(block: &mut [u8], signature: &[u8; 4]) -> Result<()> {
    if slice(block, 0, 4)? != signature {
        return Err(damaged("a record or an index block has another signature"));
    }
    let at = short_at(block, 4)?;
    let count = short_at(block, 6)?;
    let strides = block.len() / STRIDE;
    if count != strides + 1 || at % 2 != 0 || at.saturating_add(2 * count) > STRIDE - 2 {
        return Err(damaged("an update sequence array is not in its place"));
    }
    let array = slice(block, at, 2 * count)?.to_vec();
    let (number, words) = array.split_at(2);
    for (stride, word) in block.chunks_exact_mut(STRIDE).zip(words.chunks_exact(2)) {
        let Some(tail) = stride.get_mut(STRIDE - 2..) else { continue };
        if tail != number {
            return Err(damaged("a record or an index block is torn"));
        }
        tail.copy_from_slice(word);
    }
    Ok(())
}
