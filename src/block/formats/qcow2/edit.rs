//! Editing a qcow2 file in place, all or nothing.
//!
//! Every changed guest cluster goes to a host cluster that was free; the L2 tables that refer to changed clusters and
//! the L1 table are written anew; then one write of the header's first sector switches to the new tables, and only
//! after that the refcounts of what only the old tables used go down. Whenever the machine stops, the file holds the
//! old disk or the new one, and at worst clusters that nothing uses. Snapshots, compressed clusters and shared tables
//! need no special case, since nothing that is in use is overwritten.
//!
//! With an external data file, guest clusters have fixed offsets in that file and are overwritten there; then only the
//! undo journal makes the edit all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::bitmap;
use super::check::Walk;
use super::cluster::{ClusterSize, GuestCluster, HostCluster};
use super::entry::{L1Entry, L2Entry, Mapping};
use super::header::{AUTOCLEAR_KNOWN, HOST_OFFSET_MAX, Header, HeaderEdit, REFCOUNT_TABLE_BYTES_MAX};
use super::image::Qcow2Image;
use super::on_disk::{table, table_bytes};
use super::refcount::Refcounts;
use crate::block::{Stage, Storage, StorageExt};
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// Where the content of a write comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// These bytes of metadata.
    Bytes(Vec<u8>),
    /// Guest data from the stage; beyond the disk's end zeros up to `length`.
    Stage { offset: ImageOffset, length: u64 },
}

impl Source {
    /// Bytes to be written.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stage { length, .. } => *length,
        }
    }
}

/// Which file of the image a write goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Image,
    DataFile,
}

/// One write of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub target: Target,
    pub offset: HostOffset,
    pub source: Source,
}

/// All writes of an edit. Between two phases everything must be flushed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    pub phases: Vec<Vec<Write>>,
    /// Host ranges that nothing uses any more once the edit is done.
    pub freed: Vec<(HostOffset, u64)>,
    /// Host ranges of old refcount structures that are counted anew elsewhere: nothing uses them either.
    pub abandoned: Vec<(HostOffset, u64)>,
    pub warnings: Vec<String>,
    /// Whether the edit switches by the header: then a crash never needs the journal's old data.
    pub is_switch: bool,
    pub bytes_written: u64,
    /// Length that the image's file must have at least.
    pub image_length: u64,
}

/// Plans the edit that makes the file hold what the stage holds. Nothing is written.
pub(crate) fn plan_edit(storage: &Arc<dyn Storage>, path: &Path, stage: &Stage) -> Result<Edit> {
    let image = Qcow2Image::open_alone(Arc::clone(storage), path)?;
    let walk = Walk::new(&image)?;
    refuse_failed_check(&image.header, &walk)?;
    Planner::new(&image, walk, stage)?.run().map_err(|e| e.path(path.display().to_string()))
}

/// Refuses to write to an image that fails its check. Too low refcounts are excused when the image is marked dirty:
/// then they are counted anew.
pub(super) fn refuse_failed_check(header: &Header, walk: &Walk) -> Result<()> {
    refuse_marked(header)?;
    let excused = if header.is_dirty() { walk.refcount_corruptions } else { 0 };
    if walk.report.corruptions > excused {
        let first = walk.report.problems.iter().find(|p| p.kind == super::ProblemKind::Corruption);
        let mut error = Error::damaged(
            Layer::Block,
            format!(
                "the image fails its integrity check ({} errors); the first: {}",
                walk.report.corruptions,
                first.map_or("", |p| &p.message)
            ),
        )
        .hint("examine it with qemu-img check, or write the result to a new image");
        if let Some(problem) = first {
            error = error.at(problem.offset);
        }
        return Err(error);
    }
    Ok(())
}

fn refuse_marked(header: &Header) -> Result<()> {
    if header.is_marked_corrupt() {
        return Err(Error::refused(Layer::Block, "the image is marked corrupt")
            .with_code(ErrorCode::ImageMarkedCorrupt)
            .hint("examine it with qemu-img check, or write the result to a new image"));
    }
    Ok(())
}

