//! The checker on mutated volumes: any bytes give a report. No panic, no hang, no memory beyond the volume's measure.

use std::time::{Duration, Instant};

use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::RecordNumber;
use winject::internals::ntfs::check::{CheckOptions, check, check_touched};
use winject::internals::ntfs::fixup::{self, FILE, INDX};
use winject::internals::random::Random;

use super::surgeon::Surgeon;
use crate::support::{root, rounds};

/// Bytes at which formats break.
fn edge_byte(noise: &mut Random) -> u8 {
    const EDGES: [u8; 8] = [0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, 0x10];
    if noise.index(2) == 0 { EDGES[noise.index(EDGES.len())] } else { u8::try_from(noise.index(256)).unwrap() }
}

/// Offsets and lengths of all blocks with structure: boot sector, records in use, index blocks, `$SDS`, bitmaps.
fn targets(surgeon: &Surgeon) -> Vec<(usize, usize)> {
    let size = surgeon.geometry.record_size as usize;
    let mut found = vec![(0, 512)];
    found.extend(surgeon.all().filter(|(_, r)| r.is_in_use()).map(|(n, _)| (surgeon.record_at(n), size)));
    let block = surgeon.geometry.index_block_size as usize;
    let starts = (0..surgeon.bytes.len()).step_by(4096).filter(|&at| surgeon.bytes[at..].starts_with(b"INDX"));
    found.extend(starts.map(|at| (at, block)));
    found
}

/// Mutates one block; in the deep form the fix-ups are put right afterwards.
fn mutate(block: &mut [u8], noise: &mut Random) {
    let magic = if block.starts_with(&FILE) { FILE } else { INDX };
    let deep = noise.index(4) != 0 && fixup::unseal(block, magic).is_ok();
    for _ in 0..=noise.index(3) {
        // most decisions are made in the first bytes
        let span = if noise.index(3) == 0 { block.len() } else { block.len().min(400) };
        let at = noise.index(span);
        block[at] = edge_byte(noise);
    }
    if deep {
        let _ = fixup::seal(block);
    }
}

fn mutated_volumes_give_a_report() {
    let packed = std::fs::read(root().join("test-images/check/tiny.raw.xz")).unwrap();
    let mut bytes = Vec::new();
    lzma_rs::xz_decompress(&mut &packed[..], &mut bytes).unwrap();
    let targets = targets(&Surgeon::open(bytes.clone()));
    assert!(targets.len() > 60);
    let mut volume = MemoryVolume(bytes);
    assert!(check(&volume, &CheckOptions::default()).unwrap().is_clean());
    let mut noise = Random::from_state(0x5EED_0001_2345_6789);
    let (mut accused, mut slowest) = (0u64, Duration::ZERO);
    let total = rounds(1_500, 5_000);
    for round in 0..total {
        let mut saved = Vec::new();
        for _ in 0..=noise.index(2) {
            let (at, length) = targets[noise.index(targets.len())];
            saved.push((at, volume.0[at..at + length].to_vec()));
            mutate(&mut volume.0[at..at + length], &mut noise);
        }
        let start = Instant::now();
        let report = check(&volume, &CheckOptions::default()).unwrap();
        accused += u64::from(!report.faults.is_empty());
        if round % 4 == 0 {
            let records: Vec<_> = (0..8).map(|_| RecordNumber(noise.index(100) as u64)).collect();
            let _ = check_touched(&volume, &records, &CheckOptions::default()).unwrap();
        }
        slowest = slowest.max(start.elapsed());
        for (at, block) in saved.into_iter().rev() {
            volume.0[at..at + block.len()].copy_from_slice(&block);
        }
    }
    println!("{total} mutants, {accused} accused, slowest {slowest:?}");
    assert!(accused > total / 2, "{accused} of {total}");
    // no hang: generous, for machines under load
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
}

fn noise_is_no_volume() {
    let mut noise = Random::from_state(77);
    for length in [0, 1, 511, 512, 513, 4096, 65536] {
        let mut bytes: Vec<u8> = (0..length).map(|_| edge_byte(&mut noise)).collect();
        assert!(!check(&MemoryVolume(bytes.clone()), &CheckOptions::default()).unwrap().is_clean());
        if length >= 512 {
            bytes[3..11].copy_from_slice(b"NTFS    ");
            bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
            assert!(!check(&MemoryVolume(bytes), &CheckOptions::default()).unwrap().is_clean());
        }
    }
}

tests![mutated_volumes_give_a_report, noise_is_no_volume,];
