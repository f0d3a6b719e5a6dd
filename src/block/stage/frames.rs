//! The memory of a stage: frames that hold changed blocks, and which of them to evict.

use crate::error::{Error, Layer, Result};

/// The unit of copy on write, in bytes. Guests' file systems write in multiples of it, and it is a page.
pub(super) const BLOCK: u64 = 4096;
pub(super) const BLOCK_BYTES: usize = BLOCK as usize;
/// Frames, and blocks in the spill file, have indexes below this one: 8 TiB of blocks.
pub(super) const INDEX_LIMIT: u32 = u32::MAX >> 1;
/// Rewrites of a block count as one reference until this part of all frames was given to other blocks ("correlated
/// references").
const CORRELATED_PART: u64 = 16;
/// Frames that are allocated together.
const SLAB_FRAMES: usize = 256;

/// The content of one block.
pub(super) type BlockData = [u8; BLOCK_BYTES];

/// Memory for one block.
#[derive(Debug)]
struct Frame {
    /// Number of the block that it holds; `None` when the frame is free.
    block: Option<u64>,
    /// Value of [`Frames::inserted`] when the block came or was last marked as referenced.
    touched_at: u64,
    /// CLOCK reference bit: set on rewrite, cleared when the hand passes.
    referenced: bool,
}

/// The changed blocks that are in memory.
#[derive(Default)]
pub(super) struct Frames {
    /// [`SLAB_FRAMES`] blocks each. Plain bytes, because the allocator hands out zeroed memory without touching it.
    slabs: Vec<Box<[u8]>>,
    frames: Vec<Frame>,
    free_frames: Vec<u32>,
    /// CLOCK hand: the frame at which the next search for blocks to evict begins.
    clock_hand: usize,
    /// How many blocks were inserted so far.
    inserted: u64,
}

impl Frames {
    /// The content of a frame.
    pub(super) fn data(&self, frame: u32) -> Option<&BlockData> {
        let frame = frame as usize;
        self.slabs.get(frame / SLAB_FRAMES)?.as_chunks().0.get(frame % SLAB_FRAMES)
    }

    /// The content of a frame that is about to be overwritten in part or whole.
    pub(super) fn rewrite(&mut self, number: u32) -> Option<&mut BlockData> {
        // A block that is filled in several small writes, as new records of $MFT are, is not hot because of that.
        let correlated = self.frames.len() as u64 / CORRELATED_PART;
        let frame = self.frames.get_mut(number as usize)?;
        if self.inserted.saturating_sub(frame.touched_at) > correlated {
            frame.touched_at = self.inserted;
            frame.referenced = true;
        }
        self.data_mut(number)
    }

    fn data_mut(&mut self, frame: u32) -> Option<&mut BlockData> {
        let frame = frame as usize;
        self.slabs.get_mut(frame / SLAB_FRAMES)?.as_chunks_mut().0.get_mut(frame % SLAB_FRAMES)
    }

    /// Whether one more block can be inserted without more than `limit` frames.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        !self.free_frames.is_empty() || self.frames.len() < limit
    }

    /// Stores a block that has no frame yet, in a new frame if none is free; `None` beyond [`INDEX_LIMIT`] frames.
    pub(super) fn insert(&mut self, block: u64, data: &BlockData) -> Option<u32> {
        let number = match self.free_frames.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.frames.len()).ok().filter(|number| *number < INDEX_LIMIT)?;
                if self.frames.len().is_multiple_of(SLAB_FRAMES) {
                    self.slabs.push(vec![0; SLAB_FRAMES * BLOCK_BYTES].into_boxed_slice());
                }
                self.frames.push(Frame { block: None, touched_at: 0, referenced: false });
                number
            }
        };
        *self.data_mut(number)? = *data;
        self.inserted += 1;
        *self.frames.get_mut(number as usize)? =
            Frame { block: Some(block), touched_at: self.inserted, referenced: false };
        Some(number)
    }

    /// Frees a frame, so that [`insert`](Self::insert) uses it again; no effect on one that is free.
    pub(super) fn free(&mut self, number: u32) {
        if let Some(frame) = self.frames.get_mut(number as usize)
            && frame.block.take().is_some()
        {
            self.free_frames.push(number);
        }
    }

    /// Chooses up to `max` blocks to evict, with their frames, by the CLOCK algorithm: least recently written first.
    /// The frames stay allocated.
    pub(super) fn choose_victims(&mut self, max: usize) -> Vec<(u64, u32)> {
        let mut found = Vec::with_capacity(max);
        for _ in 0..2 * self.frames.len() {
            if found.len() >= max {
                break;
            }
            let at = self.clock_hand % self.frames.len();
            self.clock_hand = at + 1;
            let (Some(frame), Ok(number)) = (self.frames.get_mut(at), u32::try_from(at)) else { break };
            if found.first().is_some_and(|(_, first)| *first == number) {
                break;
            }
            if let Some(block) = frame.block
                && !std::mem::take(&mut frame.referenced)
            {
                found.push((block, number));
            }
        }
        found
    }
}

/// The refusal of more changes than a stage can number.
pub(super) fn limit_exceeded() -> Error {
    Error::refused(Layer::Block, "more changes than a stage can hold (8 TiB)").hint("make the changes in several runs")
}

/// Fills `buf` from a block, beginning `within` bytes after its start.
pub(super) fn copy_within(block: &[u8], within: u64, buf: &mut [u8]) -> Result<()> {
    let source = usize::try_from(within).ok().and_then(|within| block.get(within..)?.get(..buf.len()));
    buf.copy_from_slice(source.ok_or_else(|| Error::bug(Layer::Block, "a read across a staged block"))?);
    Ok(())
}
