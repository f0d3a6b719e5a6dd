//! Blocks of an export in memory.

use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of a block.
pub(super) const BLOCK: u64 = 64 << 10;
/// Blocks that are held: 32 MiB.
const BLOCKS_MAX: usize = 512;
/// Most blocks of one read-ahead: 2 MiB.
const AHEAD_MAX: u64 = 32;

/// The blocks that were read last. Metadata are read in small pieces, of which many lie next to each other.
#[derive(Debug, Default)]
pub(super) struct BlockCache {
    blocks: HashMap<u64, (Arc<Vec<u8>>, u64)>,
    /// Counts uses; the block with the lowest count was used longest ago.
    clock: u64,
    /// The block after the last one that was fetched.
    next: Option<u64>,
    /// Blocks that the last fetch took.
    ahead: u64,
}

impl BlockCache {
    /// A block, if it is here.
    pub(super) fn get(&mut self, number: u64) -> Option<Arc<Vec<u8>>> {
        self.clock += 1;
        let (block, used) = self.blocks.get_mut(&number)?;
        *used = self.clock;
        Some(Arc::clone(block))
    }

    /// How many blocks to fetch from `number` on, which is not here: one, or twice as many as the last time where the reader
    /// goes forward. `count`: the blocks of the export.
    pub(super) fn plan_fetch(&mut self, number: u64, count: u64) -> u64 {
        let is_forward = self.next == Some(number);
        let wanted = if is_forward { (self.ahead * 2).min(AHEAD_MAX) } else { 1 };
        let rest = count.saturating_sub(number).max(1);
        let free = (1..wanted.min(rest)).take_while(|more| !self.blocks.contains_key(&(number + more))).count() as u64;
        self.ahead = free + 1;
        self.next = Some(number + self.ahead);
        self.ahead
    }

    /// Adds the blocks that begin with `number`.
    pub(super) fn add(&mut self, number: u64, bytes: &[u8]) {
        if self.blocks.len() >= BLOCKS_MAX {
            let mut uses: Vec<u64> = self.blocks.values().map(|(_, used)| *used).collect();
            // A quarter goes at once, so that this is seldom.
            let (_, limit, _) = uses.select_nth_unstable(BLOCKS_MAX / 4);
            let limit = *limit;
            self.blocks.retain(|_, (_, used)| *used > limit);
        }
        for (number, block) in (number..).zip(bytes.chunks(BLOCK as usize)) {
            self.clock += 1;
            self.blocks.insert(number, (Arc::new(block.to_vec()), self.clock));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_goes_forward_gets_more_at_once() {
        let mut cache = BlockCache::default();
        let mut fetched = Vec::new();
        let mut at = 0;
        for _ in 0..8 {
            let count = cache.plan_fetch(at, 1000);
            fetched.push(count);
            at += count;
        }
        assert_eq!(fetched, [1, 2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(cache.plan_fetch(500, 1000), 1);
        assert_eq!(cache.plan_fetch(501, 502), 1);
    }

    #[test]
    fn memory_is_bounded_and_the_last_blocks_stay() {
        let mut cache = BlockCache::default();
        for number in 0..5000 {
            cache.add(number, &[1; 10]);
            assert!(cache.blocks.len() <= BLOCKS_MAX && cache.get(0).is_some());
        }
        assert!(cache.get(4999).is_some() && cache.get(4000).is_none());
    }
}
