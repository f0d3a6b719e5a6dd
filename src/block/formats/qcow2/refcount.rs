//! Stored refcounts (QEMU docs/interop/qcow2.rst, "Host cluster management").

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cluster::{ClusterSize, HostCluster};
use super::entry::RefcountTableEntry;
use super::header::{Header, REFCOUNT_TABLE_BYTES_MAX};
use super::on_disk::table;
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Reads the refcount at `index` of a block whose entries have `1 << order` bits.
pub(super) fn get(block: &[u8], order: u32, index: u64) -> u64 {
    let Ok(index) = usize::try_from(index) else { return 0 };
    if order < 3 {
        // Packed from the least significant bit.
        let bit = index << order;
        let byte = block.get(bit / 8).copied().unwrap_or(0);
        return u64::from(byte >> (bit % 8)) & ((1 << (1 << order)) - 1);
    }
    let width = 1usize << (order - 3);
    let bytes = block.get(index * width..).and_then(|b| b.get(..width)).unwrap_or_default();
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Stores a refcount; the value must fit.
pub(super) fn set(block: &mut [u8], order: u32, index: u64, value: u64) {
    let Ok(index) = usize::try_from(index) else { return };
    if order < 3 {
        let bit = index << order;
        let mask = ((1u16 << (1 << order)) - 1) as u8;
        if let Some(byte) = block.get_mut(bit / 8) {
            *byte = *byte & !(mask << (bit % 8)) | ((value as u8 & mask) << (bit % 8));
        }
        return;
    }
    let width = 1usize << (order - 3);
    if let Some(bytes) = block.get_mut(index * width..).and_then(|b| b.get_mut(..width)) {
        bytes.copy_from_slice(value.to_be_bytes().get(8 - width..).unwrap_or_default());
    }
}

/// Reads the refcount table.
pub(super) fn read_table(storage: &dyn Storage, header: &Header) -> Result<Vec<RefcountTableEntry>> {
    let mut bytes = vec![0; usize::try_from(header.refcount_table_bytes()).unwrap_or(0)];
    storage
        .read_exact_at(header.refcount_table.0, &mut bytes)
        .map_err(|e| Error::io(Layer::Block, "cannot read the refcount table", e))?;
    Ok(table(&bytes))
}

/// The numbers of the refcount blocks and their host offsets, as they are in the table, unchecked.
pub(super) fn blocks(table: &[RefcountTableEntry]) -> impl Iterator<Item = (u64, HostOffset)> {
    (0..).zip(table).filter(|(_, entry)| entry.0 != 0).map(|(index, entry)| (index, HostOffset(entry.0)))
}

/// A refcount block in memory.
#[derive(Debug, Clone)]
struct Block {
    at: HostOffset,
    data: Vec<u8>,
    is_dirty: bool,
}

/// The refcounts of an image that is being edited.
#[derive(Debug)]
pub(super) struct Refcounts {
    storage: Arc<dyn Storage>,
    clusters: ClusterSize,
    order: u32,
    table: Vec<RefcountTableEntry>,
    /// Whether the table has to be written to other clusters.
    is_table_new: bool,
    /// Blocks that were read or made, by their number.
    blocks: BTreeMap<u64, Block>,
}

impl Refcounts {
    /// The refcounts as they are stored.
    pub fn load(storage: Arc<dyn Storage>, header: &Header) -> Result<Self> {
        let table = read_table(&*storage, header)?;
        Ok(Self { table, is_table_new: false, ..Self::empty(storage, header) })
    }

    /// No refcounts at all: everything has to be counted anew.
    pub fn empty(storage: Arc<dyn Storage>, header: &Header) -> Self {
        Self {
            storage,
            clusters: header.clusters,
            order: header.refcount_order,
            table: Vec::new(),
            is_table_new: true,
            blocks: BTreeMap::new(),
        }
    }

    /// Refcounts in a block.
    fn block_entries(&self) -> u64 {
        (self.clusters.bytes() * 8) >> self.order
    }

    /// The refcount of a host cluster.
    pub fn get(&mut self, cluster: HostCluster) -> Result<u64> {
        let entries = self.block_entries();
        let order = self.order;
        Ok(self.block(cluster.0 / entries)?.map_or(0, |block| get(&block.data, order, cluster.0 % entries)))
    }

    /// Changes a refcount in a block that exists. Returns whether there was one.
    pub fn set(&mut self, cluster: HostCluster, value: u64) -> Result<bool> {
        let max = u64::MAX >> (64 - (1u32 << self.order));
        if value > max {
            return Err(Error::unsupported(Layer::Block, "a refcount would exceed the image's refcount width")
                .hint("convert the image with qemu-img convert -O qcow2"));
        }
        let entries = self.block_entries();
        let order = self.order;
        let Some(block) = self.block(cluster.0 / entries)? else { return Ok(false) };
        set(&mut block.data, order, cluster.0 % entries, value);
        block.is_dirty = true;
        Ok(true)
    }

    /// Makes host cluster `at` the new, empty block for the part of the file that `cluster` lies in.
    pub fn add_block(&mut self, cluster: HostCluster, at: HostCluster) -> Result<()> {
        let index = cluster.0 / self.block_entries();
        let slot = usize::try_from(index).unwrap_or(usize::MAX);
        if index * 8 >= REFCOUNT_TABLE_BYTES_MAX {
            return Err(Error::unsupported(Layer::Block, "the refcount table would exceed 8 MiB")
                .hint("convert the image to larger clusters: qemu-img convert -O qcow2"));
        }
        if self.table.len() <= slot {
            self.table.resize(slot + 1, RefcountTableEntry::default());
        }
        let at = self.clusters.host_offset(at);
        if let Some(entry) = self.table.get_mut(slot) {
            *entry = at.into();
        }
        self.is_table_new = true;
        let data = vec![0; usize::try_from(self.clusters.bytes()).unwrap_or(0)];
        self.blocks.insert(index, Block { at, data, is_dirty: true });
        Ok(())
    }

    /// The whole table, if it has to be written to other clusters.
    pub fn new_table(&self) -> Option<&[RefcountTableEntry]> {
        self.is_table_new.then_some(&*self.table)
    }

    /// Takes the changed blocks to be written: host offset and content. They count as unchanged afterwards.
    pub fn take_changes(&mut self) -> Vec<(HostOffset, Vec<u8>)> {
        let dirty = self.blocks.values_mut().filter(|block| block.is_dirty);
        dirty
            .map(|block| {
                block.is_dirty = false;
                (block.at, block.data.clone())
            })
            .collect()
    }

    fn block(&mut self, index: u64) -> Result<Option<&mut Block>> {
        if !self.blocks.contains_key(&index) {
            let entry = usize::try_from(index).ok().and_then(|i| self.table.get(i)).copied().unwrap_or_default();
            let Some(at) = entry.block() else { return Ok(None) };
            let mut data = vec![0; usize::try_from(self.clusters.bytes()).unwrap_or(0)];
            self.storage
                .read_exact_at(at.0, &mut data)
                .map_err(|e| Error::io(Layer::Block, "cannot read a refcount block", e).at(at))?;
            self.blocks.insert(index, Block { at, data, is_dirty: false });
        }
        Ok(self.blocks.get_mut(&index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_keeps_its_neighbours() {
        for order in 0..=6u32 {
            let max = u64::MAX >> (64 - (1u32 << order));
            let mut block = vec![0; 512];
            let entries = (512 * 8) >> order;
            for index in 0..entries {
                set(&mut block, order, index, (index * 7 + 1) & max);
            }
            for index in 0..entries {
                assert_eq!(get(&block, order, index), (index * 7 + 1) & max, "order {order} index {index}");
            }
            set(&mut block, order, 5, max);
            assert_eq!(get(&block, order, 5), max);
            assert_eq!(get(&block, order, 4), 29 & max);
            assert_eq!(get(&block, order, 6), 43 & max);
        }
        // As the specification has it: entry 1 of 16 bits is at byte 2, big endian; of 1 bit, bit 1 of byte 0.
        let mut block = vec![0; 512];
        set(&mut block, 4, 1, 0x0102);
        assert_eq!(block[..4], [0, 0, 1, 2]);
        let mut block = vec![0; 512];
        set(&mut block, 0, 9, 1);
        assert_eq!(block[..2], [0, 2]);
    }
}
