//! Damages metadata blocks of the packed NTFS fixture, recomputes their fix-ups so that the damage gets past the first
//! check, and opens, walks and edits the volume.
//!
//! Input: repeated groups of 6 bytes: which block (2), where in it (2), new value (1), how (1).
#![no_main]

use std::io::Read;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use winject::internals::clock::FileTime;
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::{FileId, CreateOptions, OpenOptions, Volume, fixup};
use winject::internals::plan::verify::independent::IndependentVolume;

fn image() -> &'static (Vec<u8>, Vec<(usize, usize, [u8; 4])>) {
    static IMAGE: OnceLock<(Vec<u8>, Vec<(usize, usize, [u8; 4])>)> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let packed = include_bytes!("../../test-images/ntfs/small.img.gz");
        let mut image = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut image).unwrap();
        let mut volume = Volume::open(MemoryVolume(image), &OpenOptions::new(FileTime(1 << 56))).unwrap();
        let dir = volume.create_dir_all("/directory", &CreateOptions::default()).unwrap();
        for n in 0..90 {
            volume.create_file(dir, &format!("file {n} with a name"), &vec![n; 20 * n as usize], &CreateOptions::default()).unwrap();
        }
        volume.flush().unwrap();
        let image = volume.into_device().0;
        let mut blocks = vec![(0, 512, *b"BOOT")];
        for at in (0..image.len()).step_by(1024) {
            match &image[at..at + 4] {
                b"FILE" => blocks.push((at, 1024, fixup::FILE)),
                b"INDX" => blocks.push((at, 4096, fixup::INDX)),
                _ => {}
            }
        }
        (image, blocks)
    })
}

fuzz_target!(|input: &[u8]| {
    let (image, blocks) = image();
    let mut image = image.clone();
    for group in input.chunks_exact(6).take(16) {
        let number = usize::from(u16::from_le_bytes([group[0], group[1]])) % blocks.len();
        let (at, size, magic) = blocks[number];
        let block = &mut image[at..at + size];
        if fixup::unseal(block, magic).is_err() && magic != *b"BOOT" {
            continue;
        }
        let place = usize::from(u16::from_le_bytes([group[2], group[3]])) % size;
        block[place] = if group[5] & 1 == 0 { group[4] } else { block[place] ^ group[4] };
        let _ = fixup::seal(block);
    }
    let mut options = OpenOptions::new(FileTime(1 << 56));
    options.allow_dirty = true;
    let device = MemoryVolume(image);
    if let Ok(volume) = IndependentVolume::open(&device) {
        for path in ["/hello.txt", "/numbers.txt", "/directory/file 7 with a name", "/directory/none"] {
            let _ = volume.read(path, 1 << 20);
            let _ = volume.security(path);
        }
    }
    let Ok(mut volume) = Volume::open(device, &options) else { return };
    for entry in volume.entries(FileId::ROOT).unwrap_or_default() {
        let _ = volume.stat(entry.file);
        let _ = volume.read(entry.file, 1 << 20);
        let _ = volume.entries(entry.file);
    }
    let _ = volume.create_file(FileId::ROOT, "a new name", &[1; 2000], &CreateOptions::default());
    let _ = volume.delete("/directory/file 7 with a name");
    let _ = volume.replace_file("/numbers.txt", b"short", &CreateOptions::default());
    let _ = volume.rename("/hello.txt", "/directory/moved");
    let _ = volume.flush();
});
