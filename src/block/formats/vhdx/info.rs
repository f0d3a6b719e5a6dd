//! What `winject image info` tells about a VHDX file.

use std::sync::Arc;

use super::image::Vhdx;
use crate::block::Storage;
use crate::error::Result;

/// Facts about a VHDX file, without its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Info {
    /// The disk's size in bytes.
    pub(crate) size: u64,
    /// Bytes that one entry of the block allocation table maps.
    pub(crate) block_size: u64,
    /// Bytes of a sector as the guest sees it: 512 or 4096.
    pub(crate) sector: u64,
    /// `fixed`, `dynamic` or `differencing`.
    pub(crate) kind: &'static str,
    /// Whether the log holds changes that are still to be replayed.
    pub(crate) has_log: bool,
    /// Path of the parent, as recorded.
    pub(crate) parent: Option<String>,
}

/// Reads the facts of the VHDX file in `storage`.
pub(crate) fn info(storage: &Arc<dyn Storage>) -> Result<Info> {
    let vhdx = Vhdx::new(Arc::clone(storage))?;
    let metadata = vhdx.metadata();
    let parent = metadata.parent.as_ref();
    let kind = match (parent.is_some(), metadata.is_fixed) {
        (true, _) => "differencing",
        (false, true) => "fixed",
        (false, false) => "dynamic",
    };
    Ok(Info {
        size: metadata.virtual_size,
        block_size: metadata.block_size,
        sector: metadata.sector,
        kind,
        has_log: vhdx.has_log(),
        parent: parent.and_then(|p| p.relative.clone().or_else(|| p.absolute.first().cloned())),
    })
}
