//! The device of a volume, and what of it is in memory: records, index blocks, pages of metadata streams, and the
//! descriptions of opened indexes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::blocks::Blocks;
use super::index::Index;
use super::index_block::CachedBlock;
use crate::error::{Error, Kind, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::format::boot::Geometry;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::index_node::{IndexBlock, block};
use crate::ntfs::format::record::Record;
use crate::ntfs::format::units::{RecordNumber, Vcn};
use crate::ntfs::format::upcase::UpcaseTable;
use crate::ntfs::stream::{Piece, Stream, pieces};
use crate::units::VolumeOffset;

/// Unchanged records in the cache, in bytes.
pub(super) const RECORD_CACHE_BYTES: usize = 512 << 10;
/// Unchanged leaves of indexes in the cache, in bytes.
const LEAF_CACHE_BYTES: usize = 512 << 10;
/// Unchanged index blocks with children, in bytes: there is one for some thirty leaves, and every search needs them.
const PARENT_CACHE_BYTES: usize = 16 << 20;
/// Unchanged pages of metadata streams in the cache, in bytes.
pub(super) const PAGE_CACHE_BYTES: usize = 512 << 10;
/// Opened indexes in the cache.
const INDEXES_MAX: usize = 1024;

/// Blocks in memory, by kind.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub records: Blocks<Record>,
    pub blocks: Blocks<CachedBlock>,
    pub pages: Blocks<Vec<u8>>,
    /// Indexes that were opened, by the base record of their file. A change of the file's records drops them.
    pub indexes: HashMap<RecordNumber, Vec<Arc<Index>>>,
}

impl Cache {
    /// Evicts unchanged index blocks of `size` bytes when there are too many.
    pub fn shrink_blocks(&mut self, size: usize) {
        let size = size.max(1);
        self.blocks.shrink(LEAF_CACHE_BYTES / size, PARENT_CACHE_BYTES / size);
    }
}

/// The lowest layer of an open volume: the device, with a write-back cache of metadata in front of it that can undo a
/// failed operation.
///
/// File content goes past the cache, into clusters that were free. Changed metadata reach the device only by
/// [`flush`](Self::flush).
#[derive(Debug)]
pub(crate) struct Pager<D> {
    pub(super) device: D,
    /// Sizes and places from the boot sector.
    pub geometry: Geometry,
    /// Case folding of the volume's names, by which attributes and indexes are sorted.
    pub upcase: Arc<UpcaseTable>,
    pub(super) cache: RefCell<Cache>,
    /// Through which records are found.
    pub(super) mft: Arc<Stream>,
    /// `$MFT` as the running operation found it.
    mft_before: Option<Arc<Stream>>,
    /// `$MFTMirr`, which gets a copy of the first records.
    pub(super) mirror: Arc<Stream>,
    /// Adjacent blocks on their way to the device; kept for its capacity.
    pub(super) write_buffer: Vec<u8>,
}

impl<D> Pager<D> {
    /// A pager that finds records through `mft`. Names are folded as ASCII until [`upcase`](Self::upcase) is set.
    pub fn new(device: D, geometry: Geometry, mft: Stream) -> Self {
        Self {
            device,
            geometry,
            upcase: Arc::new(UpcaseTable::ascii()),
            cache: RefCell::default(),
            mft: Arc::new(mft),
            mft_before: None,
            mirror: Arc::new(Stream::Resident(Vec::new())),
            write_buffer: Vec::new(),
        }
    }

    /// The device below. What is not flushed is not there yet.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Gives the device back. What is not flushed is lost.
    pub fn into_device(self) -> D {
        self.device
    }

    /// The content of `$MFT`.
    pub fn mft(&self) -> &Arc<Stream> {
        &self.mft
    }

    /// Replaces the description of `$MFT`, through which records are found from now on.
    pub fn set_mft(&mut self, mft: Arc<Stream>) {
        self.mft = mft;
    }

    /// Sets where the copies of the first records go.
    pub fn set_mirror(&mut self, mirror: Arc<Stream>) {
        self.mirror = mirror;
    }

