//! The stage: a copy-on-write overlay over an image, in memory. All changes are staged here before a commit.

mod frames;
mod map;
mod original;
mod read_cache;
mod read_log;
mod spill;

pub(crate) use original::Original;
pub use read_log::ReadLog;

use std::path::PathBuf;
use std::sync::Arc;

use super::{DiskSource, Extent, ExtentKind, Image, beyond_end, is_inside, is_zero};
use crate::error::{Error, Layer, Result};
use crate::host::Storage;
use crate::units::ImageOffset;
use frames::{BLOCK, BLOCK_BYTES, BlockData, Frames, copy_within, limit_exceeded};
use map::{BlockMap, Slot};
use read_cache::ReadCache;
use read_log::ReadRecorder;
use spill::Spill;

/// Blocks that are evicted to the spill file at once, at most.
const SPILL_BLOCKS: usize = 64;

/// Memory limits of a [`Stage`].
#[derive(Debug, Clone)]
pub struct StageOptions {
    /// Bytes of changed blocks to hold in memory; beyond it they are spilled to a temporary file. The map of them comes
    /// on top: about 100 bytes for each 64 KiB of the disk in which anything was changed.
    pub memory_limit: u64,
    /// Folder of the spill file; the system's folder for temporary files when not given.
    pub spill_folder: Option<PathBuf>,
    /// Size in bytes of the read cache for an image whose data are compressed; 0 for none.
    pub read_cache_bytes: u64,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self { memory_limit: 64 << 20, spill_folder: None, read_cache_bytes: 0 }
    }
}

impl StageOptions {
    /// The same in a process that may have so many bytes of memory: a quarter of them for changed blocks, an eighth for the
    /// cache, and no more than here.
    #[must_use]
    pub fn within(self, memory: Option<u64>) -> Self {
        let Some(memory) = memory else { return self };
        Self {
            memory_limit: self.memory_limit.min(memory / 4),
            read_cache_bytes: self.read_cache_bytes.min(memory / 8),
            ..self
        }
    }
}

/// A disk that can be written without touching the image below it (copy on write).
pub struct Stage {
    image: Arc<dyn Image>,
    options: StageOptions,
    read_cache: Option<Arc<ReadCache>>,
    reads: ReadRecorder,
    map: BlockMap,
    frames: Frames,
    spill: Spill,
    /// Whether something was written since all changed blocks were compared with the image.
    is_written_since_compared: bool,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage")
            .field("format", &self.image.format())
            .field("len", &self.image.len())
            .field("dirty_blocks", &self.map.written)
            .field("spilled", &self.spill.length())
            .finish_non_exhaustive()
    }
}

impl Stage {
    /// Makes a stage without changes over an image.
    #[must_use]
    pub fn new(image: Box<dyn Image>, options: StageOptions) -> Self {
        let is_cached = options.read_cache_bytes > 0 && image.is_packed();
        let read_cache = is_cached.then(|| Arc::new(ReadCache::new(options.read_cache_bytes)));
        Self {
            image: image.into(),
            read_cache,
            reads: ReadRecorder::default(),
            spill: Spill::new(options.spill_folder.clone()),
            options,
            map: BlockMap::default(),
            frames: Frames::default(),
            is_written_since_compared: false,
        }
    }

    /// The image that the changes lie over.
    #[must_use]
    pub fn image(&self) -> &dyn Image {
        &*self.image
    }

    /// The image below, to be copied as it is while changes are staged.
    pub(crate) fn original(&self) -> Original {
        Original { image: Arc::clone(&self.image), read_cache: self.read_cache.clone() }
    }

    /// Begins to record which bytes of the image are read through this stage. What is compared with the image later, and
    /// what is read through `original` or [`image`](Self::image), does not count.
    pub fn record_reads(&mut self) {
        self.reads.start(self.image.len());
    }

    /// Ends the recording; what was read since [`record_reads`](Self::record_reads).
    pub fn take_reads(&mut self) -> ReadLog {
        self.reads.take()
    }