/// The name of the external data file, if the image has one.
pub(crate) fn data_file_name(storage: &Arc<dyn Storage>) -> Result<Option<String>> {
    let header = Header::read(&**storage)?;
    Ok(header.data_file_name.clone().filter(|_| header.has_data_file()))
}

/// Refuses to write to an image that is marked corrupt, looking at the header alone.
pub(crate) fn refuse_corrupt(storage: Arc<dyn Storage>, path: &Path) -> Result<()> {
    refuse_marked(&Header::read(&*storage)?).map_err(|e| e.path(path.display().to_string()))
}

struct Planner<'a> {
    header: &'a Header,
    clusters: ClusterSize,
    storage: &'a Arc<dyn Storage>,
    stage: &'a Stage,
    walk: Walk,
    old_l1: &'a [L1Entry],
    is_rebuild: bool,
    refcounts: Refcounts,
    /// Where the search for a free cluster continues.
    cursor: HostCluster,
    /// First cluster beyond the end of the file and of everything that was allocated.
    end: HostCluster,
    allocated: BTreeSet<HostCluster>,
    /// One for each reference that goes away.
    dropped: Vec<HostCluster>,
    writes: Vec<Write>,
    bytes_written: u64,
}

impl<'a> Planner<'a> {
    fn new(image: &'a Qcow2Image, walk: Walk, stage: &'a Stage) -> Result<Self> {
        let header = &image.header;
        let is_rebuild = header.is_dirty();
        let refcounts = if is_rebuild {
            Refcounts::empty(Arc::clone(&image.file), header)
        } else {
            Refcounts::load(Arc::clone(&image.file), header)?
        };
        let length = image.file.len().map_err(|e| Error::io(Layer::Block, "cannot read the file", e))?;
        let end = HostCluster(header.clusters.count(length)).max(walk.counts.end());
        Ok(Self {
            header,
            clusters: header.clusters,
            storage: &image.file,
            stage,
            walk,
            old_l1: &image.l1,
            is_rebuild,
            refcounts,
            cursor: HostCluster(1),
            end,
            allocated: BTreeSet::new(),
            dropped: Vec::new(),
            writes: Vec::new(),
            bytes_written: 0,
        })
    }

    fn run(mut self) -> Result<Edit> {
        let mut warnings = Vec::new();
        if self.walk.snapshots.iter().any(|s| s.vm_state_bytes > 0) {
            warnings.push(
                "an internal snapshot holds a saved machine state; after going back to it, the changes are gone"
                    .to_owned(),
            );
        }
        let bitmap_writes = self.bitmap_writes()?;
        let new_l1 = self.write_tables()?;
        let is_header_stale = self.is_rebuild || self.header.autoclear & !AUTOCLEAR_KNOWN != 0;
        let mut phases = Vec::new();
        let mut freed = Vec::new();
        if new_l1.is_some() || is_header_stale {
            let edit = self.place_tables(new_l1)?;
            self.writes.extend(bitmap_writes);
            self.writes.extend(refcount_writes(&mut self.refcounts));
            phases.push(std::mem::take(&mut self.writes));
            phases.push(vec![image_write(HostOffset(0), self.header.first_sector_with(&edit)?)]);
            freed = self.drop_references()?;
            phases.push(refcount_writes(&mut self.refcounts));
        } else {
            self.writes.extend(bitmap_writes);
            phases.push(std::mem::take(&mut self.writes));
        }
        Ok(Edit {
            phases,
            freed,
            abandoned: self.abandoned(),
            warnings,
            is_switch: !self.header.has_data_file(),
            bytes_written: self.bytes_written,
            image_length: self.clusters.host_offset(self.end).0,
        })
    }

    fn bitmap_writes(&self) -> Result<Vec<Write>> {
        let changed: Vec<_> = self.stage.dirty_ranges().collect();
        let mut writes = Vec::new();
        for bitmap in bitmap::read(&**self.storage, self.header)? {
            if bitmap.is_recording && !bitmap.is_inconsistent {
                let marks = bitmap.mark(&**self.storage, self.header, &changed)?;
                writes.extend(marks.into_iter().map(|(offset, bytes)| image_write(offset, bytes)));
            }
        }
        Ok(writes)
    }

