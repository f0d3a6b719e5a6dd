//! Conversion of a disk made by the fuzzer: what our writer writes, our reader reads back.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use winject::internals::block::convert::{Compression, ConvertOptions, convert};
use winject::internals::block::{Format, MemoryStorage, OpenOptions, open, open_storage};
use winject::internals::units::ImageOffset;

fuzz_target!(|data: &[u8]| {
    let Some((choice, content)) = data.split_first() else { return };
    if content.is_empty() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let options = OpenOptions::default();
    let storage = Arc::new(MemoryStorage::new(content.to_vec()));
    let Ok(source) = open_storage(storage, Path::new("fuzz"), Some(Format::Raw), &options) else { return };
    let compression = [None, Some(Compression::Zlib), Some(Compression::Zstd)][usize::from(choice % 3)];
    let convert_options = ConvertOptions { compression, cluster_bits: 9 + u32::from(choice / 3) % 13, ..ConvertOptions::default() };
    convert(&*source, &out, &convert_options).unwrap();
    let written = open(&out, &options).unwrap();
    assert_eq!(written.len(), source.len());
    let (mut a, mut b) = (vec![0; source.len() as usize], vec![0; source.len() as usize]);
    source.read_at(ImageOffset(0), &mut a).unwrap();
    written.read_at(ImageOffset(0), &mut b).unwrap();
    assert!(a == b);
});
