//! AES-CBC with the Elephant diffuser (N. Ferguson, "AES-CBC + Elephant diffuser", 2006): the sector is mixed with a key of
//! its own and stirred in whole before CBC encrypts it.

use super::aes_blocks::{Aes, Sector, encrypt_number};
use super::cbc::{Cbc, offsets};

/// Passes of the two diffusers over a sector.
const PASSES_A: usize = 5;
const PASSES_B: usize = 3;
/// Bits by which the words are rotated, by the last two bits of their number.
const ROTATE_A: [u32; 4] = [9, 0, 13, 0];
const ROTATE_B: [u32; 4] = [0, 10, 0, 25];
/// Words of a sector.
const WORDS_512: usize = 512 / 4;
const WORDS_4096: usize = 4096 / 4;

/// The key of CBC and that of the sector keys.
pub struct Elephant<C> {
    cbc: Cbc<C>,
    tweak: C,
}

impl<C: Aes> Elephant<C> {
    pub(super) fn new(data: &[u8], tweak: &[u8]) -> Option<Self> {
        Some(Self { cbc: Cbc::new(data)?, tweak: C::new_from_slice(tweak).ok()? })
    }

    pub(super) fn decrypt(&self, sector: Sector, start: u64, data: &mut [u8]) {
        self.cbc.decrypt(sector, start, data);
        for (offset, bytes) in offsets(sector, start).zip(data.chunks_exact_mut(sector.bytes())) {
            match sector {
                Sector::Bytes512 => stir::<WORDS_512>(bytes, undo_diffusers),
                Sector::Bytes4096 => stir::<WORDS_4096>(bytes, undo_diffusers),
            }
            self.mix(offset, bytes);
        }
    }

    pub(super) fn encrypt(&self, sector: Sector, start: u64, data: &mut [u8]) {
        for (offset, bytes) in offsets(sector, start).zip(data.chunks_exact_mut(sector.bytes())) {
            self.mix(offset, bytes);
            match sector {
                Sector::Bytes512 => stir::<WORDS_512>(bytes, apply_diffusers),
                Sector::Bytes4096 => stir::<WORDS_4096>(bytes, apply_diffusers),
            }
        }
        self.cbc.encrypt(sector, start, data);
    }

    /// Adds the sector key to a sector.
    fn mix(&self, offset: u64, bytes: &mut [u8]) {
        let offset = u128::from(offset);
        let low = encrypt_number(&self.tweak, offset);
        let high = encrypt_number(&self.tweak, offset | 0x80 << 120);
        for (block, key) in bytes.as_chunks_mut::<16>().0.iter_mut().zip([low, high].into_iter().cycle()) {
            *block = (u128::from_le_bytes(*block) ^ key).to_le_bytes();
        }
    }
}

/// Applies `change` to the words of a sector.
fn stir<const N: usize>(bytes: &mut [u8], change: impl Fn(&mut [u32; N])) {
    let mut words = [0u32; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    change(&mut words);
    for (word, bytes) in words.iter().zip(bytes.as_chunks_mut::<4>().0) {
        *bytes = word.to_le_bytes();
    }
}

fn undo_diffusers<const N: usize>(words: &mut [u32; N]) {
    for _ in 0..PASSES_B {
        for i in (0..N).step_by(4) {
            for (k, bits) in ROTATE_B.into_iter().enumerate() {
                let i = i + k;
                words[i] = words[i].wrapping_add(words[(i + 2) % N] ^ words[(i + 5) % N].rotate_left(bits));
            }
        }
    }
    for _ in 0..PASSES_A {
        for i in (0..N).step_by(4) {
            for (k, bits) in ROTATE_A.into_iter().enumerate() {
                let i = i + k;
                words[i] = words[i].wrapping_add(words[(i + N - 2) % N] ^ words[(i + N - 5) % N].rotate_left(bits));
            }
        }
    }
}

fn apply_diffusers<const N: usize>(words: &mut [u32; N]) {
    for _ in 0..PASSES_A {
        for i in (0..N).step_by(4).rev() {
            for (k, bits) in ROTATE_A.into_iter().enumerate().rev() {
                let i = i + k;
                words[i] = words[i].wrapping_sub(words[(i + N - 2) % N] ^ words[(i + N - 5) % N].rotate_left(bits));
            }
        }
    }
    for _ in 0..PASSES_B {
        for i in (0..N).step_by(4).rev() {
            for (k, bits) in ROTATE_B.into_iter().enumerate().rev() {
                let i = i + k;
                words[i] = words[i].wrapping_sub(words[(i + 2) % N] ^ words[(i + 5) % N].rotate_left(bits));
            }
        }
    }
}
