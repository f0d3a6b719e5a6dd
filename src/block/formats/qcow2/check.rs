//! The integrity check: count every reference, compare with the stored refcounts.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::bitmap;
use super::bytes::be64_table;
use super::counts::Counts;
use super::entry::{COPIED, Mapping, OFFSET_MASK, l2_table_offset};
use super::header::Header;
use super::image::Qcow2Image;
use super::refcount;
use super::snapshot::{self, Snapshot};
use crate::block::{OpenOptions, Storage, StorageExt};
use crate::error::{Error, Layer, Result};

/// How many problems are described; the rest are only counted.
const PROBLEMS_MAX: usize = 1000;
/// How many references to L2 tables (of all snapshots together) are followed. Only a hostile image has more.
const TABLES_MAX: usize = 1 << 23;

/// Tables of snapshots and bitmaps are read in pieces of this many bytes.
const TABLE_PIECE: u64 = 1 << 20;

/// What sort of problem was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// Data or metadata are, or can be, lost.
    Corruption,
    /// Space that nothing uses; harmless.
    Leak,
}

/// A problem and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub kind: ProblemKind,
    /// Host offset.
    pub offset: u64,
    /// What is wrong.
    pub message: String,
}

/// The result of a check, in qemu-img's terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Number of corruptions.
    pub corruptions: u64,
    /// Number of leaked clusters.
    pub leaks: u64,
    /// The first problems, described.
    pub problems: Vec<Problem>,
    /// Clusters of the disk.
    pub total_clusters: u64,
    /// Clusters of the disk that are stored in this file.
    pub allocated_clusters: u64,
    /// Allocated clusters that do not follow their predecessor in the file.
    pub fragmented_clusters: u64,
    /// Allocated clusters that are compressed.
    pub compressed_clusters: u64,
    /// End of the last cluster in use.
    pub image_end_offset: u64,
}

impl CheckReport {
    fn add(&mut self, kind: ProblemKind, offset: u64, message: impl FnOnce() -> String) {
        match kind {
            ProblemKind::Corruption => self.corruptions += 1,
            ProblemKind::Leak => self.leaks += 1,
        }
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { kind, offset, message: message() });
        }
    }

    /// Whether there is neither corruption nor leak.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.corruptions == 0 && self.leaks == 0
    }
}

/// Checks the qcow2 file at `path`, without its backing files.
///
/// # Errors
/// When the file cannot be read or is no qcow2 image; a damaged structure below the header is part of the report.
pub fn check(path: &Path, options: &OpenOptions) -> Result<CheckReport> {
    check_storage(Arc::new(crate::block::open_file(path, options.locking)?), path)
}

/// As [`check`], for a file that is already at hand.
///
/// # Errors
/// As [`check`].
pub fn check_storage(storage: Arc<dyn Storage>, path: &Path) -> Result<CheckReport> {
    let image = Qcow2Image::open_alone(storage, path)?;
    Ok(Walk::new(&image)?.report)
}

/// Everything that a walk over all references finds out.
#[derive(Debug)]
pub(super) struct Walk {
    pub report: CheckReport,
    pub counts: Counts,
    pub snapshots: Vec<Snapshot>,
    /// Host offsets of active L2 tables in which a COPIED flag does not go with the number of references (rather than
    /// with the stored refcount): what a repair of the refcounts has to rewrite.
    pub wrong_copied: BTreeSet<u64>,
    /// The same for the active L1 table itself.
    pub is_l1_copied_wrong: bool,
    /// Clusters of the refcount table and its blocks.
    pub refcount_clusters: Vec<u64>,
    /// How many of the corruptions are refcounts that are too low or flags that follow from them: what a repair of
    /// the refcounts cures.
    pub refcount_corruptions: u64,
}

/// A reference to an L2 table: its place, and the L1 index if the reference is the active table's.
type TableReference = (u64, Option<usize>);

struct Walker<'a> {
    image: &'a Qcow2Image,
    header: &'a Header,
    storage: &'a dyn Storage,
    file_length: u64,
    walk: Walk,
    /// Metadata clusters that may be referred to once only, as ranges (first, last).
    unique: Vec<(u64, u64)>,
    /// Stored refcounts of clusters in use, where they differ from the count.
    differing: HashMap<u64, u64>,
}

