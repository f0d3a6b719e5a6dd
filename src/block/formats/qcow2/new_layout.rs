//! The layout of a new qcow2 file: allocates its clusters, fills its tables and makes its header. Writing them to the file
//! is the caller's part.
//!
//! There are two kinds of layout. A conversion surveys its source first: then all L2 tables, and the greatest number of
//! refcount blocks, are known before any data are read, and all metadata lie in one range before the data. An overlay is
//! written without a survey: tables follow the data when they are complete.

use std::collections::BTreeMap;

use zerocopy::IntoBytes;

use super::cluster::{ClusterSize, HostCluster};
use super::entry::{L1Entry, L2Entry, RefcountTableEntry};
use super::header::{BACKING_NAME_MAX, Compression, INCOMPATIBLE_COMPRESSION, L1_BYTES_MAX, REFCOUNT_TABLE_BYTES_MAX};
use super::on_disk::{EXTENSION_BACKING_FORMAT, ExtensionHeader, LENGTH_V3, MAGIC, StoredHeader, table_bytes};
use crate::block::Format;
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// log2 of the width of refcounts: 16 bits.
const REFCOUNT_ORDER: u32 = 4;
/// Bytes of a refcount.
const REFCOUNT_BYTES: u64 = 2;
/// Complete L2 tables are placed when they make up this much memory.
const UNPLACED_BYTES_MAX: u64 = 8 << 20;

/// The backing file that a new image records: its name as it is to be stored, and its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backing {
    pub name: String,
    pub format: Format,
}

/// Properties of a new image.
#[derive(Debug)]
pub(crate) struct NewImageOptions {
    /// Bytes of the disk.
    pub size: u64,
    pub clusters: ClusterSize,
    /// How its compressed clusters, if there are any, are compressed.
    pub compression: Compression,
    pub backing: Option<Backing>,
}

/// What the metadata before the data have to cover, counted before anything is written.
#[derive(Debug)]
pub(crate) struct Survey {
    clusters: ClusterSize,
    /// Which L2 tables there will be.
    tables: Vec<bool>,
    /// Clusters of data, at most.
    data_clusters: u64,
}

impl Survey {
    /// # Errors
    /// When the disk would need a larger L1 table than QEMU opens.
    pub fn new(size: u64, clusters: ClusterSize) -> Result<Self> {
        let entries = l1_entries(size, clusters)?;
        Ok(Self { clusters, tables: vec![false; entries], data_clusters: 0 })
    }

    /// Adds a range of the disk, from the start of a cluster, that may hold data.
    pub fn add(&mut self, offset: ImageOffset, length: u64) {
        let Some(last) = length.checked_sub(1).and_then(|more| offset.checked_add(more)) else { return };
        self.data_clusters += self.clusters.count(length);
        let span = l2_span(self.clusters);
        for table in offset.0 / span..=last.0 / span {
            if let Some(used) = usize::try_from(table).ok().and_then(|table| self.tables.get_mut(table)) {
                *used = true;
            }
        }
    }

    /// Adds data whose offset on the disk is not known yet.
    pub fn expect_more(&mut self, bytes: u64) {
        self.data_clusters += bytes / self.clusters.bytes();
    }
}

/// Bytes of the disk that one L2 table maps.
fn l2_span(clusters: ClusterSize) -> u64 {
    clusters.bytes_of(clusters.bytes() / size_of::<L2Entry>() as u64)
}

/// Entries of the L1 table of a disk.
fn l1_entries(size: u64, clusters: ClusterSize) -> Result<usize> {
    let entries = size.div_ceil(l2_span(clusters));
    if entries * size_of::<L1Entry>() as u64 > L1_BYTES_MAX {
        return Err(too_large());
    }
    Ok(usize::try_from(entries).unwrap_or(usize::MAX))
}

fn too_large() -> Error {
    Error::unsupported(Layer::Block, "a disk this large in clusters this small").hint("choose larger clusters")
}

/// Refcount blocks, and clusters of the refcount table, for `clusters` clusters and for themselves.
fn refcount_sizes(clusters: u64, size: ClusterSize) -> (u64, u64) {
    let (mut blocks, mut table) = (1, 1);
    // Each round adds what the last one needs for itself. It ends after two or three.
    loop {
        let total = clusters + blocks + table;
        let entries = size.bytes() / REFCOUNT_BYTES;
        let needed = (total.div_ceil(entries), size.count(blocks * size_of::<RefcountTableEntry>() as u64));
        if needed.0 <= blocks && needed.1 <= table {
            return (blocks, table);
        }
        (blocks, table) = (needed.0.max(blocks), needed.1.max(table));
    }
}

