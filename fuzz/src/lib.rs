//! What several targets do alike.

use std::path::Path;
use std::sync::Arc;

use winject::internals::block::{Format, MemoryStorage, OpenOptions, open_storage};
use winject::internals::units::ImageOffset;

/// Opens bytes as an image (of whatever format they show, without one) and reads it from the beginning: extents are inside
/// the disk and never empty, and what is called zero reads as zeros.
pub fn read_image(data: &[u8], format: Option<Format>) {
    let storage = Arc::new(MemoryStorage::new(data.to_vec()));
    let options = OpenOptions::default();
    let Ok(image) = open_storage(storage, Path::new("fuzz"), format, &options) else { return };
    let size = image.len();
    let mut buf = [0; 8192];
    let mut at = 0;
    for _ in 0..16 {
        if at >= size {
            break;
        }
        let length = buf.len().min((size - at) as usize);
        let read = image.read_at(ImageOffset(at), &mut buf[..length]);
        let Ok(extent) = image.extent_at(ImageOffset(at), size - at) else { break };
        assert!(extent.length > 0 && extent.length <= size - at);
        let shown = length.min(extent.length as usize);
        assert!(read.is_err() || !extent.kind.is_zero() || buf[..shown].iter().all(|b| *b == 0));
        at += extent.length;
    }
    assert!(image.read_at(ImageOffset(size), &mut buf[..1]).is_err());
}
