//! The stage: a copy-on-write map over an image. Everything that winject writes is written here first.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::kept::Kept;
use super::{Extent, ExtentKind, Image, beyond_end, is_inside, is_zero};
use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;

/// The unit of copying. Guests' file systems write in multiples of it, and it is a page.
pub(crate) const BLOCK: u64 = 4096;
const BLOCK_BYTES: usize = BLOCK as usize;
/// Blocks that go to the spill file at once, at most.
const SPILL_BLOCKS: usize = 64;

type BlockData = [u8; BLOCK_BYTES];

/// How a stage behaves.
#[derive(Debug, Clone)]
pub struct StageOptions {
    /// How many bytes of changed blocks are kept in memory; beyond it they go to a temporary file.
    pub memory_limit: u64,
    /// Where the temporary file is made; the system's folder for temporary files when not given.
    pub spill_folder: Option<PathBuf>,
    /// How many bytes of an image that has to be unpacked are kept after they were read.
    pub kept_bytes: u64,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self { memory_limit: 256 << 20, spill_folder: None, kept_bytes: 0 }
    }
}

/// Where a changed block is.
#[derive(Debug)]
enum Slot {
    Memory {
        data: Box<BlockData>,
        /// Written again since it came to the end of the queue: it stays for another round.
        again: bool,
    },
    /// Index of the block in the spill file.
    Spilled(u64),
}

/// A disk that can be written without touching the image below it.
pub struct Stage {
    image: Arc<dyn Image>,
    options: StageOptions,
    kept: Option<Kept>,
    blocks: BTreeMap<u64, Slot>,
    /// Blocks in memory, the oldest first: the order in which they are spilled.
    resident: VecDeque<u64>,
    spill: Option<File>,
    /// Blocks that the spill file has room for, and those of them that hold nothing any more.
    spilled: u64,
    vacant: Vec<u64>,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage")
            .field("format", &self.image.format())
            .field("len", &self.image.len())
            .field("dirty_blocks", &self.blocks.len())
            .field("spilled", &self.spilled)
            .finish_non_exhaustive()
    }
}

impl Stage {
    /// A stage with no changes.
    #[must_use]
    pub fn new(image: Box<dyn Image>, options: StageOptions) -> Self {
        let kept = (options.kept_bytes > 0 && image.is_packed()).then(|| Kept::new(options.kept_bytes));
        Self {
            image: image.into(),
            options,
            kept,
            blocks: BTreeMap::new(),
            resident: VecDeque::new(),
            spill: None,
            spilled: 0,
            vacant: Vec::new(),
        }
    }

    /// The image below.
    #[must_use]
    pub fn image(&self) -> &dyn Image {
        &*self.image
    }

    /// The image below, for somebody who reads it while the stage is being written.
    #[must_use]
    pub fn shared_image(&self) -> Arc<dyn Image> {
        Arc::clone(&self.image)
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
        !self.blocks.is_empty()
    }

    /// How many bytes lie in changed blocks.
    #[must_use]
    pub fn bytes_dirty(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK
    }

