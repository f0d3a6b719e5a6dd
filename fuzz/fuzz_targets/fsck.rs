//! The checker over a small volume (`test-images/check/tiny.raw.xz`) whose metadata blocks are changed with their
//! fix-ups recomputed, so that the damage gets past the first look.
//!
//! Input: groups of 6 bytes: which block (2), where in it (2), new value (1), whether the fix-ups are put right (1).
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::RecordNumber;
use winject::internals::ntfs::check::{CheckOptions, check, check_touched};
use winject::internals::ntfs::fixup;

type Blocks = Vec<(usize, usize, [u8; 4])>;

fn volume() -> &'static (Vec<u8>, Blocks) {
    static VOLUME: OnceLock<(Vec<u8>, Blocks)> = OnceLock::new();
    VOLUME.get_or_init(|| {
        let mut bytes = Vec::new();
        lzma_rs::xz_decompress(&mut &include_bytes!("../../test-images/check/tiny.raw.xz")[..], &mut bytes).unwrap();
        let mut blocks = vec![(0, 512, [0; 4])];
        for at in (0..bytes.len()).step_by(1024) {
            match &bytes[at..at + 4] {
                b"FILE" => blocks.push((at, 1024, fixup::FILE)),
                b"INDX" => blocks.push((at, 4096, fixup::INDX)),
                _ => {}
            }
        }
        (bytes, blocks)
    })
}

fuzz_target!(|input: &[u8]| {
    let (bytes, blocks) = volume();
    let mut bytes = bytes.clone();
    for group in input.chunks_exact(6).take(16) {
        let (at, size, magic) = blocks[usize::from(u16::from_le_bytes([group[0], group[1]])) % blocks.len()];
        let block = &mut bytes[at..at + size];
        let deep = group[5] != 0 && fixup::unseal(block, magic).is_ok();
        block[usize::from(u16::from_le_bytes([group[2], group[3]])) % size] = group[4];
        if deep {
            let _ = fixup::seal(block);
        }
    }
    let volume = MemoryVolume(bytes);
    let report = check(&volume, &CheckOptions::default()).unwrap();
    assert_eq!(report.is_clean(), report.errors == 0);
    let records: Vec<_> = input.iter().take(4).map(|&n| RecordNumber(n.into())).collect();
    let _ = check_touched(&volume, &records, &CheckOptions::default()).unwrap();
});