    /// Begins an operation that [`rollback`](Self::rollback) can undo. Operations do not nest.
    pub fn begin(&mut self) {
        self.mft_before = Some(Arc::clone(&self.mft));
        let cache = self.cache.get_mut();
        cache.records.begin();
        cache.blocks.begin();
        cache.pages.begin();
    }

    /// Ends an operation that succeeded.
    pub fn commit(&mut self) {
        self.mft_before = None;
        let cache = self.cache.get_mut();
        cache.records.commit();
        cache.blocks.commit();
        cache.pages.commit();
    }

    /// Ends an operation that failed: all metadata are as they were when it began.
    pub fn rollback(&mut self) {
        if let Some(before) = self.mft_before.take() {
            self.mft = before;
        }
        let cache = self.cache.get_mut();
        cache.records.rollback();
        cache.blocks.rollback();
        cache.pages.rollback();
        cache.indexes.clear();
    }

    /// Stores a changed record in memory.
    pub fn put_record(&mut self, number: RecordNumber, record: Record) {
        let cache = self.cache.get_mut();
        let owner = record.base().map_or(number, |b| b.record);
        cache.indexes.remove(&owner);
        cache.records.put(number.0, Arc::new(record));
    }

    /// Like [`put_record`](Self::put_record), for a change of values that moves no attribute: opened indexes stay valid.
    pub fn patch_record(&mut self, number: RecordNumber, record: Record) {
        self.cache.get_mut().records.put(number.0, Arc::new(record));
    }

    /// An index of a file, if it was opened before and the file has not changed since.
    pub fn opened_index(&self, record: RecordNumber, name: &str) -> Option<Arc<Index>> {
        let cache = self.cache.borrow();
        cache.indexes.get(&record)?.iter().find(|index| index.name == name).map(Arc::clone)
    }

    /// Remembers an opened index.
    pub fn remember_index(&self, index: &Arc<Index>) {
        let mut cache = self.cache.borrow_mut();
        if cache.indexes.len() > INDEXES_MAX {
            cache.indexes.clear();
        }
        let list = cache.indexes.entry(index.file.record).or_default();
        list.retain(|other| other.name != index.name);
        list.push(Arc::clone(index));
    }

    /// Changes an index block in the cache; `None` when it is not there.
    pub fn change_block<T>(
        &mut self,
        cached: Arc<CachedBlock>,
        change: impl FnOnce(&mut CachedBlock) -> T,
    ) -> Option<T> {
        let (key, _) = *cached.pieces.first()?;
        // a second owner would force a copy of the block
        drop(cached);
        self.cache.get_mut().blocks.change(key?, change)
    }

    /// Stores a changed or new index block in memory.
    pub fn put_block(&mut self, cached: CachedBlock) {
        if let Some((Some(key), _)) = cached.pieces.first().copied() {
            self.cache.get_mut().blocks.put(key, Arc::new(cached));
        }
    }

    /// Drops an index block that is being freed: it need not be written any more.
    pub fn remove_block(&mut self, cached: &CachedBlock) {
        if let Some((Some(key), _)) = cached.pieces.first().copied() {
            self.cache.get_mut().blocks.remove(key);
        }
    }

    /// Drops the changed index blocks that begin in these bytes of the volume, whose clusters are being freed.
    pub fn remove_blocks_in(&mut self, range: std::ops::Range<u64>) {
        let blocks = &mut self.cache.get_mut().blocks;
        let keys: Vec<u64> = blocks.dirty_in(range).map(|(key, _)| key).collect();
        for key in keys {
            blocks.remove(key);
        }
    }

    /// Stores a changed page of a metadata stream in memory; `offset` is on the volume, a multiple of the page size.
    pub fn put_page(&mut self, offset: u64, page: Vec<u8>) {
        self.cache.get_mut().pages.put(offset, Arc::new(page));
    }

    /// Bytes of changed metadata in memory.
    pub fn dirty_bytes(&self) -> usize {
        let cache = self.cache.borrow();
        cache.records.dirty().len() * self.geometry.record_size as usize
            + cache.blocks.dirty().len() * self.geometry.index_block_size as usize
            + cache.pages.dirty().len() * self.page_size()
    }

    /// Bytes per page of a metadata stream: never more than a cluster, so that a page has one owner.
    pub fn page_size(&self) -> usize {
        self.geometry.cluster_size.min(4096) as usize
    }

