//! What `winject image info` tells about a VMDK file. Nothing else is opened for it.

use std::sync::Arc;

use super::cowd::CowdExtent;
use super::descriptor::Descriptor;
use super::extent::read_magic;
use super::header::{COWD_MAGIC, SPARSE_MAGIC};
use super::image::{has_whole_disk, read_descriptor};
use super::sparse::SparseExtent;
use crate::block::Storage;
use crate::error::Result;

/// Facts about a VMDK file: at least one of the two.
#[derive(Debug)]
pub(crate) struct Info {
    /// The file's descriptor: its own text, or the one inside a sparse extent.
    pub(crate) descriptor: Option<Descriptor>,
    /// The sparse extent in the file, if it holds the disk itself.
    pub(crate) extent: Option<ExtentInfo>,
}

/// Facts about a sparse extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExtentInfo {
    /// The disk's size in bytes.
    pub(crate) size: u64,
    /// Unit of allocation in bytes.
    pub(crate) grain_size: u64,
    /// Whether grains are compressed.
    pub(crate) is_compressed: bool,
}

/// Reads the facts of the VMDK file in `storage`.
pub(crate) fn info(storage: &Arc<dyn Storage>) -> Result<Info> {
    let descriptor = read_descriptor(storage.as_ref())?;
    let extent = match &read_magic(storage.as_ref())? {
        SPARSE_MAGIC if has_whole_disk(storage.as_ref())? => {
            let extent = SparseExtent::open(Arc::clone(storage))?;
            let is_compressed = extent.compressed().is_some();
            Some(ExtentInfo { size: extent.len(), grain_size: extent.grain_bytes(), is_compressed })
        }
        COWD_MAGIC => {
            let extent = CowdExtent::open(Arc::clone(storage))?;
            Some(ExtentInfo { size: extent.len(), grain_size: extent.grain_bytes(), is_compressed: false })
        }
        _ => None,
    };
    Ok(Info { descriptor, extent })
}
