//! What blocks of an export were when they were first read: a plan that was made from them holds as long as they are the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::cache::BLOCK;

/// Blocks that are remembered: those of 16 GiB.
const SEEN_MAX: usize = 1 << 18;

/// Checksums of blocks, as they were first read.
#[derive(Debug, Default)]
pub(super) struct SeenBlocks(HashMap<u64, u32>);

impl SeenBlocks {
    /// Remembers the blocks that begin with `number`, if they are new.
    pub(super) fn add(&mut self, number: u64, bytes: &[u8]) {
        for (number, block) in (number..).zip(bytes.chunks(BLOCK as usize)) {
            if self.0.len() >= SEEN_MAX {
                return;
            }
            if let Entry::Vacant(vacant) = self.0.entry(number) {
                vacant.insert(crc32fast::hash(block));
            }
        }
    }

    /// Whether a block is known to have been something else.
    pub(super) fn was_other(&self, number: u64, block: &[u8]) -> bool {
        self.0.get(&number).is_some_and(|sum| *sum != crc32fast::hash(block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_content_counts() {
        let mut seen = SeenBlocks::default();
        let (old, new) = (vec![1; BLOCK as usize + 10], vec![2; BLOCK as usize]);
        seen.add(7, &old);
        seen.add(7, &new);
        assert!(seen.was_other(7, &new) && !seen.was_other(7, &old[..BLOCK as usize]));
        assert!(!seen.was_other(8, &[1; 10]) && seen.was_other(8, &[1; 11]) && !seen.was_other(9, &new));
    }
}