    /// Length of the disk in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.image.len()
    }

    /// Whether the disk has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether anything was written.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.map.written > 0
    }

    /// Bytes in changed blocks.
    #[must_use]
    pub fn bytes_dirty(&self) -> u64 {
        self.map.written * BLOCK
    }

    /// The changed ranges in ascending order, neighbours joined, as (offset, length). Multiples of 4096 bytes, except
    /// for a final partial block.
    pub fn dirty_ranges(&self) -> impl Iterator<Item = (ImageOffset, u64)> + '_ {
        self.dirty_ranges_in(ImageOffset(0), self.len())
    }

    /// The changed ranges inside the given range, cut to it. See [`dirty_ranges`](Self::dirty_ranges).
    pub fn dirty_ranges_in(&self, offset: ImageOffset, length: u64) -> impl Iterator<Item = (ImageOffset, u64)> + '_ {
        let limit = offset.0.saturating_add(length).min(self.len());
        let mut blocks =
            self.map.written_in(offset.0 / BLOCK..limit.div_ceil(BLOCK)).map(|(block, _)| block).peekable();
        std::iter::from_fn(move || {
            let first = blocks.next()?;
            let mut end = first + 1;
            while blocks.next_if_eq(&end).is_some() {
                end += 1;
            }
            let start = (first * BLOCK).max(offset.0);
            Some((ImageOffset(start), (end * BLOCK).min(limit) - start))
        })
    }

    /// Whether anything in the range was written.
    #[must_use]
    pub fn is_range_dirty(&self, offset: ImageOffset, length: u64) -> bool {
        let end = offset.0.saturating_add(length).div_ceil(BLOCK);
        length > 0 && self.map.written_in(offset.0 / BLOCK..end).next().is_some()
    }

    /// Fills `buf` from `offset`: changed blocks where there are any, the image elsewhere.
    ///
    /// # Errors
    /// When the range is not inside the disk, or the image or the spill file cannot be read.
    pub fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        if !is_inside(offset, buf.len(), self.len()) {
            return Err(beyond_end(offset, buf.len(), self.len()));
        }
        let end = offset.0 + buf.len() as u64;
        let first = offset.0 / BLOCK;
        if end <= (first + 1) * BLOCK {
            return match self.map.get(first) {
                Slot::Image => self.read_recorded(offset, buf),
                slot => self.read_slot(slot, offset.0 % BLOCK, buf),
            };
        }
        let mut position = offset.0;
        let mut dirty = self.map.written_in(first..end.div_ceil(BLOCK));
        while position < end {
            let next = dirty.next();
            let clean_end = next.map_or(end, |(block, _)| (block * BLOCK).clamp(position, end));
            if clean_end > position {
                let part = slice_mut(buf, position - offset.0, clean_end - position)?;
                self.read_recorded(ImageOffset(position), part)?;
                position = clean_end;
            }
            if let Some((block, slot)) = next {
                let within = position - block * BLOCK;
                let length = (BLOCK - within).min(end - position);
                let part = slice_mut(buf, position - offset.0, length)?;
                self.read_slot(slot, within, part)?;
                position += length;
            }
        }
        Ok(())
    }

    /// Stores `data` at `offset`.
    ///
    /// # Errors
    /// When the range is not inside the disk, the image cannot be read (for the rest of a block that is written in
    /// part), or the spill file cannot be written. A failed write may have stored a part.
    pub fn write_at(&mut self, offset: ImageOffset, data: &[u8]) -> Result<()> {
        if !is_inside(offset, data.len(), self.len()) {
            return Err(beyond_end(offset, data.len(), self.len()));
        }
        let mut rest = data;
        let mut position = offset.0;
        while !rest.is_empty() {
            let within = position % BLOCK;
            let length = usize::try_from(BLOCK - within).unwrap_or(BLOCK_BYTES).min(rest.len());
            let (part, after) = rest.split_at(length);
            self.write_block(position / BLOCK, within, part)?;
            position += length as u64;
            rest = after;
        }
        Ok(())
    }

    /// The run of one kind that begins at `offset`, at most `limit` bytes long; changed blocks count as data.
    ///
    /// # Errors
    /// See [`Image::extent_at`].
    pub fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        let rest = self.len().saturating_sub(offset.0).min(limit);
        if rest == 0 {
            return Err(beyond_end(offset, 1, self.len()));
        }
        let first = offset.0 / BLOCK;
        let end = offset.0.saturating_add(rest).div_ceil(BLOCK);
        let mut dirty = self.map.written_in(first..end).map(|(block, _)| block).peekable();
        let Some(next) = dirty.next_if_eq(&first) else {
            let clean = dirty.peek().map_or(rest, |block| block * BLOCK - offset.0);
            return self.image.extent_at(offset, clean.min(rest));
        };
        let mut after = next + 1;
        while dirty.next_if_eq(&after).is_some() {
            after += 1;
        }
        Ok(Extent { length: (after * BLOCK - offset.0).min(rest), kind: ExtentKind::Data })
    }

    /// Drops changed blocks whose content equals the image's; returns how many bytes of changed blocks are left. Reads
    /// nothing when nothing was written since the last call.
    ///
    /// # Errors
    /// When the image or the spill file cannot be read.
    pub fn drop_unchanged(&mut self) -> Result<u64> {
        if !self.is_written_since_compared {
            return Ok(self.bytes_dirty());
        }
        let mut unchanged = Vec::new();
        let (mut old, mut new) = ([0; BLOCK_BYTES], [0; BLOCK_BYTES]);
        let mut known = Extent { length: 0, kind: ExtentKind::Data };
        let mut known_end = 0;
        for (block, slot) in self.map.written_in(0..self.len().div_ceil(BLOCK)) {
            let start = block * BLOCK;
            let length = (self.len() - start).min(BLOCK);
            if start >= known_end {
                known = self.image.extent_at(ImageOffset(start), u64::MAX)?;
                known_end = start.saturating_add(known.length.max(1));
            }
            let new = slice_mut(&mut new, 0, length)?;
            self.read_slot(slot, 0, new)?;
            // Holes need not be read.
            let is_same = if known.kind.is_zero() && start + length <= known_end {
                is_zero(new)
            } else {
                let old = slice_mut(&mut old, 0, length)?;
                self.read_image(ImageOffset(start), old)?;
                old == new
            };
            if is_same {
                unchanged.push(block);
            }
        }
        for block in unchanged {
            match self.map.set(block, Slot::Image) {
                Slot::Image => {}
                Slot::Memory(frame) => self.frames.free(frame),
                Slot::Spilled(index) => self.spill.free(index),
            }
        }
        self.map.drop_empty();
        self.is_written_since_compared = false;
        Ok(self.bytes_dirty())
    }

    /// Reads what lies below the changes, on behalf of a caller; the range is inside the disk.
    fn read_recorded(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        self.reads.note(offset, buf.len());
        self.read_image(offset, buf)
    }

    /// Reads what lies below the changes; the range is inside the disk.
    fn read_image(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        match &self.read_cache {
            Some(cache) => cache.read_at(&*self.image, offset, buf),
            None => self.image.read_at(offset, buf),
        }
    }

    /// Reads from a written block.
    fn read_slot(&self, slot: Slot, within: u64, buf: &mut [u8]) -> Result<()> {
        match slot {
            Slot::Image => Err(Error::bug(Layer::Block, "a staged block that was never written")),
            Slot::Memory(frame) => copy_within(self.frames.data(frame).ok_or_else(lost_frame)?, within, buf),
            Slot::Spilled(index) => self.spill.read(index, within, buf),
        }
    }

    fn write_block(&mut self, block: u64, within: u64, part: &[u8]) -> Result<()> {
        self.is_written_since_compared = true;
        let slot = self.map.get(block);
        if let Slot::Memory(frame) = slot {
            let data = self.frames.rewrite(frame).ok_or_else(lost_frame)?;
            slice_mut(data, within, part.len() as u64)?.copy_from_slice(part);
            return Ok(());
        }
        let mut joined = [0; BLOCK_BYTES];
        let data = match <&BlockData>::try_from(part) {
            Ok(whole) => whole,
            Err(_) => {
                let start = block * BLOCK;
                match slot {
                    Slot::Image => {
                        let length = (self.len() - start).min(BLOCK);
                        self.read_recorded(ImageOffset(start), slice_mut(&mut joined, 0, length)?)?;
                    }
                    slot => self.read_slot(slot, 0, &mut joined)?,
                }
                slice_mut(&mut joined, within, part.len() as u64)?.copy_from_slice(part);
                &joined
            }
        };
        self.make_room()?;
        let frame = self.frames.insert(block, data).ok_or_else(limit_exceeded)?;
        // A block that is written again is likely to be written once more, so it comes back from the spill file.
        if let Slot::Spilled(index) = self.map.set(block, Slot::Memory(frame)) {
            self.spill.free(index);
        }
        Ok(())
    }

    /// Evicts blocks to the spill file if the memory limit is reached.
    fn make_room(&mut self) -> Result<()> {
        let limit = usize::try_from(self.options.memory_limit / BLOCK).unwrap_or(usize::MAX).max(1);
        if self.frames.has_room(limit) {
            return Ok(());
        }
        let victims = self.frames.choose_victims(SPILL_BLOCKS.min(limit / 8).max(1));
        let mut bytes = Vec::with_capacity(victims.len() * BLOCK_BYTES);
        for (_, frame) in &victims {
            bytes.extend_from_slice(self.frames.data(*frame).ok_or_else(lost_frame)?);
        }
        let indexes = self.spill.write(bytes)?;
        for ((block, frame), index) in victims.into_iter().zip(indexes) {
            self.map.set(block, Slot::Spilled(index));
            self.frames.free(frame);
        }
        Ok(())
    }
}