    /// Writes data and L2 tables; returns the new L1 entries if anything in the tables changes.
    fn write_tables(&mut self) -> Result<Option<Vec<L1Entry>>> {
        let mut touched = BTreeMap::<usize, BTreeSet<GuestCluster>>::new();
        let (cluster_size, entries) = (self.clusters.bytes(), self.header.l2_entries());
        for (offset, length) in self.stage.dirty_ranges() {
            for cluster in offset.0 / cluster_size..self.clusters.count(offset.0 + length) {
                let index = usize::try_from(cluster / entries).unwrap_or(usize::MAX);
                touched.entry(index).or_default().insert(GuestCluster(cluster));
            }
        }
        if self.is_rebuild {
            // Flags that a crashed writer left wrong are corrected by rewriting their tables.
            for (index, entry) in self.old_l1.iter().enumerate() {
                if self.walk.wrong_copied.contains(&entry.offset()) {
                    touched.entry(index).or_default();
                }
            }
        }
        let mut l1 = self.old_l1.to_vec();
        let mut is_changed = self.is_rebuild && self.walk.is_l1_copied_wrong;
        for (index, clusters) in touched {
            let Some(slot) = l1.get_mut(index) else {
                return Err(Error::damaged(Layer::Block, "the L1 table is too short for the disk"));
            };
            let old = slot.l2_table(self.clusters)?;
            if let Some(new) = self.rewrite_table(old, &clusters)? {
                *slot = L1Entry::to(new);
                is_changed = true;
            }
        }
        if self.is_rebuild {
            for entry in l1.iter_mut().filter(|entry| entry.offset().0 != 0) {
                let cluster = self.clusters.host_cluster(entry.offset());
                if !self.allocated.contains(&cluster) {
                    *entry = entry.with_copied(self.walk.counts.get(cluster) == 1);
                }
            }
        }
        Ok(is_changed.then_some(l1))
    }

    /// Writes a copy of an L2 table that maps the given clusters to new host clusters. Returns its host offset, or `None` when
    /// no entry changes.
    fn rewrite_table(
        &mut self,
        old: Option<HostOffset>,
        clusters: &BTreeSet<GuestCluster>,
    ) -> Result<Option<HostOffset>> {
        let size = usize::try_from(self.clusters.bytes()).unwrap_or(0);
        let mut bytes = vec![0; size];
        if let Some(offset) = old {
            self.storage
                .read_exact_at(offset.0, &mut bytes)
                .map_err(|e| Error::io(Layer::Block, "cannot read an L2 table", e).at(offset))?;
        }
        let before = table::<u64>(&bytes);
        let mut words = before.clone();
        if self.is_rebuild {
            self.correct_flags(&mut words);
        }
        let step = self.header.entry_words();
        for cluster in clusters {
            let at = usize::try_from(cluster.0 % self.header.l2_entries()).unwrap_or(usize::MAX).saturating_mul(step);
            let Some(entry) = at.checked_add(step).and_then(|end| words.get_mut(at..end)) else {
                return Err(Error::bug(Layer::Block, "a cluster beyond the L2 table"));
            };
            self.rewrite_cluster(*cluster, entry)?;
        }
        if words == before {
            return Ok(None);
        }
        let new = self.allocate_offset(1)?;
        self.writes.push(image_write(new, table_bytes(&words)));
        self.dropped.extend(old.map(|offset| self.clusters.host_cluster(offset)));
        Ok(Some(new))
    }

    fn correct_flags(&self, words: &mut [u64]) {
        if self.header.has_data_file() {
            return;
        }
        for word in words.chunks_exact_mut(self.header.entry_words()).filter_map(|entry| entry.first_mut()) {
            let entry = L2Entry(*word);
            if !entry.is_compressed() && entry.offset().0 != 0 {
                let cluster = self.clusters.host_cluster(entry.offset());
                *word = entry.with_copied(self.walk.counts.get(cluster) == 1).0;
            }
        }
    }

