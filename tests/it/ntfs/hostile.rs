//! Hostile volumes: bytes of the metadata are changed, and the volume is opened, walked and edited. Nothing may panic
//! or hang.

use std::io::Read;

use winject::Result;
use winject::io::{MemoryVolume, VolumeRead, VolumeWrite};
use winject::ntfs::{FileId, New, OpenOptions, Volume, fixup};
use winject::units::VolumeOffset;

use super::model::Random;
use super::volume::clock;
use crate::support;

/// The packed fixture: works without any tool installed.
fn fixture() -> Vec<u8> {
    let packed = std::fs::read(support::root().join("test-images/ntfs/small.img.gz")).unwrap();
    let mut image = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut image).unwrap();
    image
}

/// A volume with a few changed bytes over a shared image: nothing is copied for a mutant.
struct Mutant<'a> {
    base: &'a [u8],
    changed: std::collections::BTreeMap<u64, Vec<u8>>,
}

const PAGE: u64 = 4096;

impl VolumeRead for Mutant<'_> {
    fn len(&self) -> u64 {
        self.base.len() as u64
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        let start = offset.0 as usize;
        let range = self.base.get(start..start.saturating_add(buf.len()));
        let Some(bytes) = range else {
            return Err(winject::Error::damaged(winject::Layer::Block, "read outside the volume"));
        };
        buf.copy_from_slice(bytes);
        let end = offset.0 + buf.len() as u64;
        for (&page, content) in self.changed.range(offset.0 / PAGE * PAGE..end) {
            let from = page.max(offset.0);
            let to = (page + PAGE).min(end);
            if from < to {
                buf[(from - offset.0) as usize..(to - offset.0) as usize]
                    .copy_from_slice(&content[(from - page) as usize..(to - page) as usize]);
            }
        }
        Ok(())
    }
}

impl VolumeWrite for Mutant<'_> {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        let mut at = offset.0;
        let end = at + data.len() as u64;
        if end > self.len() {
            return Err(winject::Error::damaged(winject::Layer::Block, "write outside the volume"));
        }
        while at < end {
            let page = at / PAGE * PAGE;
            let stop = end.min(page + PAGE);
            let part = &data[(at - offset.0) as usize..(stop - offset.0) as usize];
            let base = &self.base;
            let content = self.changed.entry(page).or_insert_with(|| {
                let mut content = base[page as usize..(page + PAGE).min(base.len() as u64) as usize].to_vec();
                content.resize(PAGE as usize, 0);
                content
            });
            content[(at - page) as usize..(stop - page) as usize].copy_from_slice(part);
            at = stop;
        }
        Ok(())
    }
}

/// Blocks with metadata in the image: records and index blocks (with fix-ups), and the boot sector.
fn metadata_blocks(image: &[u8]) -> Vec<(usize, usize, [u8; 4])> {
    let mut blocks = vec![(0, 512, *b"BOOT")];
    for at in (0..image.len()).step_by(1024) {
        match &image[at..at + 4] {
            b"FILE" => blocks.push((at, 1024, fixup::FILE)),
            b"INDX" => blocks.push((at, 4096, fixup::INDX)),
            _ => {}
        }
    }
    blocks
}

/// Opens, walks and edits; errors are welcome.
fn exercise(device: Mutant<'_>) -> Result<()> {
    let options = OpenOptions { allow_dirty: true, ..OpenOptions::new(clock()) };
    let mut volume = Volume::open(device, &options)?;
    let mut stack = vec![FileId::ROOT];
    let mut visited = 0;
    while let Some(dir) = stack.pop() {
        for entry in volume.entries(dir).unwrap_or_default() {
            visited += 1;
            if visited > 64 {
                break;
            }
            if entry.is_dir {
                stack.push(entry.file);
            } else {
                let mut buf = [0; 1000];
                let _ = volume.read_at(entry.file, "", 0, &mut buf);
            }
            let _ = volume.stat(entry.file);
        }
    }
    let _ = volume.find("/directory/file 33 with a name");
    let _ = volume.create_file(FileId::ROOT, "a new name", &[1; 2000], &New::default());
    let _ = volume.delete("/directory/file 7 with a name");
    let _ = volume.replace_file("/numbers.txt", b"now resident", &New::default());
    let _ = volume.rename("/hello.txt", "/directory/moved");
    let file = volume.find("/directory/file 11 with a name")?;
    if let Some(file) = file {
        let _ = volume.overwrite(file, &[7; 5000]);
        let _ = volume.write_stream(file, "s", &[8; 700]);
    }
    volume.flush()
}

