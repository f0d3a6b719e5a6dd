//! Driver media, INFs, definitions, signatures and the choice for a guest.

pub mod media;

mod bad_media;
mod cli;
mod corpus;
mod guide;
mod hostile;
mod images;
mod inf;
mod matrix;
mod selection;
mod trust;

/// A small random generator with a fixed seed: the same mutations in every run.
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn next(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit.max(1) as u64) as usize
    }

    /// One to four changes from an offset on: bytes set, bits turned, pieces cut or doubled.
    pub fn spoil(&mut self, data: &mut Vec<u8>, from: usize) {
        for _ in 0..1 + self.next(4) {
            let at = from + self.next(data.len().saturating_sub(from));
            if at >= data.len() {
                return;
            }
            match self.next(8) {
                0 => data[at] = 0,
                1 => data[at] = 0xFF,
                2 => data.truncate(at),
                3 => {
                    let end = (at + self.next(64)).min(data.len());
                    let piece = data[at..end].to_vec();
                    data.splice(at..at, piece);
                }
                4 => data[at] = self.next(256) as u8,
                _ => data[at] ^= 1 << self.next(8),
            }
        }
    }
}

tests![in bad_media, cli, corpus, guide, hostile, images, inf, matrix, selection, trust;];
