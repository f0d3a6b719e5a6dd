//! A qcow2 file from an attacker: its facts, its check, its content, and an overlay over it.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use winject::internals::block::{Format, MemoryStorage, OpenOptions, formats::qcow2, open_storage};
use winject::internals::units::ImageOffset;

fuzz_target!(|data: &[u8]| {
    let path = Path::new("image.qcow2");
    let storage = Arc::new(MemoryStorage::new(data.to_vec()));
    let _ = qcow2::info_storage(storage.clone(), path);
    let _ = qcow2::check_storage(storage.clone(), path);
    let options = OpenOptions::default();
    let Ok(image) = open_storage(storage, path, Some(Format::Qcow2), &options) else { return };
    let size = image.len();
    let mut buffer = vec![0; 64 << 10];
    for offset in [0, size / 2, size.saturating_sub(64 << 10)] {
        let length = (size - offset).min(64 << 10) as usize;
        let _ = image.read_at(ImageOffset(offset), &mut buffer[..length]);
        if length > 0 {
            if let Ok(extent) = image.extent_at(ImageOffset(offset), size - offset) {
                assert!(extent.length > 0 && extent.length <= size - offset);
            }
        }
    }
});
