//! Hostile volumes: bytes of the metadata are changed, and the volume is opened, walked and edited. Nothing may panic
//! or hang, and when an edit succeeds, foreign readers see of what it touched what we see.

use std::io::{Read, Seek, SeekFrom};
use std::process::Command;

use winject::Result;
use winject::internals::io::{MemoryVolume, VolumeRead, VolumeWrite};
use winject::internals::ntfs::attribute::AttributeType;
use winject::internals::ntfs::record::Record;
use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, RecordNumber, Volume, fixup};
use winject::internals::units::VolumeOffset;

use super::model::Random;
use super::volume::clock;
use crate::support;

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

/// Everything that [`exercise`] may touch.
const PATHS: [&str; 6] = [
    "/a new name",
    "/directory/file 7 with a name",
    "/numbers.txt",
    "/hello.txt",
    "/directory/moved",
    "/directory/file 11 with a name",
];

/// Opens, walks and edits; errors are welcome. Returns the volume and the paths that were touched.
fn exercise(device: Mutant<'_>) -> Result<(Mutant<'_>, Vec<&'static str>)> {
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
    let [new, deleted, replaced, from, to, written] = PATHS;
    let mut touched = Vec::new();
    let mut note = |is_done: bool, paths: &[&'static str]| {
        if is_done {
            touched.extend_from_slice(paths);
        }
    };
    note(volume.create_file(FileId::ROOT, &new[1..], &[1; 2000], &CreateOptions::default()).is_ok(), &[new]);
    note(volume.delete(deleted).is_ok(), &[deleted]);
    note(volume.replace_file(replaced, b"now resident", &CreateOptions::default()).is_ok(), &[replaced]);
    note(volume.rename(from, to).is_ok(), &[from, to]);
    if let Some(file) = volume.find(written)? {
        note(volume.overwrite(file, &[7; 5000]).is_ok(), &[written]);
        let _ = volume.write_stream(file, "s", &[8; 700]);
    }
    volume.flush()?;
    Ok((volume.into_device(), touched))
}

/// What a reader finds at a path: nothing, a directory, or a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Nothing,
    Directory,
    Content(Vec<u8>),
}

const READ_MOST: u64 = 1 << 20;

fn found_by_us(volume: &Volume<Mutant<'_>>, path: &str) -> Result<Found> {
    let Some(file) = volume.find(path)? else { return Ok(Found::Nothing) };
    Ok(if volume.stat(file)?.is_dir { Found::Directory } else { Found::Content(volume.read(file, READ_MOST)?) })
}

/// A volume as a stream. What a damaged volume makes a reader read is bounded.
struct Stream<'a> {
    volume: &'a Mutant<'a>,
    at: u64,
    left: u32,
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.left = self.left.checked_sub(1).ok_or_else(|| std::io::Error::other("the reader does not end"))?;
        let count = buf.len().min(self.volume.len().saturating_sub(self.at) as usize);
        self.volume.read_at(VolumeOffset(self.at), &mut buf[..count]).map_err(std::io::Error::other)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Stream<'_> {
    fn seek(&mut self, pos: SeekFrom) -> std::io::Result<u64> {
        let at = match pos {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
            SeekFrom::End(n) => self.volume.len().checked_add_signed(n),
        };
        self.at = at.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// What the crate `ntfs` finds at each path, looking names up from the root; `None` where it gives up.
fn found_by_crate(volume: &Mutant<'_>, paths: &[&'static str]) -> Vec<Option<Found>> {
    let look = || {
        let mut stream = Stream { volume, at: 0, left: 20_000 };
        let mut ntfs = ntfs::Ntfs::new(&mut stream).ok()?;
        ntfs.read_upcase_table(&mut stream).ok()?;
        Some(paths.iter().map(|path| find_by_crate(&ntfs, &mut stream, path)).collect())
    };
    // its arithmetic is not made for hostile volumes
    std::panic::catch_unwind(look).ok().flatten().unwrap_or_else(|| vec![None; paths.len()])
}

