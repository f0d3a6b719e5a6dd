//! Editing a qcow2 file in place, all or nothing.
//!
//! Every changed guest cluster goes to a host cluster that was free; the L2 tables that refer to changed clusters and
//! the L1 table are written anew; then one write of the header's first sector switches to the new tables, and only
//! after that the refcounts of what the old tables alone used go down. Whenever the machine stops, the file holds the
//! old disk or the new one, and at worst clusters that nothing uses. Snapshots, compressed clusters and shared tables
//! need no special case, since nothing that is in use is overwritten.
//!
//! With an external data file, guest clusters have fixed places in that file and are overwritten there; then only the
//! undo journal makes the edit all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::bitmap;
use super::bytes::{be64_table, table_bytes};
use super::check::Walk;
use super::entry::{COPIED, Mapping, OFFSET_MASK, l2_table_offset};
use super::header::{
    AUTOCLEAR_KNOWN, Header, HeaderEdit, INCOMPATIBLE_CORRUPT, INCOMPATIBLE_DIRTY, REFCOUNT_TABLE_BYTES_MAX,
};
use super::image::Qcow2Image;
use super::refcount::Refcounts;
use crate::block::{Stage, Storage, StorageExt};
use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;

/// Where the content of a write comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Metadata.
    Bytes(Vec<u8>),
    /// Guest data from the stage; beyond the disk's end zeros up to `length`.
    Stage { offset: ImageOffset, length: u64 },
}

impl Source {
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
    pub offset: u64,
    pub source: Source,
}

/// All writes of an edit. Between two phases everything must be flushed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    pub phases: Vec<Vec<Write>>,
    /// Host ranges that nothing uses any more once the edit is done.
    pub freed: Vec<(u64, u64)>,
    pub warnings: Vec<String>,
    /// Whether the edit switches by the header: then a crash never needs the journal's old data.
    pub is_switch: bool,
    pub bytes_written: u64,
    /// Length that the image's file must have at least.
    pub image_length: u64,
}

/// Plans the edit that makes the file hold what the stage holds. Nothing is written.
pub(crate) fn plan(storage: &Arc<dyn Storage>, path: &Path, stage: &Stage) -> Result<Edit> {
    let image = Qcow2Image::open_alone(Arc::clone(storage), path)?;
    let walk = Walk::new(&image)?;
    refuse(&image.header, &walk)?;
    Planner::new(&image, walk, stage)?.run().map_err(|e| e.path(path.display().to_string()))
}

