//! Reading the B+tree of an index: opening, searching and walking it. Nothing here recurses over the tree: paths are
//! lists with a bound.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::node::{find_binary, find_linear};
use crate::error::{Error, Kind, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::attributes::{location_of, stream_of};
use crate::ntfs::format::attribute::{AttributeType, resident};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::index_node::{
    Collation, EntryView, IndexEntry, Node, NodeView, node as node_header, root as header,
};
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::record::Record;
use crate::ntfs::format::runlist::Run;
use crate::ntfs::format::units::{FileId, Vcn};
use crate::ntfs::pager::{BLOCKS_MAX, CachedBlock, Index, Pager};
use crate::ntfs::stream::{Stream, pieces};

/// Deeper trees do not exist: 16 levels of at least two children each hold more entries than a volume has records.
const DEPTH_MAX: usize = 16;

/// Which node of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeId {
    /// The node in `$INDEX_ROOT`.
    Root,
    /// The node of an index block.
    Block(Vcn),
}

/// A step on the way down: a node, and which of its entries was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub node: NodeId,
    /// Index of the entry.
    pub position: usize,
    /// Offset of the entry from the node's header, in bytes.
    pub offset: usize,
}

/// The path from the root to an entry.
#[derive(Debug)]
pub(super) struct Search {
    pub path: Vec<Step>,
    /// Whether the entry has the key; else the key belongs before it.
    pub is_match: bool,
}

/// An opened index, for reading.
#[derive(Debug)]
pub(crate) struct Btree<'a, D> {
    pager: &'a Pager<D>,
    pub(super) index: Arc<Index>,
}

impl<'a, D: VolumeRead> Btree<'a, D> {
    /// Opens the index `name` of a file.
    ///
    /// # Errors
    /// Refused when the file has no such index; damaged.
    pub(crate) fn open(pager: &'a Pager<D>, file: FileId, name: &'static str) -> Result<Self> {
        if let Some(index) = pager.opened_index(file.record, name).filter(|known| known.file == file) {
            return Ok(Self { pager, index });
        }
        let index = Arc::new(pager.in_record(file.record, read_index(pager, file, name))?);
        pager.remember_index(&index);
        Ok(Self { pager, index })
    }

    /// The order of its keys.
    pub(crate) fn collation(&self) -> Collation {
        self.index.collation
    }

    /// The block with a VCN.
    pub(super) fn block(&self, vcn: Vcn) -> Result<Arc<CachedBlock>> {
        let number = self.index.number(vcn)?;
        let runs = self.index.runs.as_ref().ok_or_else(|| damaged("index without blocks has children"))?;
        let offset = number * u64::from(self.index.block_size);
        let size = self.index.block_size as usize;
        let cluster = u64::from(self.pager.geometry.cluster_size);
        if let Some(&Run { vcn: first, lcn: Some(lcn), .. }) = runs.find(Vcn(offset / cluster))
            && let Some(cached) = self.pager.cached_block(lcn.0 * cluster + (offset - first.0 * cluster), vcn, size)?
        {
            return Ok(cached);
        }
        self.pager.read_block(pieces(&self.pager.geometry, runs, offset, size)?, vcn)
    }

    /// The record with the root node, and the node's offset in it.
    pub(super) fn root_node(&self) -> Result<(Arc<Record>, usize)> {
        let record = self.pager.record(self.index.root.0)?;
        let (at, attribute) = record
            .find_instance(AttributeType::INDEX_ROOT, self.index.root.1)
            .ok_or_else(|| damaged("$INDEX_ROOT is gone"))?;
        if attribute.value().is_none_or(|v| v.len() < header::NODE + node_header::SIZE) {
            return Err(damaged("$INDEX_ROOT is cut short"));
        }
        let start = at + usize::from(resident::VALUE_OFFSET.get(attribute.bytes())) + header::NODE;
        Ok((record, start))
    }

