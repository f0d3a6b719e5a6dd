//! Compressing one cluster.

use flate2::{Compress, FlushCompress, Status};

use crate::error::{Error, Layer, Result};

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Raw deflate with a window of 4 KiB: what every version of QEMU reads.
    Zlib,
    /// Zstandard: faster both ways; QEMU reads it from version 5.1 on.
    Zstd,
}

/// QEMU uses level 6 of zlib. This encoder's levels up to 7 search less than zlib's of the same number: 8 is the first
/// whose output is within 2 % of QEMU's on programs as well as on text.
const ZLIB_LEVEL: u32 = 8;

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
                // Level 1 of this encoder is no faster to speak of, and cannot be trusted with data that do not shrink.
                let level = flate2::Compression::new(level.unwrap_or(ZLIB_LEVEL).clamp(2, 9));
                Ok(Self::Zlib(Compress::new_with_window_bits(level, false, ZLIB_WINDOW_BITS)))
            }
            Compression::Zstd => {
                let level = level.map_or(ZSTD_LEVEL, |level| level.clamp(1, 4) as i32);
                let mut context = zrip::CompressContext::new(level)
                    .map_err(|e| Error::bug(Layer::Block, format!("the Zstandard encoder: {e}")))?;
                // Clusters carry no checksums in a qcow2; libzstd's default is none either.
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
