//! Changing the B+tree of an index: insertion with promotion and splits, deletion with re-homing and freeing of blocks.
//!
//! A node is edited as a list of entries ([`Node`]) and stored again; if it has become too long, it is split, and its
//! middle entry moves up.

use std::sync::Arc;

use super::blocks::{allocate_block, free_block};
use super::node::split;
use super::tree::{Btree, NodeId, Step};
use crate::error::{Error, Layer, Result};
use crate::io::VolumeWrite;
use crate::ntfs::attributes::{Attributes, load, remove_attribute, store};
use crate::ntfs::core::Core;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::index_node::{IndexBlock, IndexEntry, Node, block, entry, root};
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::units::{FileId, Vcn};
use crate::ntfs::pager::CachedBlock;
use crate::ntfs::stream::pieces;

/// Bytes left free in a record whose root node has children, for the run list of the index to grow.
const ROOT_RESERVE: usize = 0x60;

/// An index that is being changed.
#[derive(Debug)]
pub(crate) struct BtreeEditor<'a, D> {
    core: &'a mut Core<D>,
    file: FileId,
    name: &'static str,
}

impl<'a, D: VolumeWrite> BtreeEditor<'a, D> {
    /// For the index `name` of a file. It is opened by the first change.
    pub(crate) fn new(core: &'a mut Core<D>, file: FileId, name: &'static str) -> Self {
        Self { core, file, name }
    }

