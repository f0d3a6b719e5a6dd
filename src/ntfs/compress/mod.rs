//! Decoders for what NTFS stores compressed.
//!
//! - [`lznt1`]: the `$DATA` attribute's own compression (flag 0x0001, units of 16 clusters).
//! - [`wof`]: files that the Windows Overlay Filter stores in a stream `WofCompressedData` (CompactOS), whose chunks are
//!   XPRESS ([`xpress`]) or LZX ([`lzx`]); WIM files have the same ([`chunks`]).
//!
//! winject only reads these formats; what it writes is plain. Every decoder takes its output as a slice that the caller
//! sized, so hostile input can waste neither memory nor time: the work is bounded by the lengths of the two slices.

mod bits;
pub mod chunks;
mod huffman;
pub mod lznt1;
pub mod lzx;
pub mod wof;
pub mod xpress;

use crate::error::{Error, Layer};

/// A decoder's complaint; `at` is an offset in the compressed input.
fn bad(what: &str, at: usize) -> Error {
    Error::damaged(Layer::Ntfs, format!("compressed data: {what}, {at} bytes after its beginning"))
        .hint("the file cannot be read; run chkdsk in the guest, or take the file from another copy")
}

/// Copies `length` bytes that begin `distance` bytes before `at`, byte by byte as LZ77 means it (the ranges may overlap).
///
/// Returns whether both ranges lie in `output`.
fn copy_match(output: &mut [u8], at: usize, distance: usize, length: usize) -> bool {
    let Some(end) = at.checked_add(length).filter(|&end| end <= output.len()) else { return false };
    if distance == 0 || distance > at {
        return false;
    }
    if distance >= length {
        output.copy_within(at - distance..at - distance + length, at);
    } else {
        for to in at..end {
            output[to] = output[to - distance];
        }
    }
    true
}