/// Refuses to write to an image that fails its check. Too low refcounts are excused when the image is marked dirty:
/// then they are counted anew.
pub(super) fn refuse(header: &Header, walk: &Walk) -> Result<()> {
    refuse_marked(header)?;
    let is_dirty = header.incompatible & INCOMPATIBLE_DIRTY != 0;
    let excused = if is_dirty { walk.refcount_corruptions } else { 0 };
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
    if header.incompatible & INCOMPATIBLE_CORRUPT != 0 {
        return Err(Error::refused(Layer::Block, "the image is marked corrupt")
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
    storage: &'a Arc<dyn Storage>,
    stage: &'a Stage,
    walk: Walk,
    old_l1: &'a [u64],
    is_rebuild: bool,
    refcounts: Refcounts,
    /// Clusters are looked for from here on.
    cursor: u64,
    /// First cluster beyond the end of the file and of everything that was given out.
    end: u64,
    taken: BTreeSet<u64>,
    /// One for each reference that goes away.
    dropped: Vec<u64>,
    writes: Vec<Write>,
    bytes_written: u64,
}

impl<'a> Planner<'a> {
    fn new(image: &'a Qcow2Image, walk: Walk, stage: &'a Stage) -> Result<Self> {
        let header = &image.header;
        let is_rebuild = header.incompatible & INCOMPATIBLE_DIRTY != 0;
        let refcounts = if is_rebuild {
            Refcounts::empty(Arc::clone(&image.file), header)
        } else {
            Refcounts::load(Arc::clone(&image.file), header)?
        };
        let length = image.file.len().map_err(|e| Error::io(Layer::Block, "cannot be read", e))?;
        let last = walk.counts.iter().last().map_or(0, |(cluster, _)| cluster + 1);
        Ok(Self {
            header,
            storage: &image.file,
            stage,
            walk,
            old_l1: &image.l1,
            is_rebuild,
            refcounts,
            cursor: 1,
            end: length.div_ceil(header.cluster_size()).max(last),
            taken: BTreeSet::new(),
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
            phases.push(vec![image_write(0, self.header.first_sector_with(&edit))]);
            freed = self.drop_references()?;
            phases.push(refcount_writes(&mut self.refcounts));
        } else {
            self.writes.extend(bitmap_writes);
            phases.push(std::mem::take(&mut self.writes));
        }
        Ok(Edit {
            phases,
            freed,
            warnings,
            is_switch: !self.header.has_data_file(),
            bytes_written: self.bytes_written,
            image_length: self.end << self.header.cluster_bits,
        })
    }

    fn bitmap_writes(&self) -> Result<Vec<Write>> {
        let changed: Vec<_> = self.stage.dirty_ranges().map(|(offset, length)| (offset.0, length)).collect();
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
    fn write_tables(&mut self) -> Result<Option<Vec<u64>>> {
        let mut touched = BTreeMap::<usize, BTreeSet<u64>>::new();
        let (cluster_size, entries) = (self.header.cluster_size(), self.header.l2_entries());
        for (offset, length) in self.stage.dirty_ranges() {
            for cluster in offset.0 / cluster_size..(offset.0 + length).div_ceil(cluster_size) {
                let index = usize::try_from(cluster / entries).unwrap_or(usize::MAX);
                touched.entry(index).or_default().insert(cluster);
            }
        }
        if self.is_rebuild {
            // Flags that a crashed writer left wrong are put right by rewriting their tables.
            for (index, entry) in self.old_l1.iter().enumerate() {
                if self.walk.wrong_copied.contains(&(entry & OFFSET_MASK)) {
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
            let old = l2_table_offset(self.header, *slot)?;
            if let Some(new) = self.rewrite_table(old, &clusters)? {
                *slot = new | COPIED;
                is_changed = true;
            }
        }
        if self.is_rebuild {
            for entry in &mut l1 {
                let cluster = (*entry & OFFSET_MASK) >> self.header.cluster_bits;
                if cluster != 0 && !self.taken.contains(&cluster) {
                    *entry = with_copied(*entry, self.walk.counts.get(cluster) == 1);
                }
            }
        }
        Ok(is_changed.then_some(l1))
    }

    /// Writes a copy of an L2 table with new places for the given clusters. Returns its host offset, or `None` when
    /// no entry changes.
    fn rewrite_table(&mut self, old: Option<u64>, clusters: &BTreeSet<u64>) -> Result<Option<u64>> {
        let size = usize::try_from(self.header.cluster_size()).unwrap_or(0);
        let mut bytes = vec![0; size];
        if let Some(offset) = old {
            self.storage
                .read_exact_at(offset, &mut bytes)
                .map_err(|e| Error::io(Layer::Block, "an L2 table cannot be read", e).at(offset))?;
        }
        let before = be64_table(&bytes);
        let mut table = before.clone();
        let step = usize::try_from(self.header.entry_size() / 8).unwrap_or(1);
        if self.is_rebuild {
            self.correct_flags(&mut table, step);
        }
        for cluster in clusters {
            let at = usize::try_from(cluster % self.header.l2_entries()).unwrap_or(usize::MAX).saturating_mul(step);
            let Some(entry) = at.checked_add(step).and_then(|end| table.get_mut(at..end)) else {
                return Err(Error::bug(Layer::Block, "a cluster beyond the L2 table"));
            };
            self.rewrite_cluster(*cluster, entry)?;
        }
        if table == before {
            return Ok(None);
        }
        let new = self.take(1)? << self.header.cluster_bits;
        self.writes.push(image_write(new, table_bytes(&table)));
        if let Some(offset) = old {
            self.dropped.push(offset >> self.header.cluster_bits);
        }
        Ok(Some(new))
    }

    fn correct_flags(&self, table: &mut [u64], step: usize) {
        for entry in table.chunks_exact_mut(step).filter_map(|e| e.first_mut()) {
            let host = *entry & OFFSET_MASK;
            if *entry & super::entry::COMPRESSED == 0 && host != 0 && !self.header.has_data_file() {
                *entry = with_copied(*entry, self.walk.counts.get(host >> self.header.cluster_bits) == 1);
            }
        }
    }

    /// Gives one guest cluster its new content and entry.
    fn rewrite_cluster(&mut self, cluster: u64, entry: &mut [u64]) -> Result<()> {
        let (word, bitmap) = (entry.first().copied().unwrap_or(0), entry.get(1).copied().unwrap_or(0));
        let old = Mapping::decode(self.header, word, bitmap, cluster)?;
        let new = if self.header.has_data_file() {
            self.write_to_data_file(cluster, old);
            (cluster * self.header.cluster_size()) | COPIED
        } else {
            match old {
                Mapping::Compressed(range) => self.dropped.extend(range.clusters(self.header.cluster_bits)),
                Mapping::Standard { host: Some(host), .. } => self.dropped.push(host >> self.header.cluster_bits),
                Mapping::Standard { host: None, .. } => {}
            }
            let host = self.take(1)? << self.header.cluster_bits;
            self.write_units(Target::Image, cluster, host, self.units_to_store(cluster, old));
            host | COPIED
        };
        if let Some(first) = entry.first_mut() {
            *first = new;
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
    fn units_to_store(&self, cluster: u64, old: Mapping) -> u32 {
        let Mapping::Standard { allocated, .. } = old else { return u32::MAX };
        if !self.header.is_extended() {
            return u32::MAX;
        }
        let unit = self.header.unit();
        let start = cluster * self.header.cluster_size();
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
    fn write_units(&mut self, target: Target, cluster: u64, host: u64, mask: u32) {
        let start = cluster * self.header.cluster_size();
        if mask == u32::MAX {
            return self.write_stage(target, host, start, self.header.cluster_size());
        }
        let unit = self.header.cluster_size() / 32;
        let mut index = 0;
        while index < 32 {
            let run = (mask >> index).trailing_ones();
            if run > 0 {
                let at = u64::from(index) * unit;
                self.write_stage(target, host + at, start + at, u64::from(run) * unit);
            }
            index += run.max(1);
        }
    }

    fn write_stage(&mut self, target: Target, host: u64, offset: u64, length: u64) {
        self.bytes_written += length;
        // Neighbours in the guest and in the file become one write.
        if let Some(Write { target: t, offset: at, source: Source::Stage { offset: from, length: so_far } }) =
            self.writes.last_mut()
            && *t == target
            && *at + *so_far == host
            && from.0 + *so_far == offset
        {
            *so_far += length;
            return;
        }
        let source = Source::Stage { offset: ImageOffset(offset), length };
        self.writes.push(Write { target, offset: host, source });
    }

    /// With an external data file: what changed, at its fixed place; the whole unit where nothing was stored yet.
    fn write_to_data_file(&mut self, cluster: u64, old: Mapping) {
        let start = cluster * self.header.cluster_size();
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
                let changed: Vec<_> = self.dirty_inside(at, unit).collect();
                for (offset, length) in changed {
                    self.write_stage(Target::DataFile, offset, offset, length);
                }
            } else if store & bit != 0 {
                let length = unit.min(self.header.size.saturating_sub(at));
                self.write_stage(Target::DataFile, at, at, length);
            }
        }
    }

    /// Dirty parts of a guest range, in sectors of the stage.
    fn dirty_inside(&self, start: u64, length: u64) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        self.stage.dirty_ranges_in(ImageOffset(start), length).map(|(offset, length)| (offset.0, length))
    }

    /// Finds `count` adjacent free clusters.
    fn take(&mut self, count: u64) -> Result<u64> {
        let first = if count == 1 { self.find_free()? } else { None };
        let first = match first {
            Some(first) => first,
            None => {
                let first = self.end;
                self.end += count;
                first
            }
        };
        if first.saturating_add(count) >= super::header::HOST_OFFSET_MAX >> self.header.cluster_bits {
            return Err(Error::unsupported(Layer::Block, "the file would become too long"));
        }
        self.taken.extend(first..first + count);
        Ok(first)
    }

    /// The next cluster inside the file that nothing refers to and whose stored refcount is 0.
    fn find_free(&mut self) -> Result<Option<u64>> {
        while self.cursor < self.end {
            let cluster = self.cursor;
            self.cursor += 1;
            let is_used = self.walk.counts.get(cluster) > 0 || self.taken.contains(&cluster);
            if !is_used && (self.is_rebuild || self.refcounts.get(cluster)? == 0) {
                return Ok(Some(cluster));
            }
        }
        Ok(None)
    }

    /// Places the new L1 table and everything that the refcounts of new clusters need.
    fn place_tables(&mut self, new_l1: Option<Vec<u64>>) -> Result<HeaderEdit> {
        let bits = self.header.cluster_bits;
        let cluster_size = self.header.cluster_size();
        let mut edit = HeaderEdit {
            l1_size: self.header.l1_size,
            l1_table_offset: self.header.l1_table_offset,
            refcount_table_offset: self.header.refcount_table_offset,
            refcount_table_clusters: self.header.refcount_table_clusters,
        };
        if let Some(l1) = new_l1.filter(|l1| !l1.is_empty()) {
            let mut bytes = table_bytes(&l1);
            let clusters = (bytes.len() as u64).div_ceil(cluster_size);
            bytes.resize(usize::try_from(clusters * cluster_size).unwrap_or(0), 0);
            edit.l1_table_offset = self.take(clusters)? << bits;
            self.writes.push(image_write(edit.l1_table_offset, bytes));
            let first = self.header.l1_table_offset >> bits;
            self.dropped.extend(first..first + clusters);
        }
        let mut wanted: Vec<(u64, u64)> = self.taken.iter().map(|cluster| (*cluster, 1)).collect();
        if self.is_rebuild {
            // The old refcount structures are left behind: nothing refers to them after the switch.
            let old: BTreeSet<u64> = self.walk.refcount_clusters.iter().copied().collect();
            wanted.extend(
                self.walk.counts.iter().filter(|(c, _)| !old.contains(c)).map(|(c, count)| (c, u64::from(count))),
            );
        }
        self.raise(wanted)?;
        if let Some((place, clusters)) = self.place_refcount_table()? {
            edit.refcount_table_offset = place << bits;
            edit.refcount_table_clusters = u32::try_from(clusters).unwrap_or(u32::MAX);
        }
        Ok(edit)
    }

    /// Stores refcounts, adding blocks where there are none (which need refcounts themselves).
    fn raise(&mut self, mut wanted: Vec<(u64, u64)>) -> Result<()> {
        while let Some((cluster, count)) = wanted.pop() {
            if !self.refcounts.set(cluster, count)? {
                let place = self.take(1)?;
                self.refcounts.add_block(cluster, place)?;
                wanted.push((place, 1));
                wanted.push((cluster, count));
            }
        }
        Ok(())
    }

    /// Writes the refcount table to a new place if it changed. Returns the place and its length in clusters.
    fn place_refcount_table(&mut self) -> Result<Option<(u64, u64)>> {
        let cluster_size = self.header.cluster_size();
        let Some(table) = self.refcounts.new_table() else { return Ok(None) };
        // Blocks for the table's own clusters may lengthen it: leave room for a few entries, at least as many as
        // the table had.
        let entries_per_cluster = cluster_size / 8;
        let own = (table.len() as u64 + 64).div_ceil(entries_per_cluster);
        let more = 2 + 2 * own.div_ceil(self.header.refcount_block_entries());
        let clusters = (table.len() as u64 + 64 + more)
            .div_ceil(entries_per_cluster)
            .max(u64::from(self.header.refcount_table_clusters));
        let place = self.take(clusters)?;
        self.raise((place..place + clusters).map(|cluster| (cluster, 1)).collect())?;
        let mut bytes = table_bytes(self.refcounts.new_table().unwrap_or_default());
        let length = usize::try_from(clusters * cluster_size).unwrap_or(0);
        if bytes.len() > length || length as u64 > REFCOUNT_TABLE_BYTES_MAX.max(cluster_size) {
            return Err(Error::unsupported(Layer::Block, "the refcount table cannot grow any more")
                .hint("convert the image to larger clusters: qemu-img convert -O qcow2"));
        }
        bytes.resize(length, 0);
        self.writes.push(image_write(place << self.header.cluster_bits, bytes));
        if !self.is_rebuild {
            let first = self.header.refcount_table_offset >> self.header.cluster_bits;
            self.dropped.extend(first..first + u64::from(self.header.refcount_table_clusters));
        }
        Ok(Some((place, clusters)))
    }

    /// Lowers the refcounts of what the old tables alone used. Returns the host ranges that became free.
    fn drop_references(&mut self) -> Result<Vec<(u64, u64)>> {
        let bits = self.header.cluster_bits;
        let mut freed = BTreeSet::new();
        for cluster in std::mem::take(&mut self.dropped) {
            let count = self.refcounts.get(cluster)?;
            let Some(lower) = count.checked_sub(1) else {
                return Err(Error::damaged(Layer::Block, "a cluster in use has refcount 0").at(cluster << bits));
            };
            self.refcounts.set(cluster, lower)?;
            if lower == 0 {
                freed.insert(cluster);
            }
        }
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for cluster in freed {
            match ranges.last_mut() {
                Some((start, length)) if *start + *length == cluster << bits => *length += 1 << bits,
                _ => ranges.push((cluster << bits, 1 << bits)),
            }
        }
        Ok(ranges)
    }
}

fn image_write(offset: u64, bytes: Vec<u8>) -> Write {
    Write { target: Target::Image, offset, source: Source::Bytes(bytes) }
}

fn refcount_writes(refcounts: &mut Refcounts) -> Vec<Write> {
    refcounts.take_changes().into_iter().map(|(offset, bytes)| image_write(offset, bytes)).collect()
}

fn with_copied(entry: u64, is_single: bool) -> u64 {
    if is_single { entry | COPIED } else { entry & !COPIED }
}