    /// The tree as it is now: an edit may move its root and its blocks.
    fn tree(&self) -> Result<Btree<'_, D>> {
        Btree::open(&self.core.pager, self.file, self.name)
    }

    /// Changes the key of an entry in place; the change must not affect the order. `false` when there is no such entry.
    pub(crate) fn patch_key(&mut self, key: &[u8], change: impl FnOnce(&mut [u8])) -> Result<bool> {
        let tree = self.tree()?;
        let search = tree.search(key, true)?;
        let Some(step) = search.path.last().copied().filter(|_| search.is_match) else { return Ok(false) };
        let range = |bytes: &[u8]| {
            let length = usize::from(entry::KEY_LENGTH.get(bytes.get(step.offset..).unwrap_or_default()));
            step.offset + entry::KEY..step.offset + entry::KEY + length
        };
        match step.node {
            NodeId::Root => {
                let number = tree.index.root.0;
                let (record, start) = tree.root_node()?;
                let mut record = (*record).clone();
                let node = record.bytes_mut().get_mut(start..).unwrap_or_default();
                let range = range(node);
                change(node.get_mut(range).unwrap_or_default());
                self.core.pager.patch_record(number, record);
            }
            NodeId::Block(vcn) => {
                let cached = tree.block(vcn)?;
                let changed = self.core.pager.change_block(cached, |cached| {
                    let node = cached.block.node_bytes_mut();
                    let range = range(node);
                    change(node.get_mut(range).unwrap_or_default());
                });
                changed.ok_or_else(|| Error::bug(Layer::Ntfs, "an index block is not in memory"))?;
            }
        }
        Ok(true)
    }

    /// Inserts an entry, splitting nodes as needed.
    ///
    /// # Errors
    /// Refused when the key exists, or there is no space for another block.
    pub(crate) fn insert(&mut self, new: IndexEntry) -> Result<()> {
        self.insert_comparing(new, false)
    }

    /// [`insert`](Self::insert); with `exactly`, a key that differs in case is another one.
    fn insert_comparing(&mut self, new: IndexEntry, exactly: bool) -> Result<()> {
        let tree = self.tree()?;
        let search = tree.search(new.key(), exactly)?;
        if search.is_match {
            return Err(Error::refused(Layer::Ntfs, "the name exists").hint("choose another name"));
        }
        let step = *search.path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "empty path"))?;
        if let NodeId::Block(vcn) = step.node {
            let cached = tree.block(vcn)?;
            if cached.block.used() + new.length() <= cached.block.bytes().len() - block::NODE
                && self.core.pager.change_block(cached, |c| c.insert_at(step.position, step.offset, &new)) == Some(true)
            {
                return Ok(());
            }
        }
        let mut node = self.tree()?.load_node(step.node)?;
        node.entries.insert(step.position, new);
        self.rebalance(search.path, node)
    }

    /// Stores a changed node (the last of `path`), splitting upwards as long as nodes are too long.
    fn rebalance(&mut self, mut path: Vec<Step>, mut node: Node) -> Result<()> {
        while let Some(step) = path.pop() {
            let tree = self.tree()?;
            let NodeId::Block(vcn) = step.node else {
                return self.store_root(node);
            };
            let mut cached = (*tree.block(vcn)?).clone();
            if cached.set_node(&node) {
                self.core.pager.put_block(cached);
                return Ok(());
            }
            let right_vcn = self.allocate_block()?;
            let (left, middle, right) = split(node, step.position, cached.block.capacity(), vcn)?;
            if !cached.set_node(&left) {
                return Err(Error::bug(Layer::Ntfs, "half of an index node does not fit"));
            }
            self.core.pager.put_block(cached);
            self.write_new_block(right_vcn, &right)?;
            let parent = path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "a block without parent"))?;
            node = self.tree()?.load_node(parent.node)?;
            let at = parent.position;
            match node.entries.get_mut(at) {
                Some(entry) if entry.child == Some(vcn) => entry.child = Some(right_vcn),
                _ => return Err(damaged("the path to an index block has changed")),
            }
            node.entries.insert(at, middle);
        }
        Err(Error::bug(Layer::Ntfs, "an index node was not stored"))
    }

    fn write_new_block(&mut self, vcn: Vcn, node: &Node) -> Result<()> {
        let index = Arc::clone(&self.tree()?.index);
        let runs = index.runs.as_ref().ok_or_else(|| damaged("index without blocks"))?;
        let size = index.block_size as usize;
        let pieces = pieces(&self.core.pager.geometry, runs, index.number(vcn)? * size as u64, size)?;
        let mut block = IndexBlock::blank(vcn, size);
        if !block.set_node(node) {
            return Err(Error::unsupported(Layer::Ntfs, "index blocks too small for the names in them"));
        }
        self.core.pager.put_block(CachedBlock::new(block, pieces));
        Ok(())
    }

    /// Stores the root node; when the record has no room for it, its entries move into a block.
    fn store_root(&mut self, node: Node) -> Result<()> {
        let tree = self.tree()?;
        let (record, _) = tree.root_node()?;
        let (_, attribute) = record
            .find_instance(AttributeType::INDEX_ROOT, tree.index.root.1)
            .ok_or_else(|| damaged("$INDEX_ROOT is gone"))?;
        let old = attribute.value().unwrap_or_default();
        let value = node.encode_root(old.get(..root::NODE).unwrap_or_default());
        let reserve = if node.has_children() && value.len() > old.len() { ROOT_RESERVE } else { 0 };
        let fits = value.len().next_multiple_of(8) + reserve <= old.len().next_multiple_of(8) + record.free();
        if fits || value.len() <= old.len() {
            let mut attributes = load(&self.core.pager, self.file)?;
            attributes.set_value(AttributeType::INDEX_ROOT, self.name, &value);
            return store(self.core, attributes);
        }
        self.push_down(node)
    }

    /// Moves all entries of the root into one block (two, if they do not fit one).
    fn push_down(&mut self, node: Node) -> Result<()> {
        let index = Arc::clone(&self.tree()?.index);
        let mut attributes = load(&self.core.pager, self.file)?;
        let head = root_head(&attributes, self.name)?;
        let probe = IndexBlock::blank(Vcn(0), index.block_size as usize);
        let first = allocate_block(self.core, &mut attributes, &index)?;
        let (nodes, root) = if node.length() <= probe.capacity() {
            (vec![(first, node)], Node { entries: vec![IndexEntry::last(Some(first))] })
        } else {
            let second = allocate_block(self.core, &mut attributes, &index)?;
            let position = node.entries.len() / 2;
            let (left, middle, right) = split(node, position, probe.capacity(), first)?;
            (vec![(first, left), (second, right)], Node { entries: vec![middle, IndexEntry::last(Some(second))] })
        };
        attributes.set_value(AttributeType::INDEX_ROOT, self.name, &root.encode_root(&head));
        store(self.core, attributes)?;
        for (vcn, node) in nodes {
            self.write_new_block(vcn, &node)?;
        }
        Ok(())
    }

    /// Allocates a block of the index; its content is undefined.
    fn allocate_block(&mut self) -> Result<Vcn> {
        let index = Arc::clone(&self.tree()?.index);
        let mut attributes = load(&self.core.pager, self.file)?;
        let vcn = allocate_block(self.core, &mut attributes, &index)?;
        store(self.core, attributes)?;
        Ok(vcn)
    }

    /// Removes the entry with exactly this key; `false` when there is none.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<bool> {
        let tree = self.tree()?;
        let search = tree.search(key, true)?;
        if !search.is_match {
            return Ok(false);
        }
        let path = search.path;
        let step = *path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "empty path"))?;
        if let NodeId::Block(vcn) = step.node {
            let cached = tree.block(vcn)?;
            let is_leaf = !cached.block.node()?.has_children();
            let alone = cached.block.node()?.entries().nth(1).is_none_or(|e| e.is_ok_and(|e| e.is_last()));
            if is_leaf
                && !alone
                && self.core.pager.change_block(cached, |c| c.remove_at(step.position, step.offset)) == Some(true)
            {
                return Ok(true);
            }
        }
        let mut node = self.tree()?.load_node(step.node)?;
        if !node.has_children() {
            node.entries.remove(step.position);
            self.store_leaf(path, node)?;
            return Ok(true);
        }
        // an entry with a child: the next entry in order takes its place
        let next = node.entries.get(step.position + 1).and_then(|e| e.child);
        let next = next.ok_or_else(|| damaged("index entry without a following child"))?;
        let (mut successor, _) = self.tree()?.first_entry_below(next)?;
        successor.child = node.entries.get(step.position).and_then(|e| e.child);
        let successor_key = successor.key().to_vec();
        node.entries[step.position] = successor;
        self.rebalance(path, node)?;
        // it is there twice now: remove the lower one
        let tree = self.tree()?;
        let mut path = tree.search(&successor_key, true)?.path;
        let top = path.last_mut().ok_or_else(|| Error::bug(Layer::Ntfs, "empty path"))?;
        top.position += 1;
        let next = tree.load_node(top.node)?.entries.get(top.position).and_then(|e| e.child);
        let next = next.ok_or_else(|| damaged("index entry without a following child"))?;
        let (_, below) = self.tree()?.first_entry_below(next)?;
        path.extend(below);
        let step = *path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "empty path"))?;
        let mut leaf = tree.load_node(step.node)?;
        if leaf.entries.first().map(IndexEntry::key) != Some(&successor_key[..]) {
            return Err(Error::bug(Layer::Ntfs, "the successor of a removed entry has moved"));
        }
        leaf.entries.remove(0);
        self.store_leaf(path, leaf)?;
        Ok(true)
    }

    /// Stores a leaf from which an entry was removed; frees it when it is empty.
    fn store_leaf(&mut self, mut path: Vec<Step>, node: Node) -> Result<()> {
        if !node.is_empty() || path.len() == 1 {
            return self.rebalance(path, node);
        }
        loop {
            let Some(Step { node: NodeId::Block(vcn), .. }) = path.pop() else {
                return Err(Error::bug(Layer::Ntfs, "the root cannot be freed"));
            };
            self.free_block(vcn)?;
            let parent = *path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "a block without parent"))?;
            let tree = self.tree()?;
            let mut node = tree.load_node(parent.node)?;
            let at = parent.position;
            if node.entries.get(at).and_then(|e| e.child) != Some(vcn) {
                return Err(damaged("the path to an index block has changed"));
            }
            if node.is_empty() {
                if parent.node == NodeId::Root {
                    return self.make_small();
                }
                continue;
            }
            let mut orphan = if at + 1 < node.entries.len() {
                node.entries.remove(at)
            } else {
                // the last entry takes over the child of the one before, which is inserted anew
                let before = node.entries.remove(at - 1);
                node.entries[at - 1].child = before.child;
                before
            };
            orphan.child = None;
            self.rebalance(path, node)?;
            // in a case-sensitive directory names may differ in case only
            return self.insert_comparing(orphan, true);
        }
    }

    /// Makes the index small again: an empty root, no blocks.
    fn make_small(&mut self) -> Result<()> {
        let mut attributes = load(&self.core.pager, self.file)?;
        let head = root_head(&attributes, self.name)?;
        let root = Node { entries: vec![IndexEntry::last(None)] };
        attributes.set_value(AttributeType::INDEX_ROOT, self.name, &root.encode_root(&head));
        let name = NtfsName::from(self.name);
        for kind in [AttributeType::INDEX_ALLOCATION, AttributeType::BITMAP] {
            remove_attribute(self.core, &mut attributes, kind, &name)?;
        }
        store(self.core, attributes)
    }

    /// Marks a block as free and forgets it.
    fn free_block(&mut self, vcn: Vcn) -> Result<()> {
        let tree = self.tree()?;
        let (index, cached) = (Arc::clone(&tree.index), tree.block(vcn)?);
        self.core.pager.remove_block(&cached);
        let mut attributes = load(&self.core.pager, self.file)?;
        free_block(self.core, &mut attributes, &index, vcn)?;
        store(self.core, attributes)
    }
}