fn find_by_crate(ntfs: &ntfs::Ntfs, stream: &mut Stream<'_>, path: &str) -> Option<Found> {
    let mut file = ntfs.root_directory(stream).ok()?;
    for name in path.split('/').skip(1) {
        let index = file.directory_index(stream).ok()?;
        let mut finder = index.finder();
        let entry = match ntfs::indexes::NtfsFileNameIndex::find(&mut finder, ntfs, stream, name) {
            None => return Some(Found::Nothing),
            Some(entry) => entry.ok()?,
        };
        let reference = entry.file_reference();
        let child = reference.to_file(ntfs, stream).ok()?;
        if child.sequence_number() != reference.sequence_number() {
            return None;
        }
        file = child;
    }
    if file.is_directory() {
        return Some(Found::Directory);
    }
    let item = file.data(stream, "")?.ok()?;
    let attribute = item.to_attribute().ok()?;
    if attribute.value_length() > READ_MOST {
        return None;
    }
    let mut content = Vec::new();
    attribute.value(stream).ok()?.attach(stream).read_to_end(&mut content).ok()?;
    Some(Found::Content(content))
}

/// The fixture with a directory that has index blocks, a fragmented file and a few more shapes.
fn rich() -> Vec<u8> {
    let mut volume = Volume::open(MemoryVolume(support::volumes::small_volume()), &OpenOptions::new(clock())).unwrap();
    let dir = volume.create_dir_all("/directory", &CreateOptions::default()).unwrap();
    for n in 0..90 {
        volume
            .create_file(dir, &format!("file {n} with a name"), &vec![n; 20 * n as usize], &CreateOptions::default())
            .unwrap();
    }
    let file = volume.find("/hello.txt").unwrap().unwrap();
    for n in 0..12 {
        volume.write_stream(file, &format!("stream number {n}"), &[n; 60]).unwrap();
    }
    volume.link(file, dir, "another name of hello").unwrap();
    volume.flush().unwrap();
    volume.into_device().0
}

/// What became of the mutants.
#[derive(Debug, Default, Clone)]
struct Outcome {
    edited: u64,
    refused: u64,
    /// Paths that an edit touched, and of those the ones that the crate could read before and after.
    touched: u64,
    compared: u64,
    /// Edited volumes for readers that need a file.
    samples: Vec<Sample>,
}