    /// Gives one guest cluster its new content and entry.
    fn rewrite_cluster(&mut self, cluster: GuestCluster, entry: &mut [u64]) -> Result<()> {
        let (word, bitmap) = (entry.first().copied().unwrap_or(0), entry.get(1).copied().unwrap_or(0));
        let old = Mapping::decode(self.header, L2Entry(word), bitmap, cluster)?;
        let host = if self.header.has_data_file() {
            self.write_to_data_file(cluster, old);
            HostOffset(self.clusters.guest_offset(cluster).0)
        } else {
            match old {
                Mapping::Compressed(range) => self.dropped.extend(range.clusters(self.clusters)),
                Mapping::Standard { host: Some(host), .. } => self.dropped.push(self.clusters.host_cluster(host)),
                Mapping::Standard { host: None, .. } => {}
            }
            let host = self.allocate_offset(1)?;
            self.write_units(Target::Image, cluster, host, self.units_to_store(cluster, old));
            host
        };
        if let Some(first) = entry.first_mut() {
            *first = L2Entry::standard(host).0;
        }
        if let Some(second) = entry.get_mut(1) {
            let stored = self.units_to_store(cluster, old);
            let zero = match old {
                Mapping::Standard { zero, .. } => zero & !stored,
                Mapping::Compressed(_) => 0,
            };
            *second = u64::from(zero) << 32 | u64::from(stored);
        }
        Ok(())
    }

    /// Which subclusters the new cluster must hold: what this file held, and what changes. Without subclusters all.
    fn units_to_store(&self, cluster: GuestCluster, old: Mapping) -> u32 {
        let Mapping::Standard { allocated, .. } = old else { return u32::MAX };
        if !self.header.is_extended() {
            return u32::MAX;
        }
        let unit = self.header.unit();
        let start = self.clusters.guest_offset(cluster).0;
        (0..32u32)
            .filter(|i| {
                let at = start + u64::from(*i) * unit;
                // The stage's last block may reach beyond the disk; nothing is stored there.
                let is_dirty = at < self.header.size && self.stage.is_range_dirty(ImageOffset(at), unit);
                allocated & (1 << i) != 0 || is_dirty
            })
            .fold(0, |mask, i| mask | 1 << i)
    }

    /// Writes the subclusters of `mask` (all ones: the whole cluster) to host offset `host`.
    fn write_units(&mut self, target: Target, cluster: GuestCluster, host: HostOffset, mask: u32) {
        let start = self.clusters.guest_offset(cluster).0;
        if mask == u32::MAX {
            return self.write_stage(target, host, ImageOffset(start), self.clusters.bytes());
        }
        let unit = self.header.unit();
        let mut index = 0;
        while index < 32 {
            let run = (mask >> index).trailing_ones();
            if run > 0 {
                let at = u64::from(index) * unit;
                let length = u64::from(run) * unit;
                self.write_stage(target, HostOffset(host.0 + at), ImageOffset(start + at), length);
            }
            index += run.max(1);
        }
    }

    /// Adds a write of guest data from the stage.
    fn write_stage(&mut self, target: Target, host: HostOffset, offset: ImageOffset, length: u64) {
        self.bytes_written += length;
        // Neighbours in the guest and in the file become one write.
        if let Some(Write { target: t, offset: at, source: Source::Stage { offset: from, length: so_far } }) =
            self.writes.last_mut()
            && *t == target
            && at.checked_add(*so_far) == Some(host)
            && from.checked_add(*so_far) == Some(offset)
        {
            *so_far += length;
            return;
        }
        let source = Source::Stage { offset, length };
        self.writes.push(Write { target, offset: host, source });
    }

