//! Random operation sequences against a model in memory, over the geometry matrix. After each sequence foreign judges
//! look at the volume, and foreign readers at the files.

use std::collections::BTreeMap;

use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::io::VolumeWrite;
use winject::internals::ntfs::security::Protected;
use winject::internals::ntfs::{CreateOptions, NtfsName, Times, Volume};

use super::geometry::{MATRIX, Matrix};
use super::volume::{Seen, Shape, TestVolume, clock, read_by_us, sum};
use crate::support;

const MIB: u64 = 1 << 20;

/// A small deterministic generator (xorshift), so that a seed names a sequence.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// A file of the model; hard links share one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelFile {
    content: Vec<u8>,
    streams: BTreeMap<String, Vec<u8>>,
    attributes: u32,
    created: FileTime,
    /// Known once it was set.
    security: Option<u32>,
}

impl ModelFile {
    fn new(content: Vec<u8>) -> Self {
        Self { content, streams: BTreeMap::new(), attributes: 0x20, created: clock(), security: None }
    }
}

/// What should be on the volume: path → directory, or number of a file.
#[derive(Debug, Default)]
pub struct Model {
    nodes: BTreeMap<String, Option<usize>>,
    files: Vec<ModelFile>,
}

impl Model {
    /// The content of every path, as the readers give it.
    fn contents(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        self.nodes.iter().map(|(path, node)| (path.clone(), node.map(|n| self.files[n].content.clone()))).collect()
    }

    fn directories(&self) -> Vec<String> {
        let dirs = self.nodes.iter().filter(|(_, n)| n.is_none()).map(|(p, _)| p.clone());
        std::iter::once(String::new()).chain(dirs).collect()
    }

    fn pick(&self, random: &mut Random, directory: bool) -> Option<String> {
        let paths: Vec<&String> = self.nodes.iter().filter(|(_, n)| n.is_none() == directory).map(|(p, _)| p).collect();
        (!paths.is_empty()).then(|| paths[random.below(paths.len() as u64) as usize].clone())
    }

    /// Whether a path exists, case ignored as Windows does for these characters.
    fn exists(&self, path: &str) -> bool {
        let upper = path.to_uppercase();
        self.nodes.keys().any(|p| p.to_uppercase() == upper)
    }

    fn add(&mut self, path: String, file: ModelFile) {
        self.files.push(file);
        self.nodes.insert(path, Some(self.files.len() - 1));
    }

    /// The file, and its number, behind a path that was picked.
    fn file_mut(&mut self, path: &str) -> &mut ModelFile {
        let number = self.nodes[path].unwrap();
        &mut self.files[number]
    }

    /// Moves a path and what lies below it.
    fn rename(&mut self, from: &str, to: &str) {
        let prefix = format!("{from}/");
        let moved: Vec<String> = self.nodes.keys().filter(|p| *p == from || p.starts_with(&prefix)).cloned().collect();
        let nodes: Vec<_> =
            moved.into_iter().map(|p| (format!("{to}{}", &p[from.len()..]), self.nodes.remove(&p))).collect();
        self.nodes.extend(nodes.into_iter().map(|(path, node)| (path, node.unwrap())));
    }

    fn is_empty_dir(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        !self.nodes.keys().any(|p| p.starts_with(&prefix))
    }
}

/// Names of all sorts: short, long, 8.3, other scripts, the longest there are.
fn name(random: &mut Random) -> String {
    let n = random.below(100_000);
    match random.below(14) {
        0 => format!("F{}.TXT", n % 1000),
        // long names that get one and the same short name, and names that are short names of others
        12 => format!("Collision of names {n}.text"),
        13 => format!("COLLIS~{}.TEX", 1 + n % 6),
        1 => format!("a name of middling length {n}.data"),
        2 => format!("{n}"),
        3 => format!("ÄÖÜ-{n}-ß.txt"),
        4 => format!("файл {n}"),
        5 => format!("𝔘𝔫𝔦 {n}"),
        6 => format!("{n:05}{}", "x".repeat(random.below(251) as usize)),
        7 => format!(".hidden{n}"),
        8 => format!("many.dots.in.{n}.name"),
        9 => format!("PROGRA~{}", 1 + n % 9),
        10 => format!("{n:05}{}", "Long".repeat(40 + random.below(20) as usize)),
        _ => format!("file{n:06}.bin"),
    }
}