/// An edited mutant: its bytes before and after, and what the crate read.
#[derive(Debug, Clone)]
struct Sample {
    before: Vec<u8>,
    after: Vec<u8>,
    seen: Vec<(&'static str, Found)>,
}

/// One block of the image with a few bytes changed, its fix-ups put right.
fn mutate(image: &[u8], (at, size, magic): (usize, usize, [u8; 4]), random: &mut Random) -> Vec<u8> {
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
    block
}

/// Tries `rounds` mutants.
fn mutants(image: &[u8], blocks: &[(usize, usize, [u8; 4])], seed: u64, rounds: u64) -> Outcome {
    let mut random = Random::new(seed);
    let mut outcome = Outcome::default();
    for round in 0..rounds {
        let target = blocks[random.below(blocks.len() as u64) as usize];
        let mut mutant = Mutant { base: image, changed: std::collections::BTreeMap::new() };
        mutant.write_at(VolumeOffset(target.0 as u64), &mutate(image, target, &mut random)).unwrap();
        let before = Mutant { base: image, changed: mutant.changed.clone() };
        match exercise(mutant) {
            Ok((after, touched)) => {
                outcome.edited += 1;
                compare(
                    &before,
                    &after,
                    touched,
                    &mut outcome,
                    &format!("seed {seed}, round {round}, block {target:x?}"),
                );
            }
            Err(_) => outcome.refused += 1,
        }
    }
    outcome
}

/// The crate reads what was touched as we do, unless it could not read it before either.
fn compare(before: &Mutant<'_>, after: &Mutant<'_>, touched: Vec<&'static str>, outcome: &mut Outcome, what: &str) {
    outcome.touched += touched.len() as u64;
    let copy = Mutant { base: after.base, changed: after.changed.clone() };
    let options = OpenOptions { allow_dirty: true, ..OpenOptions::new(clock()) };
    let volume =
        Volume::open(copy, &options).unwrap_or_else(|e| panic!("{what}: cannot be opened after the edit: {e}"));
    let foreign = found_by_crate(after, &touched);
    if foreign.iter().all(Option::is_none) {
        return;
    }
    let could = found_by_crate(before, &touched);
    let mut seen = Vec::new();
    for ((path, theirs), before) in touched.into_iter().zip(foreign).zip(could) {
        let (Some(theirs), Some(_)) = (theirs, before) else { continue };
        let ours =
            found_by_us(&volume, path).unwrap_or_else(|e| panic!("{what}: {path}: the crate reads it, we not: {e}"));
        assert!(ours == theirs, "{what}: {path}: we read {ours:.60?}, the crate {theirs:.60?}");
        outcome.compared += 1;
        seen.push((path, theirs));
    }
    if outcome.samples.len() < SAMPLES && !seen.is_empty() && outcome.edited % 50 == 1 {
        let bytes = |volume: &Mutant<'_>| {
            let mut bytes = vec![0; volume.len() as usize];
            volume.read_at(VolumeOffset(0), &mut bytes).unwrap();
            bytes
        };
        outcome.samples.push(Sample { before: bytes(before), after: bytes(after), seen });
    }
}

/// Edited mutants of each thread that ntfs-3g reads too.
const SAMPLES: usize = 20;

/// What ntfscat finds; `None` where it gives up.
fn found_by_ntfs_3g(folder: &std::path::Path, bytes: &[u8], path: &str) -> Option<Vec<u8>> {
    let image = folder.join("mutant.raw");
    std::fs::write(&image, bytes).unwrap();
    let output = Command::new(support::program("ntfscat")?).arg("-f").arg(&image).arg(&path[1..]).output().unwrap();
    output.status.success().then_some(output.stdout)
}

/// ntfs-3g reads the samples as the crate and we do; returns how many paths were compared.
fn judge_samples(samples: &[Sample]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for Sample { before, after, seen } in samples {
        // a volume that ntfs-3g does not take at all says nothing
        if found_by_ntfs_3g(folder.path(), before, "/directory/file 33 with a name").is_none() {
            continue;
        }
        for (path, expected) in seen {
            let theirs = found_by_ntfs_3g(folder.path(), after, path);
            match expected {
                Found::Content(content) => {
                    assert!(theirs.as_ref() == Some(content), "{path}: ntfs-3g reads {theirs:.60?}")
                }
                Found::Nothing | Found::Directory => assert_eq!(theirs, None, "{path}"),
            }
            compared += 1;
        }
    }
    compared
}

