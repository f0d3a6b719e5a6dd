//! Compressed grains: each one a zlib stream (RFC 1950) of its own.

use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress, Status};

use super::SECTOR;
use crate::block::Storage;
use crate::block::formats::extent_map::read_exact;
use crate::error::{Error, Layer, Result};

/// Unpacked grains that are kept for reads of parts of a grain.
const KEPT: usize = 8;

/// Bytes of a grain's marker: the first sector (8) and the length of the stream (4).
const MARKER: u64 = 12;

/// How a grain is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Behind a marker with its guest sector and its length.
    Marked,
    /// The stream alone.
    Bare,
}

/// Reads compressed grains; safe to share between threads, which then unpack side by side.
pub(crate) struct Grains {
    storage: Arc<dyn Storage>,
    file_length: u64,
    grain_bytes: u64,
    packing: Packing,
    /// Inflaters at rest: making one costs as much as unpacking a small grain.
    inflaters: Mutex<Vec<Inflater>>,
    kept: Mutex<Vec<(u64, Arc<[u8]>)>>,
}

struct Inflater {
    state: Decompress,
    packed: Vec<u8>,
}

impl Grains {
    /// Grains of at most `grain_bytes` in `storage`.
    pub(crate) fn new(storage: Arc<dyn Storage>, file_length: u64, grain_bytes: u64, packing: Packing) -> Self {
        Self { storage, file_length, grain_bytes, packing, inflaters: Mutex::default(), kept: Mutex::default() }
    }

    /// Fills `buf` from byte `skip` of the grain stored at `offset`, which begins at byte `unit` of the extent.
    pub(crate) fn read(&self, offset: u64, unit: u64, skip: u64, buf: &mut [u8]) -> Result<()> {
        if skip == 0 && buf.len() as u64 == self.grain_bytes {
            let filled = self.unpack(offset, unit, buf)?;
            return if filled == buf.len() { Ok(()) } else { Err(short(offset, buf.len(), filled)) };
        }
        let grain = self.kept_grain(offset, unit)?;
        let start = usize::try_from(skip).unwrap_or(usize::MAX);
        match grain.get(start..).and_then(|rest| rest.get(..buf.len())) {
            Some(part) => buf.copy_from_slice(part),
            None => return Err(short(offset, start.saturating_add(buf.len()), grain.len())),
        }
        Ok(())
    }

    fn kept_grain(&self, offset: u64, unit: u64) -> Result<Arc<[u8]>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, grain)) = lock().iter().find(|(at, _)| *at == offset) {
            return Ok(Arc::clone(grain));
        }
        // At most 16 MiB, see the limit on packed grains.
        let mut grain = vec![0; self.grain_bytes as usize];
        let filled = self.unpack(offset, unit, &mut grain)?;
        grain.truncate(filled);
        let grain: Arc<[u8]> = grain.into();
        let mut kept = lock();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((offset, Arc::clone(&grain)));
        Ok(grain)
    }

    /// Unpacks the grain at `offset` into `out`; returns how many bytes it has.
    fn unpack(&self, offset: u64, unit: u64, out: &mut [u8]) -> Result<usize> {
        let lock = || self.inflaters.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = lock().pop();
        let mut inflater = idle.unwrap_or_else(|| Inflater { state: Decompress::new(true), packed: Vec::new() });
        let result = self.unpack_with(&mut inflater, offset, unit, out);
        // A stream that failed leaves the state as it may be: a reset makes it new.
        inflater.state.reset(true);
        lock().push(inflater);
        result
    }

    fn unpack_with(&self, inflater: &mut Inflater, offset: u64, unit: u64, out: &mut [u8]) -> Result<usize> {
        let (start, size) = self.locate(offset, unit)?;
        inflater.packed.resize(size, 0);
        read_exact(self.storage.as_ref(), start, &mut inflater.packed)?;
        match inflater.state.decompress(&inflater.packed, out, FlushDecompress::Finish) {
            Ok(Status::StreamEnd) => Ok(usize::try_from(inflater.state.total_out()).unwrap_or(usize::MAX)),
            Ok(_) => {
                Err(Error::damaged(Layer::Block, "a compressed grain of the VMDK is longer than a grain, or cut off")
                    .at(offset))
            }
            Err(error) => Err(Error::damaged(Layer::Block, "a compressed grain of the VMDK cannot be unpacked")
                .at(offset)
                .source_error(error)),
        }
    }

    /// Where the stream begins and how many bytes it has at most.
    fn locate(&self, offset: u64, unit: u64) -> Result<(u64, usize)> {
        let rest = self.file_length.saturating_sub(offset);
        match self.packing {
            Packing::Bare => Ok((offset, rest.min(2 * self.grain_bytes) as usize)),
            Packing::Marked => {
                let mut marker = [0; MARKER as usize];
                read_exact(self.storage.as_ref(), offset, &mut marker)?;
                let [a, b, c, d, e, f, g, h, i, j, k, l] = marker;
                let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                let size = u64::from(u32::from_le_bytes([i, j, k, l]));
                if sector.checked_mul(SECTOR) != Some(unit) {
                    return Err(Error::damaged(Layer::Block, "a grain of the VMDK belongs elsewhere")
                        .at(offset)
                        .expected_found(format_args!("sector {}", unit / SECTOR), format_args!("sector {sector}")));
                }
                if size > 2 * self.grain_bytes || size > rest.saturating_sub(MARKER) {
                    return Err(Error::damaged(
                        Layer::Block,
                        "a compressed grain of the VMDK is longer than it can be",
                    )
                    .at(offset)
                    .expected_found(format_args!("at most {} bytes", 2 * self.grain_bytes), size));
                }
                Ok((offset + MARKER, size as usize))
            }
        }
    }
}

fn short(offset: u64, wanted: usize, got: usize) -> Error {
    Error::damaged(Layer::Block, "a compressed grain of the VMDK is too short")
        .at(offset)
        .expected_found(format_args!("{wanted} bytes"), format_args!("{got} bytes"))
}
