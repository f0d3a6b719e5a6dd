//! Freeing leaked clusters, and the questions that have to be answered before an interrupted run is undone.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::check::Walk;
use super::cluster::HostCluster;
use super::edit::refuse_failed_check;
use super::image::Qcow2Image;
use super::refcount::{self, read_table};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Lowers every stored refcount that is higher than the number of references. Harmless at any moment: a crash in the
/// middle leaves some leaks. An image that fails its check otherwise is left alone.
///
/// # Errors
/// When the image is damaged, or the host cannot read or write.
pub(crate) fn repair_leaks(storage: &Arc<dyn Storage>, path: &Path) -> Result<()> {
    let image = Qcow2Image::open_alone(Arc::clone(storage), path)?;
    let header = &image.header;
    let walk = Walk::new(&image)?;
    refuse_failed_check(header, &walk)?;
    if walk.report.leaks == 0 || header.is_dirty() {
        return Ok(());
    }
    let io = |e| Error::io(Layer::Block, "cannot repair the refcounts", e).path(path.display().to_string());
    let per_block = header.refcount_block_entries();
    let mut block = vec![0; usize::try_from(header.cluster_size()).unwrap_or(0)];
    for (index, offset) in refcount::blocks(&read_table(&**storage, header)?) {
        storage.read_exact_at(offset.0, &mut block).map_err(io)?;
        let before = block.clone();
        for within in 0..per_block {
            let cluster = HostCluster(index.saturating_mul(per_block).saturating_add(within));
            let counted = u64::from(walk.counts.get(cluster));
            if refcount::get(&block, header.refcount_order, within) > counted {
                refcount::set(&mut block, header.refcount_order, within, counted);
            }
        }
        if block != before {
            storage.write_at(offset.0, &block).map_err(io)?;
        }
    }
    storage.flush().map_err(io)
}

/// The host ranges of the refcount blocks, ascending.
///
/// # Errors
/// When the image is damaged, or the host cannot read.
pub(crate) fn refcount_blocks(storage: &Arc<dyn Storage>, path: &Path) -> Result<Vec<Range<HostOffset>>> {
    let image = Qcow2Image::open_alone(Arc::clone(storage), path)?;
    let size = image.header.cluster_size();
    let table = read_table(&**storage, &image.header)?;
    let mut blocks: Vec<_> = refcount::blocks(&table).map(|(_, offset)| offset..offset.saturating_add(size)).collect();
    blocks.sort_unstable_by_key(|block| block.start);
    Ok(blocks)
}

/// The first cluster whose refcount would become too low if the ranges `old` (offset, content) were put back: lower than
/// the number of references to it, and lower than it is now.
///
/// # Errors
/// When the image is damaged, or the host cannot read.
pub(crate) fn first_lost_reference(
    storage: &Arc<dyn Storage>,
    path: &Path,
    old: &[(HostOffset, Vec<u8>)],
) -> Result<Option<HostOffset>> {
    let image = Qcow2Image::open_alone(Arc::clone(storage), path)?;
    let header = &image.header;
    let walk = Walk::new(&image)?;
    let io = |e| Error::io(Layer::Block, "cannot read the file", e).path(path.display().to_string());
    let per_block = header.refcount_block_entries();
    let mut now = vec![0; usize::try_from(header.cluster_size()).unwrap_or(0)];
    for (index, offset) in refcount::blocks(&read_table(&**storage, header)?) {
        storage.read_exact_at(offset.0, &mut now).map_err(io)?;
        let mut then = now.clone();
        for (start, content) in old {
            put_back(&mut then, offset, *start, content);
        }
        if then == now {
            continue;
        }
        for within in 0..per_block {
            let cluster = HostCluster(index.saturating_mul(per_block).saturating_add(within));
            let counted = u64::from(walk.counts.get(cluster));
            let [now, then] = [&now, &then].map(|block| refcount::get(block, header.refcount_order, within));
            if then < counted && then < now {
                return Ok(Some(header.clusters.host_offset(cluster)));
            }
        }
    }
    Ok(None)
}

/// Copies what the range at `start` and the block at `offset` have in common into the block.
fn put_back(block: &mut [u8], HostOffset(offset): HostOffset, HostOffset(start): HostOffset, content: &[u8]) {
    let end = (offset + block.len() as u64).min(start.saturating_add(content.len() as u64));
    let from = offset.max(start);
    if from >= end {
        return;
    }
    let part = |base: u64| usize::try_from(from - base).unwrap_or(0)..usize::try_from(end - base).unwrap_or(0);
    if let (Some(target), Some(source)) = (block.get_mut(part(offset)), content.get(part(start))) {
        target.copy_from_slice(source);
    }
}

/// Where the last cluster in use ends, and the size of a cluster in bytes.
///
/// # Errors
/// When the image is damaged, or the host cannot read.
pub(crate) fn end_in_use(storage: &Arc<dyn Storage>, path: &Path) -> Result<(HostOffset, u64)> {
    let image = Qcow2Image::open_alone(Arc::clone(storage), path)?;
    Ok((Walk::new(&image)?.report.image_end_offset, image.header.cluster_size()))
}