impl DiskSource for Stage {
    fn len(&self) -> u64 {
        Self::len(self)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Self::read_at(self, offset, buf)
    }
    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        Self::extent_at(self, offset, limit)
    }
    fn files(&self) -> Vec<PathBuf> {
        self.image().files()
    }
    fn opened_file(&self) -> Option<&Arc<dyn Storage>> {
        DiskSource::opened_file(self.image())
    }
}

fn lost_frame() -> Error {
    Error::bug(Layer::Block, "a staged block vanished")
}

fn slice_mut(buf: &mut [u8], start: u64, length: u64) -> Result<&mut [u8]> {
    usize::try_from(start)
        .ok()
        .zip(usize::try_from(length).ok())
        .and_then(|(start, length)| buf.get_mut(start..)?.get_mut(..length))
        .ok_or_else(|| Error::bug(Layer::Block, "a range outside its buffer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Format, OpenOptions, open};

    #[test]
    fn changed_blocks_are_compared_with_the_image_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 64 * BLOCK_BYTES]).unwrap();
        let options = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
        let mut stage = Stage::new(open(file.path(), &options).unwrap(), StageOptions::default());
        // Whole blocks, so that writing reads nothing: 10 that are changed, 20 that are not.
        stage.write_at(ImageOffset(0), &vec![8; 10 * BLOCK_BYTES]).unwrap();
        stage.write_at(ImageOffset(20 * BLOCK), &vec![7; 20 * BLOCK_BYTES]).unwrap();
        let compare = |stage: &mut Stage| {
            let before = stage.image().bytes_read();
            let left = stage.drop_unchanged().unwrap();
            (left / BLOCK, (stage.image().bytes_read() - before) / BLOCK)
        };
        assert_eq!(compare(&mut stage), (10, 30));
        assert_eq!(compare(&mut stage), (10, 0), "compared again");
        stage.write_at(ImageOffset(5 * BLOCK), &[7; BLOCK_BYTES]).unwrap();
        assert_eq!(compare(&mut stage), (9, 10));
        assert_eq!(compare(&mut stage), (9, 0), "compared again");
    }

    #[test]
    fn records_what_is_read_of_the_image() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 64 * BLOCK_BYTES]).unwrap();
        let options = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
        let mut stage = Stage::new(open(file.path(), &options).unwrap(), StageOptions::default());
        stage.read_at(ImageOffset(0), &mut [0; 9]).unwrap();
        stage.record_reads();
        let mut buf = vec![0; 6 * BLOCK_BYTES];
        // A whole block reads nothing; a part of one reads the rest of it.
        stage.write_at(ImageOffset(11 * BLOCK), &[8; BLOCK_BYTES]).unwrap();
        stage.write_at(ImageOffset(40 * BLOCK + 7), b"part").unwrap();
        stage.read_at(ImageOffset(9 * BLOCK + 4000), &mut buf).unwrap();
        stage.original().read_at(ImageOffset(50 * BLOCK), &mut buf).unwrap();
        stage.image().read_at(ImageOffset(50 * BLOCK), &mut buf).unwrap();
        stage.drop_unchanged().unwrap();
        let log = stage.take_reads();
        let ranges: Vec<_> = log.ranges().map(|(at, length)| (at.0 / BLOCK, length / BLOCK)).collect();
        assert_eq!(ranges, [(9, 2), (12, 4), (40, 1)]);
        stage.read_at(ImageOffset(0), &mut buf).unwrap();
        assert_eq!(stage.take_reads(), ReadLog::default());
    }
}
