//! AES-CBC whose initialisation vector is the encrypted volume offset of the sector, without padding.

use super::aes_blocks::{Aes, BATCH, Block, Sector, encrypt_number};

/// Bytes of a batch.
const BATCH_BYTES: usize = BATCH * 16;
/// Sectors that are encrypted side by side: inside one sector, each block needs the one before.
const LANES: usize = 8;

/// The data key.
pub struct Cbc<C>(C);

impl<C: Aes> Cbc<C> {
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        C::new_from_slice(key).ok().map(Self)
    }

    pub(super) fn decrypt(&self, sector: Sector, start: u64, data: &mut [u8]) {
        let mut blocks = [Block::default(); BATCH];
        for (offset, sector) in offsets(sector, start).zip(data.chunks_exact_mut(sector.bytes())) {
            let mut previous = self.vector(offset);
            for batch in sector.as_chunks_mut::<BATCH_BYTES>().0 {
                for (block, bytes) in blocks.iter_mut().zip(batch.as_chunks::<16>().0) {
                    *block = (*bytes).into();
                }
                self.0.decrypt_blocks(&mut blocks);
                for (block, bytes) in blocks.iter().zip(batch.as_chunks_mut::<16>().0) {
                    let ciphertext = u128::from_le_bytes(*bytes);
                    *bytes = (u128::from_le_bytes((*block).into()) ^ previous).to_le_bytes();
                    previous = ciphertext;
                }
            }
        }
    }

    pub(super) fn encrypt(&self, sector: Sector, start: u64, data: &mut [u8]) {
        let size = sector.bytes();
        let mut offsets = offsets(sector, start);
        for sectors in data.chunks_mut(LANES * size) {
            let mut lanes: Vec<_> =
                sectors.chunks_exact_mut(size).map(|sector| sector.as_chunks_mut::<16>().0.iter_mut()).collect();
            let mut vectors = [0u128; LANES];
            for (vector, offset) in vectors.iter_mut().zip(offsets.by_ref().take(lanes.len())) {
                *vector = self.vector(offset);
            }
            let mut blocks = vectors.map(|vector| Block::from(vector.to_le_bytes()));
            let Some(blocks) = blocks.get_mut(..lanes.len()) else { return };
            for _ in 0..size / 16 {
                // each lane's block, until its ciphertext is known
                let mut row: [Option<&mut [u8; 16]>; LANES] = Default::default();
                for ((block, lane), place) in blocks.iter_mut().zip(&mut lanes).zip(&mut row) {
                    let Some(bytes) = lane.next() else { continue };
                    let mixed = u128::from_le_bytes((*block).into()) ^ u128::from_le_bytes(*bytes);
                    *block = mixed.to_le_bytes().into();
                    *place = Some(bytes);
                }
                self.0.encrypt_blocks(blocks);
                for (block, bytes) in blocks.iter().zip(row.into_iter().flatten()) {
                    *bytes = (*block).into();
                }
            }
        }
    }

    fn vector(&self, offset: u64) -> u128 {
        encrypt_number(&self.0, offset.into())
    }
}

/// The volume offsets of the sectors from `start` on.
pub(super) fn offsets(sector: Sector, start: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(start), move |offset| offset.checked_add(sector.bytes() as u64))
}