fn content(random: &mut Random, most: u64) -> Vec<u8> {
    let length = match random.below(10) {
        0 => 0,
        1..=3 => random.below(200),
        4 => 400 + random.below(600),
        5..=7 => random.below(9000),
        8 => random.below(60_000),
        _ => random.below(400_000),
    };
    let length = length.min(most);
    random.bytes(length as usize)
}

/// Runs one operation on both. A refusal for want of space must leave the volume as it was; anything else is a failure.
pub fn step<D: VolumeWrite>(
    volume: &mut Volume<D>,
    model: &mut Model,
    random: &mut Random,
    most: u64,
) -> Result<(), winject::Error> {
    let how = CreateOptions::default();
    let dirs = model.directories();
    let dir = dirs[random.below(dirs.len() as u64) as usize].clone();
    let fresh = format!("{dir}/{}", name(random));
    let fresh_name = &fresh[dir.len() + 1..];
    // a name that is not in the model may still be the short name of another file
    let taken = volume.find(&fresh)?;
    match random.below(24) {
        0..=5 => {
            if model.exists(&fresh) {
                return Ok(());
            }
            let parent = volume.find(&dir)?.unwrap();
            let data = content(random, most);
            let result = volume.create_file(parent, fresh_name, &data, &how);
            if taken.is_some() {
                assert_eq!(result.unwrap_err().kind(), Kind::Refused);
                return Ok(());
            }
            result?;
            model.add(fresh, ModelFile::new(data));
        }
        6 => {
            if model.exists(&fresh) || taken.is_some() || dir.len() > 2000 {
                return Ok(());
            }
            volume.create_dir_all(&fresh, &how)?;
            model.nodes.insert(fresh, None);
        }
        7..=8 => {
            let Some(path) = model.pick(random, false) else { return Ok(()) };
            let data = content(random, most);
            volume.overwrite(volume.find(&path)?.unwrap(), &data)?;
            model.file_mut(&path).content = data;
        }
        9 => {
            // a few bytes in the middle change
            let Some(path) = model.pick(random, false) else { return Ok(()) };
            let mut data = model.file_mut(&path).content.clone();
            let at = random.below(data.len() as u64) as usize;
            let end = (at + 5).min(data.len());
            data[at..end].fill(0xEE);
            volume.overwrite(volume.find(&path)?.unwrap(), &data)?;
            model.file_mut(&path).content = data;
        }
        10..=11 => {
            let Some(path) = model.pick(random, false) else { return Ok(()) };
            let data = content(random, most);
            volume.replace_file(&path, &data, &how)?;
            // a new file: the other names keep the old one; security, attributes and creation time are taken over
            let old = model.file_mut(&path).clone();
            model.add(path, ModelFile { content: data, streams: BTreeMap::new(), ..old });
        }
        12..=14 => {
            let Some(path) = model.pick(random, false) else { return Ok(()) };
            volume.delete(&path)?;
            model.nodes.remove(&path);
        }
        15 => {
            let Some(path) = model.pick(random, true) else { return Ok(()) };
            let result = volume.delete(&path);
            if model.is_empty_dir(&path) {
                result?;
                model.nodes.remove(&path);
            } else {
                assert_eq!(result.unwrap_err().kind(), Kind::Refused);
            }
        }
        16..=17 => {
            let directory = random.below(4) == 0;
            let Some(from) = model.pick(random, directory) else { return Ok(()) };
            let inside = fresh.starts_with(&format!("{from}/"));
            let file = volume.find(&from)?;
            if model.exists(&fresh) {
                return Ok(());
            }
            let result = volume.rename(&from, &fresh);
            if inside || (taken.is_some() && taken != file) {
                assert_eq!(result.unwrap_err().kind(), Kind::Refused);
                return Ok(());
            }
            result?;
            model.rename(&from, &fresh);
        }
        18 => {
            let Some(path) = model.pick(random, false) else { return Ok(()) };
            if model.exists(&fresh) {
                return Ok(());
            }
            let file = volume.find(&path)?.unwrap();
            let parent = volume.find(&dir)?.unwrap();
            let result = volume.link(file, parent, fresh_name);
            if taken.is_some() {
                assert_eq!(result.unwrap_err().kind(), Kind::Refused);
                return Ok(());
            }
            result?;
            let number = model.nodes[&path];
            model.nodes.insert(fresh, number);
        }
        19 => {
            // a change of case only
            let directory = random.below(3) == 0;
            let Some(from) = model.pick(random, directory) else { return Ok(()) };
            let (parent, old) = from.rsplit_once('/').unwrap();
            let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            let to = format!("{parent}/{}", old.chars().map(swap).collect::<String>());
            volume.rename(&from, &to)?;
            model.rename(&from, &to);
        }
        20 => {
            let Some(path) = model.pick(random, false) else { return Ok(()) };
            let file = volume.find(&path)?.unwrap();
            let times = Times { created: FileTime((1 << 56) + random.next()), ..Times::all(FileTime(1 << 57)) };
            volume.set_times(file, &times)?;
            model.file_mut(&path).created = times.created;
        }
        21 => {
            let Some(path) = model.pick(random, false) else { return Ok(()) };
            // not the system bit: ntfs-3g shows short system files as pipes and sockets
            let attributes =
                random.below(4) as u32 | (0x20 * random.below(2) as u32) | (0x2000 * random.below(2) as u32);
            volume.set_attributes(volume.find(&path)?.unwrap(), attributes)?;
            model.file_mut(&path).attributes = attributes;
        }
        22 => {
            let Some(path) = model.pick(random, false) else { return Ok(()) };
            let which = if random.below(2) == 0 { Protected::Top } else { Protected::File };
            let id = volume.protected_security(which)?;
            volume.set_security(volume.find(&path)?.unwrap(), id)?;
            model.file_mut(&path).security = Some(id);
        }
        _ => {
            let Some(path) = model.pick(random, false) else { return Ok(()) };
            let stream = format!("stream {}", random.below(6));
            let file = volume.find(&path)?.unwrap();
            if random.below(3) == 0 && model.file_mut(&path).streams.contains_key(&stream) {
                volume.delete_stream(file, &stream.to_uppercase())?;
                model.file_mut(&path).streams.remove(&stream);
            } else {
                let data = content(random, most.min(20_000));
                volume.write_stream(file, &stream, &data)?;
                model.file_mut(&path).streams.insert(stream, data);
            }
        }
    }
    Ok(())
}