/// The fixture with a directory that has index blocks, a fragmented file and a few more shapes.
fn rich() -> Vec<u8> {
    let mut volume = Volume::open(MemoryVolume(fixture()), &OpenOptions::new(clock())).unwrap();
    let dir = volume.create_dir_all("/directory", &New::default()).unwrap();
    for n in 0..90 {
        volume.create_file(dir, &format!("file {n} with a name"), &vec![n; 20 * n as usize], &New::default()).unwrap();
    }
    let file = volume.find("/hello.txt").unwrap().unwrap();
    for n in 0..12 {
        volume.write_stream(file, &format!("stream number {n}"), &[n; 60]).unwrap();
    }
    volume.link(file, dir, "another name of hello").unwrap();
    volume.flush().unwrap();
    volume.into_device().0
}

/// Tries `rounds` mutants: how many could be opened and flushed, and how many not.
fn mutants(image: &[u8], blocks: &[(usize, usize, [u8; 4])], seed: u64, rounds: u64) -> (u64, u64) {
    let mut random = Random::new(seed);
    let (mut opened, mut failed) = (0u64, 0u64);
    for _ in 0..rounds {
        let (at, size, magic) = blocks[random.below(blocks.len() as u64) as usize];
        let mut block = image[at..at + size].to_vec();
        let sealed = magic == fixup::FILE || magic == fixup::INDX;
        if sealed {
            fixup::unseal(&mut block, magic).unwrap();
        }
        for _ in 0..=random.below(3) {
            let place = random.below(if sealed { 600.min(size as u64) } else { 0x54 }) as usize;
            block[place] = match random.below(4) {
                0 => random.next() as u8,
                1 => block[place] ^ (1 << random.below(8)),
                2 => [0, 1, 0x7F, 0x80, 0xFF, 8, 0x10, 0x18][random.below(8) as usize],
                _ => block[place].wrapping_add(if random.below(2) == 0 { 8 } else { 0xF8 }),
            };
        }
        if sealed && fixup::seal(&mut block).is_err() {
            block[..4].copy_from_slice(&magic);
        }
        let mut mutant = Mutant { base: image, changed: std::collections::BTreeMap::new() };
        mutant.write_at(VolumeOffset(at as u64), &block).unwrap();
        match exercise(mutant) {
            Ok(()) => opened += 1,
            Err(_) => failed += 1,
        }
    }
    (opened, failed)
}

#[test]
fn mutated_metadata_never_panics() {
    let image = rich();
    let mut blocks = metadata_blocks(&image);
    // records in use, and those alone, are worth the time; half of the mutants hit the first 24 and the index blocks
    blocks.retain(|&(at, _, magic)| magic != fixup::FILE || image[at + 0x16] & 1 == 1);
    let rounds = support::rounds(20_000, 200_000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let (image, blocks) = (&image, &blocks);
    let results: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let run = |n| scope.spawn(move || mutants(image, blocks, 99 + n, rounds / threads));
        let handles: Vec<_> = (0..threads).map(run).collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    let (opened, failed) = results.into_iter().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!("{rounds} mutants: {opened} opened, {failed} refused");
    assert!(opened > 0 && failed > 0);
}

#[test]
fn the_fixture_works_without_any_tool() {
    let image = rich();
    let mut volume = Volume::open(MemoryVolume(image), &OpenOptions::new(clock())).unwrap();
    let file = volume.find("\\HELLO.TXT").unwrap().unwrap();
    assert_eq!(volume.read(file, 100).unwrap(), b"Hello from ntfscp\r\n");
    assert_eq!(volume.stat(file).unwrap().streams.len(), 12);
    let linked = volume.find("/directory/another name of hello").unwrap();
    assert_eq!(linked, Some(file));
    // replacing breaks the link: the other name keeps the old content
    volume.replace_file("/hello.txt", b"new", &New::default()).unwrap();
    assert_eq!(volume.read(file, 100).unwrap(), b"Hello from ntfscp\r\n");
    let new = volume.find("/hello.txt").unwrap().unwrap();
    assert_eq!(volume.read(new, 100).unwrap(), b"new");
    // overwriting keeps it
    volume.overwrite(file, b"in place").unwrap();
    assert_eq!(volume.read(file, 100).unwrap(), b"in place");
    volume.delete("/directory/another name of hello").unwrap();
    assert!(volume.stat(file).is_err());
    assert!(volume.delete("/directory").is_err());
    assert!(volume.delete("/$MFT").is_err());
    assert!(volume.create_file(FileId::ROOT, "a:b", b"", &New::default()).is_err());
    assert!(volume.rename("/directory", "/directory/below").is_err());
    volume.rename("/directory", "/DIRECTORY").unwrap();
    assert!(volume.entries(FileId::ROOT).unwrap().iter().any(|e| e.name == "DIRECTORY"));
}
