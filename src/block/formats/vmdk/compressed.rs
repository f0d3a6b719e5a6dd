//! Compressed grains: each one a zlib stream (RFC 1950) of its own.

use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress, Status};

use super::header::{MARKER, SECTOR, StoredMarker};
use super::location::ExtentOffset;
use crate::block::Storage;
use crate::block::formats::extent_map::{read_exact, read_struct};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Decompressed grains that are cached for reads of parts of a grain.
const GRAINS_CACHED: usize = 8;

/// What stands before a grain's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// A marker with the grain's first sector and the stream's length.
    Marker,
    /// Nothing: the stream itself says where it ends.
    None,
}

/// Reads compressed grains. Threads that share it decompress at the same time.
pub(super) struct CompressedGrains {
    storage: Arc<dyn Storage>,
    file_length: u64,
    grain_bytes: u64,
    framing: Framing,
    /// Idle inflaters: making one costs as much as decompressing a small grain.
    inflaters: Mutex<Vec<Inflater>>,
    /// Decompressed grains by their place in the file, the oldest first.
    cached: Mutex<Vec<(HostOffset, Arc<[u8]>)>>,
}

struct Inflater {
    state: Decompress,
    /// The stream being decompressed.
    input: Vec<u8>,
}

impl CompressedGrains {
    /// Grains of at most `grain_bytes` in `storage`.
    pub(super) fn new(storage: Arc<dyn Storage>, file_length: u64, grain_bytes: u64, framing: Framing) -> Self {
        Self { storage, file_length, grain_bytes, framing, inflaters: Mutex::default(), cached: Mutex::default() }
    }

    /// Fills `buf` from byte `skip` of the grain stored at `offset`, whose first byte is `grain` of the extent.
    pub(super) fn read(&self, offset: HostOffset, grain: ExtentOffset, skip: u64, buf: &mut [u8]) -> Result<()> {
        if skip == 0 && buf.len() as u64 == self.grain_bytes {
            let filled = self.decompress(offset, grain, buf)?;
            return if filled == buf.len() { Ok(()) } else { Err(short(offset, buf.len(), filled)) };
        }
        let content = self.cached_grain(offset, grain)?;
        let start = usize::try_from(skip).unwrap_or(usize::MAX);
        match content.get(start..).and_then(|rest| rest.get(..buf.len())) {
            Some(part) => buf.copy_from_slice(part),
            None => return Err(short(offset, start.saturating_add(buf.len()), content.len())),
        }
        Ok(())
    }

    /// The decompressed grain, from the cache or through it.
    fn cached_grain(&self, offset: HostOffset, grain: ExtentOffset) -> Result<Arc<[u8]>> {
        let lock = || self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, content)) = lock().iter().find(|(at, _)| *at == offset) {
            return Ok(Arc::clone(content));
        }
        // At most 16 MiB: the header's check limits the size of compressed grains.
        let mut content = vec![0; self.grain_bytes as usize];
        let filled = self.decompress(offset, grain, &mut content)?;
        content.truncate(filled);
        let content: Arc<[u8]> = content.into();
        let mut cached = lock();
        if cached.len() >= GRAINS_CACHED {
            cached.remove(0);
        }
        cached.push((offset, Arc::clone(&content)));
        Ok(content)
    }

    /// Decompresses the grain at `offset` into `out`; returns how many bytes it has.
    fn decompress(&self, offset: HostOffset, grain: ExtentOffset, out: &mut [u8]) -> Result<usize> {
        let lock = || self.inflaters.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = lock().pop();
        let mut inflater = idle.unwrap_or_else(|| Inflater { state: Decompress::new(true), input: Vec::new() });
        let result = self.decompress_with(&mut inflater, offset, grain, out);
        // A stream that failed leaves the inflater in any state; a reset makes it usable again.
        inflater.state.reset(true);
        lock().push(inflater);
        result
    }

    fn decompress_with(
        &self,
        inflater: &mut Inflater,
        offset: HostOffset,
        grain: ExtentOffset,
        out: &mut [u8],
    ) -> Result<usize> {
        let (start, size) = self.locate_stream(offset, grain)?;
        inflater.input.resize(size, 0);
        read_exact(self.storage.as_ref(), start, &mut inflater.input)?;
        match inflater.state.decompress(&inflater.input, out, FlushDecompress::Finish) {
            Ok(Status::StreamEnd) => Ok(usize::try_from(inflater.state.total_out()).unwrap_or(usize::MAX)),
            Ok(_) => {
                Err(Error::damaged(Layer::Block, "a compressed grain of the VMDK is longer than a grain, or cut off")
                    .at(offset))
            }
            Err(error) => Err(Error::damaged(Layer::Block, "cannot decompress a grain of the VMDK")
                .at(offset)
                .source_error(error)),
        }
    }

    /// Where the grain's stream begins, and how many bytes it has at most.
    fn locate_stream(&self, offset: HostOffset, grain: ExtentOffset) -> Result<(HostOffset, usize)> {
        let rest = self.file_length.saturating_sub(offset.0);
        match self.framing {
            Framing::None => Ok((offset, rest.min(2 * self.grain_bytes) as usize)),
            Framing::Marker => {
                let marker: StoredMarker = read_struct(self.storage.as_ref(), offset)?;
                let (sector, size) = (marker.value.get(), u64::from(marker.size.get()));
                if sector.checked_mul(SECTOR) != Some(grain.0) {
                    return Err(Error::damaged(Layer::Block, "a grain of the VMDK belongs elsewhere")
                        .at(offset)
                        .expected_found(format_args!("sector {}", grain.0 / SECTOR), format_args!("sector {sector}")));
                }
                if size > 2 * self.grain_bytes || size > rest.saturating_sub(MARKER) {
                    return Err(Error::damaged(
                        Layer::Block,
                        "a compressed grain of the VMDK is longer than it can be",
                    )
                    .at(offset)
                    .expected_found(format_args!("at most {} bytes", 2 * self.grain_bytes), size));
                }
                Ok((offset.saturating_add(MARKER), size as usize))
            }
        }
    }
}

fn short(offset: HostOffset, wanted: usize, got: usize) -> Error {
    Error::damaged(Layer::Block, "a compressed grain of the VMDK is too short")
        .at(offset)
        .expected_found(format_args!("{wanted} bytes"), format_args!("{got} bytes"))
}