impl Walk {
    /// Walks over the whole image.
    pub fn new(image: &Qcow2Image) -> Result<Self> {
        let file_length = image.file.len().map_err(|e| Error::io(Layer::Block, "cannot be read", e))?;
        let mut walker = Walker {
            image,
            header: &image.header,
            storage: &*image.file,
            file_length,
            walk: Self {
                report: CheckReport::default(),
                counts: Counts::default(),
                snapshots: Vec::new(),
                wrong_copied: BTreeSet::new(),
                is_l1_copied_wrong: false,
                refcount_clusters: Vec::new(),
                refcount_corruptions: 0,
            },
            unique: Vec::new(),
            differing: HashMap::new(),
        };
        walker.run().map_err(|e| e.path(image.path.display().to_string()))?;
        Ok(walker.walk)
    }
}

impl Walker<'_> {
    fn run(&mut self) -> Result<()> {
        self.walk.report.total_clusters = self.header.size.div_ceil(self.header.cluster_size());
        self.mark_unique(0, 1)?;
        let mut tables = Vec::new();
        self.mark_unique(self.header.l1_table_offset, u64::from(self.header.l1_size) * 8)?;
        let l1 = &self.image.l1;
        self.collect_tables(l1, true, &mut tables)?;
        self.walk_snapshots(&mut tables)?;
        self.walk_bitmaps()?;
        if let Some((offset, length)) = self.header.encryption {
            self.mark(offset, length, 1)?;
        }
        let table = self.walk_refcount_table()?;
        tables.sort_unstable();
        let mut shared = Vec::new();
        for group in tables.chunk_by(|a, b| a.0 == b.0) {
            shared.push(self.walk_table(group)?);
        }
        self.check_overlaps(&shared);
        self.compare(&table)?;
        self.check_copied()?;
        let end = self.walk.counts.iter().last().map_or(0, |(cluster, _)| cluster + 1);
        self.walk.report.image_end_offset = self.walk.report.image_end_offset.max(end << self.header.cluster_bits);
        Ok(())
    }

    fn corruption(&mut self, offset: u64, message: impl FnOnce() -> String) {
        self.walk.report.add(ProblemKind::Corruption, offset, message);
    }

    /// Counts references to all clusters of a range.
    fn mark(&mut self, offset: u64, length: u64, times: u32) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        let Some(end) = offset.checked_add(length) else {
            self.corruption(offset, || "a range beyond every file".to_owned());
            return Ok(());
        };
        // The last cluster may be cut short at the end of the file.
        if end > self.file_length && end - self.file_length >= self.header.cluster_size() {
            self.corruption(offset, || format!("{length} bytes are referred to beyond the end of the file"));
            return Ok(());
        }
        for cluster in offset >> self.header.cluster_bits..=(end - 1) >> self.header.cluster_bits {
            self.walk.counts.add(cluster, times)?;
        }
        Ok(())
    }

    /// As [`mark`](Self::mark), for metadata that nothing else may refer to. Returns whether it is worth a look: inside
    /// the file, and not what was marked before. So everything together is at most as long as the file, however often
    /// an image refers to the same place.
    fn mark_unique(&mut self, offset: u64, length: u64) -> Result<bool> {
        let bits = self.header.cluster_bits;
        let end = offset.checked_add(length).filter(|end| *end <= self.file_length.next_multiple_of(1 << bits));
        if let Some(end) = end.filter(|_| length > 0) {
            let (first, last) = (offset >> bits, (end - 1) >> bits);
            if (first..=last).any(|cluster| self.walk.counts.get(cluster) > 0) {
                self.corruption(offset, || "metadata overlap with other metadata".to_owned());
                return Ok(false);
            }
            match self.unique.last_mut() {
                Some((_, before)) if before.checked_add(1) == Some(first) => *before = last,
                _ => self.unique.push((first, last)),
            }
        }
        self.mark(offset, length, 1)?;
        Ok(offset.saturating_add(length) <= self.file_length)
    }

    /// Calls `take` with the entries of a table, piece by piece, holes left out: their entries are zeros.
    fn read_table(
        &mut self,
        what: &'static str,
        offset: u64,
        length: u64,
        take: &mut dyn FnMut(&mut Self, &[u64]) -> Result<()>,
    ) -> Result<()> {
        let io = |e| Error::io(Layer::Block, format!("{what} cannot be read"), e).at(offset);
        let mut done = 0;
        while done < length {
            let run = self.storage.run_at(offset + done).map_err(io)?;
            // Whole entries, whatever the host's blocks are.
            let part = (run.length.next_multiple_of(8)).clamp(8, length - done);
            if run.is_data || run.length < 8 {
                let mut bytes = vec![0; usize::try_from(part.min(TABLE_PIECE)).unwrap_or(0)];
                self.storage.read_exact_at(offset + done, &mut bytes).map_err(io)?;
                take(self, &be64_table(&bytes))?;
                done += bytes.len() as u64;
            } else {
                done += run.length / 8 * 8;
            }
        }
        Ok(())
    }

    fn collect_tables(&mut self, l1: &[u64], is_active: bool, tables: &mut Vec<TableReference>) -> Result<()> {
        for (index, entry) in l1.iter().enumerate().filter(|(_, entry)| **entry != 0) {
            match l2_table_offset(self.header, *entry) {
                Ok(Some(offset)) => tables.push((offset, is_active.then_some(index))),
                Ok(None) => {}
                Err(error) => self.corruption(entry & OFFSET_MASK, || error.to_string()),
            }
            if tables.len() > TABLES_MAX {
                return Err(Error::unsupported(Layer::Block, "too many L2 tables to be checked"));
            }
        }
        Ok(())
    }

    fn walk_snapshots(&mut self, tables: &mut Vec<TableReference>) -> Result<()> {
        if self.header.nb_snapshots == 0 {
            return Ok(());
        }
        let (snapshots, table_bytes) = match snapshot::read(self.storage, self.header) {
            Ok(found) => found,
            Err(error) => {
                self.corruption(self.header.snapshots_offset, || error.to_string());
                return Ok(());
            }
        };
        self.mark_unique(self.header.snapshots_offset, table_bytes)?;
        for snapshot in &snapshots {
            let length = u64::from(snapshot.l1_size) * 8;
            if self.mark_unique(snapshot.l1_table_offset, length)? {
                self.read_table("a snapshot's L1 table", snapshot.l1_table_offset, length, &mut |walker, l1| {
                    walker.collect_tables(l1, false, tables)
                })?;
            }
        }
        self.walk.snapshots = snapshots;
        Ok(())
    }

    fn walk_bitmaps(&mut self) -> Result<()> {
        let bitmaps = match bitmap::read(self.storage, self.header) {
            Ok(bitmaps) => bitmaps,
            Err(error) => {
                self.corruption(self.header.bitmaps.map_or(0, |b| b.directory_offset), || error.to_string());
                return Ok(());
            }
        };
        if let Some(extension) = self.header.bitmaps.filter(|_| !bitmaps.is_empty()) {
            self.mark_unique(extension.directory_offset, extension.directory_size)?;
        }
        for bitmap in &bitmaps {
            let length = u64::from(bitmap.table_entries) * 8;
            if self.mark_unique(bitmap.table_offset, length)? {
                let cluster = self.header.cluster_size();
                self.read_table("a bitmap's table", bitmap.table_offset, length, &mut |walker, table| {
                    for offset in table.iter().map(|entry| entry & OFFSET_MASK).filter(|offset| *offset != 0) {
                        walker.mark_unique(offset, cluster)?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Marks the refcount table and its blocks; returns the usable entries of the table.
    fn walk_refcount_table(&mut self) -> Result<Vec<u64>> {
        let cluster = self.header.cluster_size();
        let bits = self.header.cluster_bits;
        let length = u64::from(self.header.refcount_table_clusters) * cluster;
        self.mark_unique(self.header.refcount_table_offset, length)?;
        let first = self.header.refcount_table_offset >> bits;
        self.walk.refcount_clusters.extend(first..first + u64::from(self.header.refcount_table_clusters));
        let mut table = refcount::read_table(self.storage, self.header)?;
        let mut seen = BTreeSet::new();
        for entry in &mut table {
            let offset = *entry;
            if offset == 0 {
                continue;
            }
            if offset & !OFFSET_MASK != 0 || offset % cluster != 0 || !seen.insert(offset) {
                self.corruption(offset, || format!("impossible refcount table entry {offset:#018x}"));
                *entry = 0;
            } else if offset.saturating_add(cluster) > self.file_length {
                self.corruption(offset, || "a refcount block is beyond the end of the file".to_owned());
                *entry = 0;
            } else {
                self.mark_unique(offset, cluster)?;
                self.walk.refcount_clusters.push(offset >> bits);
            }
        }
        Ok(table)
    }

    /// Walks over one L2 table for all references to it. Returns its cluster and how often it is referred to.
    fn walk_table(&mut self, references: &[TableReference]) -> Result<(u64, u32)> {
        let offset = references.first().map_or(0, |r| r.0);
        let times = u32::try_from(references.len()).unwrap_or(u32::MAX);
        let cluster_size = self.header.cluster_size();
        let shared = (offset >> self.header.cluster_bits, times);
        if offset.saturating_add(cluster_size) > self.file_length {
            self.corruption(offset, || "an L2 table is beyond the end of the file".to_owned());
            return Ok(shared);
        }
        self.mark(offset, cluster_size, times)?;
        let run = self.storage.run_at(offset).map_err(|e| Error::io(Layer::Block, "cannot be read", e))?;
        if !run.is_data && run.length >= cluster_size {
            return Ok(shared);
        }
        let mut bytes = vec![0; usize::try_from(cluster_size).unwrap_or(0)];
        self.storage
            .read_exact_at(offset, &mut bytes)
            .map_err(|e| Error::io(Layer::Block, "an L2 table cannot be read", e).at(offset))?;
        let words = be64_table(&bytes);
        let step = usize::try_from(self.header.entry_size() / 8).unwrap_or(1);
        let active = references.iter().find_map(|(_, index)| *index);
        let mut previous_end = None;
        for (index, entry) in words.chunks_exact(step).enumerate() {
            let (word, bitmap) = (entry.first().copied().unwrap_or(0), entry.get(1).copied().unwrap_or(0));
            if word == 0 && bitmap == 0 {
                continue;
            }
            self.walk_entry((word, bitmap), index, times, active, &mut previous_end)?;
        }
        Ok(shared)
    }

    fn walk_entry(
        &mut self,
        (word, bitmap): (u64, u64),
        index: usize,
        times: u32,
        active: Option<usize>,
        previous_end: &mut Option<u64>,
    ) -> Result<()> {
        // Guest clusters matter only for the active table (for data files, where places are fixed).
        let cluster = active.map_or(0, |l1| (l1 as u64).saturating_mul(self.header.l2_entries()) + index as u64);
        let mapping = match Mapping::decode(self.header, word, bitmap, cluster) {
            Ok(mapping) => mapping,
            Err(error) => {
                self.corruption(word & OFFSET_MASK, || error.to_string());
                return Ok(());
            }
        };
        let is_active = active.is_some();
        match mapping {
            Mapping::Compressed(range) => {
                self.walk.report.allocated_clusters += u64::from(is_active);
                self.walk.report.compressed_clusters += u64::from(is_active);
                self.walk.report.fragmented_clusters += u64::from(is_active);
                // Sectors that were rounded up may reach beyond the end; the data does not.
                let end = range.offset.saturating_add(range.length);
                let slack = end.saturating_sub(self.file_length.next_multiple_of(self.header.cluster_size()));
                self.mark(range.offset, range.length.saturating_sub(slack.min(511)), times)
            }
            Mapping::Standard { host: Some(host), .. } if !self.header.has_data_file() => {
                self.walk.report.allocated_clusters += u64::from(is_active);
                if is_active && previous_end.is_some_and(|end| end != host) {
                    self.walk.report.fragmented_clusters += 1;
                }
                *previous_end = Some(host.saturating_add(self.header.cluster_size()));
                self.mark(host, self.header.cluster_size(), times)
            }
            Mapping::Standard { host: Some(_), .. } => {
                self.walk.report.allocated_clusters += u64::from(is_active);
                Ok(())
            }
            Mapping::Standard { host: None, .. } => Ok(()),
        }
    }

    /// Metadata that something else refers to as well.
    fn check_overlaps(&mut self, tables: &[(u64, u32)]) {
        let unique = std::mem::take(&mut self.unique);
        let unique = unique.iter().flat_map(|(first, last)| *first..=*last).map(|cluster| (cluster, 1));
        let expected = unique.chain(tables.iter().copied());
        for (cluster, times) in expected {
            let found = self.walk.counts.get(cluster);
            if found > times {
                let offset = cluster << self.header.cluster_bits;
                self.corruption(offset, || "metadata overlap with other metadata or data".to_owned());
            }
        }
    }

    /// Compares the stored refcounts with the counted ones, block by block, and checks COPIED on the way.
    fn compare(&mut self, table: &[u64]) -> Result<()> {
        let per_block = self.header.refcount_block_entries();
        let bits = self.header.cluster_bits;
        let order = self.header.refcount_order;
        let mut block = vec![0; usize::try_from(self.header.cluster_size()).unwrap_or(0)];
        for (index, offset) in (0u64..).zip(table) {
            let first = index.saturating_mul(per_block);
            if *offset == 0 {
                continue;
            }
            self.storage
                .read_exact_at(*offset, &mut block)
                .map_err(|e| Error::io(Layer::Block, "a refcount block cannot be read", e).at(*offset))?;
            for within in 0..per_block {
                let cluster = first.saturating_add(within);
                let stored = refcount::get(&block, order, within);
                let counted = u64::from(self.walk.counts.get(cluster));
                if stored == counted {
                    continue;
                }
                if counted > 0 {
                    self.differing.insert(cluster, stored);
                }
                let place = cluster.saturating_mul(1 << bits);
                let message = || format!("refcount {stored}, but {counted} references");
                if stored > counted {
                    self.walk.report.add(ProblemKind::Leak, place, message);
                    self.walk.report.image_end_offset =
                        self.walk.report.image_end_offset.max(place.saturating_add(1 << bits));
                } else {
                    self.walk.refcount_corruptions += 1;
                    self.walk.report.add(ProblemKind::Corruption, place, message);
                }
            }
        }
        let uncovered: Vec<u64> = self
            .walk
            .counts
            .iter()
            .map(|(cluster, _)| cluster)
            .filter(|cluster| {
                let block = usize::try_from(cluster / per_block).ok().and_then(|i| table.get(i));
                block.is_none_or(|offset| *offset == 0)
            })
            .collect();
        for cluster in uncovered {
            self.differing.insert(cluster, 0);
            self.walk.refcount_corruptions += 1;
            self.corruption(cluster << bits, || "in use, but has no refcount".to_owned());
        }
        Ok(())
    }

    /// Whether the stored refcount of a cluster in use is one.
    fn is_stored_once(&self, cluster: u64) -> bool {
        self.differing.get(&cluster).copied().unwrap_or_else(|| self.walk.counts.get(cluster).into()) == 1
    }

    /// COPIED must be set exactly where the stored refcount is one: in the active L1 table and its L2 tables.
    fn check_copied(&mut self) -> Result<()> {
        let cluster_size = self.header.cluster_size();
        let bits = self.header.cluster_bits;
        let step = usize::try_from(self.header.entry_size() / 8).unwrap_or(1);
        let mut bytes = vec![0; usize::try_from(cluster_size).unwrap_or(0)];
        let mut seen = HashSet::new();
        for (l1_index, entry) in self.image.l1.iter().enumerate().filter(|(_, entry)| **entry != 0) {
            let Ok(Some(offset)) = l2_table_offset(self.header, *entry) else { continue };
            if offset.saturating_add(cluster_size) > self.file_length {
                continue;
            }
            let is_copied = entry & COPIED != 0;
            self.walk.is_l1_copied_wrong |= is_copied != (self.walk.counts.get(offset >> bits) == 1);
            if is_copied != self.is_stored_once(offset >> bits) {
                self.walk.refcount_corruptions += 1;
                self.corruption(offset, || format!("{} in L1 entry {l1_index}", wrong_flag(is_copied)));
            }
            if self.header.has_data_file() || !seen.insert(offset) {
                continue;
            }
            let run = self.storage.run_at(offset).map_err(|e| Error::io(Layer::Block, "cannot be read", e))?;
            if !run.is_data && run.length >= cluster_size {
                continue;
            }
            self.storage
                .read_exact_at(offset, &mut bytes)
                .map_err(|e| Error::io(Layer::Block, "an L2 table cannot be read", e).at(offset))?;
            for (index, pair) in be64_table(&bytes).chunks_exact(step).enumerate() {
                let word = pair.first().copied().unwrap_or(0);
                let host = word & OFFSET_MASK;
                if word & super::entry::COMPRESSED != 0 || host == 0 || host >= self.file_length {
                    continue;
                }
                let is_copied = word & COPIED != 0;
                if is_copied != (self.walk.counts.get(host >> bits) == 1) {
                    self.walk.wrong_copied.insert(offset);
                }
                if is_copied != self.is_stored_once(host >> bits) {
                    self.walk.refcount_corruptions += 1;
                    self.corruption(host, || {
                        format!("{} in entry {index} of L2 table {offset:#x}", wrong_flag(is_copied))
                    });
                }
            }
        }
        Ok(())
    }
}

fn wrong_flag(is_set: bool) -> &'static str {
    if is_set { "COPIED is set, but the refcount is not 1," } else { "COPIED is missing" }
}
