//! The reader that verification uses, on every layout that NTFS allows: it sees what foreign readers and our own see.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use winject::internals::error::Kind;
use winject::internals::io::{MemoryVolume, VolumeRead};
use winject::internals::ntfs::security::Protected;
use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, Security, Volume, fixup};
use winject::internals::plan::verify::independent::{Found, IndependentVolume};
use winject::internals::units::VolumeOffset;

use super::geometry::MATRIX;
use super::large::fragmented;
use super::model::Random;
use super::volume::{clock, read_by_us, sum};
use crate::support;

const LIMIT: u64 = 1 << 30;

/// Every path is found, under another case too, with this content; returns how many there were.
fn assert_sees(device: &dyn VolumeRead, wanted: &BTreeMap<String, Option<Vec<u8>>>, what: &str) -> usize {
    let volume = IndependentVolume::open(device).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (path, content) in wanted {
        let fail = |e: winject::Error| format!("{what}: {path}: {e}");
        match content {
            None => assert_eq!(volume.find(path).map_err(fail).unwrap(), Some(Found::Folder), "{what}: {path}"),
            Some(content) => {
                assert_eq!(volume.holds(path, content).map_err(fail).unwrap(), Some(true), "{what}: {path}");
                let found = volume.read(path, LIMIT).unwrap();
                assert!(found.as_ref() == Some(content), "{what}: {path}");
                let mut other = content.clone();
                other.push(0);
                assert_eq!(volume.holds(path, &other).unwrap(), Some(false), "{what}: {path}");
            }
        }
        assert_eq!(volume.record(&path.to_ascii_uppercase()).unwrap(), volume.record(path).unwrap(), "{what}: {path}");
        assert_eq!(volume.find(&format!("{path} gone")).unwrap(), None, "{what}: {path}");
    }
    let paths: Vec<String> = wanted.keys().cloned().collect();
    volume.compare_with_third_opinion(&paths).unwrap_or_else(|e| panic!("{what}: {e}"))
}

/// Files of many sizes in a folder with index blocks, streams that need an attribute list, a hard link.
fn fill<D: winject::internals::io::VolumeWrite>(volume: &mut Volume<D>) {
    let dir = volume.create_dir_all("/Folder/Größe", &CreateOptions::default()).unwrap();
    for n in 0..150usize {
        let content = vec![n as u8; n * n % 7001];
        volume.create_file(dir, &format!("file {n} with a name"), &content, &CreateOptions::default()).unwrap();
    }
    let file = volume.create_file(dir, "many streams", b"unnamed", &CreateOptions::default()).unwrap();
    for n in 0..40u8 {
        volume.write_stream(file, &format!("stream number {n}"), &[n; 300]).unwrap();
    }
    volume.link(file, FileId::ROOT, "another name").unwrap();
    let id = volume.protected_security(Protected::File).unwrap();
    let how = CreateOptions { security: Security::Id(id), ..CreateOptions::default() };
    volume.create_file(dir, "protected", b"x", &how).unwrap();
    volume.flush().unwrap();
}

fn every_geometry_is_read() {
    for geometry in MATRIX {
        let Some(test) = geometry.make() else { return };
        let what = format!("{geometry:?}");
        let mut volume = test.open();
        fill(&mut volume);
        let wanted = read_by_us(&volume);
        let device = test.device();
        let opinions = assert_sees(&device, &wanted, &what);
        if geometry.shape.cluster <= 4096 && geometry.shape.sector == 512 {
            assert!(opinions > 100, "{what}: the crate had {opinions} opinions");
        }
        let volume = IndependentVolume::open(&device).unwrap();
        for n in 0..40u8 {
            let stream = volume.read_stream("/another name", &format!("STREAM number {n}"), LIMIT).unwrap();
            assert_eq!(stream, Some(vec![n; 300]), "{what}");
        }
        let security = volume.security("/Folder/Größe/protected").unwrap();
        assert_eq!(security, Some(Protected::File.descriptor()), "{what}");
        if let Some(foreign) = test.read_by_dissect() {
            for (path, content) in wanted.iter().filter(|(path, _)| !path.contains("many streams")) {
                let Some(content) = content else { continue };
                assert_eq!(foreign.get(path).and_then(|seen| seen.sum), Some(sum(content)), "{what}: {path}");
            }
        }
    }
}

fn files_in_thousands_of_pieces_are_read() {
    let Some(test) = fragmented(40 << 20, 1024) else { return };
    let mut volume = test.open();
    // in pieces of one cluster: several records for one stream
    volume.create_file(FileId::ROOT, "split", &pattern(3 << 20), &CreateOptions::default()).unwrap();
    let dir = volume.create_dir_all("/many", &CreateOptions::default()).unwrap();
    for n in 0..2500 {
        volume.create_file(dir, &format!("small {n}"), b"resident", &CreateOptions::default()).unwrap();
    }
    volume.flush().unwrap();
    let mut wanted = read_by_us(&test.open());
    wanted.retain(|path, _| path.starts_with("/many") || path == "/split");
    let opinions = assert_sees(&test.device(), &wanted, "split");
    assert!(opinions < wanted.len(), "the crate is said to read files in several records: {opinions}");
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 1024) as u8 ^ n as u8).collect()
}

