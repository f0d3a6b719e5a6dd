//! An index block in the cache.

use std::sync::OnceLock;

use crate::ntfs::format::index_node::{IndexBlock, IndexEntry, Node};
use crate::ntfs::stream::Piece;

/// An index block in memory, and where it is on the device.
#[derive(Debug, Clone)]
pub(crate) struct CachedBlock {
    pub block: IndexBlock,
    pub pieces: Vec<Piece>,
    /// Offsets of the entries, once they were asked for; `None` inside: they are not in order.
    pub offsets: OnceLock<Option<Vec<u16>>>,
}

impl CachedBlock {
    pub fn new(block: IndexBlock, pieces: Vec<Piece>) -> Self {
        Self { block, pieces, offsets: OnceLock::new() }
    }

    /// Replaces all entries; `false` when they do not fit.
    #[must_use]
    pub fn set_node(&mut self, node: &Node) -> bool {
        self.offsets = OnceLock::new();
        self.block.set_node(node)
    }

    /// Inserts an entry at its place in the order, before the one at `position` and `offset`; `false` when it does not
    /// fit.
    #[must_use]
    pub fn insert_at(&mut self, position: usize, offset: usize, entry: &IndexEntry) -> bool {
        if !self.block.insert_at(offset, entry) {
            return false;
        }
        if let Some(Some(offsets)) = self.offsets.get_mut()
            && position < offsets.len()
        {
            for behind in offsets.iter_mut().skip(position) {
                *behind = behind.saturating_add(entry.length() as u16);
            }
            offsets.insert(position, offset as u16);
        } else {
            self.offsets = OnceLock::new();
        }
        true
    }

    /// Removes the entry at `position` and `offset`, if it is not the last one of its node; `false` otherwise.
    #[must_use]
    pub fn remove_at(&mut self, position: usize, offset: usize) -> bool {
        let used = self.block.used();
        if !self.block.remove_at(offset) {
            return false;
        }
        let length = used.saturating_sub(self.block.used()) as u16;
        if let Some(Some(offsets)) = self.offsets.get_mut()
            && offsets.get(position).copied() == u16::try_from(offset).ok()
        {
            offsets.remove(position);
            for behind in offsets.iter_mut().skip(position) {
                *behind = behind.saturating_sub(length);
            }
        } else {
            self.offsets = OnceLock::new();
        }
        true
    }
}
