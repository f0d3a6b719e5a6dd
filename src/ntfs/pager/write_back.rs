//! Writing changed blocks to the device.

use super::cache::{PAGE_CACHE_BYTES, Pager, RECORD_CACHE_BYTES};
use super::index_block::CachedBlock;
use crate::error::{Error, Result};
use crate::io::VolumeWrite;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::units::RecordNumber;
use crate::ntfs::overlaid::Overlaid;
use crate::ntfs::stream::{Piece, pieces};
use crate::units::VolumeOffset;

impl<D: VolumeWrite> Pager<D> {
    /// Writes every changed block to the device; they stay in the cache, unchanged. `$MFTMirr` gets its copies.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let cache = self.cache.get_mut();
        self.write_buffer.clear();
        let mut out = Writer { device: &mut self.device, start: 0, write_buffer: &mut self.write_buffer };
        cache.pages.visit_dirty(|place, page| {
            out.go_to(place, page.len())?.extend_from_slice(page);
            Ok::<_, Error>(())
        })?;
        cache.blocks.visit_dirty(|_, cached| {
            let CachedBlock { block, pieces, .. } = cached;
            out.write_sealed(pieces, |sealed| block.seal_into(sealed))
        })?;
        let size = u64::from(self.geometry.record_size);
        let mirrored = (self.mirror.len() / size).min(RecordNumber::FIRST_USER.0);
        let mft = self.mft.runs().ok_or_else(|| damaged("$MFT is resident"))?;
        cache.records.visit_dirty(|number, record| {
            let places = |runs| pieces(&self.geometry, runs, number * size, size as usize);
            if number < mirrored
                && let Some(runs) = self.mirror.runs()
            {
                let sealed = record.seal()?;
                for at in [places(mft)?, places(runs)?] {
                    out.write_sealed(&at, |out| {
                        out.extend_from_slice(&sealed);
                        Ok(())
                    })?;
                }
                return Ok(());
            }
            out.write_sealed(&places(mft)?, |sealed| record.seal_into(sealed))
        })?;
        out.finish()?;
        cache.pages.written();
        cache.blocks.written();
        cache.records.written();
        let page_size = self.page_size();
        let cache = self.cache.get_mut();
        cache.records.shrink(RECORD_CACHE_BYTES / self.geometry.record_size as usize, 0);
        cache.shrink_blocks(self.geometry.index_block_size as usize);
        cache.pages.shrink(PAGE_CACHE_BYTES / page_size, 0);
        Ok(())
    }
}

impl<D: VolumeWrite> Pager<Overlaid<D>> {
    /// Writes the replayed blocks of the volume's log to the device.
    pub(crate) fn write_replay(&mut self) -> Result<()> {
        self.device.write_replay()
    }
}

/// Largest single write to the device, in bytes.
const WRITE_MAX: usize = 64 << 10;

/// Joins blocks that are adjacent on the device into one write.
struct Writer<'a, D> {
    device: &'a mut D,
    /// Offset on the volume of the buffer's first byte.
    start: u64,
    write_buffer: &'a mut Vec<u8>,
}

impl<D: VolumeWrite> Writer<'_, D> {
    /// The buffer to which `length` bytes that belong to `place` are to be appended.
    fn go_to(&mut self, place: u64, length: usize) -> Result<&mut Vec<u8>> {
        let follows = self.start.checked_add(self.write_buffer.len() as u64) == Some(place);
        if !follows || self.write_buffer.len() + length > WRITE_MAX {
            self.finish()?;
            self.start = place;
        }
        Ok(self.write_buffer)
    }

    /// Writes the block that `seal` appends to a buffer.
    fn write_sealed(&mut self, pieces: &[Piece], seal: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        if let &[(Some(place), length)] = pieces {
            return seal(self.go_to(place, length)?);
        }
        let mut sealed = Vec::new();
        seal(&mut sealed)?;
        let mut rest = &sealed[..];
        for (place, length) in pieces {
            let place = place.ok_or_else(|| damaged("metadata in a hole"))?;
            let (now, later) = rest.split_at(rest.len().min(*length));
            self.go_to(place, now.len())?.extend_from_slice(now);
            rest = later;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if !self.write_buffer.is_empty() {
            self.device.write_at(VolumeOffset(self.start), self.write_buffer)?;
            self.write_buffer.clear();
        }
        Ok(())
    }
}
