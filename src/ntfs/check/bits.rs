//! A set of numbers whose memory follows what is in it, not how large the numbers are.

/// Numbers in one page.
const PAGE: u64 = 1 << 16;
const WORDS: usize = (PAGE / 64) as usize;

enum Page {
    Empty,
    Full,
    Mixed(Box<[u64; WORDS]>),
}

/// A set of numbers below a limit, in pages: untouched and full ones cost nothing.
pub(super) struct Bits {
    pages: Vec<Page>,
    limit: u64,
}

impl Bits {
    /// An empty set of numbers below `limit`.
    pub(super) fn new(limit: u64) -> Self {
        let count = usize::try_from(limit.div_ceil(PAGE)).unwrap_or(0);
        Self { pages: (0..count).map(|_| Page::Empty).collect(), limit }
    }

    /// Adds `first..first + count`; returns the first of these numbers that was there before.
    pub(super) fn insert(&mut self, first: u64, count: u64) -> Option<u64> {
        let end = first.saturating_add(count).min(self.limit);
        let (mut at, mut double) = (first, None);
        while at < end {
            let (number, start) = (at / PAGE, at % PAGE);
            let stop = (end - number * PAGE).min(PAGE);
            let Some(page) = usize::try_from(number).ok().and_then(|n| self.pages.get_mut(n)) else { break };
            if let Some(found) = insert_in_page(page, start, stop) {
                double = double.or(Some(number * PAGE + found));
            }
            at = number * PAGE + stop;
        }
        double
    }

    /// The 64 numbers from `index` × 64 on, as bits.
    pub(super) fn word(&self, index: u64) -> u64 {
        let page = usize::try_from(index / WORDS as u64).ok().and_then(|n| self.pages.get(n));
        match page {
            None | Some(Page::Empty) => 0,
            Some(Page::Full) => u64::MAX,
            Some(Page::Mixed(words)) => words[usize::try_from(index % WORDS as u64).unwrap_or(0)],
        }
    }

    /// The pages that hold something: the first number of each, and its words.
    pub(super) fn touched(&self) -> impl Iterator<Item = (u64, Vec<u64>)> + '_ {
        self.pages.iter().enumerate().filter_map(|(index, page)| {
            let words = match page {
                Page::Empty => return None,
                Page::Full => vec![u64::MAX; WORDS],
                Page::Mixed(words) => words.to_vec(),
            };
            Some((index as u64 * PAGE, words))
        })
    }

    /// How many numbers are in the set.
    pub(super) fn len(&self) -> u64 {
        let of = |page: &Page| match page {
            Page::Empty => 0,
            Page::Full => PAGE,
            Page::Mixed(words) => words.iter().map(|w| u64::from(w.count_ones())).sum(),
        };
        self.pages.iter().map(of).sum()
    }
}

/// Adds `start..stop` to one page; returns the first number that was there before.
fn insert_in_page(page: &mut Page, start: u64, stop: u64) -> Option<u64> {
    if (start, stop) == (0, PAGE) && matches!(page, Page::Empty) {
        *page = Page::Full;
        return None;
    }
    let words = match page {
        Page::Full => return Some(start),
        Page::Empty => {
            *page = Page::Mixed(Box::new([0; WORDS]));
            let Page::Mixed(words) = page else { return None };
            words
        }
        Page::Mixed(words) => words,
    };
    let (mut at, mut double) = (start, None);
    while at < stop {
        let word = &mut words[usize::try_from(at / 64).unwrap_or(0)];
        let upto = (stop - at / 64 * 64).min(64);
        let mask = (u64::MAX >> (64 - (upto - at % 64))) << (at % 64);
        if *word & mask != 0 && double.is_none() {
            double = Some(at / 64 * 64 + u64::from((*word & mask).trailing_zeros()));
        }
        *word |= mask;
        at = at / 64 * 64 + upto;
    }
    double
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn like_a_plain_set(ranges in proptest::collection::vec((0u64..300_000, 1u64..140_000), 1..8)) {
            let limit = 250_001;
            let (mut bits, mut model) = (Bits::new(limit), BTreeSet::new());
            for (first, count) in ranges {
                let expected = (first..(first + count).min(limit)).find(|n| model.contains(n));
                prop_assert_eq!(bits.insert(first, count), expected);
                model.extend(first..(first + count).min(limit));
            }
            prop_assert_eq!(bits.len(), model.len() as u64);
            for n in (0..limit).step_by(97) {
                prop_assert_eq!(bits.word(n / 64) >> (n % 64) & 1 == 1, model.contains(&n));
            }
        }
    }
}
