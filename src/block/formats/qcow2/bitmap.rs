//! Persistent dirty bitmaps (QEMU docs/interop/qcow2.rst, "Bitmaps").
//!
//! A bitmap says which parts of the disk changed since the last backup. An edit sets the bits of what it changes in
//! every bitmap that records changes; a bit too many only makes the next backup a little larger.

use super::bytes::{be16, be32, be64, be64_table};
use super::entry::OFFSET_MASK;
use super::header::{AUTOCLEAR_BITMAPS, Header};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};

/// QEMU's limits.
const BITMAPS_MAX: u32 = 65535;
const DIRECTORY_BYTES_MAX: u64 = BITMAPS_MAX as u64 * 1024;
const GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;
/// QEMU's limit of a bitmap's table: 32 MiB for each bitmap.
const TABLE_ENTRIES_MAX: u32 = (32 << 20) / 8;
const ENTRY_BYTES: usize = 24;

const FLAG_IN_USE: u32 = 1;
const FLAG_AUTO: u32 = 2;
/// Bit 0 of a table entry without a cluster: all bits are one.
const ALL_ONES: u64 = 1;

/// A persistent bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Its name.
    pub name: String,
    /// Bytes of the disk that one bit stands for.
    pub granularity: u64,
    /// Whether it records changes ("auto").
    pub is_recording: bool,
    /// Whether it was not closed properly ("in-use"): its content is not to be trusted.
    pub is_inconsistent: bool,
    pub(super) table_offset: u64,
    pub(super) table_entries: u32,
}

/// All bitmaps; none when the image's mark says that they are out of date.
pub(super) fn read(storage: &dyn Storage, header: &Header) -> Result<Vec<Bitmap>> {
    let Some(extension) = header.bitmaps.filter(|_| header.autoclear & AUTOCLEAR_BITMAPS != 0) else {
        return Ok(Vec::new());
    };
    let damaged =
        |what: &str| Error::damaged(Layer::Block, format!("bitmap directory: {what}")).at(extension.directory_offset);
    if extension.count > BITMAPS_MAX
        || extension.directory_size > DIRECTORY_BYTES_MAX
        || extension.directory_offset % header.cluster_size() != 0
    {
        return Err(damaged("impossible size or place"));
    }
    let file_length = storage.len().map_err(|e| Error::io(Layer::Block, "cannot be read", e))?;
    if extension.directory_offset.saturating_add(extension.directory_size) > file_length {
        return Err(damaged("beyond the end of the file"));
    }
    let mut directory = vec![0; usize::try_from(extension.directory_size).unwrap_or(0)];
    storage
        .read_exact_at(extension.directory_offset, &mut directory)
        .map_err(|e| Error::io(Layer::Block, "the bitmap directory cannot be read", e))?;
    let mut bitmaps = Vec::new();
    let mut rest = directory.as_slice();
    for _ in 0..extension.count {
        let name_length = usize::from(be16(rest, 18));
        let extra_length = be32(rest, 20) as usize;
        let name_at = ENTRY_BYTES.saturating_add(extra_length);
        let name = name_at
            .checked_add(name_length)
            .and_then(|end| rest.get(name_at..end))
            .ok_or_else(|| damaged("an entry is cut off"))?;
        let flags = be32(rest, 12);
        let granularity_bits = rest.get(17).copied().unwrap_or(0);
        let table_entries = be32(rest, 8);
        if rest.get(16) != Some(&1) || !GRANULARITY_BITS.contains(&granularity_bits) {
            return Err(damaged("an unknown kind of bitmap"));
        }
        if table_entries > TABLE_ENTRIES_MAX || !be64(rest, 0).is_multiple_of(header.cluster_size()) {
            return Err(damaged("impossible bitmap table"));
        }
        bitmaps.push(Bitmap {
            name: String::from_utf8_lossy(name).into_owned(),
            granularity: 1 << granularity_bits,
            is_recording: flags & FLAG_AUTO != 0,
            is_inconsistent: flags & FLAG_IN_USE != 0,
            table_offset: be64(rest, 0),
            table_entries,
        });
        let length = (name_at + name_length).next_multiple_of(8);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(bitmaps)
}

impl Bitmap {
    /// The bitmap's table: places of its clusters.
    pub(super) fn table(&self, storage: &dyn Storage) -> Result<Vec<u64>> {
        let mut bytes = vec![0; self.table_entries as usize * 8];
        storage.read_exact_at(self.table_offset, &mut bytes).map_err(|e| {
            Error::damaged(Layer::Block, "a bitmap's table cannot be read").at(self.table_offset).source_error(e)
        })?;
        Ok(be64_table(&bytes))
    }

    /// The writes that set the bits of the changed ranges: (host offset, content).
    pub(super) fn mark(
        &self,
        storage: &dyn Storage,
        header: &Header,
        changed: &[(u64, u64)],
    ) -> Result<Vec<(u64, Vec<u8>)>> {
        let cluster = header.cluster_size();
        let bits_per_cluster = cluster * 8;
        let mut table = self.table(storage)?;
        let mut clusters = std::collections::BTreeMap::<u64, Vec<u8>>::new();
        let mut is_table_changed = false;
        for (start, length) in changed {
            let first = start / self.granularity;
            let last = (start + length - 1) / self.granularity;
            for bit in first..=last {
                let Some(entry) = usize::try_from(bit / bits_per_cluster).ok().and_then(|i| table.get_mut(i)) else {
                    return Err(Error::damaged(Layer::Block, "a bitmap's table is too short").at(self.table_offset));
                };
                let place = *entry & OFFSET_MASK;
                if place == 0 {
                    // Nothing is stored for this part of the disk: call all of it changed.
                    is_table_changed |= *entry != ALL_ONES;
                    *entry = ALL_ONES;
                    continue;
                }
                let content = match clusters.entry(place) {
                    std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
                    std::collections::btree_map::Entry::Vacant(empty) => {
                        let mut bytes = vec![0; usize::try_from(cluster).unwrap_or(0)];
                        storage
                            .read_or_zeros_at(place, &mut bytes)
                            .map_err(|e| Error::io(Layer::Block, "a bitmap cannot be read", e).at(place))?;
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
            let mut bytes = super::bytes::table_bytes(&table);
            bytes.resize(bytes.len().next_multiple_of(usize::try_from(cluster).unwrap_or(1)), 0);
            writes.push((self.table_offset, bytes));
        }
        Ok(writes)
    }
}
