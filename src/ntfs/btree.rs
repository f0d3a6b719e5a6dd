//! The B+tree of an index: search, insertion with promotion and splits, deletion with re-homing and release of blocks.
//!
//! A node is edited as a list of entries ([`Node`]) and stored again; if it has become too long, it is split, and its
//! middle entry moves up. Nothing here recurses over the tree: paths are lists with a bound.

use std::cmp::Ordering;
use std::sync::Arc;

use super::stream::{Stream, pieces};
use super::volume::{CachedBlock, Volume};
use crate::error::{Error, Kind, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::attributes::Attrs;
use crate::ntfs::format::attribute::{AttributeType, StreamSizes, resident};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::index_node::{
    Collation, Entry, EntryView, IndexBlock, Node, NodeView, block, entry, node, root,
};
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::record::Record;
use crate::ntfs::format::runlist::{Run, Runlist};
use crate::ntfs::format::units::{FileId, RecordNumber, Vcn};

/// Deeper trees do not exist: 16 levels of at least two children each hold more entries than a volume has records.
const DEPTH_MAX: usize = 16;
/// Index blocks added to the allocation at once, when the index is not small …
const GROWTH_BLOCKS: u64 = 8;
/// … and when it is large: this part of it, up to a limit, so that its run list stays short.
const GROWTH_PART: u64 = 64;
/// The limit.
const GROWTH_BLOCKS_MAX: u64 = 1024;
/// Bytes left free in a record whose root node has children, for the run list of the index to grow.
const ROOT_RESERVE: usize = 0x60;
/// Upper bound of the blocks of one index, for walks over damaged ones.
pub(super) const BLOCKS_MAX: u64 = 1 << 26;

/// An index that was found, and where its parts are.
#[derive(Debug)]
pub(super) struct Index {
    pub file: FileId,
    pub name: &'static str,
    pub collation: Collation,
    pub block_size: u32,
    /// Bytes per unit of a child's VCN.
    unit: u32,
    /// Record and instance of `$INDEX_ROOT`.
    home: (RecordNumber, u16),
    /// Clusters of the blocks.
    runs: Option<Runlist>,
    /// Bytes of blocks.
    data_size: u64,
}

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    Block(u64),
}

/// A step on the way down: a node, and which of its entries was taken.
#[derive(Debug, Clone, Copy)]
struct Step {
    place: Place,
    position: usize,
    /// Offset of that entry from the node's header.
    offset: usize,
}

/// Result of a search: the way, and whether its last entry has the key.
struct Search {
    path: Vec<Step>,
    found: bool,
}

impl Index {
    /// VCNs from one block to the next.
    fn stride(&self) -> u64 {
        u64::from(self.block_size / self.unit)
    }

    /// Number of the block with a VCN.
    fn number(&self, vcn: u64) -> Result<u64> {
        if !vcn.is_multiple_of(self.stride()) || vcn / self.stride() >= self.data_size / u64::from(self.block_size) {
            return Err(damaged(format!("index {} of {} points outside its blocks", self.name, self.file))
                .expected_found(format!("below {:#x} bytes", self.data_size), format!("VCN {vcn}")));
        }
        Ok(vcn / self.stride())
    }
}

/// A key of a directory for a name.
pub(super) fn name_key(name: &NtfsName) -> Vec<u8> {
    let mut key = Vec::with_capacity(crate::ntfs::format::file_name::layout::NAME + 2 * name.units().len());
    key.resize(crate::ntfs::format::file_name::layout::NAME, 0);
    crate::ntfs::format::file_name::layout::NAME_LENGTH.set(&mut key, name.units().len() as u8);
    crate::field::push_utf16(&mut key, name.units());
    key
}

impl<D: VolumeRead> Volume<D> {
    /// Opens an index of a file.
    pub(super) fn index(&self, file: FileId, name: &'static str) -> Result<Arc<Index>> {
        if let Some(known) =
            self.cache.borrow().indexes.get(&file.record).and_then(|l| l.iter().find(|i| i.name == name))
            && known.file == file
        {
            return Ok(Arc::clone(known));
        }
        let index = Arc::new(self.in_record(file.record, self.open_index(file, name))?);
        let mut cache = self.cache.borrow_mut();
        if cache.indexes.len() > 1024 {
            cache.indexes.clear();
        }
        let list = cache.indexes.entry(file.record).or_default();
        list.retain(|i| i.name != name);
        list.push(Arc::clone(&index));
        Ok(index)
    }

