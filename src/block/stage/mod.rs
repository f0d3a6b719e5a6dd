//! The stage: a copy-on-write map over an image. Everything that winject writes is written here first.

mod read_cache;
mod spill;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Extent, ExtentKind, Image, beyond_end, is_inside, is_zero};
use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;
use read_cache::Kept;
use spill::Spill;

/// The unit of copying. Guests' file systems write in multiples of it, and it is a page.
pub(crate) const BLOCK: u64 = 4096;
pub(super) const BLOCK_BYTES: usize = BLOCK as usize;
/// Blocks that go to the spill file at once, at most.
const SPILL_BLOCKS: usize = 64;
/// Blocks of a [`Chunk`].
const CHUNK_BLOCKS: u64 = 16;
/// Frames and places in the spill file have numbers below this one: 8 TiB of blocks.
pub(super) const NUMBERS: u32 = u32::MAX >> 1;
/// Writes to a block count as one until this part of all frames was given to other blocks.
const SOON_PART: u64 = 16;
/// Frames that are allocated together.
const SLAB_FRAMES: usize = 256;

type BlockData = [u8; BLOCK_BYTES];

/// How a stage behaves.
#[derive(Debug, Clone)]
pub struct StageOptions {
    /// How many bytes of changed blocks are kept in memory; beyond it they go to a temporary file. What is known of them
    /// comes on top: about 100 bytes for each 64 KiB of the disk in which anything was changed.
    pub memory_limit: u64,
    /// Where the temporary file is made; the system's folder for temporary files when not given.
    pub spill_folder: Option<PathBuf>,
    /// How many bytes of an image that has to be unpacked are kept after they were read.
    pub kept_bytes: u64,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self { memory_limit: 64 << 20, spill_folder: None, kept_bytes: 0 }
    }
}

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Only in the image: nothing was written.
    Image,
    /// Number of the frame that holds it.
    Memory(u32),
    /// Index of the block in the spill file.
    Spilled(u32),
}

/// A [`Slot`] in four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed(u32);

impl Packed {
    const IMAGE: Self = Self(0);

    fn new(slot: Slot) -> Self {
        match slot {
            Slot::Image => Self::IMAGE,
            Slot::Memory(frame) => Self((frame & NUMBERS) + 1),
            Slot::Spilled(index) => Self(index | !NUMBERS),
        }
    }

    fn slot(self) -> Slot {
        match self.0 {
            0 => Slot::Image,
            // NUMBERS itself is the last one in memory, plus one
            packed if packed <= NUMBERS => Slot::Memory(packed - 1),
            packed => Slot::Spilled(packed & NUMBERS),
        }
    }
}

/// The slots of neighbouring blocks. Changes lie close together, so that the map over them stays small enough for the
/// processor's caches when there are very many.
type Chunk = [Packed; CHUNK_BLOCKS as usize];

/// Which blocks were written, and where they are.
#[derive(Debug, Default)]
struct Map {
    /// By the number of the first block, divided by [`CHUNK_BLOCKS`].
    chunks: BTreeMap<u64, Chunk>,
    written: u64,
}

impl Map {
    fn get(&self, block: u64) -> Slot {
        let chunk = self.chunks.get(&(block / CHUNK_BLOCKS));
        chunk.map_or(Slot::Image, |chunk| chunk[(block % CHUNK_BLOCKS) as usize].slot())
    }

    /// Sets where a block is; returns where it was.
    fn set(&mut self, block: u64, slot: Slot) -> Slot {
        let chunk = self.chunks.entry(block / CHUNK_BLOCKS);
        let chunk = chunk.or_insert([Packed::IMAGE; CHUNK_BLOCKS as usize]);
        let old = std::mem::replace(&mut chunk[(block % CHUNK_BLOCKS) as usize], Packed::new(slot)).slot();
        self.written += u64::from(slot != Slot::Image);
        self.written -= u64::from(old != Slot::Image);
        old
    }

    /// Forgets the chunks in which nothing is written.
    fn drop_empty(&mut self) {
        self.chunks.retain(|_, chunk| *chunk != [Packed::IMAGE; CHUNK_BLOCKS as usize]);
    }

    /// The written ones among these blocks, ascending.
    fn written_in(&self, blocks: Range<u64>) -> impl Iterator<Item = (u64, Slot)> + '_ {
        let chunks = blocks.start / CHUNK_BLOCKS..blocks.end.div_ceil(CHUNK_BLOCKS).max(blocks.start / CHUNK_BLOCKS);
        self.chunks.range(chunks).flat_map(move |(chunk, slots)| {
            let first = chunk * CHUNK_BLOCKS;
            let within = |block: u64| block.clamp(first, first + CHUNK_BLOCKS) - first;
            let (from, to) = (within(blocks.start), within(blocks.end));
            let slots = slots.get(from as usize..to as usize).unwrap_or_default();
            (first + from..).zip(slots.iter().map(|packed| packed.slot())).filter(|(_, slot)| *slot != Slot::Image)
        })
    }
}

