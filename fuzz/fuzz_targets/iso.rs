//! ISO 9660 and UDF: every listed file can be read, and lies inside the image.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::io::MemoryVolume;
use winject::internals::iso::{Iso, trees};

fuzz_target!(|data: &[u8]| {
    let image = MemoryVolume(data.to_vec());
    for tree in trees(&image).unwrap_or_default() {
        let Ok(iso) = Iso::open_tree(image.clone(), tree) else { continue };
        for file in iso.files() {
            if let Ok(content) = iso.read(file, 1 << 20) {
                assert_eq!(content.len() as u64, file.size);
            }
        }
    }
});
