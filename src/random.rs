//! Deterministic pseudo-random numbers for tests, benchmarks and fuzzing: a seed names a sequence, so that a failure can
//! be repeated.

/// A xorshift generator of 64 bits (G. Marsaglia, "Xorshift RNGs", 13/7/17). Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed; small seeds that differ by one give sequences without likeness.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The sequence that continues after `state`, which must not be zero.
    #[must_use]
    pub const fn from_state(state: u64) -> Self {
        Self(state)
    }

    /// The next number, of 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`; 0 for a limit of 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    /// An index into something of this length; 0 for a length of 0.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// A byte of any value.
    pub fn byte(&mut self) -> u8 {
        let [byte, ..] = self.number().to_le_bytes();
        byte
    }

    /// Bytes of any value.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes);
        bytes
    }

    /// Fills `buf` with bytes of any value.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            chunk.iter_mut().zip(self.number().to_le_bytes()).for_each(|(slot, byte)| *slot = byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_a_sequence() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            [(); 100].map(|()| random.number())
        };
        assert_eq!(numbers(7), numbers(7));
        assert!(numbers(7).iter().all(|number| !numbers(8).contains(number)));
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| random.index(3) < 3));
        assert_eq!((random.index(0), random.bytes(13).len()), (0, 13));
    }
}