    /// Calls `use_it` with a node, and tells in its errors where the node is.
    fn with_node<T>(&self, node: NodeId, use_it: impl FnOnce(NodeView<'_>) -> Result<T>) -> Result<T> {
        match node {
            NodeId::Root => {
                let (record, start) = self.pager.in_record(self.index.root.0, self.root_node())?;
                let node = NodeView::parse(record.bytes().get(start..).unwrap_or_default());
                self.pager.in_record(self.index.root.0, node.and_then(use_it))
            }
            NodeId::Block(vcn) => {
                let cached = self.pager.in_record(self.index.file.record, self.block(vcn))?;
                cached.block.node().and_then(use_it).map_err(|error| match cached.pieces.first() {
                    Some(&(Some(offset), _)) if error.kind() == Kind::Damaged => {
                        error.inside(self.pager.image_offset(offset))
                    }
                    _ => error,
                })
            }
        }
    }

    pub(super) fn load_node(&self, node: NodeId) -> Result<Node> {
        self.with_node(node, |view| Node::from_view(&view))
    }

    /// The path to the entry with a key, or to where it would be inserted.
    pub(super) fn search(&self, key: &[u8], exactly: bool) -> Result<Search> {
        let mut path = Vec::with_capacity(4);
        let mut node = NodeId::Root;
        loop {
            if path.len() >= DEPTH_MAX {
                return Err(damaged(format!("index {} of {} is too deep", self.index.name, self.index.file)));
            }
            let compare = |entry: &EntryView<'_>| match (entry.is_last(), exactly) {
                (true, _) => Ordering::Greater,
                (false, true) => self.index.collation.compare_fully(entry.key(), key, &self.pager.upcase),
                (false, false) => self.index.collation.compare(entry.key(), key, &self.pager.upcase),
            };
            let at = match node {
                NodeId::Root => self.with_node(node, |view| find_linear(view, compare))?,
                NodeId::Block(vcn) => {
                    let cached = self.pager.in_record(self.index.file.record, self.block(vcn))?;
                    match self.offsets(&cached)? {
                        Some(offsets) => find_binary(cached.block.node()?, offsets, compare)?,
                        None => find_linear(cached.block.node()?, compare)?,
                    }
                }
            };
            path.push(Step { node, position: at.position, offset: at.offset });
            match at.child {
                Some(vcn) if !at.is_match => node = NodeId::Block(vcn),
                _ => return Ok(Search { path, is_match: at.is_match }),
            }
        }
    }

