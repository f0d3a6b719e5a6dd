//! A disk as a sequence of blocks: bytes and zeros go in from one end to the other, writes of data and of zeros come out.
//!
//! The first block and the last one are held back, and the others are hashed, so that two sequences can be compared however they
//! were cut.

use sha2::{Digest, Sha256};

use super::failure::Failure;
use crate::io::is_zero;

/// Bytes that are written, or made zeros, together. A multiple of every unit that a server may have.
pub(super) const BLOCK: u64 = 64 << 10;

/// Where the blocks of a sequence go.
pub(super) trait BlockSink {
    /// Bytes that are not all zeros.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure>;
    /// A range of zeros.
    fn zeros(&mut self, offset: u64, length: u64) -> Result<(), Failure>;
}

/// Drops all blocks.
pub(super) struct NoSink;

impl BlockSink for NoSink {
    fn data(&mut self, _offset: u64, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }
    fn zeros(&mut self, _offset: u64, _length: u64) -> Result<(), Failure> {
        Ok(())
    }
}

/// A disk that is passed through from one end to the other.
pub(super) struct Sequence {
    /// The end of what went in.
    at: u64,
    /// Bytes of the block that is not complete.
    block: Vec<u8>,
    first: Vec<u8>,
    /// Where the block begins that the disk ends in.
    last_at: u64,
    last: Vec<u8>,
    digest: Sha256,
}

/// The end of a sequence.
pub(super) struct Ended {
    /// The first block.
    pub(super) first: Vec<u8>,
    /// The last block, empty where it is the first one.
    pub(super) last: Vec<u8>,
    /// Hash of those between.
    pub(super) hash: [u8; 32],
}

/// Where the last block of a disk of this size begins: the backup of a partition table is in it. 0 where it is the first one.
pub(super) fn last_block(size: u64) -> u64 {
    size.saturating_sub(1) / BLOCK * BLOCK
}

impl Sequence {
    /// The part of a disk of `size` bytes that begins at `at`, a multiple of [`BLOCK`].
    pub(super) fn starting_at(at: u64, size: u64) -> Self {
        let last_at = last_block(size);
        Self { at, block: Vec::new(), first: Vec::new(), last_at, last: Vec::new(), digest: Sha256::new() }
    }

    /// The offset of the byte that comes next.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8], sink: &mut impl BlockSink) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let room = BLOCK as usize - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            self.at += now.len() as u64;
            bytes = later;
            if self.block.len() as u64 == BLOCK {
                self.complete_block(sink)?;
            }
        }
        Ok(())
    }

    /// Takes zeros up to this offset.
    pub(super) fn push_zeros_to(&mut self, end: u64, sink: &mut impl BlockSink) -> Result<(), Failure> {
        while self.at < end {
            let length = end - self.at;
            let whole = end.min(self.last_at).saturating_sub(self.at) / BLOCK * BLOCK;
            if self.block.is_empty() && self.at > 0 && whole > 0 {
                sink.zeros(self.at, whole)?;
                self.at += whole;
                continue;
            }
            let now = length.min(BLOCK - self.block.len() as u64);
            self.block.resize(self.block.len() + now as usize, 0);
            self.at += now;
            if self.block.len() as u64 == BLOCK {
                self.complete_block(sink)?;
            }
        }
        Ok(())
    }

    /// Ends the disk.
    pub(super) fn finish(mut self, sink: &mut impl BlockSink) -> Result<Ended, Failure> {
        if !self.block.is_empty() {
            self.complete_block(sink)?;
        }
        Ok(Ended { first: self.first, last: self.last, hash: self.digest.finalize().into() })
    }

    fn complete_block(&mut self, sink: &mut impl BlockSink) -> Result<(), Failure> {
        let start = self.at - self.block.len() as u64;
        if start == 0 {
            self.first = std::mem::take(&mut self.block);
            return Ok(());
        }
        if start == self.last_at {
            self.last = std::mem::take(&mut self.block);
            return Ok(());
        }
        if is_zero(&self.block) {
            sink.zeros(start, self.block.len() as u64)?;
        } else {
            self.digest.update(start.to_le_bytes());
            self.digest.update(&self.block);
            sink.data(start, &self.block)?;
        }
        self.block.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internals::random::Random;

    /// A disk of garbage, which each block of the sequence replaces.
    struct Disk(Vec<u8>);

    impl BlockSink for Disk {
        fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
            assert!(offset >= BLOCK && !is_zero(bytes));
            let start = offset as usize;
            self.0[start..start + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        fn zeros(&mut self, offset: u64, length: u64) -> Result<(), Failure> {
            assert!(offset >= BLOCK && offset.is_multiple_of(BLOCK));
            self.0[offset as usize..(offset + length) as usize].fill(0);
            Ok(())
        }
    }

    /// However a disk is cut, each of its bytes comes out, and the hash is the same.
    #[test]
    fn every_byte_of_a_disk_comes_out() {
        let mut random = Random::new(7);
        for round in 0..40 {
            let size = random.below(12 * BLOCK) as usize + 1;
            let mut disk = vec![0; size];
            for _ in 0..random.below(6) {
                let start = random.below(size as u64) as usize;
                let end = size.min(start + random.below(2 * BLOCK) as usize);
                disk[start..end].fill(round + 1);
            }
            let mut sums = Vec::new();
            for _ in 0..3 {
                let (mut sequence, mut out) = (Sequence::starting_at(0, size as u64), Disk(vec![0xAA; size]));
                while sequence.at() < size as u64 {
                    let at = sequence.at() as usize;
                    let end = size.min(at + random.below(3 * BLOCK) as usize + 1);
                    if disk[at..end].iter().all(|byte| *byte == 0) {
                        sequence.push_zeros_to(end as u64, &mut out).unwrap();
                    } else {
                        sequence.push(&disk[at..end], &mut out).unwrap();
                    }
                }
                let Ended { first, last, hash } = sequence.finish(&mut out).unwrap();
                let last_at = last_block(size as u64) as usize;
                assert!(out.0[last_at..].iter().all(|byte| *byte == 0xAA), "round {round}: the end came out early");
                out.0[..first.len()].copy_from_slice(&first);
                assert_eq!(last.is_empty(), last_at == 0, "round {round}");
                out.0[last_at..last_at + last.len()].copy_from_slice(&last);
                assert!(out.0 == disk, "round {round}");
                sums.push(hash);
            }
            assert!(sums.windows(2).all(|pair| pair[0] == pair[1]));
            if last_block(size as u64) > BLOCK {
                disk[last_block(size as u64) as usize - 1] ^= 1;
                let mut other = Sequence::starting_at(BLOCK, size as u64);
                other.push(&disk[BLOCK as usize..], &mut NoSink).unwrap();
                assert_ne!(other.finish(&mut NoSink).unwrap().hash, sums[0], "round {round}");
            }
        }
    }
}