fn volumes_by_windows_are_read() {
    let volumes = [
        ("ntfs/dfvfs-ntfs.raw.xz", 0),
        ("ntfs/ntfs-2m.raw.gz", 65536),
        ("ntfs/ntfs-lastaccess.raw.gz", 65536),
        ("ntfs/ntfs-ptrn.raw.gz", 65536),
    ];
    for (file, start) in volumes {
        let Some(bytes) = support::corpus_bytes(file) else { return };
        let device = MemoryVolume(bytes[start..].to_vec());
        let wanted = read_by_us(&Volume::open(device.clone(), &OpenOptions::read_only()).unwrap());
        assert!(!wanted.is_empty());
        assert_sees(&device, &wanted, file);
    }
}

/// Compressed and sparse files among others; on a bare machine too.
fn the_fixture_of_the_checker_is_read() {
    let device = MemoryVolume(fixture());
    let volume = Volume::open(device.clone(), &OpenOptions::read_only()).unwrap();
    assert_sees(&device, &read_by_us(&volume), "fixture");
}

fn fixture() -> Vec<u8> {
    let packed = std::fs::read(support::root().join("test-images/check/volume.raw.xz")).unwrap();
    let mut out = Vec::new();
    lzma_rs::xz_decompress(&mut &packed[..], &mut out).unwrap();
    out
}

fn damaged_volumes_are_errors() {
    let mut volume = Volume::open(MemoryVolume(fixture()), &OpenOptions::new(clock())).unwrap();
    fill(&mut volume);
    let paths: Vec<String> = read_by_us(&volume).into_keys().collect();
    let sound = volume.into_device().0;
    let mut blocks = vec![(0, 512, *b"BOOT")];
    for at in (0..sound.len() - 4096).step_by(1024) {
        match &sound[at..at + 4] {
            b"FILE" if sound[at + 0x16] & 1 == 1 => blocks.push((at, 1024, fixup::FILE)),
            b"INDX" => blocks.push((at, 4096, fixup::INDX)),
            _ => {}
        }
    }
    let mut random = Random::new(15);
    let (mut refused, mut bytes) = (0, sound.clone());
    for _ in 0..support::rounds(1500, 7_000) {
        let (at, size, magic) = blocks[random.below(blocks.len() as u64) as usize];
        let mut block = sound[at..at + size].to_vec();
        if magic != *b"BOOT" {
            fixup::unseal(&mut block, magic).unwrap();
        }
        for _ in 0..=random.below(3) {
            let place = random.below(size.min(600) as u64) as usize;
            block[place] = [random.next() as u8, 0, 0xFF, 0x7F, 0x80][random.below(5) as usize];
        }
        if magic != *b"BOOT" {
            let _ = fixup::seal(&mut block);
        }
        bytes[at..at + size].copy_from_slice(&block);
        let device = MemoryVolume(std::mem::take(&mut bytes));
        if let Err(error) = look_at(&device, &paths) {
            assert!(matches!(error.kind(), Kind::Damaged | Kind::Unsupported), "{error}");
            refused += 1;
        }
        bytes = device.0;
        bytes[at..at + size].copy_from_slice(&sound[at..at + size]);
    }
    assert!(refused > 50, "{refused}");
}

fn look_at(device: &MemoryVolume, paths: &[String]) -> winject::Result<()> {
    let volume = IndependentVolume::open(device)?;
    for path in paths.iter().step_by(7) {
        volume.read(path, 1 << 20)?;
        volume.read_stream(path, "stream number 7", 1 << 20)?;
        volume.security(path)?;
    }
    Ok(())
}

/// Counts the bytes that are read, and the blocks that they come from.
struct CountingVolume {
    volume: MemoryVolume,
    bytes_read: Cell<u64>,
    blocks: RefCell<BTreeSet<u64>>,
}

impl CountingVolume {
    /// Unit in which needed bytes are counted: the reader's cache reads no less.
    const BLOCK: u64 = 16 << 10;
}

impl VolumeRead for CountingVolume {
    fn len(&self) -> u64 {
        self.volume.len()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> winject::Result<()> {
        let length = buf.len() as u64;
        self.bytes_read.set(self.bytes_read.get() + length);
        self.blocks.borrow_mut().extend(offset.0 / Self::BLOCK..(offset.0 + length).div_ceil(Self::BLOCK));
        self.volume.read_at(offset, buf)
    }
}

fn no_block_is_read_over_and_over() {
    let mut volume = Volume::open(MemoryVolume(fixture()), &OpenOptions::new(clock())).unwrap();
    fill(&mut volume);
    let wanted = read_by_us(&volume);
    let volume =
        CountingVolume { volume: volume.into_device(), bytes_read: Cell::default(), blocks: RefCell::default() };
    let reader = IndependentVolume::open(&volume).unwrap();
    for (path, content) in &wanted {
        if let Some(content) = content {
            assert_eq!(reader.holds(path, content).unwrap(), Some(true), "{path}");
        }
    }
    let paths: Vec<String> = wanted.into_keys().collect();
    assert!(reader.compare_with_third_opinion(&paths).unwrap() > 100);
    let needed = volume.blocks.borrow().len() as u64 * CountingVolume::BLOCK;
    let read = volume.bytes_read.get();
    // Both readers read the 128 KiB of `$UpCase`; pieces of files from 64 KiB on go past the cache, which may hold the
    // blocks at their ends, too.
    assert!(read <= needed + needed / 10, "{read} bytes are read where {needed} are needed");
}

tests![
    no_block_is_read_over_and_over,
    every_geometry_is_read,
    files_in_thousands_of_pieces_are_read,
    volumes_by_windows_are_read,
    the_fixture_of_the_checker_is_read,
    damaged_volumes_are_errors,
];
