//! A FAT volume before and after: what was to be written is there, and all else is as it was.

use std::collections::BTreeSet;

use super::fat::{FatImage, Item, SLOT};
use crate::error::Result;
use crate::io::VolumeRead;
use crate::plan::boot::BootFiles;
use crate::plan::verify::mismatch::mismatch;

/// The number of free clusters, in the sector of FAT32 that holds it, and the hint where the next is.
const COUNTERS: std::ops::Range<usize> = 488..496;

/// Compares the two; returns how many files were looked at.
pub(super) fn compare<B: VolumeRead, A: VolumeRead>(
    before: &FatImage<'_, B>,
    after: &FatImage<'_, A>,
    files: &BootFiles,
) -> Result<usize> {
    let planned: BTreeSet<String> = files.files.iter().map(|file| file.path.to_lowercase()).collect();
    for file in &files.files {
        let item = after.items.get(&file.path.to_lowercase()).filter(|item| !item.is_folder);
        let is_right = match item {
            Some(item) => item.size == file.bytes.len() as u64 && after.content(item)? == **file.bytes,
            None => false,
        };
        if !is_right {
            return Err(mismatch("a file of the staged boot volume is not what was to be written").path(&file.path));
        }
    }
    let changed = |path: &str| mismatch("the staged boot volume has an unplanned change").path(path.to_owned());
    for (path, old) in &before.items {
        let new = after.items.get(path).ok_or_else(|| changed(path))?;
        let is_same = match (planned.contains(path), old.is_folder) {
            (true, _) => new.place == old.place,
            // A folder may have become longer.
            (false, true) => new.is_folder && new.place == old.place && new.chain.starts_with(&old.chain),
            (false, false) => new == old && has_same_content(before, after, old)?,
        };
        if !is_same {
            return Err(changed(path));
        }
    }
    for path in after.items.keys().filter(|path| !before.items.contains_key(*path)) {
        let is_above = planned.iter().any(|planned| planned.starts_with(&format!("{path}/")));
        if !planned.contains(path) && !is_above {
            return Err(changed(path));
        }
    }
    compare_entries(before, after, &planned)?;
    compare_tables(before, after, &planned)?;
    compare_reserved(&before.reserved, &after.reserved)?;
    Ok(after.items.len())
}

fn has_same_content<B: VolumeRead, A: VolumeRead>(
    before: &FatImage<'_, B>,
    after: &FatImage<'_, A>,
    item: &Item,
) -> Result<bool> {
    for cluster in &item.chain {
        if before.cluster(*cluster)? != after.cluster(*cluster)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Every entry that was in use is as it was, but those of the planned files.
fn compare_entries<B: VolumeRead, A: VolumeRead>(
    before: &FatImage<'_, B>,
    after: &FatImage<'_, A>,
    planned: &BTreeSet<String>,
) -> Result<()> {
    let places: BTreeSet<&(String, usize)> =
        planned.iter().filter_map(|path| before.items.get(path)).map(|item| &item.place).collect();
    for (path, old) in &before.folders {
        let new = after.folders.get(path).map(Vec::as_slice).unwrap_or_default();
        if new.len() < old.len() {
            return Err(mismatch("a folder of the staged boot volume is shorter").path(path));
        }
        for (index, (slot, new)) in old.chunks_exact(SLOT).zip(new.chunks_exact(SLOT)).enumerate() {
            match slot.first() {
                Some(0) => break,
                Some(0xE5) => continue,
                _ if places.contains(&(path.clone(), index)) => continue,
                _ => {}
            }
            if new != slot {
                return Err(mismatch("an entry of the staged boot volume has changed").path(path));
            }
        }
    }
    Ok(())
}

/// The table changes only where a planned file, or a folder that became longer, has its clusters.
fn compare_tables<B: VolumeRead, A: VolumeRead>(
    before: &FatImage<'_, B>,
    after: &FatImage<'_, A>,
    planned: &BTreeSet<String>,
) -> Result<()> {
    let mut may_change: BTreeSet<u32> = BTreeSet::new();
    for (path, item) in &after.items {
        let is_new = !before.items.contains_key(path);
        if planned.contains(path) || item.is_folder || is_new {
            may_change.extend(&item.chain);
        }
    }
    may_change.extend(planned.iter().filter_map(|path| before.items.get(path)).flat_map(|item| &item.chain));
    if after.tables.windows(2).any(|pair| pair.first() != pair.last()) {
        return Err(mismatch("the copies of the table of the staged boot volume differ"));
    }
    let (Some(old), Some(new)) = (before.tables.first(), after.tables.first()) else {
        return Err(mismatch("the staged boot volume has no table"));
    };
    let is_same = |index: usize| old.get(index) == new.get(index);
    let differs = (0..old.len().max(new.len()))
        .find(|index| !is_same(*index) && !u32::try_from(*index).is_ok_and(|cluster| may_change.contains(&cluster)));
    match differs {
        Some(cluster) => {
            Err(mismatch(format!("the table of the staged boot volume has an unplanned change: cluster {cluster}")))
        }
        None => Ok(()),
    }
}

/// Before the table, only the counter of free clusters may change.
fn compare_reserved(before: &[u8], after: &[u8]) -> Result<()> {
    let info = u64::from(before.get(48).copied().unwrap_or(0)) | u64::from(before.get(49).copied().unwrap_or(0)) << 8;
    let sector = u64::from(before.get(11).copied().unwrap_or(0)) | u64::from(before.get(12).copied().unwrap_or(0)) << 8;
    let at = usize::try_from(info * sector).unwrap_or(usize::MAX);
    let may_change = |index: usize| at > 0 && index.checked_sub(at).is_some_and(|index| COUNTERS.contains(&index));
    let differs = before.iter().zip(after).enumerate().find(|(index, (old, new))| old != new && !may_change(*index));
    match (differs, before.len() == after.len()) {
        (None, true) => Ok(()),
        _ => Err(mismatch("the boot sector of the staged boot volume has changed")),
    }
}
