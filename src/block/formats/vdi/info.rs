//! What `winject image info` tells about a VDI file.

use std::sync::Arc;

use super::header::Header;
use crate::block::Storage;
use crate::block::formats::extent_map::length;
use crate::error::Result;

/// Facts about a VDI file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Info {
    /// The disk's size in bytes.
    pub(crate) size: u64,
    /// Bytes that one entry of the block map maps.
    pub(crate) block_size: u64,
}

/// Reads the facts of the VDI file in `storage`.
pub(crate) fn info(storage: &Arc<dyn Storage>) -> Result<Info> {
    let header = Header::read(storage.as_ref(), length(storage.as_ref())?)?;
    Ok(Info { size: header.disk_size, block_size: header.block_size })
}
