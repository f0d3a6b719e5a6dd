//! What was read of the image below a stage: the bytes on which a plan depends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::frames::BLOCK;
use crate::units::ImageOffset;

/// A set of the image's 4 KiB blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadLog {
    /// First block of each run, and the block after its last one. Runs neither overlap nor touch.
    runs: BTreeMap<u64, u64>,
    /// Length of the disk in bytes.
    disk_length: u64,
}

impl ReadLog {
    fn new(disk_length: u64) -> Self {
        Self { runs: BTreeMap::new(), disk_length }
    }

    /// Adds the blocks of a range of bytes.
    fn add(&mut self, offset: u64, length: u64) {
        if length == 0 {
            return;
        }
        let (mut first, mut end) = (offset / BLOCK, offset.saturating_add(length).div_ceil(BLOCK));
        if let Some((&start, &stop)) = self.runs.range(..=first).next_back()
            && stop >= first
        {
            if stop >= end {
                return;
            }
            first = start;
        }
        while let Some((&start, &stop)) = self.runs.range(first..=end).next() {
            end = end.max(stop);
            self.runs.remove(&start);
        }
        self.runs.insert(first, end);
    }

    /// Takes the blocks out that lie wholly inside a range of bytes.
    pub fn remove(&mut self, offset: ImageOffset, length: u64) {
        let (first, end) = (offset.0.div_ceil(BLOCK), offset.0.saturating_add(length) / BLOCK);
        if first >= end {
            return;
        }
        let before = self.runs.range(..first).next_back().map(|(&start, &stop)| (start, stop));
        if let Some((start, stop)) = before.filter(|(_, stop)| *stop > first) {
            self.runs.insert(start, first);
            if stop > end {
                self.runs.insert(end, stop);
            }
        }
        while let Some((&start, &stop)) = self.runs.range(first..end).next() {
            self.runs.remove(&start);
            if stop > end {
                self.runs.insert(end, stop);
            }
        }
    }

    /// The ranges in ascending order, neighbours joined, as (offset, length) in bytes. Multiples of 4096, except at the
    /// end of the disk.
    pub fn ranges(&self) -> impl Iterator<Item = (ImageOffset, u64)> + '_ {
        self.runs.iter().map(|(first, end)| {
            let start = first.saturating_mul(BLOCK);
            let end = end.saturating_mul(BLOCK).min(self.disk_length);
            (ImageOffset(start), end.saturating_sub(start))
        })
    }

    /// Bytes in all ranges.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges().map(|(_, length)| length).fold(0, u64::saturating_add)
    }
}

/// Records reads, or does not.
#[derive(Debug, Default)]
pub(super) struct ReadRecorder(Option<Mutex<ReadLog>>);

impl ReadRecorder {
    /// Begins a new log.
    pub(super) fn start(&mut self, disk_length: u64) {
        self.0 = Some(Mutex::new(ReadLog::new(disk_length)));
    }

    /// Ends recording; the log is empty if nothing was recorded.
    pub(super) fn take(&mut self) -> ReadLog {
        let log = self.0.take().map(|log| log.into_inner().unwrap_or_else(PoisonError::into_inner));
        log.unwrap_or_default()
    }

    /// Notes a read of the image.
    pub(super) fn note(&self, offset: ImageOffset, length: usize) {
        if let Some(log) = &self.0 {
            let mut log: MutexGuard<'_, ReadLog> = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.add(offset.0, length as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn log(reads: &[(u64, u64)]) -> ReadLog {
        let mut log = ReadLog::new(100 * BLOCK - 10);
        reads.iter().for_each(|&(offset, length)| log.add(offset, length));
        log
    }

    #[test]
    fn joins_neighbours_and_ends_with_the_disk() {
        let ranges = |reads: &[(u64, u64)]| log(reads).ranges().map(|(at, n)| (at.0, n)).collect::<Vec<_>>();
        assert_eq!(ranges(&[(1, 1), (BLOCK, 1)]), [(0, 2 * BLOCK)]);
        assert_eq!(ranges(&[(BLOCK, 1), (1, 1)]), [(0, 2 * BLOCK)]);
        assert_eq!(ranges(&[(0, 1), (3 * BLOCK, 1), (BLOCK - 1, 2 * BLOCK + 1)]), [(0, 4 * BLOCK)]);
        assert_eq!(ranges(&[(99 * BLOCK + 5, 1), (7, 0)]), [(99 * BLOCK, BLOCK - 10)]);
        assert_eq!(log(&[(99 * BLOCK, 1), (0, 1)]).bytes(), 2 * BLOCK - 10);
    }

    proptest! {
        /// The log is the set of the blocks that were read, in whatever order and however they overlap.
        #[test]
        fn is_the_set_of_blocks(
            reads in prop::collection::vec((0..99 * BLOCK, 0..9 * BLOCK), 0..60),
            removed in prop::collection::vec((0..99 * BLOCK, 0..9 * BLOCK), 0..9),
        ) {
            let reads: Vec<(u64, u64)> = reads.into_iter().map(|(at, n)| (at, n.min(100 * BLOCK - 10 - at))).collect();
            let mut blocks: BTreeSet<u64> = reads
                .iter()
                .filter(|(_, length)| *length > 0)
                .flat_map(|(offset, length)| offset / BLOCK..(offset + length).div_ceil(BLOCK))
                .collect();
            let mut log = log(&reads);
            for (offset, length) in removed {
                log.remove(ImageOffset(offset), length);
                blocks.retain(|block| block * BLOCK < offset || (block + 1) * BLOCK > offset + length);
            }
            let found: Vec<u64> =
                log.ranges().flat_map(|(at, n)| at.0 / BLOCK..(at.0 + n).div_ceil(BLOCK)).collect();
            prop_assert_eq!(found, blocks.into_iter().collect::<Vec<_>>());
            let ends: Vec<(u64, u64)> = log.ranges().map(|(at, n)| (at.0, at.0 + n)).collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
