//! What `winject image info` tells about a VHD file.

use std::sync::Arc;

use super::image::Vhd;
use crate::block::Storage;
use crate::error::Result;

/// Facts about a VHD file, without its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Info {
    /// The disk's size in bytes.
    pub(crate) size: u64,
    /// Bytes that one entry of the block allocation table maps; `None` for a fixed disk.
    pub(crate) block_size: Option<u64>,
    /// `fixed`, `dynamic` or `differencing`.
    pub(crate) kind: &'static str,
    /// Four letters of the program that made the file, without padding.
    pub(crate) creator: String,
    /// The disk's unique id in hexadecimal, which children name.
    pub(crate) unique_id: String,
    /// The name under which the parent is looked for first.
    pub(crate) parent: Option<String>,
}

/// Reads the facts of the VHD file in `storage`.
pub(crate) fn info(storage: &Arc<dyn Storage>) -> Result<Info> {
    let vhd = Vhd::new(Arc::clone(storage))?;
    let footer = vhd.footer();
    Ok(Info {
        size: vhd.size(),
        block_size: vhd.header().map(|header| header.block_size),
        kind: footer.disk_type.name(),
        creator: String::from_utf8_lossy(&footer.creator).trim_end_matches(['\0', ' ']).to_owned(),
        unique_id: footer.unique_id.to_string(),
        parent: vhd.parent_names()?.into_iter().next(),
    })
}
