//! What `image info` and `image map` tell, in qemu-img's terms. Nothing that an image names is opened for `info`.

mod facts;
mod map;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::chain::open_file;
use super::{Format, OpenOptions, Storage, ova, probe};
use crate::error::{Error, Layer, Result};

pub use map::{MapEntry, map};

/// Facts about an image file. Field names are qemu-img's where it has them. Names come from the image: escape them
/// before printing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    /// The file.
    pub filename: String,
    /// The container's format.
    pub format: String,
    /// The disk's size in bytes.
    pub virtual_size: u64,
    /// Bytes that the file takes on the host's disk.
    pub actual_size: u64,
    /// Unit of allocation in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// Whether the data are encrypted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// Whether the data are compressed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compressed: bool,
    /// Whether the last writer did not close the image.
    pub dirty_flag: bool,
    /// Name of the parent, as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename: Option<String>,
    /// Format of the parent, as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename_format: Option<String>,
    /// Internal snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotInfo>,
    /// Disks in an OVA, by their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<String>,
    /// What only this format has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format_specific: Option<Specific>,
}

/// An internal snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotInfo {
    /// The number that QEMU gave it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Bytes of saved machine state.
    pub vm_state_size: u64,
    /// When it was taken, seconds since 1970.
    pub date_sec: u32,
    /// Nanoseconds of that time.
    pub date_nsec: u32,
    /// Seconds that the guest had run.
    pub vm_clock_sec: u64,
    /// Nanoseconds of that.
    pub vm_clock_nsec: u64,
}

/// What only one format has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Specific {
    /// The format.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its facts, named as qemu-img names them where it knows them.
    pub data: serde_json::Value,
}

/// Tells the facts about the image file at `path`.
///
/// # Errors
/// When the file cannot be read, is no image that is known, or its header is damaged.
pub fn info(path: &Path, options: &OpenOptions) -> Result<ImageInfo> {
    let storage: Arc<dyn Storage> = Arc::new(open_file(path, options.locking)?);
    let actual_size = blocks(path);
    let name = path.display().to_string();
    let mut info = if options.format.is_none() && ova::is_ova(storage.as_ref()) {
        facts::ova(&storage, path, options)
    } else {
        let format = options.format.map_or_else(|| probe::probe(storage.as_ref(), path), Ok)?;
        facts::of(&storage, path, format)
    }
    .map_err(|e| e.path(&name))?;
    info.filename = name;
    info.actual_size = actual_size;
    Ok(info)
}

/// What the host has allocated for the file.
fn blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    path.metadata().map_or(0, |m| m.blocks() * 512)
}

/// An info with the fields that every format has.
fn plain(format: Format, virtual_size: u64) -> ImageInfo {
    ImageInfo {
        filename: String::new(),
        format: format.name().to_owned(),
        virtual_size,
        actual_size: 0,
        cluster_size: None,
        encrypted: false,
        compressed: false,
        dirty_flag: false,
        backing_filename: None,
        backing_filename_format: None,
        snapshots: Vec::new(),
        disks: Vec::new(),
        format_specific: None,
    }
}

/// How readable images of a format without a check of its own are checked: every table is walked, and every stored
/// place must be inside the file.
///
/// # Errors
/// The first damage that is found, or that the image cannot be opened.
pub fn check_readable(path: &Path, options: &OpenOptions) -> Result<u64> {
    let image = super::open(path, options)?;
    let mut at = 0;
    let mut data = 0;
    while at < image.len() {
        let extent = image.extent_at(crate::units::ImageOffset(at), image.len() - at)?;
        if extent.length == 0 {
            return Err(Error::bug(Layer::Block, "an extent without length").at(at));
        }
        data += if extent.kind.is_zero() { 0 } else { extent.length };
        at += extent.length;
    }
    Ok(data)
}