/// Many operations in one directory, so that its index grows over several levels, and goes again: returns how many.
pub fn burst<D: VolumeWrite>(
    volume: &mut Volume<D>,
    model: &mut Model,
    random: &mut Random,
) -> Result<u64, winject::Error> {
    let dirs = model.directories();
    let dir = dirs[random.below(dirs.len() as u64) as usize].clone();
    let mut done = 0;
    if random.below(3) == 0 {
        // everything goes that is directly in the directory, and the directory if nothing is left
        let inside = |p: &str| p.strip_prefix(&dir).is_some_and(|p| p.starts_with('/') && !p[1..].contains('/'));
        let files: Vec<String> =
            model.nodes.iter().filter(|(p, n)| n.is_some() && inside(p)).map(|(p, _)| p.clone()).collect();
        for path in files {
            volume.delete(&path)?;
            model.nodes.remove(&path);
            done += 1;
        }
        if !dir.is_empty() && model.is_empty_dir(&dir) {
            volume.delete(&dir)?;
            model.nodes.remove(&dir);
            done += 1;
        }
        return Ok(done);
    }
    for _ in 0..20 + random.below(60) {
        let path = format!("{dir}/{}", name(random));
        if model.exists(&path) || volume.find(&path)?.is_some() {
            continue;
        }
        let data = content(random, 1500);
        volume.create_file(volume.find(&dir)?.unwrap(), &path[dir.len() + 1..], &data, &CreateOptions::default())?;
        model.add(path, ModelFile::new(data));
        done += 1;
    }
    Ok(done)
}

