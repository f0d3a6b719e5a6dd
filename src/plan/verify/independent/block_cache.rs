//! Reads of the volume through a small cache: looking paths up reads the same few file records and index blocks again
//! and again. The independent reader and the third opinion share it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::bytes::{damaged, size, slice};
use crate::error::Result;
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// Unit of the cache, in bytes.
const BLOCK: u64 = 16 << 10;
/// Most blocks in the cache (16 MiB); it is emptied before it would hold more.
const BLOCKS: usize = 1024;
/// Reads of this length and more go past the cache: they are the content of files, which is read once.
const LARGE_READ: usize = 64 << 10;

/// A volume with a cache for small reads.
pub(super) struct BlockCache<'a> {
    volume: &'a dyn VolumeRead,
    blocks: RefCell<HashMap<u64, Rc<[u8]>>>,
}

impl<'a> BlockCache<'a> {
    pub(super) fn new(volume: &'a dyn VolumeRead) -> Self {
        Self { volume, blocks: RefCell::default() }
    }

    pub(super) fn len(&self) -> u64 {
        self.volume.len()
    }

    /// Fills `buf` from volume offset `at`.
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let end = at.checked_add(buf.len() as u64).filter(|end| *end <= self.len());
        if end.is_none() {
            return Err(damaged("an offset is beyond the end of the volume").at(at));
        }
        if buf.len() >= LARGE_READ {
            return self.volume.read_at(VolumeOffset(at), buf);
        }
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let block = self.block(at / BLOCK)?;
            let skip = usize::try_from(at % BLOCK).unwrap_or(usize::MAX);
            let from = block.get(skip..).unwrap_or_default();
            let count = from.len().min(rest.len());
            if count == 0 {
                return Err(damaged("an offset is beyond the end of the volume").at(at));
            }
            let (to, left) = rest.split_at_mut(count);
            to.copy_from_slice(slice(from, 0, count)?);
            (at, rest) = (at + count as u64, left);
        }
        Ok(())
    }

    fn block(&self, number: u64) -> Result<Rc<[u8]>> {
        if let Some(block) = self.blocks.borrow().get(&number) {
            return Ok(Rc::clone(block));
        }
        let start = number * BLOCK;
        let length = self.len().saturating_sub(start).min(BLOCK);
        let mut bytes = vec![0; size(length)?];
        self.volume.read_at(VolumeOffset(start), &mut bytes)?;
        let block: Rc<[u8]> = bytes.into();
        let mut blocks = self.blocks.borrow_mut();
        if blocks.len() >= BLOCKS {
            blocks.clear();
        }
        blocks.insert(number, Rc::clone(&block));
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Counts what is read from it.
    struct Counted {
        bytes: Vec<u8>,
        read: Cell<usize>,
    }

    impl VolumeRead for Counted {
        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }
        fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
            self.read.set(self.read.get() + buf.len());
            buf.copy_from_slice(slice(&self.bytes, size(offset.0)?, buf.len())?);
            Ok(())
        }
    }

    #[test]
    fn small_reads_of_a_block_read_it_once() {
        let block = size(BLOCK).unwrap();
        let bytes: Vec<u8> = (0..3 * block + 512).map(|at| (at / 7) as u8).collect();
        let volume = Counted { bytes: bytes.clone(), read: Cell::new(0) };
        let cache = BlockCache::new(&volume);
        for at in (0..bytes.len() - 1024).step_by(1000) {
            let mut buf = [0; 1024];
            cache.read(at as u64, &mut buf).unwrap();
            assert_eq!(buf, bytes[at..at + 1024]);
        }
        cache.read(bytes.len() as u64 - 1, &mut [0]).unwrap();
        assert_eq!(volume.read.get(), bytes.len());
        assert!(cache.read(bytes.len() as u64, &mut [0]).is_err());
        assert!(cache.read(u64::MAX, &mut [0; 2]).is_err());
        assert_eq!(volume.read.get(), bytes.len());
    }
}