    /// With an external data file: writes what changed to its fixed offset; whole units where nothing was stored yet.
    fn write_to_data_file(&mut self, cluster: GuestCluster, old: Mapping) {
        let start = self.clusters.guest_offset(cluster).0;
        let allocated = match old {
            Mapping::Standard { allocated, .. } => allocated,
            Mapping::Compressed(_) => 0,
        };
        let unit = self.header.unit();
        let units = self.header.cluster_size() / unit;
        let store = self.units_to_store(cluster, old);
        for index in 0..units {
            let (at, bit) = (start + index * unit, 1 << index);
            if allocated & bit != 0 {
                let stage = self.stage;
                for (offset, length) in stage.dirty_ranges_in(ImageOffset(at), unit) {
                    self.write_stage(Target::DataFile, HostOffset(offset.0), offset, length);
                }
            } else if store & bit != 0 {
                let length = unit.min(self.header.size.saturating_sub(at));
                self.write_stage(Target::DataFile, HostOffset(at), ImageOffset(at), length);
            }
        }
    }

    /// Allocates `count` adjacent clusters; returns where they begin.
    fn allocate_offset(&mut self, count: u64) -> Result<HostOffset> {
        Ok(self.clusters.host_offset(self.allocate(count)?))
    }

    /// Allocates `count` adjacent clusters: a single one where there is a free one, the others at the end of the file.
    fn allocate(&mut self, count: u64) -> Result<HostCluster> {
        let free = if count == 1 { self.find_free()? } else { None };
        let first = free.unwrap_or(self.end);
        let end = first.0.saturating_add(count);
        if end >= self.clusters.host_cluster(HOST_OFFSET_MAX).0 {
            return Err(Error::unsupported(Layer::Block, "the file would become too long"));
        }
        if free.is_none() {
            self.end = HostCluster(end);
        }
        self.allocated.extend((first.0..end).map(HostCluster));
        Ok(first)
    }

    /// The next cluster inside the file that nothing refers to and whose stored refcount is 0.
    fn find_free(&mut self) -> Result<Option<HostCluster>> {
        while self.cursor < self.end {
            let cluster = self.cursor;
            self.cursor = HostCluster(cluster.0 + 1);
            let is_used = self.walk.counts.get(cluster) > 0 || self.allocated.contains(&cluster);
            if !is_used && (self.is_rebuild || self.refcounts.get(cluster)? == 0) {
                return Ok(Some(cluster));
            }
        }
        Ok(None)
    }

    /// Allocates the new L1 table and everything that the refcounts of new clusters need.
    fn place_tables(&mut self, new_l1: Option<Vec<L1Entry>>) -> Result<HeaderEdit> {
        let mut edit = HeaderEdit {
            l1_size: self.header.l1_size,
            l1_table: self.header.l1_table,
            refcount_table: self.header.refcount_table,
            refcount_table_clusters: self.header.refcount_table_clusters,
        };
        if let Some(l1) = new_l1.filter(|l1| !l1.is_empty()) {
            let mut bytes = table_bytes(&l1);
            let clusters = self.clusters.count(bytes.len() as u64);
            bytes.resize(usize::try_from(self.clusters.bytes_of(clusters)).unwrap_or(0), 0);
            edit.l1_table = self.allocate_offset(clusters)?;
            self.writes.push(image_write(edit.l1_table, bytes));
            self.drop_clusters(self.header.l1_table, clusters);
        }
        let mut wanted: Vec<(HostCluster, u64)> = self.allocated.iter().map(|cluster| (*cluster, 1)).collect();
        if self.is_rebuild {
            // Nothing refers to the old refcount structures after the switch.
            let old: BTreeSet<HostCluster> = self.walk.refcount_clusters.iter().copied().collect();
            let counts = self.walk.counts.iter().filter(|(cluster, _)| !old.contains(cluster));
            wanted.extend(counts.map(|(cluster, count)| (cluster, u64::from(count))));
        }
        self.set_refcounts(wanted)?;
        if let Some((at, clusters)) = self.place_refcount_table()? {
            edit.refcount_table = at;
            edit.refcount_table_clusters = u32::try_from(clusters).unwrap_or(u32::MAX);
        }
        Ok(edit)
    }

    /// Records that the clusters of a table lose a reference.
    fn drop_clusters(&mut self, table: HostOffset, count: u64) {
        let first = self.clusters.host_cluster(table).0;
        self.dropped.extend((first..first + count).map(HostCluster));
    }

