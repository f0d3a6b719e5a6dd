//! The bit stream that XPRESS and LZX share: 16-bit little-endian words, most significant bit first.

/// Reads bits, and between them whole bytes, from one input.
///
/// Words are fetched only when bits are asked for; bytes come from after the last word fetched (MS-XCA 2.2.4,
/// "byte-oriented data is interleaved"). Beyond the end of the input all bits are zero: the callers' loops end by
/// output, not by input.
pub(super) struct Bits<'a> {
    input: &'a [u8],
    position: usize,
    buffer: u64,
    left: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(input: &'a [u8], position: usize) -> Self {
        Self { input, position, buffer: 0, left: 0 }
    }

    /// Offset of the next word or byte to be fetched.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Whether more than the look-ahead of a correct stream was read past the end.
    pub(super) fn is_exhausted(&self) -> bool {
        self.position > self.input.len().saturating_add(4)
    }

    fn fetch(&mut self) {
        let byte = |at: usize| self.input.get(at).copied().unwrap_or(0);
        let word = u16::from_le_bytes([byte(self.position), byte(self.position.saturating_add(1))]);
        self.position = self.position.saturating_add(2);
        self.buffer = (self.buffer << 16) | u64::from(word);
        self.left += 16;
    }

    /// Makes `count` (at most 16) bits available.
    fn ensure(&mut self, count: u32) {
        if self.left < count {
            self.fetch();
        }
    }

    /// Makes 16 bits available: the state in which XPRESS reads its byte-oriented lengths.
    pub(super) fn ensure_word(&mut self) {
        self.ensure(16);
    }

    /// The next `count` (at most 16) bits, left in place.
    pub(super) fn peek(&mut self, count: u32) -> u32 {
        self.ensure(count);
        let mask = (1u64 << count) - 1;
        u32::try_from((self.buffer >> (self.left - count)) & mask).unwrap_or(0)
    }

    /// Drops `count` bits that [`peek`](Self::peek) has shown.
    pub(super) fn skip(&mut self, count: u32) {
        self.left = self.left.saturating_sub(count);
    }

    /// Takes `count` (at most 16) bits.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let value = self.peek(count);
        self.skip(count);
        value
    }

    /// Takes a whole byte from after the words fetched so far.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = self.input.get(self.position).copied()?;
        self.position += 1;
        Some(byte)
    }

    /// Takes `N` whole bytes from after the words fetched so far.
    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let found = self.input.get(self.position..)?.first_chunk::<N>()?;
        self.position += N;
        Some(*found)
    }

    /// Takes `count` raw bytes.
    pub(super) fn slice(&mut self, count: usize) -> Option<&'a [u8]> {
        let found = self.input.get(self.position..)?.get(..count)?;
        self.position += count;
        Some(found)
    }

    /// Goes to the next word boundary; at a boundary already, a whole word is dropped, as LZX demands.
    pub(super) fn align_after_header(&mut self) {
        self.ensure(1);
        self.left = 0;
    }
}
