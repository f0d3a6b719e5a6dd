//! What `winject image info` tells about a qcow2 file.

use std::path::Path;
use std::sync::Arc;

use super::bitmap::{self, Bitmap};
use super::header::{AUTOCLEAR_RAW_DATA, COMPATIBLE_LAZY_REFCOUNTS, Compression};
use super::image::Qcow2Image;
use super::snapshot::{self, Snapshot};
use crate::block::{Locking, Storage};
use crate::error::Result;

/// Facts about a qcow2 file, without its backing files. Names come from the image: escape them before printing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Format version: 2 ("compat 0.10") or 3 ("compat 1.1").
    pub version: u32,
    /// The disk's size in bytes.
    pub virtual_size: u64,
    /// Bytes of a cluster.
    pub cluster_size: u64,
    /// Bits of a refcount.
    pub refcount_bits: u32,
    /// How compressed clusters are compressed.
    pub compression: Compression,
    /// Whether a writer may store refcounts long after the tables.
    pub lazy_refcounts: bool,
    /// Whether clusters have subclusters.
    pub extended_l2: bool,
    /// Whether the last writer did not close the image: refcounts may be too low.
    pub is_dirty: bool,
    /// Whether the image is marked as damaged.
    pub is_corrupt: bool,
    /// The backing file's name as recorded.
    pub backing_name: Option<String>,
    /// The backing file's format as recorded.
    pub backing_format: Option<String>,
    /// The external data file's name as recorded.
    pub data_file_name: Option<String>,
    /// Whether the external data file is a raw image by itself.
    pub data_file_raw: bool,
    /// Internal snapshots in the order of their table.
    pub snapshots: Vec<Snapshot>,
    /// Persistent bitmaps; none when they are out of date.
    pub bitmaps: Vec<Bitmap>,
}

/// Reads the facts of the qcow2 file at `path`. Nothing that the image names is opened.
///
/// # Errors
/// When the file cannot be read, or its header, snapshot table or bitmap directory is damaged.
pub fn info(path: &Path) -> Result<Info> {
    info_storage(Arc::new(crate::block::open_file(path, Locking::Ignore)?), path)
}

/// Like [`info`], for a file that is open already.
///
/// # Errors
/// See [`info`].
pub fn info_storage(storage: Arc<dyn Storage>, path: &Path) -> Result<Info> {
    let image = Qcow2Image::open_alone(Arc::clone(&storage), path)?;
    let header = &image.header;
    let in_file = |e: crate::Error| e.path(path.display().to_string());
    Ok(Info {
        version: header.version,
        virtual_size: header.size,
        cluster_size: header.cluster_size(),
        refcount_bits: 1 << header.refcount_order,
        compression: header.compression,
        lazy_refcounts: header.compatible & COMPATIBLE_LAZY_REFCOUNTS != 0,
        extended_l2: header.is_extended(),
        is_dirty: header.is_dirty(),
        is_corrupt: header.is_marked_corrupt(),
        backing_name: header.backing_name.clone(),
        backing_format: header.backing_format.clone(),
        data_file_name: header.data_file_name.clone(),
        data_file_raw: header.autoclear & AUTOCLEAR_RAW_DATA != 0,
        snapshots: if header.snapshot_count > 0 {
            snapshot::read(&*storage, header).map_err(in_file)?.0
        } else {
            vec![]
        },
        bitmaps: bitmap::read(&*storage, header).map_err(in_file)?,
    })
}