/// Memory for one block.
#[derive(Debug)]
struct Frame {
    /// Whose content it holds; `None` when it is free.
    block: Option<u64>,
    /// When it came, or was counted as written again: as a number of [`Frames::inserted`].
    since: u64,
    /// Written again since the hand passed: it stays for another round.
    again: bool,
}

/// The blocks in memory.
#[derive(Default)]
struct Frames {
    /// As bytes: these are allocated as zeros without being touched.
    slabs: Vec<Box<[u8]>>,
    frames: Vec<Frame>,
    free: Vec<u32>,
    /// The frame at which the search for blocks that can leave goes on.
    hand: usize,
    /// How many blocks were given a frame so far.
    inserted: u64,
}

impl Frames {
    fn data(&self, frame: u32) -> Option<&BlockData> {
        let frame = frame as usize;
        self.slabs.get(frame / SLAB_FRAMES)?.as_chunks().0.get(frame % SLAB_FRAMES)
    }

    /// The content of a frame, to be written again.
    fn rewrite(&mut self, number: u32) -> Option<&mut BlockData> {
        // what is written piece by piece, as new records of $MFT are, is not needed again for that
        let soon = self.frames.len() as u64 / SOON_PART;
        let frame = self.frames.get_mut(number as usize)?;
        if self.inserted.saturating_sub(frame.since) > soon {
            frame.since = self.inserted;
            frame.again = true;
        }
        self.data_mut(number)
    }

    fn data_mut(&mut self, frame: u32) -> Option<&mut BlockData> {
        let frame = frame as usize;
        self.slabs.get_mut(frame / SLAB_FRAMES)?.as_chunks_mut().0.get_mut(frame % SLAB_FRAMES)
    }

    /// Whether a block more finds a frame, when at most `limit` are wanted.
    fn has_room(&self, limit: usize) -> bool {
        !self.free.is_empty() || self.frames.len() < limit
    }

    /// Stores a block that has no frame, whatever the limit; `None` when frames cannot be numbered any more.
    fn insert(&mut self, block: u64, data: &BlockData) -> Option<u32> {
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.frames.len()).ok().filter(|number| *number < NUMBERS)?;
                if self.frames.len().is_multiple_of(SLAB_FRAMES) {
                    self.slabs.push(vec![0; SLAB_FRAMES * BLOCK_BYTES].into_boxed_slice());
                }
                self.frames.push(Frame { block: None, since: 0, again: false });
                number
            }
        };
        *self.data_mut(number)? = *data;
        self.inserted += 1;
        *self.frames.get_mut(number as usize)? = Frame { block: Some(block), since: self.inserted, again: false };
        Some(number)
    }

    fn release(&mut self, number: u32) {
        if let Some(frame) = self.frames.get_mut(number as usize)
            && frame.block.take().is_some()
        {
            self.free.push(number);
        }
    }

    /// Up to `most` blocks that were not written for longest, and their frames. Each written one is passed over once.
    fn oldest(&mut self, most: usize) -> Vec<(u64, u32)> {
        let mut found = Vec::with_capacity(most);
        for _ in 0..2 * self.frames.len() {
            if found.len() >= most {
                break;
            }
            let at = self.hand % self.frames.len();
            self.hand = at + 1;
            let (Some(frame), Ok(number)) = (self.frames.get_mut(at), u32::try_from(at)) else { break };
            if found.first().is_some_and(|(_, first)| *first == number) {
                break;
            }
            if let Some(block) = frame.block
                && !std::mem::take(&mut frame.again)
            {
                found.push((block, number));
            }
        }
        found
    }
}

/// A disk that can be written without touching the image below it.
pub struct Stage {
    image: Arc<dyn Image>,
    options: StageOptions,
    kept: Option<Arc<Kept>>,
    map: Map,
    frames: Frames,
    spill: Spill,
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
    /// A stage with no changes.
    #[must_use]
    pub fn new(image: Box<dyn Image>, options: StageOptions) -> Self {
        let kept = (options.kept_bytes > 0 && image.is_packed()).then(|| Arc::new(Kept::new(options.kept_bytes)));
        Self {
            image: image.into(),
            kept,
            spill: Spill::new(options.spill_folder.clone()),
            options,
            map: Map::default(),
            frames: Frames::default(),
        }
    }

    /// The image below.
    #[must_use]
    pub fn image(&self) -> &dyn Image {
        &*self.image
    }