    fn open_index(&self, file: FileId, name: &'static str) -> Result<Index> {
        let stream_name = NtfsName::from(name);
        let home = self.home_of(file, AttributeType::INDEX_ROOT, &stream_name)?;
        let home = home.ok_or_else(|| {
            Error::refused(Layer::Ntfs, format!("{file} is not a directory (it has no index {name})"))
                .hint("name a directory")
        })?;
        let record = self.record(home.0)?;
        let (_, attribute) =
            record.find_instance(AttributeType::INDEX_ROOT, home.1).ok_or_else(|| damaged("$INDEX_ROOT is gone"))?;
        let value = attribute.value().ok_or_else(|| damaged("$INDEX_ROOT is not resident"))?;
        let block_size = root::BLOCK_SIZE.get(value);
        if !block_size.is_power_of_two() || !(512..=65536).contains(&block_size) {
            return Err(damaged("impossible size of index blocks").expected_found("512..65536", block_size));
        }
        let unit = self.geometry.index_unit(block_size);
        let collation = Collation::from_raw(root::COLLATION.get(value))?;
        let (runs, data_size) = match self.stream(file, AttributeType::INDEX_ALLOCATION, &stream_name)? {
            Some(Stream::Runs { runs, sizes }) => (Some(runs), sizes.data),
            Some(Stream::Resident(_)) => return Err(damaged("$INDEX_ALLOCATION is resident")),
            None => (None, 0),
        };
        if data_size / u64::from(block_size) > BLOCKS_MAX {
            return Err(damaged("index with too many blocks"));
        }
        Ok(Index { file, name, collation, block_size, unit, home, runs, data_size })
    }

    /// The block with a VCN.
    fn block(&self, index: &Index, vcn: u64) -> Result<Arc<CachedBlock>> {
        let number = index.number(vcn)?;
        let runs = index.runs.as_ref().ok_or_else(|| damaged("index without blocks has children"))?;
        let offset = number * u64::from(index.block_size);
        let size = index.block_size as usize;
        let cluster = u64::from(self.geometry.cluster_size);
        if let Some(&Run { vcn: first, lcn: Some(lcn), .. }) = runs.find(Vcn(offset / cluster))
            && let Some(cached) = self.cached_block(lcn.0 * cluster + (offset - first.0 * cluster), vcn, size)?
        {
            return Ok(cached);
        }
        self.read_block(pieces(&self.geometry, runs, offset, size)?, vcn)
    }

    /// The record with the root node, and the node's offset in it.
    fn root_node(&self, index: &Index) -> Result<(Arc<Record>, usize)> {
        let record = self.record(index.home.0)?;
        let (at, attribute) = record
            .find_instance(AttributeType::INDEX_ROOT, index.home.1)
            .ok_or_else(|| damaged("$INDEX_ROOT is gone"))?;
        if attribute.value().is_none_or(|v| v.len() < root::NODE + node::SIZE) {
            return Err(damaged("$INDEX_ROOT is cut short"));
        }
        let start = at + usize::from(resident::VALUE_OFFSET.get(attribute.bytes())) + root::NODE;
        Ok((record, start))
    }