/// A complete piece of metadata, and where it is to be written.
#[derive(Debug)]
pub(crate) struct TableWrite {
    pub to: HostOffset,
    pub bytes: Vec<u8>,
}

/// Where the refcount structures lie.
#[derive(Debug, Clone, Copy)]
struct RefcountPlaces {
    table: HostOffset,
    table_clusters: u64,
    /// The first of the blocks, which lie in order.
    blocks: HostOffset,
    block_count: u64,
}

/// The layout of a qcow2 file (version 3) in the making. Clusters must be placed in ascending guest order.
#[derive(Debug)]
pub(crate) struct ImageLayout {
    options: NewImageOptions,
    /// `None` until they are allocated, after the data.
    refcounts: Option<RefcountPlaces>,
    /// `None` until it is allocated.
    l1_table: Option<HostOffset>,
    l1: Vec<L1Entry>,
    /// The L2 table being filled: its index in the L1 table and its entries.
    l2: Option<(usize, Vec<u64>)>,
    /// Complete L2 tables that are not allocated yet, with their indices in the L1 table.
    unplaced: Vec<(usize, Vec<u64>)>,
    /// Complete metadata that the caller has not taken yet.
    finished: Vec<TableWrite>,
    /// The end of the file, at which clusters are allocated.
    end: HostOffset,
    /// The free rest of the last cluster of compressed data: from, to.
    compressed_rest: Option<(HostOffset, HostOffset)>,
    /// Refcount blocks that can still change, by their index.
    counts: BTreeMap<u64, Vec<u16>>,
}

impl ImageLayout {
    /// A layout whose tables follow the data. It cannot have compressed clusters.
    ///
    /// # Errors
    /// When the disk is too large, or the backing file's name too long.
    pub fn with_tables_after_data(options: NewImageOptions) -> Result<Self> {
        let entries = l1_entries(options.size, options.clusters)?.max(1);
        Self::new(options, entries)
    }

    /// A layout whose tables lie before the data, which the survey counted.
    ///
    /// # Errors
    /// When the disk is too large, or the backing file's name too long.
    pub fn with_tables_before_data(options: NewImageOptions, survey: &Survey) -> Result<Self> {
        let mut layout = Self::new(options, survey.tables.len())?;
        let clusters = layout.options.clusters;
        let l1_clusters = clusters.count(layout.l1_bytes());
        let l2_clusters = survey.tables.iter().filter(|used| **used).count() as u64;
        // Every cluster of the disk needs one of the file at most, compressed or not.
        let (block_count, table_clusters) =
            refcount_sizes(1 + l1_clusters + l2_clusters + survey.data_clusters, clusters);
        if clusters.bytes_of(table_clusters) > REFCOUNT_TABLE_BYTES_MAX {
            return Err(too_large());
        }
        let table = layout.allocate(table_clusters)?;
        let blocks = layout.allocate(block_count)?;
        layout.l1_table = Some(layout.allocate(l1_clusters)?);
        for (index, _) in survey.tables.iter().enumerate().filter(|(_, used)| **used) {
            let place = layout.allocate(1)?;
            layout.set_l1(index, place)?;
        }
        layout.refcounts = Some(RefcountPlaces { table, table_clusters, blocks, block_count });
        // Refcount blocks that turn out to cover nothing belong to the table all the same: else they would be leaks.
        layout.count(HostOffset(0), layout.end)?;
        Ok(layout)
    }

    fn new(options: NewImageOptions, l1_entries: usize) -> Result<Self> {
        if options.backing.as_ref().is_some_and(|backing| backing.name.len() > BACKING_NAME_MAX as usize) {
            return Err(Error::unsupported(Layer::Block, "the path of the original is longer than 1023 bytes")
                .hint("put the output into the same folder as the original"));
        }
        let end = HostOffset(options.clusters.bytes());
        Ok(Self {
            options,
            refcounts: None,
            l1_table: None,
            l1: vec![L1Entry::default(); l1_entries],
            l2: None,
            unplaced: Vec::new(),
            finished: Vec::new(),
            end,
            compressed_rest: None,
            counts: BTreeMap::new(),
        })
    }

    /// Allocates and maps a cluster of data.
    ///
    /// # Errors
    /// When no L2 table was reserved for it: the source is not what the survey saw.
    pub fn place_cluster(&mut self, guest: ImageOffset) -> Result<HostOffset> {
        let at = self.allocate(1)?;
        self.count(at, self.end)?;
        self.map(guest, L2Entry::standard(at))?;
        Ok(at)
    }