/// The volume has what the model has, also in the named streams.
fn assert_same<D: VolumeWrite>(volume: &Volume<D>, model: &Model, what: &str) {
    assert!(read_by_us(volume) == model.contents(), "{what}: contents differ");
    for (path, node) in model.nodes.iter().filter_map(|(p, n)| n.map(|n| (p, n))) {
        let file = volume.find(path).unwrap().unwrap();
        let stat = volume.stat(file).unwrap();
        let expected = &model.files[node];
        assert_eq!((stat.attributes, stat.times.created), (expected.attributes, expected.created), "{what}: {path}");
        assert!(expected.security.is_none() || expected.security == stat.security, "{what}: {path}: {stat:?}");
        let mut streams: Vec<String> = stat.streams.iter().map(NtfsName::to_string).collect();
        streams.sort();
        assert_eq!(streams, expected.streams.keys().cloned().collect::<Vec<_>>(), "{what}: {path}");
        for (name, data) in &expected.streams {
            let mut buf = vec![0; data.len() + 1];
            assert_eq!(volume.read_at(file, name, 0, &mut buf).unwrap(), data.len());
            assert!(buf[..data.len()] == data[..], "{what}: {path}:{name}");
        }
    }
}

/// Foreign readers find what the model has: dissect everything, ntfs-3g and the crate `ntfs` names and contents.
pub fn assert_foreign(test: &TestVolume, model: &Model, cluster: u32, what: &str) {
    let contents = model.contents();
    let sums: BTreeMap<_, _> = contents.iter().map(|(p, c)| (p.clone(), c.as_ref().map(|c| sum(c)))).collect();
    if cluster <= 4096 {
        // the crate takes child VCNs of indexes for clusters also where a cluster is larger than an index block
        assert!(test.read_by_crate() == contents, "{what}: the crate ntfs reads something else");
    }
    if let Some(seen) = test.read_by_ntfs_3g() {
        assert!(seen == sums, "{what}: ntfs-3g reads something else");
    }
    let Some(seen) = test.read_by_dissect() else { return };
    let differs = |a: &String| seen.contains_key(a) != sums.contains_key(a);
    let names: Vec<&String> = seen.keys().chain(sums.keys()).filter(|a| differs(a)).collect();
    assert!(names.is_empty(), "{what}: dissect sees other names: {names:?}");
    assert_seen(&seen, model, what);
}

/// dissect finds the model's files on a volume that has other files too.
pub fn assert_foreign_files(test: &TestVolume, model: &Model, what: &str) {
    if let Some(seen) = test.read_by_dissect() {
        assert_seen(&seen, model, what);
    }
}

fn assert_seen(seen: &BTreeMap<String, Seen>, model: &Model, what: &str) {
    for (path, content) in model.contents() {
        let seen = seen.get(&path).unwrap_or_else(|| panic!("{what}: {path}: not seen by dissect"));
        assert_eq!(seen.sum, content.map(|c| sum(&c)), "{what}: {path}: dissect reads something else");
        let Some(number) = model.nodes[&path] else { continue };
        let file = &model.files[number];
        let streams: BTreeMap<_, _> = file.streams.iter().map(|(name, data)| (name.clone(), sum(data))).collect();
        assert_eq!(seen.streams, streams, "{what}: {path}: streams by dissect");
        assert_eq!((seen.attributes, seen.created), (file.attributes, file.created), "{what}: {path}: by dissect");
        assert!(file.security.is_none_or(|id| id == seen.security), "{what}: {path}: {:#x}", seen.security);
    }
}

/// How much was done.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    sequences: u64,
    done: u64,
    refused: u64,
}

impl Count {
    fn take<T>(&mut self, result: Result<T, winject::Error>, what: &str) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(e) if e.kind() == Kind::Refused => {
                self.refused += 1;
                None
            }
            Err(e) => panic!("{what}: {e}"),
        }
    }
    fn print(self, what: &str) {
        println!(
            "{what}: {} sequences, {} operations, {} refused for want of space",
            self.sequences, self.done, self.refused
        );
    }
}

/// One sequence over a volume that has what the model has; the volume is opened anew in its middle.
fn sequence(
    test: &TestVolume,
    geometry: Matrix,
    seed: u64,
    (steps, most): (u64, u64),
    model: &mut Model,
    count: &mut Count,
) {
    let mut random = Random::new(seed);
    for half in 0..2 {
        let what = format!("seed {seed}, half {half}");
        let mut volume = test.open();
        for number in 0..steps / 2 {
            if number % 25 == 12 {
                let result = burst(&mut volume, model, &mut random);
                count.done += count.take(result, &what).unwrap_or(0);
            } else {
                let result = step(&mut volume, model, &mut random, most);
                count.done += u64::from(count.take(result, &what).is_some());
            }
        }
        volume.flush().unwrap();
        test.assert_clean(&what);
        assert_same(&volume, model, &what);
    }
    let what = format!("seed {seed}");
    assert_same(&test.open(), model, &format!("{what}, read again"));
    assert_foreign(test, model, geometry.shape.cluster, &what);
    test.assert_judges(geometry.judges(), &what);
    count.sequences += 1;
}

