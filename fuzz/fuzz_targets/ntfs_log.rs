//! Damages the log of the packed unclean NTFS fixture, recomputes the fix-ups of its pages, and replays it. Whatever is
//! accepted must be replayed once only, and leave a closed log.
//!
//! Input: repeated groups of 5 bytes: which page (1), where in it (2), new value (1), how (1).
#![no_main]

use std::io::Read;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use winject::internals::error::Kind;
use winject::internals::io::{MemoryVolume, VolumeWrite};
use winject::internals::ntfs::fixup;
use winject::internals::ntfs::log::{PendingState, replay, summarize};

const PAGE: usize = 4096;

/// The volume, and where pages of its log that are in use lie.
fn image() -> &'static (Vec<u8>, Vec<usize>) {
    static IMAGE: OnceLock<(Vec<u8>, Vec<usize>)> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let packed = include_bytes!("../../test-images/ntfs/unclean.img.gz");
        let mut image = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut image).unwrap();
        let starts = (0..image.len()).step_by(512);
        let pages = starts.filter(|&at| matches!(&image[at..at + 4], b"RSTR" | b"RCRD")).collect();
        (image, pages)
    })
}

fuzz_target!(|input: &[u8]| {
    let (image, pages) = image();
    let mut image = image.clone();
    for group in input.chunks_exact(5).take(16) {
        let at = pages[usize::from(group[0]) % pages.len()];
        let page = &mut image[at..at + PAGE];
        let magic = *page.first_chunk().unwrap();
        let sealed = fixup::unseal(page, magic).is_ok();
        let place = usize::from(u16::from_le_bytes([group[1], group[2]])) % PAGE;
        page[place] = if group[4] & 1 == 0 { group[3] } else { page[place] ^ group[3] };
        if sealed {
            let _ = fixup::seal(page);
        }
    }
    let mut device = MemoryVolume(image);
    let summary = summarize(&device).unwrap();
    match replay(&device) {
        Err(e) => assert_eq!(e.kind(), Kind::Refused),
        Ok(replayed) => {
            assert!(!matches!(summary.state, PendingState::Unreadable(_)));
            for (at, data) in replayed.iter().flat_map(|replayed| replayed.overlay.writes()) {
                device.write_at(at, data).unwrap();
            }
            assert_eq!(replay(&device).unwrap(), None);
        }
    }
});