    /// Allocates and maps a cluster that was compressed to `length` bytes: where the last one ends, if it fits or the file
    /// ends there.
    ///
    /// # Errors
    /// See [`place_cluster`](Self::place_cluster); also when its offset has too many bits for an entry.
    pub fn place_compressed(&mut self, guest: ImageOffset, length: u64) -> Result<HostOffset> {
        if self.refcounts.is_none() {
            return Err(Error::bug(Layer::Block, "compressed clusters before their refcounts are allocated"));
        }
        let (at, limit) = match self.compressed_rest {
            Some((from, to)) if length <= to.0 - from.0 => (from, to),
            Some((from, to)) if to == self.end => {
                self.allocate(1)?;
                (from, self.end)
            }
            _ => (self.allocate(1)?, self.end),
        };
        let end = at.checked_add(length).ok_or_else(too_large)?;
        self.count(at, end)?;
        self.compressed_rest = Some((end, limit)).filter(|(from, to)| from < to);
        let entry = L2Entry::compressed(self.options.clusters, at, length).ok_or_else(|| {
            Error::unsupported(Layer::Block, "a compressed image this large").hint("write it without compression")
        })?;
        self.map(guest, entry)?;
        Ok(at)
    }

    /// Maps a cluster that reads as zeros. It needs no space; without a backing file it needs no entry either.
    ///
    /// # Errors
    /// See [`place_cluster`](Self::place_cluster).
    pub fn place_zeros(&mut self, guest: ImageOffset) -> Result<()> {
        if self.options.backing.is_none() {
            return Ok(());
        }
        // Over a backing file a hole would show the old data.
        self.map(guest, L2Entry::ZERO)
    }

    /// Takes the metadata that cannot change any more and were not taken before.
    ///
    /// # Errors
    /// When no refcount block was reserved for a cluster.
    pub fn take_finished(&mut self) -> Result<Vec<TableWrite>> {
        if self.refcounts.is_some() {
            let stable = self.compressed_rest.map_or(self.end, |(from, _)| from.min(self.end));
            self.finish_counts(self.options.clusters.host_cluster(stable))?;
        }
        Ok(std::mem::take(&mut self.finished))
    }

    /// Takes the rest of the metadata but for the header, once all clusters are placed.
    ///
    /// # Errors
    /// See [`take_finished`](Self::take_finished).
    pub fn finish(&mut self) -> Result<Vec<TableWrite>> {
        self.finish_l2()?;
        self.place_tables()?;
        let l1_table = match self.l1_table {
            Some(place) => place,
            None => self.allocate(self.options.clusters.count(self.l1_bytes()))?,
        };
        self.l1_table = Some(l1_table);
        self.finished.push(TableWrite { to: l1_table, bytes: table_bytes(&self.l1) });
        let places = match self.refcounts {
            Some(places) => places,
            None => self.place_refcounts()?,
        };
        self.finish_counts(HostCluster(u64::MAX))?;
        let clusters = self.options.clusters;
        let entries = (0..places.block_count)
            .map(|block| RefcountTableEntry(places.blocks.0 + clusters.bytes_of(block)))
            .collect::<Vec<_>>();
        self.finished.push(TableWrite { to: places.table, bytes: table_bytes(&entries) });
        Ok(std::mem::take(&mut self.finished))
    }

    /// The length of the finished file.
    pub fn file_length(&self) -> u64 {
        self.end.0
    }