    /// Stores refcounts, adding blocks where there are none (which need refcounts themselves).
    fn set_refcounts(&mut self, mut wanted: Vec<(HostCluster, u64)>) -> Result<()> {
        while let Some((cluster, count)) = wanted.pop() {
            if !self.refcounts.set(cluster, count)? {
                let block = self.allocate(1)?;
                self.refcounts.add_block(cluster, block)?;
                wanted.push((block, 1));
                wanted.push((cluster, count));
            }
        }
        Ok(())
    }

    /// Writes the refcount table to other clusters if it changed. Returns where, and its length in clusters.
    fn place_refcount_table(&mut self) -> Result<Option<(HostOffset, u64)>> {
        let Some(table) = self.refcounts.new_table() else { return Ok(None) };
        // Blocks for the table's own clusters may lengthen it: leave room for a few entries, at least as many as
        // the table had.
        let entries_per_cluster = self.clusters.bytes() / 8;
        let own = (table.len() as u64 + 64).div_ceil(entries_per_cluster);
        let more = 2 + 2 * own.div_ceil(self.header.refcount_block_entries());
        let clusters = (table.len() as u64 + 64 + more)
            .div_ceil(entries_per_cluster)
            .max(u64::from(self.header.refcount_table_clusters));
        let first = self.allocate(clusters)?;
        self.set_refcounts((first.0..first.0 + clusters).map(|cluster| (HostCluster(cluster), 1)).collect())?;
        let mut bytes = table_bytes(self.refcounts.new_table().unwrap_or_default());
        let length = usize::try_from(self.clusters.bytes_of(clusters)).unwrap_or(0);
        if bytes.len() > length || length as u64 > REFCOUNT_TABLE_BYTES_MAX.max(self.clusters.bytes()) {
            return Err(Error::unsupported(Layer::Block, "the refcount table cannot grow any more")
                .hint("convert the image to larger clusters: qemu-img convert -O qcow2"));
        }
        bytes.resize(length, 0);
        let at = self.clusters.host_offset(first);
        self.writes.push(image_write(at, bytes));
        if !self.is_rebuild {
            self.drop_clusters(self.header.refcount_table, u64::from(self.header.refcount_table_clusters));
        }
        Ok(Some((at, clusters)))
    }

    /// Lowers the refcounts of what only the old tables used. Returns the host ranges that became free.
    fn drop_references(&mut self) -> Result<Vec<(HostOffset, u64)>> {
        let mut freed = BTreeSet::new();
        for cluster in std::mem::take(&mut self.dropped) {
            let count = self.refcounts.get(cluster)?;
            let Some(lower) = count.checked_sub(1) else {
                return Err(Error::damaged(Layer::Block, "a cluster in use has refcount 0")
                    .at(self.clusters.host_offset(cluster)));
            };
            self.refcounts.set(cluster, lower)?;
            if lower == 0 {
                freed.insert(cluster);
            }
        }
        Ok(self.ranges(freed))
    }

    fn abandoned(&self) -> Vec<(HostOffset, u64)> {
        if !self.is_rebuild {
            return Vec::new();
        }
        self.ranges(self.walk.refcount_clusters.iter().copied().collect())
    }

    /// Clusters as host ranges.
    fn ranges(&self, clusters: BTreeSet<HostCluster>) -> Vec<(HostOffset, u64)> {
        let mut ranges: Vec<(HostOffset, u64)> = Vec::new();
        for cluster in clusters {
            let (offset, size) = (self.clusters.host_offset(cluster), self.clusters.bytes());
            match ranges.last_mut() {
                Some((start, length)) if start.checked_add(*length) == Some(offset) => *length += size,
                _ => ranges.push((offset, size)),
            }
        }
        ranges
    }
}

fn image_write(offset: HostOffset, bytes: Vec<u8>) -> Write {
    Write { target: Target::Image, offset, source: Source::Bytes(bytes) }
}

fn refcount_writes(refcounts: &mut Refcounts) -> Vec<Write> {
    refcounts.take_changes().into_iter().map(|(offset, bytes)| image_write(offset, bytes)).collect()
}
