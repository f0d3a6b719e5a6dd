//! A set of numbers whose memory follows what is in it, not how large the numbers are.

/// Numbers in one page.
pub(super) const PAGE: u64 = 1 << 16;
const WORDS: usize = (PAGE / 64) as usize;

enum Page {
    Empty,
    Full,
    /// The numbers as bits, and how many there are.
    Mixed(Box<[u64; WORDS]>, u32),
}

/// A set of numbers below a limit, in pages: untouched and full ones cost nothing.
pub(super) struct Bits {
    pages: Vec<Page>,
    limit: u64,
    /// Pages that cost memory.
    mixed: usize,
}

impl Bits {
    /// An empty set of numbers below `limit`.
    pub(super) fn new(limit: u64) -> Self {
        let count = usize::try_from(limit.div_ceil(PAGE)).unwrap_or(0);
        Self { pages: (0..count).map(|_| Page::Empty).collect(), limit, mixed: 0 }
    }

    /// Adds `first..first + count`; returns the first of these numbers that was there before.
    pub(super) fn insert(&mut self, first: u64, count: u64) -> Option<u64> {
        let end = first.saturating_add(count).min(self.limit);
        let (mut at, mut double) = (first, None);
        while at < end {
            let (number, start) = (at / PAGE, at % PAGE);
            let stop = (end - number * PAGE).min(PAGE);
            let Some(page) = usize::try_from(number).ok().and_then(|n| self.pages.get_mut(n)) else { break };
            let was_mixed = matches!(page, Page::Mixed(..));
            if let Some(found) = insert_in_page(page, start, stop) {
                double = double.or(Some(number * PAGE + found));
            }
            match (was_mixed, matches!(page, Page::Mixed(..))) {
                (false, true) => self.mixed += 1,
                (true, false) => self.mixed = self.mixed.saturating_sub(1),
                _ => {}
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
            Some(Page::Mixed(words, _)) => words[usize::try_from(index % WORDS as u64).unwrap_or(0)],
        }
    }

    /// The pages that hold something: the first number of each, and its words.
    pub(super) fn touched(&self) -> impl Iterator<Item = (u64, Vec<u64>)> + '_ {
        self.pages.iter().enumerate().filter_map(|(index, page)| {
            let words = match page {
                Page::Empty => return None,
                Page::Full => vec![u64::MAX; WORDS],
                Page::Mixed(words, _) => words.to_vec(),
            };
            Some((index as u64 * PAGE, words))
        })
    }

    /// How many pages are neither empty nor full, and so cost memory.
    pub(super) fn mixed(&self) -> usize {
        self.mixed
    }

    /// How many pages there are.
    pub(super) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Whether a page holds nothing.
    pub(super) fn is_empty_page(&self, page: usize) -> bool {
        matches!(self.pages.get(page), None | Some(Page::Empty))
    }

    /// Lowers the limit to the end of the page that is the `most`-th one (at least the first) to cost memory, and forgets
    /// the numbers above; returns the limit.
    pub(super) fn shrink(&mut self, most: usize) -> u64 {
        let is_mixed = |page: &Page| matches!(page, Page::Mixed(..));
        let last = self.pages.iter().enumerate().filter(|(_, page)| is_mixed(page)).nth(most.saturating_sub(1));
        if let Some((last, _)) = last {
            self.pages.truncate(last + 1);
            self.limit = self.limit.min((last as u64 + 1) * PAGE);
            self.mixed = self.pages.iter().filter(|page| is_mixed(page)).count();
        }
        self.limit
    }

    /// How many numbers are in the set.
    pub(super) fn len(&self) -> u64 {
        let of = |page: &Page| match page {
            Page::Empty => 0,
            Page::Full => PAGE,
            Page::Mixed(_, count) => u64::from(*count),
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
    if matches!(page, Page::Empty) {
        *page = Page::Mixed(Box::new([0; WORDS]), 0);
    }
    let Page::Mixed(words, count) = page else { return Some(start) };
    let (mut at, mut double) = (start, None);
    while at < stop {
        let word = &mut words[usize::try_from(at / 64).unwrap_or(0)];
        let upto = (stop - at / 64 * 64).min(64);
        let mask = (u64::MAX >> (64 - (upto - at % 64))) << (at % 64);
        if *word & mask != 0 && double.is_none() {
            double = Some(at / 64 * 64 + u64::from((*word & mask).trailing_zeros()));
        }
        *count += (mask & !*word).count_ones();
        *word |= mask;
        at = at / 64 * 64 + upto;
    }
    if u64::from(*count) == PAGE {
        *page = Page::Full;
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
