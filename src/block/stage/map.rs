//! Which blocks of a stage were written, and where each of them is.

use std::collections::BTreeMap;
use std::ops::Range;

use super::frames::INDEX_LIMIT;

/// Blocks of a [`Chunk`].
const CHUNK_BLOCKS: u64 = 16;

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// Only in the image: nothing was written.
    Image,
    /// Number of the frame that holds it.
    Memory(u32),
    /// Index of the block in the spill file.
    Spilled(u32),
}

/// A [`Slot`] in four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PackedSlot(u32);

impl PackedSlot {
    const IMAGE: Self = Self(0);

    fn new(slot: Slot) -> Self {
        match slot {
            Slot::Image => Self::IMAGE,
            Slot::Memory(frame) => Self((frame & INDEX_LIMIT) + 1),
            Slot::Spilled(index) => Self(index | !INDEX_LIMIT),
        }
    }

    fn slot(self) -> Slot {
        match self.0 {
            0 => Slot::Image,
            // Memory slots are stored plus one, so INDEX_LIMIT itself is the last of them.
            packed if packed <= INDEX_LIMIT => Slot::Memory(packed - 1),
            packed => Slot::Spilled(packed & INDEX_LIMIT),
        }
    }
}

/// The slots of neighbouring blocks. Changes lie close together, so that the map over them stays small enough for the
/// processor's caches when there are very many.
type Chunk = [PackedSlot; CHUNK_BLOCKS as usize];

/// Which blocks were written, and where they are.
#[derive(Debug, Default)]
pub(super) struct BlockMap {
    /// By the number of the first block, divided by [`CHUNK_BLOCKS`].
    chunks: BTreeMap<u64, Chunk>,
    /// Number of blocks whose slot is not [`Slot::Image`].
    pub(super) written: u64,
}

impl BlockMap {
    /// Where a block is.
    pub(super) fn get(&self, block: u64) -> Slot {
        let chunk = self.chunks.get(&(block / CHUNK_BLOCKS));
        chunk.map_or(Slot::Image, |chunk| chunk[(block % CHUNK_BLOCKS) as usize].slot())
    }

    /// Sets where a block is; returns where it was.
    pub(super) fn set(&mut self, block: u64, slot: Slot) -> Slot {
        let chunk = self.chunks.entry(block / CHUNK_BLOCKS);
        let chunk = chunk.or_insert([PackedSlot::IMAGE; CHUNK_BLOCKS as usize]);
        let old = std::mem::replace(&mut chunk[(block % CHUNK_BLOCKS) as usize], PackedSlot::new(slot)).slot();
        self.written += u64::from(slot != Slot::Image);
        self.written -= u64::from(old != Slot::Image);
        old
    }

    /// Drops the chunks in which no block is written any more.
    pub(super) fn drop_empty(&mut self) {
        self.chunks.retain(|_, chunk| *chunk != [PackedSlot::IMAGE; CHUNK_BLOCKS as usize]);
    }

    /// The written ones among these blocks, ascending.
    pub(super) fn written_in(&self, blocks: Range<u64>) -> impl Iterator<Item = (u64, Slot)> + '_ {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_packed() {
        for number in [0, 1, 77, INDEX_LIMIT - 1] {
            for slot in [Slot::Image, Slot::Memory(number), Slot::Spilled(number)] {
                assert_eq!(PackedSlot::new(slot).slot(), slot);
            }
        }
    }
}
