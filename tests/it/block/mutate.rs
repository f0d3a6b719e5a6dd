//! Hostile qcow2 files: mutations of all metadata must neither panic, nor hang, nor take memory without bound.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use winject::internals::block::commit::{CommitOptions, on};
use winject::internals::block::{Format, Image, OpenOptions, formats::qcow2, open_storage};
use winject::internals::error::Kind;

use super::virtual_host::{Fault, Files, VirtualHost};
use super::*;
use crate::support::rounds;

const IMAGE: &str = "image";

/// An image and the ranges of its metadata.
struct Seed {
    name: &'static str,
    bytes: Vec<u8>,
    metadata: Vec<(usize, usize)>,
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn be32(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Where header, tables, refcounts, snapshots, bitmaps and compressed streams are.
fn metadata_of(bytes: &[u8]) -> Vec<(usize, usize)> {
    let cluster = 1usize << be32(bytes, 20);
    let mask = 0x00FF_FFFF_FFFF_FE00;
    let mut ranges = vec![(0, 112), (0, 112), (112, 300)];
    let mut tables = vec![(be64(bytes, 40) as usize, be32(bytes, 36))];
    let (snapshots, table) = (be32(bytes, 60), be64(bytes, 64) as usize);
    if snapshots > 0 {
        ranges.push((table, 80 * snapshots));
        tables.push((be64(bytes, table) as usize, be32(bytes, table + 8)));
    }
    for (l1, entries) in tables {
        ranges.push((l1, entries * 8));
        for index in 0..entries {
            let l2 = (be64(bytes, l1 + index * 8) & mask) as usize;
            if l2 != 0 {
                ranges.push((l2, cluster));
            }
        }
    }
    let refcounts = be64(bytes, 48) as usize;
    ranges.push((refcounts, 64));
    ranges.push(((be64(bytes, refcounts) & mask) as usize, cluster));
    if let Some(at) = bytes[..512].windows(8).position(|w| w == [0x23, 0x85, 0x28, 0x75, 0, 0, 0, 24]) {
        let directory = be64(bytes, at + 24) as usize;
        ranges.push((directory, 64));
        ranges.push((be64(bytes, directory) as usize, 64));
    }
    ranges.retain(|(start, length)| start + length <= bytes.len());
    ranges
}

fn seeds() -> Vec<Seed> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut disk = mixed(96 << 10, 60);
    disk.resize(192 << 10, 0);
    write_file(path, "source.raw", &disk);
    let variants: &[(&str, &str, &[&str])] = &[
        ("v2", "-o compat=0.10,cluster_size=512", &[]),
        ("v3", "-o cluster_size=512", &["snapshot -c s image"]),
        ("4k", "-o cluster_size=4k,refcount_bits=1", &[]),
        ("bitmap", "-o cluster_size=1k,refcount_bits=64", &["bitmap --add -g 512 image b"]),
        ("zlib", "-c -o cluster_size=4k", &[]),
        ("zstd", "-c -o cluster_size=4k,compression_type=zstd", &["snapshot -c s image"]),
        ("subclusters", "-o cluster_size=16k,extended_l2=on", &[]),
        ("lazy", "-o cluster_size=512,lazy_refcounts=on", &[]),
    ];
    variants
        .iter()
        .map(|(name, options, after)| {
            qemu_img(path, &format!("convert -f raw -O qcow2 {options} source.raw image"));
            after.iter().for_each(|command| drop(qemu_img(path, command)));
            let mut bytes = std::fs::read(path.join(IMAGE)).unwrap();
            if *name == "lazy" {
                bytes[79] |= 1;
            }
            Seed { name, metadata: metadata_of(&bytes), bytes }
        })
        .collect()
}

fn mutate(seed: &Seed, random: &mut Random) -> Vec<u8> {
    const INTERESTING: [u64; 12] =
        [0, 1, 2, 0x200, 0x1000, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 33, 1 << 55, 1 << 62, 1 << 63, u64::MAX];
    let mut bytes = seed.bytes.clone();
    for _ in 0..=random.below(3) {
        let (start, length) = seed.metadata[random.below(seed.metadata.len() as u64) as usize];
        let at = start + random.below(length as u64) as usize;
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 | 3 => {
                let width = if random.below(2) == 0 { 4 } else { 8 };
                let at = at / width * width;
                let value = INTERESTING[random.below(12) as usize].wrapping_add(random.below(3)).wrapping_sub(1);
                let field = &value.to_be_bytes()[8 - width..];
                bytes[at..at + width].copy_from_slice(field);
            }
            4 => {
                // One entry or field over another.
                let (other, other_length) = seed.metadata[random.below(seed.metadata.len() as u64) as usize];
                let from = (other + random.below(other_length as u64) as usize) / 8 * 8;
                let source: Vec<u8> = bytes[from..(from + 8).min(bytes.len())].to_vec();
                let at = at / 8 * 8;
                bytes[at..at + source.len()].copy_from_slice(&source);
            }
            _ if random.below(20) == 0 => {
                bytes.truncate(at.max(1));
                return bytes;
            }
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
    bytes
}

/// Everything that winject does with an image that a user hands it. Returns what it came to.
fn exercise(bytes: Vec<u8>, random: &mut Random) -> &'static str {
    let mut files = Files::new();
    files.insert(IMAGE.into(), bytes);
    let host = VirtualHost::new(files, Fault::Never);
    let path = Path::new(IMAGE);
    drop(qcow2::info_storage(host.storage(path), path));
    let before = qcow2::check_storage(host.storage(path), path).map(|report| (report.corruptions, report.leaks));
    let options = OpenOptions::default();
    let Ok(image) = open_storage(host.storage(path), path, Some(Format::Qcow2), &options) else {
        return "refused";
    };
    let is_whole = read_some(&*image, random);
    let mut stage = Stage::new(image, StageOptions::default());
    let size = stage.len();
    let mut written = Vec::new();
    for _ in 0..3 {
        let offset = random.below(size.min(256 << 10));
        let length = (random.below(9000) + 1).min(size - offset.min(size));
        let data = random.bytes(length as usize);
        if stage.write_at(ImageOffset(offset), &data).is_err() {
            return "damaged";
        }
        written.push((offset, data));
    }
    match on::in_place(&host, &mut stage, path, &CommitOptions::default()) {
        Ok(done) if done.bytes_written == 0 => "no disk",
        Ok(_) => {
            // What was accepted for editing holds what was written, and is still clean.
            let image = open_storage(host.storage(path), path, Some(Format::Qcow2), &options).unwrap();
            let (offset, data) = written.last().unwrap();
            let mut found = vec![0; data.len()];
            image.read_at(ImageOffset(*offset), &mut found).unwrap();
            assert!(found == *data, "the edit is lost");
            let report = qcow2::check_storage(host.storage(path), path).unwrap();
            // Two guest clusters may legally share a cluster. When one leaves it, the other's flag is missing, which is
            // harmless; QEMU leaves the same behind.
            let is_harmless =
                |p: &qcow2::Problem| p.kind == qcow2::ProblemKind::Leak || p.message.starts_with("COPIED is missing");
            assert!(report.problems.iter().all(is_harmless), "the edit damaged {before:?}: {:?}", report.problems);
            if is_whole { "edited" } else { "edited, damaged elsewhere" }
        }
        Err(error) => {
            assert_ne!(error.kind(), Kind::Bug, "{error}");
            "not edited"
        }
    }
}

fn read_some(image: &dyn Image, random: &mut Random) -> bool {
    let mut buffer = vec![0; 64 << 10];
    let size = image.len();
    let mut is_whole = true;
    for offset in [0, 64 << 10, 128 << 10, size.saturating_sub(64 << 10), random.below(size)] {
        let length = (64 << 10).min(size.saturating_sub(offset)) as usize;
        is_whole &= image.read_at(ImageOffset(offset), &mut buffer[..length]).is_ok();
        if length > 0 {
            let extent = image.extent_at(ImageOffset(offset), size - offset);
            assert!(extent.is_err() || extent.is_ok_and(|e| e.length > 0 && e.length <= size - offset));
        }
    }
    is_whole
}

fn mutated_metadata_are_handled() {
    if !has_qemu() {
        return;
    }
    let seeds = seeds();
    let count = rounds(8_000, 60_000);
    let next = AtomicU64::new(0);
    let outcomes = std::sync::Mutex::new(std::collections::BTreeMap::<(&str, &str), u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let seed = &seeds[(number % seeds.len() as u64) as usize];
                    let mut random = Random::new(number);
                    let bytes =
                        if number < seeds.len() as u64 { seed.bytes.clone() } else { mutate(seed, &mut random) };
                    let begun = std::time::Instant::now();
                    let outcome =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| exercise(bytes, &mut random)));
                    let outcome = outcome.unwrap_or_else(|_| panic!("mutant {number} of {}", seed.name));
                    if begun.elapsed().as_secs() > 1 {
                        println!("mutant {number} of {} took {:?}", seed.name, begun.elapsed());
                    }
                    *outcomes.lock().unwrap().entry((seed.name, outcome)).or_default() += 1;
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    // The seeds themselves are good.
    assert!(seeds.iter().all(|seed| outcomes.contains_key(&(seed.name, "edited"))), "{outcomes:?}");
    println!("{count} mutants: {outcomes:?}");
}