    /// The image below, to be copied as it is while changes are staged.
    pub(crate) fn original(&self) -> Original {
        Original { image: Arc::clone(&self.image), kept: self.kept.clone() }
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

    /// How many bytes lie in changed blocks.
    #[must_use]
    pub fn bytes_dirty(&self) -> u64 {
        self.map.written * BLOCK
    }

    /// The changed ranges in ascending order, neighbours joined, as (offset, length). Multiples of 4096 bytes, except
    /// at the end of a disk whose length is none.
    pub fn dirty_ranges(&self) -> impl Iterator<Item = (ImageOffset, u64)> + '_ {
        self.dirty_ranges_in(ImageOffset(0), self.len())
    }

    /// As [`dirty_ranges`](Self::dirty_ranges), cut to the given range.
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

    /// Fills `buf` from `offset`: what was written, else the image.
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
                Slot::Image => self.read_image(offset, buf),
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
                self.read_image(ImageOffset(position), part)?;
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

    /// As [`Image::extent_at`], for the disk with its changes.
    ///
    /// # Errors
    /// As [`Image::extent_at`].
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

    /// Forgets changed blocks whose content is what the image has anyway; returns how many bytes are left.
    ///
    /// # Errors
    /// When the image or the spill file cannot be read.
    pub fn drop_unchanged(&mut self) -> Result<u64> {
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
            // holes need not be read
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
                Slot::Memory(frame) => self.frames.release(frame),
                Slot::Spilled(index) => self.spill.vacate(index),
            }
        }
        self.map.drop_empty();
        Ok(self.bytes_dirty())
    }

    /// Reads what lies below the changes; the range is inside the disk.
    fn read_image(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        match &self.kept {
            Some(kept) => kept.read_at(&*self.image, offset, buf),
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
                        self.read_image(ImageOffset(start), slice_mut(&mut joined, 0, length)?)?;
                    }
                    slot => self.read_slot(slot, 0, &mut joined)?,
                }
                slice_mut(&mut joined, within, part.len() as u64)?.copy_from_slice(part);
                &joined
            }
        };
        self.make_room()?;
        let frame = self.frames.insert(block, data).ok_or_else(too_much)?;
        // what is written again is likely to be written once more: it comes back from the spill file
        if let Slot::Spilled(index) = self.map.set(block, Slot::Memory(frame)) {
            self.spill.vacate(index);
        }
        Ok(())
    }

    /// Moves the oldest blocks to the spill file when memory is used up.
    fn make_room(&mut self) -> Result<()> {
        let limit = usize::try_from(self.options.memory_limit / BLOCK).unwrap_or(usize::MAX).max(1);
        if self.frames.has_room(limit) {
            return Ok(());
        }
        let leaving = self.frames.oldest(SPILL_BLOCKS.min(limit / 8).max(1));
        let mut bytes = Vec::with_capacity(leaving.len() * BLOCK_BYTES);
        for (_, frame) in &leaving {
            bytes.extend_from_slice(self.frames.data(*frame).ok_or_else(lost_frame)?);
        }
        let places = self.spill.write(bytes)?;
        for ((block, frame), index) in leaving.into_iter().zip(places) {
            self.map.set(block, Slot::Spilled(index));
            self.frames.release(frame);
        }
        Ok(())
    }
}

/// The image below a stage. What the stage keeps of it is not unpacked again, and nothing is kept for a reader of this.
pub(crate) struct Original {
    image: Arc<dyn Image>,
    kept: Option<Arc<Kept>>,
}

impl Original {
    pub(crate) fn len(&self) -> u64 {
        self.image.len()
    }

    pub(crate) fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        match &self.kept {
            Some(kept) => kept.look_at(&*self.image, offset, buf),
            None => self.image.read_at(offset, buf),
        }
    }

    /// See [`Image::extent_at`].
    pub(crate) fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        self.image.extent_at(offset, limit)
    }

    /// See [`Image::files`].
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.image.files()
    }
}

fn lost_frame() -> Error {
    Error::bug(Layer::Block, "a staged block vanished")
}

pub(super) fn too_much() -> Error {
    Error::refused(Layer::Block, "more changes than a stage can hold (8 TiB)").hint("make the changes in several runs")
}

/// Fills `buf` from a block, beginning `within` bytes after its start.
pub(super) fn copy_within(block: &[u8], within: u64, buf: &mut [u8]) -> Result<()> {
    let source = usize::try_from(within).ok().and_then(|within| block.get(within..)?.get(..buf.len()));
    buf.copy_from_slice(source.ok_or_else(|| Error::bug(Layer::Block, "a read across a staged block"))?);
    Ok(())
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

    #[test]
    fn slots_are_packed() {
        for number in [0, 1, 77, NUMBERS - 1] {
            for slot in [Slot::Image, Slot::Memory(number), Slot::Spilled(number)] {
                assert_eq!(Packed::new(slot).slot(), slot);
            }
        }
    }
}
