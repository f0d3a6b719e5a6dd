//! Marks cells by their offset.

/// One bit for every eight bytes of bins.
///
/// In pieces, so that they fit into memory that was freed before: during a check a job holds most.
#[derive(Default)]
pub(super) struct CellBitmap(Vec<Vec<u64>>);

/// Words in a piece: 2 KiB, for 128 KiB of bins.
const WORDS: usize = 256;

impl CellBitmap {
    pub(super) fn over(length: u32) -> Self {
        let pieces = (length as usize / 8).div_ceil(64 * WORDS);
        Self((0..pieces).map(|_| vec![0; WORDS]).collect())
    }

    fn word(&self, offset: u32) -> Option<&u64> {
        let n = offset as usize / 8 / 64;
        self.0.get(n / WORDS)?.get(n % WORDS)
    }

    fn word_mut(&mut self, offset: u32) -> Option<&mut u64> {
        let n = offset as usize / 8 / 64;
        self.0.get_mut(n / WORDS)?.get_mut(n % WORDS)
    }

    pub(super) fn get(&self, offset: u32) -> bool {
        self.word(offset).is_some_and(|word| word >> (offset / 8 % 64) & 1 != 0)
    }

    pub(super) fn set(&mut self, offset: u32) {
        if let Some(word) = self.word_mut(offset) {
            *word |= 1 << (offset / 8 % 64);
        }
    }

    pub(super) fn clear(&mut self, offset: u32) {
        if let Some(word) = self.word_mut(offset) {
            *word &= !(1 << (offset / 8 % 64));
        }
    }

    /// The words that are not zero, and the offset that the first bit of each stands for.
    pub(super) fn marked(&self) -> impl Iterator<Item = (u32, u64)> {
        let words = self.0.iter().flat_map(|piece| piece.iter().copied());
        (0..).step_by(64 * 8).zip(words).filter(|&(_, word)| word != 0)
    }
}