/// Tens of thousands of snapshots that share one enormous table in a hole: looked at once, not counted by the gigabyte.
fn tables_that_are_referred_to_again_and_again_cost_once() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    qemu_img(folder.path(), "create -q -f qcow2 -o cluster_size=512 image 1M");
    let path = folder.path().join(IMAGE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let (table, snapshots, entries) = (bytes.len(), 65536usize, 4u32 << 20);
    let l1 = (table + snapshots * 40).next_multiple_of(512) as u64;
    bytes[60..64].copy_from_slice(&(snapshots as u32).to_be_bytes());
    bytes[64..72].copy_from_slice(&(table as u64).to_be_bytes());
    for _ in 0..snapshots {
        let mut entry = [0; 40];
        entry[..8].copy_from_slice(&l1.to_be_bytes());
        entry[8..12].copy_from_slice(&entries.to_be_bytes());
        bytes.extend(entry);
    }
    std::fs::write(&path, &bytes).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(l1 + u64::from(entries) * 8).unwrap();
    let report = qcow2::check(&path, &OpenOptions::default()).unwrap();
    assert!(report.corruptions >= snapshots as u64 - 1, "{report:?}");
    let mut stage = stage(&path);
    stage.write_at(ImageOffset(0), b"change").unwrap();
    let error =
        winject::internals::block::commit::commit_in_place(&mut stage, &path, &CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
}

tests![mutated_metadata_are_handled, tables_that_are_referred_to_again_and_again_cost_once,];