    /// Drops everything that is not changed.
    pub fn forget_clean(&mut self) {
        let cache = self.cache.get_mut();
        cache.records.forget_clean();
        cache.blocks.forget_clean();
        cache.pages.forget_clean();
        cache.indexes.clear();
    }
}

impl<D: VolumeRead> Pager<D> {
    /// Where a record is on the device.
    fn record_pieces(&self, number: RecordNumber) -> Result<Vec<Piece>> {
        let size = u64::from(self.geometry.record_size);
        let outside = || damaged(format!("reference to record {number} beyond the end of $MFT"));
        let offset = number.0.checked_mul(size).ok_or_else(outside)?;
        match &*self.mft {
            Stream::Runs { runs, sizes } if offset.saturating_add(size) <= sizes.data => {
                pieces(&self.geometry, runs, offset, size as usize)
            }
            _ => Err(outside()),
        }
    }

    /// An offset of the volume as an offset of the image that holds it, for messages.
    pub(crate) fn image_offset(&self, offset: u64) -> u64 {
        self.device.image_offset().saturating_add(offset)
    }

    /// An error in a block that lies in `pieces`: its offset in the block becomes one of the image.
    fn locate_error(&self, error: Error, pieces: &[Piece]) -> Error {
        error.inside_pieces(|mut inside| {
            for &(place, length) in pieces {
                if let Some(place) = place.filter(|_| inside < length as u64) {
                    return Some(self.image_offset(place.saturating_add(inside)));
                }
                inside = inside.saturating_sub(length as u64);
            }
            None
        })
    }