    /// Offsets of the entries of a block; `None` when they are not in order, as in damaged ones.
    fn offsets<'c>(&self, cached: &'c CachedBlock) -> Result<Option<&'c [u16]>> {
        if let Some(known) = cached.offsets.get() {
            return Ok(known.as_deref());
        }
        let mut offsets = Vec::with_capacity(48);
        let mut in_order = true;
        let mut before: Option<EntryView<'_>> = None;
        for entry in cached.block.node()?.entries() {
            let entry = entry?;
            offsets.push(u16::try_from(entry.offset).map_err(|_| damaged("index block that is too long"))?);
            if let Some(before) = before.filter(|_| !entry.is_last()) {
                let order = self.index.collation.compare_fully(before.key(), entry.key(), &self.pager.upcase);
                in_order &= order != Ordering::Greater;
            }
            before = Some(entry);
        }
        Ok(cached.offsets.get_or_init(|| in_order.then_some(offsets)).as_deref())
    }

    /// Calls `use_it` with the entry that has a key; `None` when there is none. `exactly`: names must agree in case, too.
    pub(crate) fn find<T>(
        &self,
        key: &[u8],
        exactly: bool,
        use_it: impl FnOnce(&EntryView<'_>) -> T,
    ) -> Result<Option<T>> {
        let search = self.search(key, exactly)?;
        let Some(step) = search.path.last().filter(|_| search.is_match) else { return Ok(None) };
        self.with_node(step.node, |view| Ok(Some(use_it(&view.entry(step.offset)?))))
    }

    /// Calls `visit` with every entry in order (but the keyless last ones) until it breaks.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(&EntryView<'_>) -> Result<ControlFlow<()>>) -> Result<()> {
        // each level: the node, and how many of its entries are done
        let mut stack = vec![(NodeId::Root, 0usize, false)];
        let mut blocks_left = self.index.data_size / u64::from(self.index.block_size) + 1;
        while let Some((node, position, child_done)) = stack.pop() {
            if stack.len() >= DEPTH_MAX {
                return Err(damaged(format!("index {} of {} is too deep", self.index.name, self.index.file)));
            }
            let down = self.with_node(node, |view| {
                for (at, entry) in view.entries().enumerate().skip(position) {
                    let entry = entry?;
                    if let (Some(vcn), false) = (entry.child(), child_done && at == position) {
                        return Ok(ControlFlow::Continue(Some((at, vcn))));
                    }
                    if !entry.is_last() && visit(&entry)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(None))
            })?;
            let ControlFlow::Continue(down) = down else { return Ok(()) };
            if let Some((at, vcn)) = down {
                blocks_left = blocks_left
                    .checked_sub(1)
                    .ok_or_else(|| damaged(format!("index {} of {} has a loop", self.index.name, self.index.file)))?;
                stack.push((node, at, true));
                stack.push((NodeId::Block(vcn), 0, false));
            }
        }
        Ok(())
    }

    /// The first entry of the left-most leaf under a block, and the path to it.
    pub(super) fn first_entry_below(&self, vcn: Vcn) -> Result<(IndexEntry, Vec<Step>)> {
        let mut path = Vec::new();
        let mut vcn = vcn;
        while path.len() < DEPTH_MAX {
            let node = NodeId::Block(vcn);
            path.push(Step { node, position: 0, offset: 0 });
            let first = self.with_node(node, |view| {
                let first = view.entries().next().ok_or_else(|| damaged("empty index node"))??;
                Ok(IndexEntry::from_view(&first))
            })?;
            match first.child {
                Some(child) => vcn = child,
                None if first.is_last() => return Err(damaged("empty leaf in an index")),
                None => return Ok((first, path)),
            }
        }
        Err(damaged(format!("index {} of {} is too deep", self.index.name, self.index.file)))
    }
}

/// Reads what is to be known of an index.
fn read_index<D: VolumeRead>(pager: &Pager<D>, file: FileId, name: &'static str) -> Result<Index> {
    let stream_name = NtfsName::from(name);
    let root = location_of(pager, file, AttributeType::INDEX_ROOT, &stream_name)?;
    let root = root.ok_or_else(|| {
        Error::refused(Layer::Ntfs, format!("{file} is not a directory (it has no index {name})"))
            .hint("name a directory")
    })?;
    let record = pager.record(root.0)?;
    let (_, attribute) =
        record.find_instance(AttributeType::INDEX_ROOT, root.1).ok_or_else(|| damaged("$INDEX_ROOT is gone"))?;
    let value = attribute.value().ok_or_else(|| damaged("$INDEX_ROOT is not resident"))?;
    let block_size = header::BLOCK_SIZE.get(value);
    if !block_size.is_power_of_two() || !(512..=65536).contains(&block_size) {
        return Err(damaged("impossible size of index blocks").expected_found("512..65536", block_size));
    }
    let unit = pager.geometry.index_unit(block_size);
    let collation = Collation::from_raw(header::COLLATION.get(value))?;
    let (runs, data_size) = match stream_of(pager, file, AttributeType::INDEX_ALLOCATION, &stream_name)? {
        Some(Stream::Runs { runs, sizes }) => (Some(runs), sizes.data),
        Some(Stream::Resident(_)) => return Err(damaged("$INDEX_ALLOCATION is resident")),
        None => (None, 0),
    };
    if data_size / u64::from(block_size) > BLOCKS_MAX {
        return Err(damaged("index with too many blocks"));
    }
    Ok(Index { file, name, collation, block_size, unit, root, runs, data_size })
}