    /// The changed ranges in ascending order, neighbours joined, as (offset, length). Multiples of 4096 bytes, except
    /// at the end of a disk whose length is none.
    pub fn dirty_ranges(&self) -> impl Iterator<Item = (ImageOffset, u64)> + '_ {
        self.dirty_ranges_in(ImageOffset(0), self.len())
    }

    /// As [`dirty_ranges`](Self::dirty_ranges), cut to the given range.
    pub fn dirty_ranges_in(&self, offset: ImageOffset, length: u64) -> impl Iterator<Item = (ImageOffset, u64)> + '_ {
        let limit = offset.0.saturating_add(length).min(self.len());
        let first = (offset.0 / BLOCK).min(limit.div_ceil(BLOCK));
        let mut blocks = self.blocks.range(first..limit.div_ceil(BLOCK)).map(|(block, _)| *block).peekable();
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
        length > 0 && self.blocks.range(offset.0 / BLOCK..end).next().is_some()
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
            return match self.blocks.get(&first) {
                Some(slot) => self.read_slot(slot, offset.0 % BLOCK, buf),
                None => self.read_image(offset, buf),
            };
        }
        let mut position = offset.0;
        let mut dirty = self.blocks.range(offset.0 / BLOCK..end.div_ceil(BLOCK));
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
        let mut dirty = self.blocks.range(first..end).map(|(block, _)| *block).peekable();
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
        for (block, slot) in &self.blocks {
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
                unchanged.push(*block);
            }
        }
        for block in unchanged {
            self.blocks.remove(&block);
        }
        let blocks = &self.blocks;
        self.resident.retain(|block| matches!(blocks.get(block), Some(Slot::Memory { .. })));
        Ok(self.bytes_dirty())
    }

    /// Reads what lies below the changes; the range is inside the disk.
    fn read_image(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        match &self.kept {
            Some(kept) => kept.read_at(&*self.image, offset, buf),
            None => self.image.read_at(offset, buf),
        }
    }

    fn read_slot(&self, slot: &Slot, within: u64, buf: &mut [u8]) -> Result<()> {
        match slot {
            Slot::Memory { data, .. } => {
                let source = usize::try_from(within).ok().and_then(|w| data.get(w..)?.get(..buf.len()));
                buf.copy_from_slice(source.ok_or_else(|| Error::bug(Layer::Block, "a read across a staged block"))?);
                Ok(())
            }
            Slot::Spilled(index) => self
                .spill
                .as_ref()
                .ok_or_else(|| Error::bug(Layer::Block, "a spilled block without a spill file"))?
                .read_exact_at(buf, index * BLOCK + within)
                .map_err(|e| Error::io(Layer::Block, "the temporary file of staged changes cannot be read", e)),
        }
    }

    fn write_block(&mut self, block: u64, within: u64, part: &[u8]) -> Result<()> {
        if let Some(Slot::Memory { data, again }) = self.blocks.get_mut(&block) {
            *again = true;
            slice_mut(&mut **data, within, part.len() as u64)?.copy_from_slice(part);
            return Ok(());
        }
        let data = match part.first_chunk::<BLOCK_BYTES>() {
            Some(whole) => Box::new(*whole),
            None => {
                let mut data = Box::new([0; BLOCK_BYTES]);
                match self.blocks.get(&block) {
                    Some(slot) => self.read_slot(slot, 0, &mut *data)?,
                    None => {
                        let start = block * BLOCK;
                        let length = (self.len() - start).min(BLOCK);
                        self.read_image(ImageOffset(start), slice_mut(&mut *data, 0, length)?)?;
                    }
                }
                slice_mut(&mut *data, within, part.len() as u64)?.copy_from_slice(part);
                data
            }
        };
        self.make_room()?;
        // what is written again is likely to be written once more: it comes back from the spill file
        if let Some(Slot::Spilled(index)) = self.blocks.insert(block, Slot::Memory { data, again: false }) {
            self.vacant.push(index);
        }
        self.resident.push_back(block);
        Ok(())
    }

    /// Moves the oldest blocks to the spill file when memory is used up.
    fn make_room(&mut self) -> Result<()> {
        let limit = usize::try_from(self.options.memory_limit / BLOCK).unwrap_or(usize::MAX).max(1);
        if self.resident.len() < limit {
            return Ok(());
        }
        let most = (self.resident.len() + 1 - limit).max(SPILL_BLOCKS.min(limit / 8));
        let mut leaving = Vec::with_capacity(most);
        while leaving.len() < most {
            let Some(block) = self.resident.pop_front() else { break };
            match self.blocks.get_mut(&block) {
                Some(Slot::Memory { again, .. }) if *again => {
                    *again = false;
                    self.resident.push_back(block);
                }
                Some(Slot::Memory { .. }) => leaving.push(block),
                _ => {}
            }
        }
        let result = self.spill(&leaving);
        if result.is_err() {
            // they are still in memory
            leaving.into_iter().rev().for_each(|block| self.resident.push_front(block));
        }
        result
    }

    /// Moves blocks from memory to the spill file: to its end, or to where nothing is any more.
    fn spill(&mut self, blocks: &[u64]) -> Result<()> {
        let places: Vec<u64> = match self.vacant.len().checked_sub(blocks.len()) {
            Some(rest) => self.vacant.split_off(rest),
            None => (self.spilled..).take(blocks.len()).collect(),
        };
        let mut bytes = Vec::with_capacity(blocks.len() * BLOCK_BYTES);
        for block in blocks {
            let Some(Slot::Memory { data, .. }) = self.blocks.get(block) else {
                return Err(Error::bug(Layer::Block, "a staged block vanished"));
            };
            bytes.extend_from_slice(&**data);
        }
        let file = self.spill_file()?;
        let mut rest = &bytes[..];
        for neighbours in places.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (now, later) = rest.split_at(rest.len().min(neighbours.len() * BLOCK_BYTES));
            file.write_all_at(now, neighbours.first().map_or(0, |index| index * BLOCK)).map_err(spill_error)?;
            rest = later;
        }
        for (&block, index) in blocks.iter().zip(places) {
            self.spilled = self.spilled.max(index + 1);
            self.blocks.insert(block, Slot::Spilled(index));
        }
        Ok(())
    }

    fn spill_file(&mut self) -> Result<&File> {
        if self.spill.is_none() {
            let file = match &self.options.spill_folder {
                Some(folder) => tempfile::tempfile_in(folder),
                None => tempfile::tempfile(),
            };
            self.spill = Some(file.map_err(spill_error)?);
        }
        self.spill.as_ref().ok_or_else(|| Error::bug(Layer::Block, "no spill file"))
    }
}

fn spill_error(error: std::io::Error) -> Error {
    Error::io(Layer::Block, "the temporary file of staged changes cannot be written", error)
        .hint("free space in the folder for temporary files, or set TMPDIR")
}

fn slice_mut(buf: &mut [u8], start: u64, length: u64) -> Result<&mut [u8]> {
    usize::try_from(start)
        .ok()
        .zip(usize::try_from(length).ok())
        .and_then(|(start, length)| buf.get_mut(start..)?.get_mut(..length))
        .ok_or_else(|| Error::bug(Layer::Block, "a range outside its buffer"))
}
