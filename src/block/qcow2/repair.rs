//! Giving leaked clusters back.

use std::path::Path;
use std::sync::Arc;

use super::check::Walk;
use super::edit::refuse;
use super::header::INCOMPATIBLE_DIRTY;
use super::image::Qcow2Image;
use super::refcount::{self, read_table};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};

/// Lowers every stored refcount that is higher than the number of references. Harmless at any moment: a crash in the
/// middle leaves some leaks. An image that fails its check otherwise is left alone.
///
/// # Errors
/// When the image is damaged, or the host cannot read or write.
pub(crate) fn repair_leaks(storage: &Arc<dyn Storage>, path: &Path) -> Result<()> {
    let image = Qcow2Image::open_alone(Arc::clone(storage), path)?;
    let header = &image.header;
    let walk = Walk::new(&image)?;
    refuse(header, &walk)?;
    if walk.report.leaks == 0 || header.incompatible & INCOMPATIBLE_DIRTY != 0 {
        return Ok(());
    }
    let io = |e| Error::io(Layer::Block, "cannot be repaired", e).path(path.display().to_string());
    let per_block = header.refcount_block_entries();
    let mut block = vec![0; usize::try_from(header.cluster_size()).unwrap_or(0)];
    for (index, offset) in (0u64..).zip(read_table(&**storage, header)?).filter(|(_, offset)| *offset != 0) {
        storage.read_exact_at(offset, &mut block).map_err(io)?;
        let before = block.clone();
        for within in 0..per_block {
            let counted = u64::from(walk.counts.get(index.saturating_mul(per_block).saturating_add(within)));
            if refcount::get(&block, header.refcount_order, within) > counted {
                refcount::set(&mut block, header.refcount_order, within, counted);
            }
        }
        if block != before {
            storage.write_at(offset, &block).map_err(io)?;
        }
    }
    storage.flush().map_err(io)
}