/// The part of `$INDEX_ROOT` before its node.
fn root_head(attributes: &Attributes, name: &str) -> Result<Vec<u8>> {
    let value = attributes.find(AttributeType::INDEX_ROOT, name).and_then(|a| a.value());
    let head = value.and_then(|v| v.get(..root::NODE));
    Ok(head.ok_or_else(|| damaged("$INDEX_ROOT is cut short"))?.to_vec())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::ControlFlow;

    use super::*;
    use crate::io::MemoryVolume;
    use crate::ntfs::format::index_node::{Collation, empty_root};
    use crate::ntfs::format::units::RecordNumber;
    use crate::ntfs::testing::core;

    const FILE: FileId = FileId { record: RecordNumber(9), sequence: 1 };
    const NAME: &str = "$SII";

    /// A file with an empty index of 32-bit keys.
    fn empty_index() -> Core<MemoryVolume> {
        let mut core = core();
        let mut attributes = Attributes::new(FILE);
        attributes.set_value(AttributeType::STANDARD_INFORMATION, "", &[0; 72]);
        let unit = core.pager.geometry.index_unit(4096);
        attributes.set_value(AttributeType::INDEX_ROOT, NAME, &empty_root(0, Collation::U32, 4096, unit));
        store(&mut core, attributes).unwrap();
        core
    }

    fn keys(core: &Core<MemoryVolume>) -> Vec<u32> {
        let mut keys = Vec::new();
        let tree = Btree::open(&core.pager, FILE, NAME).unwrap();
        tree.walk(&mut |entry| {
            keys.push(u32::from_le_bytes(entry.key().try_into().unwrap()));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        keys
    }

    #[test]
    fn the_tree_holds_what_a_set_holds_and_shrinks_to_its_root() {
        let mut core = empty_index();
        let free = core.clusters.bitmap().count_clear(&core.pager).unwrap();
        let mut set = BTreeSet::new();
        // a permutation of 0..1009
        for n in (0..1009u32).map(|n| n * 100 % 1009) {
            let entry = IndexEntry::for_view(&n.to_le_bytes(), &[n as u8; 60], &[]);
            BtreeEditor::new(&mut core, FILE, NAME).insert(entry).unwrap();
            set.insert(n);
        }
        assert!(keys(&core).iter().eq(&set));
        let twice = IndexEntry::for_view(&7u32.to_le_bytes(), &[], &[]);
        assert!(BtreeEditor::new(&mut core, FILE, NAME).insert(twice).is_err());
        let tree = Btree::open(&core.pager, FILE, NAME).unwrap();
        let data = tree.find(&500u32.to_le_bytes(), true, |entry| entry.data().to_vec()).unwrap();
        assert_eq!(data, Some(vec![500u32 as u8; 60]));
        let mut seen = 0;
        tree.walk(&mut |_| {
            seen += 1;
            Ok(if seen == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .unwrap();
        assert_eq!(seen, 10);
        for n in (0..1009u32).map(|n| n * 77 % 1009) {
            assert!(BtreeEditor::new(&mut core, FILE, NAME).remove(&n.to_le_bytes()).unwrap());
            assert!(!BtreeEditor::new(&mut core, FILE, NAME).remove(&n.to_le_bytes()).unwrap());
            set.remove(&n);
            if n % 50 == 0 {
                assert!(keys(&core).iter().eq(&set));
            }
        }
        assert!(keys(&core).is_empty());
        assert_eq!(core.clusters.bitmap().count_clear(&core.pager).unwrap(), free);
    }
}
