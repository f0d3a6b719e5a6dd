//! Marks cells by their offset.

/// One bit for every eight bytes of bins.
#[derive(Default)]
pub(super) struct CellBitmap(Vec<u64>);

impl CellBitmap {
    /// For bins of `length` bytes, no bit set.
    pub(super) fn over(length: u32) -> Self {
        Self(vec![0; (length as usize / 8).div_ceil(64)])
    }

    fn word(&self, offset: u32) -> Option<&u64> {
        self.0.get(offset as usize / 8 / 64)
    }

    fn word_mut(&mut self, offset: u32) -> Option<&mut u64> {
        self.0.get_mut(offset as usize / 8 / 64)
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
        let words = self.0.iter().copied();
        (0..).step_by(64 * 8).zip(words).filter(|&(_, word)| word != 0)
    }
}