    /// Calls `use_it` with a node.
    pub(super) fn with_node<T>(
        &self,
        index: &Index,
        place: Place,
        use_it: impl FnOnce(NodeView<'_>) -> Result<T>,
    ) -> Result<T> {
        match place {
            Place::Root => {
                let (record, start) = self.in_record(index.home.0, self.root_node(index))?;
                let node = NodeView::parse(record.bytes().get(start..).unwrap_or_default());
                self.in_record(index.home.0, node.and_then(use_it))
            }
            Place::Block(vcn) => {
                let cached = self.in_record(index.file.record, self.block(index, vcn))?;
                cached.block.node().and_then(use_it).map_err(|error| match cached.pieces.first() {
                    Some(&(Some(place), _)) if error.kind() == Kind::Damaged => error.inside(self.image_offset(place)),
                    _ => error,
                })
            }
        }
    }

    fn load_node(&self, index: &Index, place: Place) -> Result<Node> {
        self.with_node(index, place, |view| Node::from_view(&view))
    }

    /// Finds the entry with a key, or where it would be inserted. `exactly`: names must agree in case, too.
    fn search(&self, index: &Index, key: &[u8], exactly: bool) -> Result<Search> {
        let mut path = Vec::with_capacity(4);
        let mut place = Place::Root;
        loop {
            if path.len() >= DEPTH_MAX {
                return Err(damaged(format!("index {} of {} is too deep", index.name, index.file)));
            }
            let compare = |entry: &EntryView<'_>| match (entry.is_last(), exactly) {
                (true, _) => Ordering::Greater,
                (false, true) => index.collation.compare_fully(entry.key(), key, &self.upcase),
                (false, false) => index.collation.compare(entry.key(), key, &self.upcase),
            };
            let at = match place {
                Place::Root => self.with_node(index, place, |view| find_in_turn(view, compare))?,
                Place::Block(vcn) => {
                    let cached = self.in_record(index.file.record, self.block(index, vcn))?;
                    match self.offsets(index, &cached)? {
                        Some(offsets) => find_by_halves(cached.block.node()?, offsets, compare)?,
                        None => find_in_turn(cached.block.node()?, compare)?,
                    }
                }
            };
            let (found, child) = (at.found, at.child);
            path.push(Step { place, position: at.position, offset: at.offset });
            match child {
                Some(vcn) if !found => place = Place::Block(vcn),
                _ => return Ok(Search { path, found }),
            }
        }
    }

