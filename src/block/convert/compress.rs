//! Compressing one cluster.

use flate2::{Compress, FlushCompress, Status};

use crate::block::formats::qcow2::Compression;
use crate::error::{Error, Layer, Result};

/// QEMU uses level 6 of zlib. This encoder's levels up to 8 look for repeats of four bytes and more; with a window of 4
/// KiB those of three matter too, and level 9 finds them. Its output is the first that is as small as QEMU's on
/// programs as well as on text (level 8 is 2 % larger on programs), and on programs it is 1.5 times as fast as level 8.
const ZLIB_LEVEL: u32 = 9;

/// The window that QEMU writes with, and opens its decoder with: 4 KiB.
const ZLIB_WINDOW_BITS: u8 = 12;

/// QEMU uses Zstandard's default level, 3; this encoder's level 4 gives that size (and is no slower than its level 3).
const ZSTD_LEVEL: i32 = 4;

/// A compressor with its state; one for each thread.
pub(super) enum Compressor {
    Zlib(Compress),
    Zstd(Box<zrip::CompressContext>),
}

impl Compressor {
    /// `level` in the algorithm's own scale; what it does not have becomes the nearest that it has.
    pub(super) fn new(kind: Compression, level: Option<u32>) -> Result<Self> {
        match kind {
            Compression::Zlib => {
                // Level 1 of this encoder is hardly faster, and fails on data that do not shrink.
                let level = flate2::Compression::new(level.unwrap_or(ZLIB_LEVEL).clamp(2, 9));
                Ok(Self::Zlib(Compress::new_with_window_bits(level, false, ZLIB_WINDOW_BITS)))
            }
            Compression::Zstd => {
                let level = level.map_or(ZSTD_LEVEL, |level| level.clamp(1, 4) as i32);
                let mut context = zrip::CompressContext::new(level)
                    .map_err(|e| Error::bug(Layer::Block, format!("the Zstandard encoder: {e}")))?;
                // Clusters carry no checksums in a qcow2; libzstd writes none by default.
                context.set_content_checksum(false);
                Ok(Self::Zstd(Box::new(context)))
            }
        }
    }

    /// Room that the output needs at most, more than a cluster: random data grow before they turn out not to fit.
    pub(super) fn bound(cluster: usize) -> usize {
        2 * cluster + 1024
    }

    /// Compresses `cluster` into `out` (of at least [`bound`](Self::bound) bytes); `None` when it does not get smaller.
    pub(super) fn compress(&mut self, cluster: &[u8], out: &mut [u8]) -> Result<Option<usize>> {
        let failed = |e: String| Error::bug(Layer::Block, format!("compressing a cluster: {e}"));
        let length = match self {
            Self::Zlib(_) if is_noise(cluster) => return Ok(None),
            Self::Zlib(state) => {
                state.reset();
                match state.compress(cluster, out, FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => usize::try_from(state.total_out()).unwrap_or(usize::MAX),
                    other => return Err(failed(format!("{other:?}"))),
                }
            }
            Self::Zstd(context) => context.compress_into(cluster, out).map_err(|e| failed(e.to_string()))?,
        };
        Ok((length < cluster.len()).then_some(length))
    }
}

/// Clusters below this size are compressed without the test for noise.
const NOISE_BYTES_MIN: usize = 16 << 10;

/// Bound on the chi-squared statistic of the bytes (255 on average for noise, with a deviation of 23). Below it, a
/// Huffman code gains less than 512 / (16 ln 2) = 46 bytes, and its own description takes more.
const NOISE_CHI_SQUARED: u64 = 512;

/// So many repeats of four bytes are taken for chance; each would gain a byte or two.
const NOISE_REPEATS: usize = 8;

/// Whether deflate with our window can gain nothing: no byte is more frequent than the others, and nothing repeats.
/// Noise costs deflate as much time as data, and disks hold much of it: archives, pictures, encrypted files.
fn is_noise(cluster: &[u8]) -> bool {
    cluster.len() >= NOISE_BYTES_MIN && is_flat(cluster) && repeats(cluster) <= NOISE_REPEATS
}

fn is_flat(bytes: &[u8]) -> bool {
    // Two counters for each value, so that equal neighbours do not wait for each other.
    let mut counts = [[0u32; 256]; 2];
    for pair in bytes.chunks(2) {
        for (counts, byte) in counts.iter_mut().zip(pair) {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    }
    let [even, odd] = &counts;
    let squares: u64 = even.iter().zip(odd).map(|(a, b)| u64::from(a + b) * u64::from(a + b)).sum();
    // The sum of (count - n/256)^2 / (n/256) over all values is 256/n times the sum of squares, less n.
    let length = bytes.len() as u64;
    squares.saturating_mul(256) <= length.saturating_mul(length + NOISE_CHI_SQUARED)
}

/// How many positions repeat four bytes of the window before them, as far as a table of the last position for each hash
/// knows. Stops when there are enough.
fn repeats(bytes: &[u8]) -> usize {
    const HASH_BITS: u32 = 12;
    let mut last = vec![u32::MAX; 1 << HASH_BITS];
    let mut found = 0;
    for (at, word) in (0u32..).zip(bytes.windows(4)) {
        let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let Some(slot) = last.get_mut((value.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize) else { break };
        let before = std::mem::replace(slot, at);
        let is_near = before != u32::MAX && at - before < 1 << ZLIB_WINDOW_BITS;
        if is_near && bytes.get(before as usize..).is_some_and(|earlier| earlier.starts_with(word)) {
            found += 1;
            if found > NOISE_REPEATS {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        (0..length).map(|_| (next() >> 24) as u8).collect()
    }

    /// Whether deflate itself, without our short cut, makes it smaller.
    fn is_compressible(cluster: &[u8]) -> bool {
        let mut out = vec![0; Compressor::bound(cluster.len())];
        let mut state = Compress::new_with_window_bits(flate2::Compression::new(9), false, ZLIB_WINDOW_BITS);
        assert_eq!(state.compress(cluster, &mut out, FlushCompress::Finish).unwrap(), Status::StreamEnd);
        (state.total_out() as usize) < cluster.len()
    }

    #[test]
    fn noise_is_what_deflate_cannot_make_smaller() {
        for seed in 1..40 {
            let mut cluster = noise(65_536, seed);
            assert!(is_noise(&cluster) && !is_compressible(&cluster), "seed {seed}");
            // Each step makes it a little more compressible; once deflate gains anything it must not count as noise.
            for step in 1..40 {
                let at = (seed as usize * 977 + step * 1543) % 60_000;
                cluster.copy_within(at..at + 6, at + 2000);
                assert!(!is_noise(&cluster) || !is_compressible(&cluster), "seed {seed} step {step}");
            }
            assert!(!is_noise(&cluster), "seed {seed}: 39 repeats");
        }
    }

    #[test]
    fn data_with_structure_is_not_noise() {
        let flat: Vec<u8> = (0..65_536u32).map(|i| i as u8).collect();
        let skewed: Vec<u8> = noise(65_536, 3).into_iter().map(|b| if b < 3 { 7 } else { b }).collect();
        let letters: Vec<u8> = noise(65_536, 4).into_iter().map(|b| b % 64).collect();
        let repeated = noise(2048, 5).repeat(32);
        for (what, cluster) in [("flat", flat), ("skewed", skewed), ("letters", letters), ("repeated", repeated)] {
            assert!(!is_noise(&cluster), "{what}");
        }
        assert!(!is_noise(&noise(4096, 6)), "small clusters are not tested");
    }
}
