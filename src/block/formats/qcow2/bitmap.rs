//! Persistent dirty bitmaps (QEMU docs/interop/qcow2.rst, "Bitmaps").
//!
//! A bitmap says which parts of the disk changed since the last backup. An edit sets the bits of what it changes in
//! every bitmap that records changes; a bit too many only makes the next backup a little larger.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use zerocopy::FromBytes;

use super::entry::BitmapTableEntry;
use super::header::{AUTOCLEAR_BITMAPS, Header};
use super::on_disk::{StoredBitmap, table, table_bytes};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// QEMU's limits of the number of bitmaps, of their directory, and of the granularity.
const BITMAPS_MAX: u32 = 65535;
const DIRECTORY_BYTES_MAX: u64 = BITMAPS_MAX as u64 * 1024;
const GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;
/// QEMU's limit of a bitmap's table: 32 MiB for each bitmap.
const TABLE_ENTRIES_MAX: u32 = (32 << 20) / 8;

/// The only kind of bitmap that there is: a dirty tracking bitmap.
const KIND_DIRTY: u8 = 1;
const FLAG_IN_USE: u32 = 1;
const FLAG_AUTO: u32 = 1 << 1;

/// A persistent dirty bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// The name that the user gave it; escape it before printing.
    pub name: String,
    /// Bytes of the disk that one bit covers.
    pub granularity: u64,
    /// Whether it records changes ("auto").
    pub is_recording: bool,
    /// Whether it was not closed properly ("in-use"): its content is not to be trusted.
    pub is_inconsistent: bool,
    pub(super) table: HostOffset,
    pub(super) table_entries: u32,
}

/// Reads all bitmaps; none when the image's autoclear bit says that they are out of date.
pub(super) fn read(storage: &dyn Storage, header: &Header) -> Result<Vec<Bitmap>> {
    let Some(extension) = header.bitmaps.filter(|_| header.autoclear & AUTOCLEAR_BITMAPS != 0) else {
        return Ok(Vec::new());
    };
    let (count, size) = (extension.nb_bitmaps.get(), extension.directory_size.get());
    let offset = HostOffset(extension.directory_offset.get());
    let damaged = |what: &str| Error::damaged(Layer::Block, format!("bitmap directory: {what}")).at(offset);
    if count > BITMAPS_MAX || size > DIRECTORY_BYTES_MAX || !header.clusters.is_aligned(offset) {
        return Err(damaged("invalid size or offset"));
    }
    let file_length = storage.len().map_err(|e| Error::io(Layer::Block, "cannot read the file", e))?;
    if offset.0.saturating_add(size) > file_length {
        return Err(damaged("beyond the end of the file"));
    }
    let mut directory = vec![0; usize::try_from(size).unwrap_or(0)];
    storage
        .read_exact_at(offset.0, &mut directory)
        .map_err(|e| Error::io(Layer::Block, "cannot read the bitmap directory", e))?;
    let mut bitmaps = Vec::new();
    let mut rest = directory.as_slice();
    for _ in 0..count {
        let cut_off = || damaged("an entry is cut off");
        let (stored, variable) = StoredBitmap::ref_from_prefix(rest).map_err(|_| cut_off())?;
        let extra_length = stored.extra_data_size.get() as usize;
        let name_length = usize::from(stored.name_size.get());
        let names = variable.get(extra_length..).ok_or_else(cut_off)?;
        let name = names.get(..name_length).ok_or_else(cut_off)?;
        if stored.kind != KIND_DIRTY || !GRANULARITY_BITS.contains(&stored.granularity_bits) {
            return Err(damaged("an unknown kind of bitmap"));
        }
        let table = HostOffset(stored.table_offset.get());
        let table_entries = stored.table_size.get();
        if table_entries > TABLE_ENTRIES_MAX || !header.clusters.is_aligned(table) {
            return Err(damaged("invalid bitmap table"));
        }
        bitmaps.push(Bitmap {
            name: String::from_utf8_lossy(name).into_owned(),
            granularity: 1 << stored.granularity_bits,
            is_recording: stored.flags.get() & FLAG_AUTO != 0,
            is_inconsistent: stored.flags.get() & FLAG_IN_USE != 0,
            table,
            table_entries,
        });
        let length = (size_of::<StoredBitmap>() + extra_length + name_length).next_multiple_of(8);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(bitmaps)
}

impl Bitmap {
    /// Reads the bitmap's table.
    fn read_table(&self, storage: &dyn Storage) -> Result<Vec<BitmapTableEntry>> {
        let mut bytes = vec![0; self.table_entries as usize * 8];
        storage
            .read_exact_at(self.table.0, &mut bytes)
            .map_err(|e| Error::damaged(Layer::Block, "cannot read a bitmap's table").at(self.table).source_error(e))?;
        Ok(table(&bytes))
    }

    /// The writes that set the bits of the changed ranges (offset and length): host offset and content.
    pub(super) fn mark(
        &self,
        storage: &dyn Storage,
        header: &Header,
        changed: &[(ImageOffset, u64)],
    ) -> Result<Vec<(HostOffset, Vec<u8>)>> {
        let cluster_size = header.cluster_size();
        let bits_per_cluster = cluster_size * 8;
        let mut table = self.read_table(storage)?;
        let mut clusters = BTreeMap::<HostOffset, Vec<u8>>::new();
        let mut is_table_changed = false;
        for (start, length) in changed {
            let first = start.0 / self.granularity;
            let last = (start.0 + length - 1) / self.granularity;
            for bit in first..=last {
                let Some(entry) = usize::try_from(bit / bits_per_cluster).ok().and_then(|i| table.get_mut(i)) else {
                    return Err(Error::damaged(Layer::Block, "a bitmap's table is too short").at(self.table));
                };
                let Some(cluster) = entry.cluster() else {
                    // Nothing is stored for this part of the disk: call all of it changed.
                    is_table_changed |= *entry != BitmapTableEntry::ALL_ONES;
                    *entry = BitmapTableEntry::ALL_ONES;
                    continue;
                };
                let content = match clusters.entry(cluster) {
                    Entry::Occupied(found) => found.into_mut(),
                    Entry::Vacant(empty) => {
                        let mut bytes = vec![0; usize::try_from(cluster_size).unwrap_or(0)];
                        storage
                            .read_or_zeros_at(cluster.0, &mut bytes)
                            .map_err(|e| Error::io(Layer::Block, "cannot read a bitmap", e).at(cluster))?;
                        empty.insert(bytes)
                    }
                };
                let within = bit % bits_per_cluster;
                if let Some(byte) = usize::try_from(within / 8).ok().and_then(|i| content.get_mut(i)) {
                    *byte |= 1 << (within % 8);
                }
            }
        }
        let mut writes: Vec<_> = clusters.into_iter().collect();
        if is_table_changed {
            let mut bytes = table_bytes(&table);
            bytes.resize(bytes.len().next_multiple_of(usize::try_from(cluster_size).unwrap_or(1)), 0);
            writes.push((self.table, bytes));
        }
        Ok(writes)
    }
}