fn mutated_metadata_never_panics() {
    let image = rich();
    let mut blocks = metadata_blocks(&image);
    // records in use, and those alone, are worth the time; half of the mutants hit the first 24 and the index blocks
    blocks.retain(|&(at, _, magic)| magic != fixup::FILE || image[at + 0x16] & 1 == 1);
    let rounds = support::rounds(20_000, 70_000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let (image, blocks) = (&image, &blocks);
    let results: Vec<Outcome> = std::thread::scope(|scope| {
        let run = |n| scope.spawn(move || mutants(image, blocks, 99 + n, rounds / threads));
        let handles: Vec<_> = (0..threads).map(run).collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    let sum = |of: fn(&Outcome) -> u64| results.iter().map(of).sum::<u64>();
    println!(
        "{rounds} mutants: {} edited, {} refused; of {} touched paths the crate ntfs reads {} as we do",
        sum(|o| o.edited),
        sum(|o| o.refused),
        sum(|o| o.touched),
        sum(|o| o.compared)
    );
    assert!(sum(|o| o.edited) > 0 && sum(|o| o.refused) > 0);
    assert!(sum(|o| o.compared) > sum(|o| o.touched) / 2, "the crate reads too little to judge");
    if support::program("ntfscat").is_some() {
        let compared: u64 = results.iter().map(|o| judge_samples(&o.samples)).sum();
        println!(
            "ntfs-3g reads {compared} paths of {} samples as we do",
            results.iter().map(|o| o.samples.len()).sum::<usize>()
        );
        assert!(compared > 0);
    }
}

/// The image with one byte of a file's unnamed stream (its header included) changed.
fn with_data_changed(image: &[u8], file: FileId, place: usize, value: u8) -> Vec<u8> {
    let mut image = image.to_vec();
    let number = (file.record.0 as u32).to_le_bytes();
    let at = (0..image.len())
        .step_by(1024)
        .find(|&at| image[at..].starts_with(b"FILE") && image[at + 0x2C..at + 0x30] == number)
        .unwrap();
    let mut record = Record::parse(image[at..at + 1024].to_vec()).unwrap();
    let (offset, _) =
        record.attributes().find(|(_, a)| a.kind() == AttributeType::DATA && a.name().is_empty()).unwrap();
    record.bytes_mut()[offset + place] = value;
    image[at..at + 1024].copy_from_slice(&record.seal().unwrap());
    image
}

/// Two of a million mutants, which were edited so that other readers did not find what we find.
fn damage_that_readers_see_differently_is_refused() {
    let image = rich();
    let options = OpenOptions::new(clock());
    let hello = Volume::open(MemoryVolume(image.clone()), &options).unwrap().find("/hello.txt").unwrap().unwrap();
    // a stream that has no name in the attribute list has one in its record
    let mutant = with_data_changed(&image, hello, 9, 2);
    let mut volume = Volume::open(MemoryVolume(mutant), &options).unwrap();
    let error = volume.rename("/hello.txt", "/moved").unwrap_err();
    assert_eq!(error.kind(), winject::Kind::Damaged, "{error}");
    // the table by which names are sorted is read from elsewhere
    let upcase = FileId { record: RecordNumber::UPCASE, sequence: 0 };
    let mutant = with_data_changed(&image, upcase, 0x42, 0);
    let error = Volume::open(MemoryVolume(mutant.clone()), &options).unwrap_err();
    assert_eq!(error.kind(), winject::Kind::Damaged, "{error}");
    Volume::open(MemoryVolume(mutant), &OpenOptions::read_only()).unwrap();
}

fn the_fixture_works_without_any_tool() {
    let image = rich();
    let mut volume = Volume::open(MemoryVolume(image), &OpenOptions::new(clock())).unwrap();
    let file = volume.find("\\HELLO.TXT").unwrap().unwrap();
    assert_eq!(volume.read(file, 100).unwrap(), b"Hello from ntfscp\r\n");
    assert_eq!(volume.stat(file).unwrap().streams.len(), 12);
    let linked = volume.find("/directory/another name of hello").unwrap();
    assert_eq!(linked, Some(file));
    // replacing breaks the link: the other name keeps the old content
    volume.replace_file("/hello.txt", b"new", &CreateOptions::default()).unwrap();
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
    assert!(volume.create_file(FileId::ROOT, "a:b", b"", &CreateOptions::default()).is_err());
    assert!(volume.rename("/directory", "/directory/below").is_err());
    volume.rename("/directory", "/DIRECTORY").unwrap();
    assert!(volume.entries(FileId::ROOT).unwrap().iter().any(|e| e.name == "DIRECTORY"));
}

tests![
    mutated_metadata_never_panics,
    damage_that_readers_see_differently_is_refused,
    the_fixture_works_without_any_tool,
];
