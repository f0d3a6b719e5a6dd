//! AES-XTS (IEEE 1619): the tweak is the number of the sector, and sectors are whole blocks.
//!
//! Blocks go to AES in batches, which is what makes it fast: a batch is a sector of 512 bytes.

use super::aes_blocks::{Aes, BATCH, Block, Sector, encrypt_number};

/// Bytes of a batch.
const BATCH_BYTES: usize = BATCH * 16;

/// The data key and the tweak key.
pub struct Xts<C> {
    data: C,
    tweak: C,
}

impl<C: Aes> Xts<C> {
    pub(super) fn new(data: &[u8], tweak: &[u8]) -> Option<Self> {
        Some(Self { data: C::new_from_slice(data).ok()?, tweak: C::new_from_slice(tweak).ok()? })
    }

    pub(super) fn decrypt(&self, sector: Sector, start: u64, data: &mut [u8]) {
        self.apply(sector, start, data, |blocks| self.data.decrypt_blocks(blocks));
    }

    pub(super) fn encrypt(&self, sector: Sector, start: u64, data: &mut [u8]) {
        self.apply(sector, start, data, |blocks| self.data.encrypt_blocks(blocks));
    }

    fn apply(&self, sector: Sector, start: u64, data: &mut [u8], aes: impl Fn(&mut [Block])) {
        let size = sector.bytes();
        let first = start / size as u64;
        let mut tweaks = [0u128; BATCH];
        let mut blocks = [Block::default(); BATCH];
        for (number, sector) in (first..).zip(data.chunks_exact_mut(size)) {
            let mut tweak = encrypt_number(&self.tweak, number.into());
            for batch in sector.as_chunks_mut::<BATCH_BYTES>().0 {
                for ((block, bytes), saved) in blocks.iter_mut().zip(batch.as_chunks::<16>().0).zip(&mut tweaks) {
                    *block = (u128::from_le_bytes(*bytes) ^ tweak).to_le_bytes().into();
                    *saved = tweak;
                    tweak = double(tweak);
                }
                aes(&mut blocks);
                for ((block, bytes), tweak) in blocks.iter().zip(batch.as_chunks_mut::<16>().0).zip(&tweaks) {
                    *bytes = (u128::from_le_bytes((*block).into()) ^ tweak).to_le_bytes();
                }
            }
        }
    }
}

/// The product with the primitive element of GF(2^128).
fn double(tweak: u128) -> u128 {
    (tweak << 1) ^ (0x87 * (tweak >> 127))
}
