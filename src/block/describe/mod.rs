//! The content of `image info` and `image map`, in qemu-img's terms. `info` opens no file that an image names.

mod facts;
mod info;
mod map;

use std::path::Path;

use super::open::no_disk_to_choose;
use super::{ImageName, OpenOptions, ova, probe};
use crate::error::{Error, Layer, Result};

pub use info::{ImageInfo, SnapshotInfo, Specific};
pub use map::{MapEntry, map};

/// Reads the facts about the image file at `path` from its headers.
///
/// # Errors
/// When the file cannot be read, is not an image of a known format, or its header is damaged.
pub fn info(path: &Path, options: &OpenOptions) -> Result<ImageInfo> {
    let storage = ImageName::of(path).open(options.locking, &options.nbd)?;
    let actual_size = blocks(path);
    let name = path.display().to_string();
    let mut info = if options.format.is_none() && ova::is_ova(storage.as_ref()) {
        facts::ova(&storage, path, options)
    } else {
        let format = options.format.map_or_else(|| probe::probe(storage.as_ref(), path), Ok)?;
        let facts = facts::of(&storage, path, format);
        facts.and_then(|facts| if options.disk.is_none() { Ok(facts) } else { Err(no_disk_to_choose(path)) })
    }
    .map_err(|e| e.path(&name))?;
    info.filename = name;
    info.actual_size = actual_size;
    Ok(info)
}

/// What the host has allocated for the file; `None` for an NBD export.
fn blocks(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let ImageName::File(path) = ImageName::of(path) else { return None };
    Some(path.metadata().map_or(0, |m| m.blocks() * 512))
}

/// Checks an image of a format without a check of its own: walks every table, and refuses stored offsets beyond the end
/// of the file. Returns the number of bytes of data.
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
