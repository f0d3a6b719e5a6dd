//! Damaged tables: whatever the bytes, reading ends, with a bounded answer, and never panics.

use super::{BASIC_DATA, gpt_disk, mbr_sector};
use crate::support;
use winject::internals::partition::{MemoryDisk, PartitionView, read};
use winject::internals::random::Random;

fn survives(disk: Vec<u8>) -> bool {
    let disk = MemoryDisk(disk);
    let Ok(table) = read(&disk) else { return false };
    assert!(table.partitions.len() <= 1024 && table.warnings.len() <= 4096);
    for partition in &table.partitions {
        let _ = (PartitionView::new(&disk, partition), partition.refusal(), partition.label());
    }
    true
}

/// The offsets that a table consists of, so that mutation does not waste itself on zeros.
fn mutate(random: &mut Random, disk: &mut [u8], places: &[std::ops::Range<usize>]) {
    for _ in 0..=random.index(4) {
        let place = places[random.index(places.len())].clone();
        let at = place.start + random.index(place.len());
        disk[at] = match random.index(3) {
            0 => [0, 1, 0x7F, 0x80, 0xFF][random.index(5)],
            1 => disk[at] ^ (1 << random.index(8)),
            _ => random.byte(),
        };
    }
}

/// Makes the checksums right again, so that mutated fields are not refused at the door.
fn repair_checksums(disk: &mut [u8]) {
    let entries = usize::try_from(u64::from_le_bytes(disk[512 + 72..512 + 80].try_into().unwrap())).unwrap_or(0);
    let count = u32::from_le_bytes(disk[512 + 80..512 + 84].try_into().unwrap()) as usize;
    let size = u32::from_le_bytes(disk[512 + 84..512 + 88].try_into().unwrap()) as usize;
    if let Some(table) = entries
        .checked_mul(512)
        .and_then(|start| Some(start..start.checked_add(count.checked_mul(size)?)?))
        .and_then(|range| disk.get(range))
    {
        let sum = crc32fast::hash(table);
        disk[512 + 88..512 + 92].copy_from_slice(&sum.to_le_bytes());
    }
    let length = (u32::from_le_bytes(disk[512 + 12..512 + 16].try_into().unwrap()) as usize).clamp(92, 512);
    disk[512 + 16..512 + 20].fill(0);
    let sum = crc32fast::hash(&disk[512..512 + length]);
    disk[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
}

fn gpt_mutants() {
    let sound = gpt_disk(512, 128, 128, &[(BASIC_DATA, 40, 49), (BASIC_DATA, 60, 69)]);
    let places = [440..512, 512..604, 1024..1024 + 2 * 128];
    let mut random = Random::from_state(0x5eed_0001);
    let mut read_anyway = 0;
    for round in 0..support::rounds(5_000, 20_000) {
        let mut disk = sound.clone();
        mutate(&mut random, &mut disk, &places);
        if round % 2 == 0 {
            repair_checksums(&mut disk);
        }
        read_anyway += u64::from(survives(disk));
    }
    assert!(read_anyway > 0, "mutation never came past the checksums");
}

fn mbr_chain_mutants() {
    let mut sound = vec![0u8; 128 * 512];
    sound[..512].copy_from_slice(&mbr_sector(&[(7, 1, 4), (0x0F, 10, 100)]));
    sound[10 * 512..][..512].copy_from_slice(&mbr_sector(&[(7, 1, 4), (5, 10, 10)]));
    sound[20 * 512..][..512].copy_from_slice(&mbr_sector(&[(7, 1, 4), (5, 20, 10)]));
    sound[30 * 512..][..512].copy_from_slice(&mbr_sector(&[(7, 1, 4)]));
    let places = [446..512, 5120 + 446..5120 + 512, 10240 + 446..10240 + 512, 15360 + 446..15360 + 512];
    let mut random = Random::from_state(0x5eed_0002);
    for _ in 0..support::rounds(20_000, 100_000) {
        let mut disk = sound.clone();
        mutate(&mut random, &mut disk, &places);
        survives(disk);
    }
}

fn every_length_of_a_truncated_disk() {
    let sound = gpt_disk(512, 128, 128, &[(BASIC_DATA, 40, 49)]);
    for length in (0..sound.len()).step_by(97) {
        survives(sound[..length].to_vec());
    }
}

tests![gpt_mutants, mbr_chain_mutants, every_length_of_a_truncated_disk,];