    /// The header of the finished file, with its extensions. Write it last: before that the file is not an image.
    ///
    /// # Errors
    /// When the layout was not finished.
    pub fn header(&self) -> Result<Vec<u8>> {
        let unfinished = || Error::bug(Layer::Block, "a header before its tables");
        let places = self.refcounts.ok_or_else(unfinished)?;
        let l1_table = self.l1_table.ok_or_else(unfinished)?;
        let too_many = |_| too_large();
        let mut variable = Vec::new();
        let mut name_offset = 0;
        let mut name = "";
        if let Some(backing) = &self.options.backing {
            let format = backing.format.name().as_bytes();
            let length = u32::try_from(format.len()).map_err(too_many)?;
            variable
                .extend(ExtensionHeader { kind: EXTENSION_BACKING_FORMAT.into(), length: length.into() }.as_bytes());
            variable.extend(format);
            variable.resize(variable.len().next_multiple_of(8), 0);
            name = &backing.name;
        }
        // The end of the extensions.
        variable.extend([0; size_of::<ExtensionHeader>()]);
        if !name.is_empty() {
            name_offset = u64::from(LENGTH_V3) + variable.len() as u64;
            variable.extend(name.as_bytes());
        }
        let is_zlib = self.options.compression == Compression::Zlib;
        let stored = StoredHeader {
            magic: MAGIC,
            version: 3.into(),
            backing_file_offset: name_offset.into(),
            backing_file_size: u32::try_from(name.len()).map_err(too_many)?.into(),
            cluster_bits: self.options.clusters.bits().into(),
            size: self.options.size.into(),
            crypt_method: 0.into(),
            l1_size: u32::try_from(self.l1.len()).map_err(too_many)?.into(),
            l1_table_offset: l1_table.0.into(),
            refcount_table_offset: places.table.0.into(),
            refcount_table_clusters: u32::try_from(places.table_clusters).map_err(too_many)?.into(),
            nb_snapshots: 0.into(),
            snapshots_offset: 0.into(),
            incompatible_features: if is_zlib { 0 } else { INCOMPATIBLE_COMPRESSION }.into(),
            compatible_features: 0.into(),
            autoclear_features: 0.into(),
            refcount_order: REFCOUNT_ORDER.into(),
            header_length: LENGTH_V3.into(),
            compression_type: u8::from(!is_zlib),
            padding: [0; 7],
        };
        let mut header = stored.as_bytes().to_vec();
        header.append(&mut variable);
        Ok(header)
    }

    /// Where the L2 entry of a cluster is stored; `None` when its table is not allocated.
    pub fn l2_entry_offset(&self, guest: ImageOffset) -> Option<HostOffset> {
        let (table, index) = self.l2_position(guest);
        let table = self.l1.get(table)?;
        let within = index as u64 * size_of::<L2Entry>() as u64;
        if table.is_absent() { None } else { table.offset().checked_add(within) }
    }

    /// Takes the L2 table that is being filled, once all clusters are placed.
    ///
    /// # Errors
    /// See [`take_finished`](Self::take_finished).
    pub fn take_last_table(&mut self) -> Result<Vec<TableWrite>> {
        self.finish_l2()?;
        Ok(std::mem::take(&mut self.finished))
    }

    /// Allocates one more cluster when all are placed and all tables written, with what has to be written for it. `None`
    /// when it would need refcounts that were not reserved.
    ///
    /// # Errors
    /// When the cluster is not one of the disk.
    pub fn append_cluster(&mut self, guest: ImageOffset) -> Result<Option<(HostOffset, Vec<TableWrite>)>> {
        let clusters = self.options.clusters;
        // A cluster and perhaps a table.
        let needed = self.end.checked_add(clusters.bytes_of(2)).ok_or_else(too_large)?;
        let block_span = clusters.bytes_of(clusters.bytes() / REFCOUNT_BYTES);
        let counted = self.refcounts.map_or(0, |places| places.block_count.saturating_mul(block_span));
        if needed.0 > counted {
            return Ok(None);
        }
        let mut writes = Vec::new();
        if self.l2_entry_offset(guest).is_none() {
            let table = self.allocate(1)?;
            self.count(table, self.end)?;
            self.set_l1(self.l2_position(guest).0, table)?;
            writes.push(TableWrite { to: table, bytes: vec![0; clusters.bytes() as usize] });
        }
        let at = self.allocate(1)?;
        self.count(at, self.end)?;
        let entry = self.l2_entry_offset(guest).ok_or_else(|| Error::bug(Layer::Block, "an L2 table was not made"))?;
        writes.push(TableWrite { to: entry, bytes: table_bytes(&[L2Entry::standard(at)]) });
        Ok(Some((at, writes)))
    }

    fn l1_bytes(&self) -> u64 {
        (self.l1.len() * size_of::<L1Entry>()) as u64
    }

    /// The index of a cluster's L2 table, and that of its entry in the table.
    fn l2_position(&self, guest: ImageOffset) -> (usize, usize) {
        let clusters = self.options.clusters;
        let entries = clusters.bytes() / size_of::<L2Entry>() as u64;
        let cluster = clusters.guest_cluster(guest).0;
        let table = usize::try_from(cluster / entries).unwrap_or(usize::MAX);
        (table, usize::try_from(cluster % entries).unwrap_or(usize::MAX))
    }

    fn set_l1(&mut self, index: usize, table: HostOffset) -> Result<()> {
        let entry = self.l1.get_mut(index);
        *entry.ok_or_else(|| Error::bug(Layer::Block, "a cluster outside the disk"))? = L1Entry::to(table);
        Ok(())
    }

