//! VHD.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use winject::block::{Chain, Format, MemoryStorage, OpenOptions};
use winject::units::ImageOffset;

fuzz_target!(|data: &[u8]| {
    let storage = Arc::new(MemoryStorage::new(data.to_vec()));
    let options = OpenOptions::default();
    let format: Option<Format> = Some(Format::Vhd);
    let Ok(image) = Chain::new(&options).open_storage(storage, Path::new("fuzz"), format) else { return };
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
        // What is called zero reads as zeros.
        let shown = length.min(extent.length as usize);
        assert!(read.is_err() || !extent.kind.is_zero() || buf[..shown].iter().all(|b| *b == 0));
        at += extent.length;
    }
    assert!(image.read_at(ImageOffset(size), &mut buf[..1]).is_err());
});