    /// Adds where a file's record is to an error that does not say more exactly where the damage lies.
    pub(crate) fn in_record<T>(&self, number: RecordNumber, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let is_ours = error.layer() == Layer::Ntfs && error.kind() == Kind::Damaged;
            let pieces = if is_ours { self.record_pieces(number).ok() } else { None };
            match pieces.and_then(|pieces| pieces.first()?.0) {
                Some(place) => error.inside(self.image_offset(place)),
                None if is_ours => error.at(number),
                None => error,
            }
        })
    }

    /// A record as it is on the device, or as it is to be written.
    pub(crate) fn raw_record(&self, number: RecordNumber) -> Result<Vec<u8>> {
        if let Some(record) = self.cache.borrow().records.get(number.0) {
            return Ok(record.bytes().to_vec());
        }
        self.read_pieces(&self.record_pieces(number)?)
    }

    /// Reads a block that may lie in several pieces.
    pub(crate) fn read_pieces(&self, pieces: &[Piece]) -> Result<Vec<u8>> {
        let mut bytes = vec![0; pieces.iter().map(|p| p.1).sum()];
        self.read_pieces_into(pieces, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from pieces of the same length.
    fn read_pieces_into(&self, pieces: &[Piece], bytes: &mut [u8]) -> Result<()> {
        let mut done = 0;
        for (place, length) in pieces {
            let place = place.ok_or_else(|| damaged("metadata in a hole"))?;
            self.device.read_at(VolumeOffset(place), &mut bytes[done..done + length])?;
            done += length;
        }
        Ok(())
    }

    /// A record, from the cache or the device; damaged when it is not a record, or that of another number.
    pub(crate) fn record(&self, number: RecordNumber) -> Result<Arc<Record>> {
        if let Some(record) = self.cache.borrow().records.get(number.0) {
            return Ok(record);
        }
        let pieces = self.record_pieces(number)?;
        let place = pieces.first().and_then(|p| p.0).unwrap_or(0);
        let record = Record::parse(self.read_pieces(&pieces)?).map_err(|e| self.locate_error(e, &pieces))?;
        if record.number().is_some_and(|found| found != number.0 & 0xFFFF_FFFF) {
            return Err(damaged("an MFT record has the number of another one")
                .expected_found(number, record.number().unwrap_or_default())
                .at(self.image_offset(place)));
        }
        let record = Arc::new(record);
        let limit = RECORD_CACHE_BYTES / self.geometry.record_size as usize;
        self.cache.borrow_mut().records.remember(number.0, Arc::clone(&record), limit);
        Ok(record)
    }

    /// An index block in memory, by its place on the device.
    pub(crate) fn cached_block(&self, key: u64, vcn: Vcn, size: usize) -> Result<Option<Arc<CachedBlock>>> {
        let Some(cached) = self.cache.borrow().blocks.get(key) else { return Ok(None) };
        let known = Vcn(block::VCN.get(cached.block.bytes()));
        if known != vcn || cached.block.bytes().len() != size {
            return Err(damaged("one index block used in two places")
                .expected_found(vcn, known)
                .at(self.image_offset(key)));
        }
        Ok(Some(cached))
    }

    /// Reads an index block that is not in memory.
    pub(crate) fn read_block(&self, pieces: Vec<Piece>, vcn: Vcn) -> Result<Arc<CachedBlock>> {
        let key = pieces.first().and_then(|p| p.0).ok_or_else(|| damaged("index block in a hole"))?;
        let spare = self.cache.borrow_mut().blocks.spare();
        let mut bytes = spare.map(|cached| cached.block.into_bytes()).unwrap_or_default();
        bytes.resize(pieces.iter().map(|p| p.1).sum(), 0);
        self.read_pieces_into(&pieces, &mut bytes)?;
        let block = IndexBlock::parse(bytes, vcn).map_err(|e| self.locate_error(e, &pieces))?;
        let cached = Arc::new(CachedBlock::new(block, pieces));
        let mut cache = self.cache.borrow_mut();
        cache.shrink_blocks(cached.block.bytes().len());
        let has_children = cached.block.node()?.has_children();
        cache.blocks.insert_clean(key, Arc::clone(&cached), has_children);
        Ok(cached)
    }

    /// Records that `$MFT` has room for.
    pub(crate) fn record_count(&self) -> u64 {
        let written = match &*self.mft {
            Stream::Resident(_) => 0,
            Stream::Runs { sizes, .. } => sizes.initialized.min(sizes.data),
        };
        written / u64::from(self.geometry.record_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::format::record::header;
    use crate::ntfs::testing::pager;

    const NUMBER: RecordNumber = RecordNumber(5);

    fn change_links(pager: &mut Pager<crate::io::MemoryVolume>, links: u16) {
        let mut record = (*pager.record(NUMBER).unwrap()).clone();
        header::LINKS.set(record.bytes_mut(), links);
        pager.put_record(NUMBER, record);
    }

    #[test]
    fn changes_reach_the_device_by_flush_alone() {
        let mut pager = pager();
        let before = pager.device().0.clone();
        pager.begin();
        change_links(&mut pager, 7);
        pager.commit();
        assert!(pager.device().0 == before && pager.dirty_bytes() == 1024);
        pager.flush().unwrap();
        assert_eq!(pager.dirty_bytes(), 0);
        let mft = (**pager.mft()).clone();
        let again = Pager::new(crate::io::MemoryVolume(pager.device().0.clone()), pager.geometry.clone(), mft);
        assert_eq!(again.record(NUMBER).unwrap().links(), 7);
    }

    #[test]
    fn a_failed_operation_leaves_what_was_there() {
        let mut pager = pager();
        let mut runs = crate::ntfs::format::runlist::Runlist::default();
        runs.push(Some(crate::ntfs::format::units::Lcn(100)), 2);
        pager.begin();
        change_links(&mut pager, 7);
        pager.write_metadata(&runs, 1000, b"first").unwrap();
        pager.commit();
        pager.begin();
        change_links(&mut pager, 8);
        pager.write_metadata(&runs, 1000, b"other bytes over two pages..").unwrap();
        pager.set_mft(Arc::new(Stream::Resident(Vec::new())));
        pager.rollback();
        assert_eq!(pager.record(NUMBER).unwrap().links(), 7);
        let mut bytes = [0; 28];
        pager.read_runs(&runs, 1000, &mut bytes).unwrap();
        assert_eq!(bytes[..6], *b"first\0");
        assert!(bytes[6..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_record_with_a_wrong_number_is_reported_where_it_lies() {
        let mut pager = pager();
        pager.device.0.copy_within((8 + 6) << 10..(8 + 7) << 10, (8 + 5) << 10);
        let error = pager.record(NUMBER).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (Kind::Damaged, Some((8 + 5) << 10)), "{error}");
    }
}
