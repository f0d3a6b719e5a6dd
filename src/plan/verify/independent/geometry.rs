//! Boot sector, and cached reads of the volume.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::bytes::{damaged, short_at, slice, u8_at, u64_at};
use crate::error::Result;
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// Unit of the cache, in bytes.
const BLOCK: u64 = 16 << 10;
/// Blocks that are cached; then the cache is emptied. 16 MiB.
const BLOCKS: usize = 1024;
/// From this length on a read goes past the cache: it is the content of a file, which is read once.
const LARGE_READ: usize = 64 << 10;

/// What the boot sector says. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub cluster: u64,
    pub cluster_count: u64,
    pub record: u64,
    /// Volume offset of `$MFT`.
    pub mft: u64,
}

/// A size that is given as a number of clusters, or as the negative exponent of a power of two.
fn coded_size(code: u8, cluster: u64) -> Option<u64> {
    let size = match code.cast_signed() {
        clusters @ 1.. => cluster.checked_mul(u64::from(clusters.unsigned_abs()))?,
        exponent => 1u64.checked_shl(u32::from(exponent.unsigned_abs()))?,
    };
    (size.is_power_of_two() && (512..=65536).contains(&size)).then_some(size)
}

impl Geometry {
    pub(super) fn read(boot: &[u8], volume_size: u64) -> Result<Self> {
        let wrong = || damaged("the boot sector is not that of an NTFS volume");
        if slice(boot, 3, 8)? != b"NTFS    " {
            return Err(wrong());
        }
        let sector = short_at(boot, 0x0B)? as u64;
        let per_cluster = match u8_at(boot, 0x0D)? {
            code @ ..=0x80 => u64::from(code),
            code => 1u64.checked_shl(u32::from(code.cast_signed().unsigned_abs())).ok_or_else(wrong)?,
        };
        let cluster = sector.checked_mul(per_cluster).ok_or_else(wrong)?;
        let is_size = |size: u64, most: u64| size.is_power_of_two() && (512..=most).contains(&size);
        if !is_size(sector, 4096) || !is_size(cluster, 2 << 20) {
            return Err(wrong());
        }
        let cluster_count = (u64_at(boot, 0x28)? / per_cluster).min(volume_size / cluster);
        let record = coded_size(u8_at(boot, 0x40)?, cluster).ok_or_else(wrong)?;
        let mft = u64_at(boot, 0x30)?;
        if mft >= cluster_count {
            return Err(wrong());
        }
        Ok(Self { cluster, cluster_count, record, mft: mft.checked_mul(cluster).ok_or_else(wrong)? })
    }
}

/// The volume, with a cache for small reads.
pub(super) struct Device<'a> {
    volume: &'a dyn VolumeRead,
    blocks: RefCell<HashMap<u64, Rc<[u8]>>>,
}

impl<'a> Device<'a> {
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
            return Err(damaged("something lies beyond the end of the volume").at(at));
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
                return Err(damaged("something lies beyond the end of the volume").at(at));
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
        let mut bytes = vec![0; super::bytes::size(length)?];
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