    /// Offsets of the entries of a block; `None` when they are not in order, as in damaged ones.
    fn offsets<'a>(&self, index: &Index, cached: &'a CachedBlock) -> Result<Option<&'a [u16]>> {
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
                let order = index.collation.compare_fully(before.key(), entry.key(), &self.upcase);
                in_order &= order != Ordering::Greater;
            }
            before = Some(entry);
        }
        Ok(cached.offsets.get_or_init(|| in_order.then_some(offsets)).as_deref())
    }

    /// Calls `use_it` with the entry that has a key.
    pub(super) fn look_up<T>(
        &self,
        index: &Index,
        key: &[u8],
        exactly: bool,
        use_it: impl FnOnce(&EntryView<'_>) -> T,
    ) -> Result<Option<T>> {
        let search = self.search(index, key, exactly)?;
        let Some(step) = search.path.last().filter(|_| search.found) else { return Ok(None) };
        self.with_node(index, step.place, |view| Ok(Some(use_it(&view.entry(step.offset)?))))
    }

    /// Calls `visit` with every entry in order, the last entries left out.
    pub(super) fn walk(&self, index: &Index, visit: &mut dyn FnMut(&EntryView<'_>) -> Result<()>) -> Result<()> {
        // each level: the node, and how many of its entries are done
        let mut stack = vec![(Place::Root, 0usize, false)];
        let mut blocks_left = index.data_size / u64::from(index.block_size) + 1;
        while let Some((place, position, child_done)) = stack.pop() {
            if stack.len() >= DEPTH_MAX {
                return Err(damaged(format!("index {} of {} is too deep", index.name, index.file)));
            }
            let down = self.with_node(index, place, |view| {
                for (at, entry) in view.entries().enumerate().skip(position) {
                    let entry = entry?;
                    if let (Some(vcn), false) = (entry.child(), child_done && at == position) {
                        return Ok(Some((at, vcn)));
                    }
                    if !entry.is_last() {
                        visit(&entry)?;
                    }
                }
                Ok(None)
            })?;
            if let Some((at, vcn)) = down {
                blocks_left = blocks_left
                    .checked_sub(1)
                    .ok_or_else(|| damaged(format!("index {} of {} has a loop", index.name, index.file)))?;
                stack.push((place, at, true));
                stack.push((Place::Block(vcn), 0, false));
            }
        }
        Ok(())
    }
}

impl<D: VolumeWrite> Volume<D> {
    /// Changes the key of an entry in place; the change must not affect the order. `false` when there is no such entry.
    pub(super) fn patch_key(&mut self, index: &Index, key: &[u8], change: impl FnOnce(&mut [u8])) -> Result<bool> {
        let search = self.search(index, key, true)?;
        let Some(step) = search.path.last().copied().filter(|_| search.found) else { return Ok(false) };
        let range = |bytes: &[u8]| {
            let length = usize::from(entry::KEY_LENGTH.get(bytes.get(step.offset..).unwrap_or_default()));
            step.offset + entry::KEY..step.offset + entry::KEY + length
        };
        match step.place {
            Place::Root => {
                let (record, start) = self.root_node(index)?;
                let mut record = (*record).clone();
                let node = record.bytes_mut().get_mut(start..).unwrap_or_default();
                let range = range(node);
                change(node.get_mut(range).unwrap_or_default());
                self.patch_record(index.home.0, record);
            }
            Place::Block(vcn) => {
                let cached = self.block(index, vcn)?;
                let changed = self.change_block(cached, |cached| {
                    let node = cached.block.node_bytes_mut();
                    let range = range(node);
                    change(node.get_mut(range).unwrap_or_default());
                });
                changed.ok_or_else(|| Error::bug(Layer::Ntfs, "an index block is not in memory"))?;
            }
        }
        Ok(true)
    }

    /// Changes a block in memory, where it is now.
    fn change_block<T>(&mut self, cached: Arc<CachedBlock>, change: impl FnOnce(&mut CachedBlock) -> T) -> Option<T> {
        let (key, _) = *cached.pieces.first()?;
        // or it would have to be copied
        drop(cached);
        self.cache.get_mut().blocks.change(key?, change)
    }

    fn put_block(&mut self, cached: CachedBlock) {
        if let Some((Some(key), _)) = cached.pieces.first().copied() {
            self.cache.get_mut().blocks.put(key, Arc::new(cached));
        }
    }

    /// Inserts an entry.
    ///
    /// # Errors
    /// Refused when the key exists, or there is no space for another block.
    pub(super) fn insert_entry(&mut self, file: FileId, name: &'static str, new: Entry) -> Result<()> {
        self.insert_where(file, name, new, false)
    }

    /// [`insert_entry`](Self::insert_entry); with `exactly`, a key that differs in case is another one.
    fn insert_where(&mut self, file: FileId, name: &'static str, new: Entry, exactly: bool) -> Result<()> {
        let index = self.index(file, name)?;
        let search = self.search(&index, new.key(), exactly)?;
        if search.found {
            return Err(Error::refused(Layer::Ntfs, "the name exists").hint("choose another name"));
        }
        let step = *search.path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "empty path"))?;
        if let Place::Block(vcn) = step.place {
            let cached = self.block(&index, vcn)?;
            if cached.block.used() + new.length() <= cached.block.bytes().len() - block::NODE
                && self.change_block(cached, |c| c.insert_at(step.position, step.offset, &new)) == Some(true)
            {
                return Ok(());
            }
        }
        let mut node = self.load_node(&index, step.place)?;
        node.entries.insert(step.position, new);
        self.settle(file, name, search.path, node)
    }

    /// Stores a changed node (the last of `path`), splitting upwards as long as nodes are too long.
    fn settle(&mut self, file: FileId, name: &'static str, mut path: Vec<Step>, mut node: Node) -> Result<()> {
        while let Some(step) = path.pop() {
            let index = self.index(file, name)?;
            let Place::Block(vcn) = step.place else {
                return self.store_root(&index, node);
            };
            let mut cached = (*self.block(&index, vcn)?).clone();
            if cached.set_node(&node) {
                self.put_block(cached);
                return Ok(());
            }
            let right_vcn = self.take_block(file, name)?;
            let index = self.index(file, name)?;
            let (left, middle, right) = split(node, step.position, cached.block.capacity(), vcn)?;
            if !cached.set_node(&left) {
                return Err(Error::bug(Layer::Ntfs, "half of an index node does not fit"));
            }
            self.put_block(cached);
            self.write_new_block(&index, right_vcn, &right)?;
            let parent = path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "a block without parent"))?;
            node = self.load_node(&index, parent.place)?;
            let at = parent.position;
            match node.entries.get_mut(at) {
                Some(entry) if entry.child == Some(vcn) => entry.child = Some(right_vcn),
                _ => return Err(damaged("the way to an index block has changed")),
            }
            node.entries.insert(at, middle);
        }
        Err(Error::bug(Layer::Ntfs, "an index node was not stored"))
    }

    fn write_new_block(&mut self, index: &Index, vcn: u64, node: &Node) -> Result<()> {
        let runs = index.runs.as_ref().ok_or_else(|| damaged("index without blocks"))?;
        let size = index.block_size as usize;
        let pieces = pieces(&self.geometry, runs, index.number(vcn)? * size as u64, size)?;
        let mut block = IndexBlock::blank(vcn, size);
        if !block.set_node(node) {
            return Err(Error::unsupported(Layer::Ntfs, "index blocks too small for the names in them"));
        }
        self.put_block(CachedBlock::new(block, pieces));
        Ok(())
    }

    /// Stores the root node; when the record has no room for it, its entries move into a block.
    fn store_root(&mut self, index: &Index, node: Node) -> Result<()> {
        let (record, _) = self.root_node(index)?;
        let (_, attribute) = record
            .find_instance(AttributeType::INDEX_ROOT, index.home.1)
            .ok_or_else(|| damaged("$INDEX_ROOT is gone"))?;
        let old = attribute.value().unwrap_or_default();
        let value = node.encode_root(old.get(..root::NODE).unwrap_or_default());
        let reserve = if node.has_children() && value.len() > old.len() { ROOT_RESERVE } else { 0 };
        let fits = value.len().next_multiple_of(8) + reserve <= old.len().next_multiple_of(8) + record.free();
        if fits || value.len() <= old.len() {
            let mut attrs = self.load(index.file)?;
            attrs.set_value(AttributeType::INDEX_ROOT, index.name, &value);
            return self.store(attrs);
        }
        self.push_down(index, node)
    }

    /// Moves all entries of the root into one block (two, if they do not fit one).
    fn push_down(&mut self, index: &Index, node: Node) -> Result<()> {
        let (file, name) = (index.file, index.name);
        let mut attrs = self.load(file)?;
        let head = attrs
            .find(AttributeType::INDEX_ROOT, name)
            .and_then(|a| a.value())
            .and_then(|v| v.get(..root::NODE))
            .ok_or_else(|| damaged("$INDEX_ROOT is cut short"))?
            .to_vec();
        let probe = IndexBlock::blank(0, index.block_size as usize);
        let first = self.take_block_in(&mut attrs, index)?;
        let (nodes, root) = if node.length() <= probe.capacity() {
            (vec![(first, node)], Node { entries: vec![Entry::last(Some(first))] })
        } else {
            let second = self.take_block_in(&mut attrs, index)?;
            let position = node.entries.len() / 2;
            let (left, middle, right) = split(node, position, probe.capacity(), first)?;
            (vec![(first, left), (second, right)], Node { entries: vec![middle, Entry::last(Some(second))] })
        };
        attrs.set_value(AttributeType::INDEX_ROOT, name, &root.encode_root(&head));
        self.store(attrs)?;
        let index = self.index(file, name)?;
        for (vcn, node) in nodes {
            self.write_new_block(&index, vcn, &node)?;
        }
        Ok(())
    }

    /// Takes a free block; its VCN.
    fn take_block(&mut self, file: FileId, name: &'static str) -> Result<u64> {
        let index = self.index(file, name)?;
        let mut attrs = self.load(file)?;
        let vcn = self.take_block_in(&mut attrs, &index)?;
        self.store(attrs)?;
        Ok(vcn)
    }

    /// Takes a free block in attributes that were taken out: marks it, and grows allocation and bitmap as needed.
    fn take_block_in(&mut self, attrs: &mut Attrs, index: &Index) -> Result<u64> {
        let name = NtfsName::from(index.name);
        let clusters = self.geometry.cluster_count;
        let size = u64::from(index.block_size);
        let (mut runs, mut sizes) = match attrs.stream(AttributeType::INDEX_ALLOCATION, &name, clusters)? {
            Some(Stream::Runs { runs, sizes }) => (runs, sizes),
            _ => (Runlist::default(), StreamSizes::default()),
        };
        let bitmap = attrs.stream(AttributeType::BITMAP, &name, clusters)?.unwrap_or(Stream::Resident(vec![0; 8]));
        bitmap.check(&self.geometry)?;
        let mut bits = self.read_small(&bitmap, BLOCKS_MAX / 8, "index bitmap")?;
        let blocks = sizes.data / size;
        let number = first_clear(&bits).min(blocks);
        if number == blocks {
            let wanted = self.geometry.clusters_for((number + 1) * size);
            if wanted > runs.end() {
                // a small index grows block by block
                let more = (blocks / GROWTH_PART).clamp(GROWTH_BLOCKS, GROWTH_BLOCKS_MAX).min(blocks.max(1));
                let ahead = self.geometry.clusters_for((number + more) * size);
                let mut longer = runs.clone();
                match self.try_extend(&mut longer, ahead)? {
                    true => runs = longer,
                    false => self.extend_runs(&mut runs, wanted)?,
                }
            }
            sizes.data = (number + 1) * size;
            sizes.initialized = sizes.data;
            sizes.allocated = self.geometry.bytes_in(runs.end());
            let stream = Stream::Runs { runs, sizes };
            attrs.set_stream(AttributeType::INDEX_ALLOCATION, &name, &stream, self.geometry.cluster_size);
        }
        if number / 8 >= bits.len() as u64 {
            bits.resize(bits.len() + 8, 0);
        }
        bits[(number / 8) as usize] |= 1 << (number % 8);
        self.set_index_bitmap(attrs, &name, &bitmap, bits, number / 8)?;
        Ok(number * index.stride())
    }

    /// Extends a run list if all of it can be had; `false` (and nothing taken) otherwise.
    fn try_extend(&mut self, runs: &mut Runlist, wanted: u64) -> Result<bool> {
        if self.has_free(wanted.saturating_sub(runs.end()))? {
            self.extend_runs(runs, wanted)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Changes the bitmap of an index: `bits` differs from what is there in the byte `changed`, and may be longer.
    fn set_index_bitmap(
        &mut self,
        attrs: &mut Attrs,
        name: &NtfsName,
        old: &Stream,
        bits: Vec<u8>,
        changed: u64,
    ) -> Result<()> {
        let stream = match old {
            Stream::Resident(_) => Stream::Resident(bits),
            Stream::Runs { runs, sizes } if bits.len() as u64 == sizes.data && sizes.initialized == sizes.data => {
                let byte = bits.get(changed as usize..=changed as usize).unwrap_or_default();
                return self.write_metadata(runs, changed, byte);
            }
            Stream::Runs { runs, sizes } => {
                let (mut runs, mut sizes) = (runs.clone(), *sizes);
                self.extend_runs(&mut runs, self.geometry.clusters_for(bits.len() as u64))?;
                let mut padded = bits;
                sizes.data = padded.len() as u64;
                sizes.initialized = sizes.data;
                sizes.allocated = self.geometry.bytes_in(runs.end());
                padded.resize(padded.len().next_multiple_of(512), 0);
                self.write_metadata(&runs, 0, &padded)?;
                Stream::Runs { runs, sizes }
            }
        };
        attrs.set_stream(AttributeType::BITMAP, name, &stream, self.geometry.cluster_size);
        Ok(())
    }

    /// Marks a block as free and forgets it.
    fn release_block(&mut self, file: FileId, name: &'static str, vcn: u64) -> Result<()> {
        let index = self.index(file, name)?;
        let number = index.number(vcn)?;
        let cached = self.block(&index, vcn)?;
        if let Some((Some(key), _)) = cached.pieces.first().copied() {
            self.cache.get_mut().blocks.remove(key);
        }
        let stream_name = NtfsName::from(name);
        let mut attrs = self.load(file)?;
        let bitmap = attrs.stream(AttributeType::BITMAP, &stream_name, self.geometry.cluster_count)?;
        let bitmap = bitmap.ok_or_else(|| damaged("index without a bitmap"))?;
        bitmap.check(&self.geometry)?;
        let mut bits = self.read_small(&bitmap, BLOCKS_MAX / 8, "index bitmap")?;
        if !bit(&bits, number) {
            let error = damaged(format!("the index block with VCN {vcn} is in use but marked as free"));
            return self.in_record(file.record, Err(error));
        }
        bits[(number / 8) as usize] &= !(1 << (number % 8));
        self.set_index_bitmap(&mut attrs, &stream_name, &bitmap, bits, number / 8)?;
        self.store(attrs)
    }

    /// Removes the entry with exactly this key; `false` when there is none.
    pub(super) fn remove_entry(&mut self, file: FileId, name: &'static str, key: &[u8]) -> Result<bool> {
        let index = self.index(file, name)?;
        let search = self.search(&index, key, true)?;
        if !search.found {
            return Ok(false);
        }
        let path = search.path;
        let step = *path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "empty path"))?;
        if let Place::Block(vcn) = step.place {
            let cached = self.block(&index, vcn)?;
            let is_leaf = !cached.block.node()?.has_children();
            let alone = cached.block.node()?.entries().nth(1).is_none_or(|e| e.is_ok_and(|e| e.is_last()));
            if is_leaf && !alone && self.change_block(cached, |c| c.remove_at(step.position, step.offset)) == Some(true)
            {
                return Ok(true);
            }
        }
        let mut node = self.load_node(&index, step.place)?;
        if !node.has_children() {
            node.entries.remove(step.position);
            self.store_leaf(file, name, path, node)?;
            return Ok(true);
        }
        // an entry with a child: the next entry in order takes its place
        let next = node.entries.get(step.position + 1).and_then(|e| e.child);
        let next = next.ok_or_else(|| damaged("index entry without a following child"))?;
        let (mut successor, _) = self.first_entry_below(&index, next)?;
        successor.child = node.entries.get(step.position).and_then(|e| e.child);
        let successor_key = successor.key().to_vec();
        node.entries[step.position] = successor;
        self.settle(file, name, path, node)?;
        // it is there twice now: the lower one goes
        let index = self.index(file, name)?;
        let mut path = self.search(&index, &successor_key, true)?.path;
        let top = path.last_mut().ok_or_else(|| Error::bug(Layer::Ntfs, "empty path"))?;
        top.position += 1;
        let next = self.load_node(&index, top.place)?.entries.get(top.position).and_then(|e| e.child);
        let next = next.ok_or_else(|| damaged("index entry without a following child"))?;
        let (_, below) = self.first_entry_below(&index, next)?;
        path.extend(below);
        let step = *path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "empty path"))?;
        let mut leaf = self.load_node(&index, step.place)?;
        if leaf.entries.first().map(Entry::key) != Some(&successor_key[..]) {
            return Err(Error::bug(Layer::Ntfs, "the successor of a removed entry has moved"));
        }
        leaf.entries.remove(0);
        self.store_leaf(file, name, path, leaf)?;
        Ok(true)
    }

    /// The first entry of the left-most leaf under a block, and the way there.
    fn first_entry_below(&self, index: &Index, vcn: u64) -> Result<(Entry, Vec<Step>)> {
        let mut path = Vec::new();
        let mut vcn = vcn;
        while path.len() < DEPTH_MAX {
            let place = Place::Block(vcn);
            path.push(Step { place, position: 0, offset: 0 });
            let first = self.with_node(index, place, |view| {
                let first = view.entries().next().ok_or_else(|| damaged("empty index node"))??;
                Ok(Entry::from_view(&first))
            })?;
            match first.child {
                Some(child) => vcn = child,
                None if first.is_last() => return Err(damaged("empty leaf in an index")),
                None => return Ok((first, path)),
            }
        }
        Err(damaged(format!("index {} of {} is too deep", index.name, index.file)))
    }

    /// Stores a leaf from which an entry was removed; releases it when it is empty.
    fn store_leaf(&mut self, file: FileId, name: &'static str, mut path: Vec<Step>, node: Node) -> Result<()> {
        if !node.is_empty() || path.len() == 1 {
            return self.settle(file, name, path, node);
        }
        loop {
            let Some(Step { place: Place::Block(vcn), .. }) = path.pop() else {
                return Err(Error::bug(Layer::Ntfs, "the root cannot be released"));
            };
            self.release_block(file, name, vcn)?;
            let parent = *path.last().ok_or_else(|| Error::bug(Layer::Ntfs, "a block without parent"))?;
            let index = self.index(file, name)?;
            let mut node = self.load_node(&index, parent.place)?;
            let at = parent.position;
            if node.entries.get(at).and_then(|e| e.child) != Some(vcn) {
                return Err(damaged("the way to an index block has changed"));
            }
            if node.is_empty() {
                if parent.place == Place::Root {
                    return self.empty_index(&index);
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
            self.settle(file, name, path, node)?;
            // in a case-sensitive directory a name may stand beside one that differs in case only
            return self.insert_where(file, name, orphan, true);
        }
    }

    /// Makes an index small again: an empty root, no blocks.
    fn empty_index(&mut self, index: &Index) -> Result<()> {
        let name = NtfsName::from(index.name);
        let mut attrs = self.load(index.file)?;
        let head = attrs
            .find(AttributeType::INDEX_ROOT, index.name)
            .and_then(|a| a.value())
            .and_then(|v| v.get(..root::NODE))
            .ok_or_else(|| damaged("$INDEX_ROOT is cut short"))?
            .to_vec();
        let root = Node { entries: vec![Entry::last(None)] };
        attrs.set_value(AttributeType::INDEX_ROOT, index.name, &root.encode_root(&head));
        for kind in [AttributeType::INDEX_ALLOCATION, AttributeType::BITMAP] {
            if let Some(Stream::Runs { runs, .. }) = attrs.stream(kind, &name, self.geometry.cluster_count)? {
                self.free_clusters(runs.real().collect::<Vec<_>>())?;
            }
            attrs.remove(kind, &name);
        }
        self.store(attrs)
    }
}

/// The first clear bit of a bitmap; beyond its end they are clear.
fn first_clear(bits: &[u8]) -> u64 {
    let full = 8 * bits.as_chunks::<8>().0.iter().take_while(|word| **word == [0xFF; 8]).count();
    let partly = bits.iter().enumerate().skip(full).find(|&(_, &b)| b != 0xFF);
    partly.map_or(bits.len() as u64 * 8, |(at, b)| at as u64 * 8 + u64::from(b.trailing_ones()))
}

/// The first entry of a node that is not less than what is looked for.
struct Found {
    position: usize,
    offset: usize,
    /// Whether it is what is looked for.
    found: bool,
    child: Option<u64>,
}

/// Looks at one entry after the other.
fn find_in_turn(view: NodeView<'_>, compare: impl Fn(&EntryView<'_>) -> Ordering) -> Result<Found> {
    for (position, entry) in view.entries().enumerate() {
        let entry = entry?;
        let order = compare(&entry);
        if order != Ordering::Less {
            let found = order == Ordering::Equal;
            return Ok(Found { position, offset: entry.offset, found, child: entry.child() });
        }
    }
    Err(damaged("index node without a last entry"))
}

