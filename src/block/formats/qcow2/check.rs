//! The integrity check: count every reference, compare with the stored refcounts.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::bitmap;
use super::cluster::{ClusterSize, GuestCluster, HostCluster};
use super::entry::{BitmapTableEntry, L1Entry, L2Entry, Mapping, RefcountTableEntry};
use super::header::Header;
use super::image::Qcow2Image;
use super::on_disk::table;
use super::refcount;
use super::reference_counts::ReferenceCounts;
use super::snapshot::{self, Snapshot};
use crate::block::{ImageName, OpenOptions, Storage, StorageExt};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// How many problems are described; the rest are only counted.
const PROBLEMS_MAX: usize = 1000;
/// How many references to L2 tables (of all snapshots together) are followed. Only a hostile image has more.
const TABLES_MAX: usize = 1 << 23;

/// Tables of snapshots and bitmaps are read in parts of this many bytes.
const TABLE_PART: u64 = 1 << 20;

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
    /// Where it is in the file.
    pub offset: HostOffset,
    /// Describes it in English, without the place.
    pub message: String,
}

/// The result of a check, in qemu-img's terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// How many corruptions there are, of which `problems` may have only the first.
    pub corruptions: u64,
    /// How many clusters are leaked.
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
    /// Where the last cluster in use ends in the file.
    pub image_end_offset: HostOffset,
}

