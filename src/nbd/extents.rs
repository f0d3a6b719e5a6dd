//! What is known of the holes of an export.

use std::collections::BTreeMap;

/// Most extents that are remembered; beyond it, all are asked for again.
const EXTENTS_MAX: usize = 1 << 20;

/// Extents that the server told.
#[derive(Debug, Default)]
pub(super) struct Extents {
    /// Start; end, and whether the extent reads as zeros. Without overlaps, neighbours of one kind joined.
    known: BTreeMap<u64, (u64, bool)>,
}

impl Extents {
    /// The extent that holds `offset`: its end, and whether it reads as zeros; `None` if it is not known.
    pub(super) fn at(&self, offset: u64) -> Option<(u64, bool)> {
        let (_, (end, is_zero)) = self.known.range(..=offset).next_back()?;
        (*end > offset).then_some((*end, *is_zero))
    }

    /// Where the next byte that may be data lies from `offset` on: what is not known may be.
    pub(super) fn next_data(&self, offset: u64) -> u64 {
        let mut at = offset;
        while let Some((end, true)) = self.at(at) {
            at = end;
        }
        at
    }

    /// Adds extents that follow each other from `offset` on; what is known already stays as it is.
    pub(super) fn add(&mut self, offset: u64, extents: &[(u64, bool)]) {
        if self.known.len() > EXTENTS_MAX {
            self.known.clear();
        }
        let mut start = offset;
        for (length, is_zero) in extents {
            let end = start.saturating_add(*length);
            self.insert(start, end, *is_zero);
            start = end;
        }
    }

    /// Fills the gaps between what is known.
    fn insert(&mut self, mut start: u64, end: u64, is_zero: bool) {
        while start < end {
            if let Some((known_end, _)) = self.at(start) {
                start = known_end;
                continue;
            }
            let gap_end = self.known.range(start..end).next().map_or(end, |(next, _)| *next);
            match self.known.range_mut(..start).next_back() {
                Some((_, (last_end, kind))) if *last_end == start && *kind == is_zero => *last_end = gap_end,
                _ => drop(self.known.insert(start, (gap_end, is_zero))),
            }
            start = gap_end;
        }
    }
}

/// Answers with less than this for a request do not pay: a piece of so many bytes is read in the same time.
const REQUEST_BYTES: u64 = 2 << 20;
/// Extents of fewer bytes on the average do not pay: holes of this size are found in the data.
const EXTENT_BYTES: u64 = 64 << 10;
/// Requests, and extents, from which on the averages count.
const REQUESTS_LEAST: u64 = 256;
const EXTENTS_LEAST: u64 = 1024;

/// What asking for extents brought.
#[derive(Debug, Default)]
pub(super) struct StatusYield {
    requests: u64,
    extents: u64,
    bytes: u64,
}

impl StatusYield {
    /// Counts the extents of an answer.
    pub(super) fn add(&mut self, extents: &[(u64, bool)]) {
        self.requests += 1;
        self.extents += extents.len() as u64;
        self.bytes = extents.iter().fold(self.bytes, |bytes, (length, _)| bytes.saturating_add(*length));
    }

    /// Whether it is better to read all than to ask for more.
    pub(super) fn is_poor(&self) -> bool {
        let is_small = |count: u64, least: u64, bytes: u64| count >= least && self.bytes / count < bytes;
        is_small(self.requests, REQUESTS_LEAST, REQUEST_BYTES) || is_small(self.extents, EXTENTS_LEAST, EXTENT_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_extents_do_not_pay() {
        let poor = |answers: u64, extents: &[(u64, bool)]| {
            let mut status_yield = StatusYield::default();
            (0..answers).for_each(|_| status_yield.add(extents));
            status_yield.is_poor()
        };
        assert!(poor(1, &[(512, false), (512, true)].repeat(1000)));
        assert!(!poor(1, &[(512, false), (512, true)].repeat(500)));
        assert!(!poor(1, &[(65536, false), (65536, true)].repeat(1000)));
        assert!(poor(256, &[(1 << 20, false)]));
        assert!(!poor(255, &[(1 << 20, false)]) && !poor(1000, &[(2 << 20, true)]));
    }

    proptest::proptest! {
        #[test]
        fn the_first_answer_for_a_byte_counts(
            answers in proptest::collection::vec((0_u64..50, proptest::collection::vec((1_u64..20, proptest::bool::ANY), 1..5)), 0..12)
        ) {
            let mut extents = Extents::default();
            let mut model = std::collections::BTreeMap::new();
            for (offset, list) in &answers {
                extents.add(*offset, list);
                let mut at = *offset;
                for (length, is_zero) in list {
                    for byte in at..at + length {
                        model.entry(byte).or_insert(*is_zero);
                    }
                    at += length;
                }
            }
            for byte in 0..200 {
                if let Some((end, is_zero)) = extents.at(byte) {
                    proptest::prop_assert_eq!(model.get(&byte), Some(&is_zero));
                    proptest::prop_assert!(end > byte && (byte..end).all(|other| model.get(&other) == Some(&is_zero)));
                }
                let data = extents.next_data(byte);
                proptest::prop_assert!((byte..data).all(|other| model.get(&other) == Some(&true)));
            }
        }
    }
}
