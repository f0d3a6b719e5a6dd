//! Decompressing clusters.

use flate2::{Decompress, FlushDecompress};

use super::header::Compression;

const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Fills `out` (one cluster) from a compressed stream; what follows the stream in `input` is ignored. The error says why:
/// the stream is damaged or too short.
pub(super) fn decompress(kind: Compression, input: &[u8], out: &mut [u8]) -> Result<(), String> {
    match kind {
        Compression::Zlib => inflate(input, out),
        Compression::Zstd => unzstd(input, out),
    }
}

/// QEMU writes raw deflate with a 4 KiB window; any legal window is read.
fn inflate(input: &[u8], out: &mut [u8]) -> Result<(), String> {
    let mut stream = Decompress::new(false);
    // One call does it: the whole input is there and the output has its final size.
    stream.decompress(input, out, FlushDecompress::Finish).map_err(|e| e.to_string())?;
    let produced = stream.total_out();
    if produced == out.len() as u64 { Ok(()) } else { Err(format!("{produced} bytes instead of {}", out.len())) }
}

/// One frame. The output, and with it the memory, is limited to a cluster.
fn unzstd(input: &[u8], out: &mut [u8]) -> Result<(), String> {
    let frame = input.strip_prefix(&ZSTD_MAGIC).ok_or("not a zstd frame")?;
    let mut decoded = Vec::with_capacity(out.len());
    zrip::DecompressContext::new()
        .decompress_after_magic_into(frame, &mut decoded, out.len())
        .map_err(|e| e.to_string())?;
    let count = decoded.len();
    if let Some(target) = out.get_mut(..count) {
        target.copy_from_slice(&decoded)
    }
    if count == out.len() { Ok(()) } else { Err(format!("{count} bytes instead of {}", out.len())) }
}