    /// Allocates clusters at the end of the file.
    fn allocate(&mut self, count: u64) -> Result<HostOffset> {
        let at = self.end;
        self.end = at.checked_add(self.options.clusters.bytes_of(count)).ok_or_else(too_large)?;
        Ok(at)
    }

    /// Raises the refcounts of all clusters that `start..end` touches; does nothing before the refcounts are allocated.
    fn count(&mut self, start: HostOffset, end: HostOffset) -> Result<()> {
        if self.refcounts.is_none() {
            return Ok(());
        }
        let clusters = self.options.clusters;
        let entries = clusters.bytes() / REFCOUNT_BYTES;
        for cluster in clusters.host_cluster(start).0..clusters.count(end.0) {
            let block = self.counts.entry(cluster / entries).or_insert_with(|| vec![0; entries as usize]);
            let count = block.get_mut((cluster % entries) as usize);
            let count = count.ok_or_else(|| Error::bug(Layer::Block, "a refcount outside its block"))?;
            *count = count.checked_add(1).ok_or_else(|| Error::bug(Layer::Block, "a refcount overflows"))?;
        }
        Ok(())
    }

    /// Sets an entry of an L2 table, which completes the table of the cluster before.
    fn map(&mut self, guest: ImageOffset, entry: L2Entry) -> Result<()> {
        let (table, index) = self.l2_position(guest);
        // Tables before the data are allocated from the beginning.
        if self.refcounts.is_some() && self.l1.get(table).is_none_or(|entry| entry.is_absent()) {
            return Err(Error::refused(Layer::Block, "the source changed while it was read")
                .with_code(ErrorCode::FileChanged)
                .at(guest)
                .hint("shut the guest down and try again"));
        }
        if self.l2.as_ref().is_none_or(|(number, _)| *number != table) {
            self.finish_l2()?;
            if self.options.clusters.bytes_of(self.unplaced.len() as u64) >= UNPLACED_BYTES_MAX {
                self.place_tables()?;
            }
            let entries = self.options.clusters.bytes() as usize / size_of::<L2Entry>();
            self.l2 = Some((table, vec![0; entries]));
        }
        let slot = self.l2.as_mut().and_then(|(_, entries)| entries.get_mut(index));
        *slot.ok_or_else(|| Error::bug(Layer::Block, "a cluster outside its L2 table"))? = entry.0;
        Ok(())
    }

    /// Completes the L2 table that is being filled.
    fn finish_l2(&mut self) -> Result<()> {
        let Some((number, entries)) = self.l2.take() else { return Ok(()) };
        match self.l1.get(number) {
            Some(place) if !place.is_absent() => {
                self.finished.push(TableWrite { to: place.offset(), bytes: table_bytes(&entries) });
            }
            Some(_) => self.unplaced.push((number, entries)),
            None => return Err(Error::bug(Layer::Block, "a cluster outside the disk")),
        }
        Ok(())
    }

    /// Allocates complete L2 tables at the end of the file.
    fn place_tables(&mut self) -> Result<()> {
        for (number, entries) in std::mem::take(&mut self.unplaced) {
            let to = self.allocate(1)?;
            self.set_l1(number, to)?;
            self.finished.push(TableWrite { to, bytes: table_bytes(&entries) });
        }
        Ok(())
    }

    /// Allocates the refcount structures at the end of the file, and counts every cluster once.
    fn place_refcounts(&mut self) -> Result<RefcountPlaces> {
        let clusters = self.options.clusters;
        let (block_count, table_clusters) = refcount_sizes(clusters.count(self.end.0), clusters);
        let blocks = self.allocate(block_count)?;
        let table = self.allocate(table_clusters)?;
        let places = RefcountPlaces { table, table_clusters, blocks, block_count };
        self.refcounts = Some(places);
        self.count(HostOffset(0), self.end)?;
        Ok(places)
    }

    /// Completes the refcount blocks for clusters before `end`.
    fn finish_counts(&mut self, end: HostCluster) -> Result<()> {
        let clusters = self.options.clusters;
        let entries = clusters.bytes() / REFCOUNT_BYTES;
        let Some(places) = self.refcounts else { return Ok(()) };
        while let Some(first) = self.counts.first_entry().filter(|e| (e.key() + 1).saturating_mul(entries) <= end.0) {
            let (block, counts) = first.remove_entry();
            if block >= places.block_count {
                return Err(Error::bug(Layer::Block, "refcounts beyond the blocks that were reserved"));
            }
            let to = HostOffset(places.blocks.0 + clusters.bytes_of(block));
            let bytes = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
            self.finished.push(TableWrite { to, bytes });
        }
        Ok(())
    }
}