impl CheckReport {
    fn add(&mut self, kind: ProblemKind, offset: HostOffset, message: impl FnOnce() -> String) {
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
/// When the file cannot be read or is not a qcow2 image; a damaged structure below the header is part of the report.
pub fn check(path: &Path, options: &OpenOptions) -> Result<CheckReport> {
    check_storage(ImageName::of(path).open(options.locking, &options.nbd)?, path)
}

/// Like [`check`], for a file that is open already.
///
/// # Errors
/// See [`check`].
pub fn check_storage(storage: Arc<dyn Storage>, path: &Path) -> Result<CheckReport> {
    let image = Qcow2Image::open_alone(storage, path)?;
    Ok(Walk::new(&image)?.report)
}

/// The result of a walk over all references.
#[derive(Debug)]
pub(super) struct Walk {
    pub report: CheckReport,
    pub counts: ReferenceCounts,
    pub snapshots: Vec<Snapshot>,
    /// Host offsets of active L2 tables in which a COPIED flag does not go with the number of references (rather than
    /// with the stored refcount): what a repair of the refcounts has to rewrite.
    pub wrong_copied: BTreeSet<HostOffset>,
    /// The same for the active L1 table itself.
    pub is_l1_copied_wrong: bool,
    /// Clusters of the refcount table and its blocks.
    pub refcount_clusters: Vec<HostCluster>,
    /// How many of the corruptions are refcounts that are too low or flags that follow from them: what a repair of
    /// the refcounts cures.
    pub refcount_corruptions: u64,
}

/// A reference to an L2 table: its host offset, and the L1 index if the reference is the active table's.
type TableReference = (HostOffset, Option<usize>);

struct Walker<'a> {
    image: &'a Qcow2Image,
    header: &'a Header,
    clusters: ClusterSize,
    storage: &'a dyn Storage,
    file_length: u64,
    walk: Walk,
    /// Metadata clusters that may be referred to once only, as ranges (first, last).
    unique: Vec<(HostCluster, HostCluster)>,
    /// Stored refcounts of clusters in use, where they differ from the count.
    differing: HashMap<HostCluster, u64>,
}

impl Walk {
    /// Walks over the whole image.
    pub fn new(image: &Qcow2Image) -> Result<Self> {
        let file_length = image.file.len().map_err(|e| Error::io(Layer::Block, "cannot read the file", e))?;
        let mut walker = Walker {
            image,
            header: &image.header,
            clusters: image.header.clusters,
            storage: &*image.file,
            file_length,
            walk: Self {
                report: CheckReport::default(),
                counts: ReferenceCounts::default(),
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
        self.walk.report.total_clusters = self.header.guest_clusters();
        self.mark_unique(HostOffset(0), 1)?;
        let mut tables = Vec::new();
        self.mark_unique(self.header.l1_table, u64::from(self.header.l1_size) * 8)?;
        let l1 = &self.image.l1;
        self.collect_tables(l1, true, &mut tables)?;
        self.walk_snapshots(&mut tables)?;
        self.walk_bitmaps()?;
        if let Some(luks) = self.header.encryption {
            self.mark(HostOffset(luks.offset.get()), luks.length.get(), 1)?;
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
        self.extend_end(self.walk.counts.end());
        Ok(())
    }

    /// Records that the file is in use up to `end`.
    fn extend_end(&mut self, end: HostCluster) {
        let end = self.clusters.host_offset(end);
        self.walk.report.image_end_offset = self.walk.report.image_end_offset.max(end);
    }

    fn corruption(&mut self, offset: HostOffset, message: impl FnOnce() -> String) {
        self.walk.report.add(ProblemKind::Corruption, offset, message);
    }

    /// ReferenceCounts references to all clusters of a range.
    fn mark(&mut self, offset: HostOffset, length: u64, times: u32) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        let Some(end) = offset.checked_add(length) else {
            self.corruption(offset, || "a range beyond every file".to_owned());
            return Ok(());
        };
        // The last cluster may be cut short at the end of the file.
        if end.0 > self.file_length && end.0 - self.file_length >= self.clusters.bytes() {
            self.corruption(offset, || format!("{length} bytes are referred to beyond the end of the file"));
            return Ok(());
        }
        let last = self.clusters.host_cluster(HostOffset(end.0 - 1));
        for cluster in self.clusters.host_cluster(offset).0..=last.0 {
            self.walk.counts.add(HostCluster(cluster), times)?;
        }
        Ok(())
    }

    /// Like [`mark`](Self::mark), for metadata that nothing else may refer to. Returns whether they are worth reading:
    /// inside the file, and not marked before. So all that is read together is at most as long as the file, however often
    /// an image refers to the same place.
    fn mark_unique(&mut self, offset: HostOffset, length: u64) -> Result<bool> {
        let limit = self.file_length.next_multiple_of(self.clusters.bytes());
        let end = offset.checked_add(length).filter(|end| end.0 <= limit && length > 0);
        if let Some(end) = end {
            let (first, last) = (self.clusters.host_cluster(offset), self.clusters.host_cluster(HostOffset(end.0 - 1)));
            if (first.0..=last.0).any(|cluster| self.walk.counts.get(HostCluster(cluster)) > 0) {
                self.corruption(offset, || "metadata overlap with other metadata".to_owned());
                return Ok(false);
            }
            match self.unique.last_mut() {
                Some((_, before)) if before.0.checked_add(1) == Some(first.0) => *before = last,
                _ => self.unique.push((first, last)),
            }
        }
        self.mark(offset, length, 1)?;
        Ok(offset.0.saturating_add(length) <= self.file_length)
    }

    /// Calls `take` with the entries of a table, part by part, holes left out: their entries are zeros.
    fn read_table<E: From<u64>>(
        &mut self,
        what: &'static str,
        offset: HostOffset,
        length: u64,
        take: &mut dyn FnMut(&mut Self, &[E]) -> Result<()>,
    ) -> Result<()> {
        let io = |e| Error::io(Layer::Block, format!("cannot read {what}"), e).at(offset);
        let mut done = 0;
        while done < length {
            let run = self.storage.run_at(offset.0 + done).map_err(io)?;
            // Whole entries, whatever the host's blocks are.
            let part = (run.length.next_multiple_of(8)).clamp(8, length - done);
            if run.is_data || run.length < 8 {
                let mut bytes = vec![0; usize::try_from(part.min(TABLE_PART)).unwrap_or(0)];
                self.storage.read_exact_at(offset.0 + done, &mut bytes).map_err(io)?;
                take(self, &table(&bytes))?;
                done += bytes.len() as u64;
            } else {
                done += run.length / 8 * 8;
            }
        }
        Ok(())
    }

    fn collect_tables(&mut self, l1: &[L1Entry], is_active: bool, tables: &mut Vec<TableReference>) -> Result<()> {
        for (index, entry) in l1.iter().enumerate().filter(|(_, entry)| !entry.is_absent()) {
            match entry.l2_table(self.clusters) {
                Ok(Some(offset)) => tables.push((offset, is_active.then_some(index))),
                Ok(None) => {}
                Err(error) => self.corruption(entry.offset(), || error.to_string()),
            }
            if tables.len() > TABLES_MAX {
                return Err(Error::unsupported(Layer::Block, "too many L2 tables to be checked"));
            }
        }
        Ok(())
    }

    fn walk_snapshots(&mut self, tables: &mut Vec<TableReference>) -> Result<()> {
        if self.header.snapshot_count == 0 {
            return Ok(());
        }
        let (snapshots, table_bytes) = match snapshot::read(self.storage, self.header) {
            Ok(found) => found,
            Err(error) => {
                self.corruption(self.header.snapshot_table, || error.to_string());
                return Ok(());
            }
        };
        self.mark_unique(self.header.snapshot_table, table_bytes)?;
        for snapshot in &snapshots {
            let length = u64::from(snapshot.l1_size) * 8;
            if self.mark_unique(snapshot.l1_table, length)? {
                self.read_table("a snapshot's L1 table", snapshot.l1_table, length, &mut |walker, l1| {
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
                let directory = self.header.bitmaps.map_or(0, |bitmaps| bitmaps.directory_offset.get());
                self.corruption(HostOffset(directory), || error.to_string());
                return Ok(());
            }
        };
        if let Some(extension) = self.header.bitmaps.filter(|_| !bitmaps.is_empty()) {
            self.mark_unique(HostOffset(extension.directory_offset.get()), extension.directory_size.get())?;
        }
        for bitmap in &bitmaps {
            let length = u64::from(bitmap.table_entries) * 8;
            if self.mark_unique(bitmap.table, length)? {
                let size = self.clusters.bytes();
                self.read_table("a bitmap's table", bitmap.table, length, &mut |walker, table| {
                    for cluster in table.iter().copied().filter_map(BitmapTableEntry::cluster) {
                        walker.mark_unique(cluster, size)?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Marks the refcount table and its blocks; returns the table, unusable entries replaced by zero.
    fn walk_refcount_table(&mut self) -> Result<Vec<RefcountTableEntry>> {
        let cluster_size = self.clusters.bytes();
        self.mark_unique(self.header.refcount_table, self.header.refcount_table_bytes())?;
        let first = self.clusters.host_cluster(self.header.refcount_table).0;
        let clusters = first..first + u64::from(self.header.refcount_table_clusters);
        self.walk.refcount_clusters.extend(clusters.map(HostCluster));
        let mut table = refcount::read_table(self.storage, self.header)?;
        let mut seen = BTreeSet::new();
        for entry in table.iter_mut().filter(|entry| entry.0 != 0) {
            let offset = HostOffset(entry.0);
            if entry.is_invalid(self.clusters) || !seen.insert(offset) {
                self.corruption(offset, || format!("invalid refcount table entry {:#018x}", offset.0));
                *entry = RefcountTableEntry::default();
            } else if offset.0.saturating_add(cluster_size) > self.file_length {
                self.corruption(offset, || "a refcount block is beyond the end of the file".to_owned());
                *entry = RefcountTableEntry::default();
            } else {
                self.mark_unique(offset, cluster_size)?;
                self.walk.refcount_clusters.push(self.clusters.host_cluster(offset));
            }
        }
        Ok(table)
    }

    /// Walks over one L2 table for all references to it. Returns its cluster and how often it is referred to.
    fn walk_table(&mut self, references: &[TableReference]) -> Result<(HostCluster, u32)> {
        let offset = references.first().map_or(HostOffset(0), |reference| reference.0);
        let times = u32::try_from(references.len()).unwrap_or(u32::MAX);
        let cluster_size = self.clusters.bytes();
        let shared = (self.clusters.host_cluster(offset), times);
        if offset.0.saturating_add(cluster_size) > self.file_length {
            self.corruption(offset, || "an L2 table is beyond the end of the file".to_owned());
            return Ok(shared);
        }
        self.mark(offset, cluster_size, times)?;
        let mut bytes = vec![0; usize::try_from(cluster_size).unwrap_or(0)];
        if !self.read_l2_table(offset, &mut bytes)? {
            return Ok(shared);
        }
        let words = table::<u64>(&bytes);
        let active = references.iter().find_map(|(_, index)| *index);
        let mut previous_end = None;
        for (index, entry) in words.chunks_exact(self.header.entry_words()).enumerate() {
            let (word, bitmap) = (entry.first().copied().unwrap_or(0), entry.get(1).copied().unwrap_or(0));
            if word == 0 && bitmap == 0 {
                continue;
            }
            self.walk_entry((L2Entry(word), bitmap), index, times, active, &mut previous_end)?;
        }
        Ok(shared)
    }

    /// Fills `bytes` with an L2 table; false when all of it is a hole of the file.
    fn read_l2_table(&self, at: HostOffset, bytes: &mut [u8]) -> Result<bool> {
        let run = self.storage.run_at(at.0).map_err(|e| Error::io(Layer::Block, "cannot read the file", e))?;
        if !run.is_data && run.length >= bytes.len() as u64 {
            return Ok(false);
        }
        self.storage
            .read_exact_at(at.0, bytes)
            .map_err(|e| Error::io(Layer::Block, "cannot read an L2 table", e).at(at))?;
        Ok(true)
    }

    fn walk_entry(
        &mut self,
        (entry, bitmap): (L2Entry, u64),
        index: usize,
        times: u32,
        active: Option<usize>,
        previous_end: &mut Option<HostOffset>,
    ) -> Result<()> {
        // Guest clusters matter only for the active table (for data files, where places are fixed).
        let cluster = active.map_or(0, |l1| (l1 as u64).saturating_mul(self.header.l2_entries()) + index as u64);
        let mapping = match Mapping::decode(self.header, entry, bitmap, GuestCluster(cluster)) {
            Ok(mapping) => mapping,
            Err(error) => {
                self.corruption(entry.offset(), || error.to_string());
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
                let end = range.offset.0.saturating_add(range.length);
                let slack = end.saturating_sub(self.file_length.next_multiple_of(self.clusters.bytes()));
                self.mark(range.offset, range.length.saturating_sub(slack.min(511)), times)
            }
            Mapping::Standard { host: Some(host), .. } if !self.header.has_data_file() => {
                self.walk.report.allocated_clusters += u64::from(is_active);
                if is_active && previous_end.is_some_and(|end| end != host) {
                    self.walk.report.fragmented_clusters += 1;
                }
                *previous_end = host.checked_add(self.clusters.bytes());
                self.mark(host, self.clusters.bytes(), times)
            }
            Mapping::Standard { host: Some(_), .. } => {
                self.walk.report.allocated_clusters += u64::from(is_active);
                Ok(())
            }
            Mapping::Standard { host: None, .. } => Ok(()),
        }
    }

    /// Metadata that something else refers to as well.
    fn check_overlaps(&mut self, tables: &[(HostCluster, u32)]) {
        let unique = std::mem::take(&mut self.unique);
        let unique = unique.iter().flat_map(|(first, last)| first.0..=last.0).map(|cluster| (HostCluster(cluster), 1));
        let expected = unique.chain(tables.iter().copied());
        for (cluster, times) in expected {
            let found = self.walk.counts.get(cluster);
            if found > times {
                self.corruption(self.clusters.host_offset(cluster), || {
                    "metadata overlap with other metadata or data".to_owned()
                });
            }
        }
    }

    /// Compares the stored refcounts with the counted ones, block by block.
    fn compare(&mut self, table: &[RefcountTableEntry]) -> Result<()> {
        let per_block = self.header.refcount_block_entries();
        let order = self.header.refcount_order;
        let mut block = vec![0; usize::try_from(self.clusters.bytes()).unwrap_or(0)];
        for (index, offset) in refcount::blocks(table) {
            let first = index.saturating_mul(per_block);
            self.storage
                .read_exact_at(offset.0, &mut block)
                .map_err(|e| Error::io(Layer::Block, "cannot read a refcount block", e).at(offset))?;
            for within in 0..per_block {
                let cluster = HostCluster(first.saturating_add(within));
                let stored = refcount::get(&block, order, within);
                let counted = u64::from(self.walk.counts.get(cluster));
                if stored != counted {
                    self.add_difference(cluster, stored, counted);
                }
            }
        }
        let is_covered = |cluster: &HostCluster| {
            let entry = usize::try_from(cluster.0 / per_block).ok().and_then(|index| table.get(index));
            entry.is_some_and(|entry| entry.0 != 0)
        };
        let clusters = self.walk.counts.iter().map(|(cluster, _)| cluster);
        let uncovered: Vec<HostCluster> = clusters.filter(|cluster| !is_covered(cluster)).collect();
        for cluster in uncovered {
            self.differing.insert(cluster, 0);
            self.walk.refcount_corruptions += 1;
            self.corruption(self.clusters.host_offset(cluster), || "in use, but has no refcount".to_owned());
        }
        Ok(())
    }

    /// Reports a cluster whose stored refcount is not the number of references.
    fn add_difference(&mut self, cluster: HostCluster, stored: u64, counted: u64) {
        if counted > 0 {
            self.differing.insert(cluster, stored);
        }
        let offset = self.clusters.host_offset(cluster);
        let message = || format!("refcount {stored}, but {counted} references");
        if stored > counted {
            self.walk.report.add(ProblemKind::Leak, offset, message);
            self.extend_end(HostCluster(cluster.0.saturating_add(1)));
        } else {
            self.walk.refcount_corruptions += 1;
            self.walk.report.add(ProblemKind::Corruption, offset, message);
        }
    }

    /// Whether the stored refcount of a cluster in use is one.
    fn is_stored_once(&self, cluster: HostCluster) -> bool {
        self.differing.get(&cluster).copied().unwrap_or_else(|| self.walk.counts.get(cluster).into()) == 1
    }

    /// COPIED must be set exactly where the stored refcount is one: in the active L1 table and its L2 tables.
    fn check_copied(&mut self) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(self.clusters.bytes()).unwrap_or(0)];
        let mut seen = HashSet::new();
        for (l1_index, entry) in self.image.l1.iter().enumerate().filter(|(_, entry)| !entry.is_absent()) {
            let Ok(Some(offset)) = entry.l2_table(self.clusters) else { continue };
            if offset.0.saturating_add(self.clusters.bytes()) > self.file_length {
                continue;
            }
            let cluster = self.clusters.host_cluster(offset);
            self.walk.is_l1_copied_wrong |= entry.is_copied() != (self.walk.counts.get(cluster) == 1);
            if entry.is_copied() != self.is_stored_once(cluster) {
                self.walk.refcount_corruptions += 1;
                self.corruption(offset, || format!("{} in L1 entry {l1_index}", wrong_flag(entry.is_copied())));
            }
            if !self.header.has_data_file() && seen.insert(offset) && self.read_l2_table(offset, &mut bytes)? {
                self.check_copied_in(offset, &table::<u64>(&bytes));
            }
        }
        Ok(())
    }

    /// The same in the L2 table at `offset`, which consists of `words`.
    fn check_copied_in(&mut self, offset: HostOffset, words: &[u64]) {
        for (index, words) in words.chunks_exact(self.header.entry_words()).enumerate() {
            let entry = L2Entry(words.first().copied().unwrap_or(0));
            let host = entry.offset();
            if entry.is_compressed() || host.0 == 0 || host.0 >= self.file_length {
                continue;
            }
            let cluster = self.clusters.host_cluster(host);
            if entry.is_copied() != (self.walk.counts.get(cluster) == 1) {
                self.walk.wrong_copied.insert(offset);
            }
            if entry.is_copied() != self.is_stored_once(cluster) {
                self.walk.refcount_corruptions += 1;
                self.corruption(host, || {
                    format!("{} in entry {index} of L2 table {offset}", wrong_flag(entry.is_copied()))
                });
            }
        }
    }
}

fn wrong_flag(is_set: bool) -> &'static str {
    if is_set { "COPIED is set, but the refcount is not 1," } else { "COPIED is missing" }
}