fn random_sequences_over_the_geometry_matrix() {
    let mut count = Count::default();
    for round in 0..support::rounds(1, 2) {
        for (number, geometry) in MATRIX.iter().enumerate() {
            let Some(test) = geometry.make() else { return };
            let seed = round * 100 + number as u64;
            sequence(&test, *geometry, seed, (200, 400_000), &mut Model::default(), &mut count);
        }
    }
    count.print(&format!("{} geometries", MATRIX.len()));
}

fn random_sequences_on_tiny_and_nearly_full_volumes() {
    let mut count = Count::default();
    for seed in 0..support::rounds(4, 8) {
        let (cluster, record) = [(512, 1024), (1024, 4096), (4096, 1024), (512, 4096)][seed as usize % 4];
        let geometry = Matrix { shape: Shape { size: 3 * MIB, cluster, sector: 512 }, record };
        let Some(test) = geometry.make() else { return };
        sequence(&test, geometry, 1000 + seed, (500, 150_000), &mut Model::default(), &mut count);
    }
    count.print("tiny volumes");
    assert!(count.refused > 0, "no volume became full");
}

/// A volume on which every second piece is taken, and what is on it.
fn fragmented(geometry: Matrix) -> Option<(TestVolume, Model)> {
    let test = geometry.make()?;
    let mut model = Model::default();
    let mut volume = test.open();
    let dir = volume.create_dir_all("/fillers", &CreateOptions::default()).unwrap();
    model.nodes.insert("/fillers".into(), None);
    let mut made = 0u64;
    loop {
        let data = vec![made as u8; geometry.shape.cluster.max(geometry.record) as usize];
        if volume.create_file(dir, &format!("{made}"), &data, &CreateOptions::default()).is_err() {
            break;
        }
        model.add(format!("/fillers/{made}"), ModelFile::new(data));
        made += 1;
    }
    for n in (0..made).step_by(2) {
        volume.delete(&format!("/fillers/{n}")).unwrap();
        model.nodes.remove(&format!("/fillers/{n}"));
    }
    volume.forget_freed().unwrap();
    Some((test, model))
}

fn random_sequences_on_fragmented_volumes() {
    let mut count = Count::default();
    let shapes = [(4, 1024, 1024), (6, 4096, 1024), (6, 2048, 4096), (4, 512, 1024)];
    for seed in 0..support::rounds(2, 4) {
        let (size, cluster, record) = shapes[seed as usize % shapes.len()];
        let geometry = Matrix { shape: Shape { size: size * MIB, cluster, sector: 512 }, record };
        let Some((test, mut model)) = fragmented(geometry) else { return };
        sequence(&test, geometry, 2000 + seed, (200, 400_000), &mut model, &mut count);
    }
    count.print("fragmented volumes");
}

fn the_same_operations_give_the_same_bytes() {
    let run = || {
        let test = TestVolume::make(Shape { size: 16 * MIB, cluster: 4096, sector: 512 })?;
        // what mkntfs draws at random and its clock: the same for both
        let fixed = std::fs::read(&test.path).unwrap();
        Some(fixed)
    };
    let Some(start) = run() else { return };
    let bytes = |_: u8| {
        let mut random = Random::new(5);
        let mut model = Model::default();
        let options = winject::internals::ntfs::OpenOptions::new(clock());
        let mut volume = Volume::open(winject::internals::io::MemoryVolume(start.clone()), &options).unwrap();
        for _ in 0..100 {
            let _ = step(&mut volume, &mut model, &mut random, 50_000);
        }
        volume.flush().unwrap();
        volume.into_device().0
    };
    assert!(bytes(0) == bytes(1));
}

tests![
    random_sequences_over_the_geometry_matrix,
    random_sequences_on_tiny_and_nearly_full_volumes,
    random_sequences_on_fragmented_volumes,
    the_same_operations_give_the_same_bytes,
];