/// Halves the entries, which are in order.
fn find_by_halves(view: NodeView<'_>, offsets: &[u16], compare: impl Fn(&EntryView<'_>) -> Ordering) -> Result<Found> {
    let at = |position: usize| -> Result<EntryView<'_>> {
        let offset = offsets.get(position).ok_or_else(|| damaged("index node without a last entry"))?;
        view.entry(usize::from(*offset))
    };
    // the last entry comes after everything
    let (mut low, mut high) = (0, offsets.len().saturating_sub(1));
    let mut equal = None;
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(&at(middle)?) {
            Ordering::Less => low = middle + 1,
            order => {
                high = middle;
                if order == Ordering::Equal {
                    equal = Some(middle);
                }
            }
        }
    }
    let entry = at(low)?;
    Ok(Found { position: low, offset: entry.offset, found: equal == Some(low), child: entry.child() })
}

/// Bit `n` of a bitmap; beyond its end they are clear.
fn bit(bits: &[u8], n: u64) -> bool {
    usize::try_from(n / 8).ok().and_then(|at| bits.get(at)).is_some_and(|b| b >> (n % 8) & 1 == 1)
}

/// Splits a node that is too long: what stays in the block `left_vcn`, the entry that moves up (with the left block as
/// its child), and what goes to the new block. `inserted` is the position of the entry that made it too long.
fn split(node: Node, inserted: usize, capacity: usize, left_vcn: u64) -> Result<(Node, Entry, Node)> {
    let mut entries = node.entries;
    let ordinary = entries.len().saturating_sub(1);
    if ordinary < 3 {
        return Err(Error::unsupported(Layer::Ntfs, "index blocks too small for the names in them"));
    }
    let half = entries.iter().map(Entry::length).sum::<usize>() / 2;
    let mut sum = 0;
    let by_bytes = entries.iter().position(|e| {
        sum += e.length();
        sum > half
    });
    // names that arrive in ascending order leave full nodes behind
    let ascending = inserted + 1 == ordinary;
    let middle = if ascending { ordinary - 2 } else { by_bytes.unwrap_or(ordinary / 2).clamp(1, ordinary - 2) };
    let right = entries.split_off(middle + 1);
    let mut up = entries.pop().ok_or_else(|| Error::bug(Layer::Ntfs, "nothing to split"))?;
    entries.push(Entry::last(up.child));
    up.child = Some(left_vcn);
    let (left, right) = (Node { entries }, Node { entries: right });
    if left.length() > capacity || right.length() > capacity {
        return Err(Error::unsupported(Layer::Ntfs, "index blocks too small for the names in them"));
    }
    Ok((left, up, right))
}
