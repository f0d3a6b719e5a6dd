//! A VHDX whose log holds changes that never reached their places.

use std::path::Path;
use std::process::Command;

use winject::Kind;

use super::craft::{put32, put64, seal};
use super::{assert_same, disk, image, open_error, qemu_img, read_all, read_qemu};
use crate::support::{self, program};

const GUID: [u8; 16] = [0xC7; 16];
const MIB: usize = 1 << 20;

enum Change {
    /// The page at this offset gets this content.
    Page(usize, Vec<u8>),
    /// This range becomes zeros.
    Zero(usize, usize),
}

/// One log entry.
fn entry(sequence: u64, tail: usize, file_length: usize, changes: &[Change]) -> Vec<u8> {
    let mut head = vec![0; (64 + changes.len() * 32).next_multiple_of(4096)];
    let mut data = Vec::new();
    for (i, change) in changes.iter().enumerate() {
        let descriptor = &mut head[64 + 32 * i..96 + 32 * i];
        put64(descriptor, 24, sequence);
        match change {
            Change::Page(at, page) => {
                descriptor[..4].copy_from_slice(b"desc");
                descriptor[4..8].copy_from_slice(&page[4092..]);
                descriptor[8..16].copy_from_slice(&page[..8]);
                put64(descriptor, 16, *at as u64);
                let mut sector = b"data".to_vec();
                sector.extend(((sequence >> 32) as u32).to_le_bytes());
                sector.extend(&page[8..4092]);
                sector.extend((sequence as u32).to_le_bytes());
                data.extend(sector);
            }
            Change::Zero(at, length) => {
                descriptor[..4].copy_from_slice(b"zero");
                put64(descriptor, 8, *length as u64);
                put64(descriptor, 16, *at as u64);
            }
        }
    }
    head.extend(data);
    let length = head.len() as u32;
    head[..4].copy_from_slice(b"loge");
    put32(&mut head, 8, length);
    put32(&mut head, 12, tail as u32);
    put64(&mut head, 16, sequence);
    put32(&mut head, 24, changes.len() as u32);
    head[32..48].copy_from_slice(&GUID);
    put64(&mut head, 48, file_length as u64);
    put64(&mut head, 56, file_length as u64);
    seal(&mut head);
    head
}

/// Marks the log as used, and writes the entries into the ring from `start` on.
fn write_log(file: &mut [u8], start: usize, entries: &[Vec<u8>]) {
    let (log, length) = (read64(file, (64 << 10) + 72) as usize, MIB);
    file[log..log + length].fill(0);
    for (at, byte) in (start..).zip(entries.iter().flatten()) {
        file[log + at % length] = *byte;
    }
    for header in [64 << 10, 128 << 10] {
        let header = &mut file[header..header + 4096];
        header[48..64].copy_from_slice(&GUID);
        seal(header);
    }
}

fn read64(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}

/// A clean VHDX by QEMU, and its disk's content.
fn clean(folder: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    program("qemu-img")?;
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut content = disk(5 << 20, 21);
    content[MIB..MIB + 65_536].fill(0);
    content[MIB - 512..MIB].fill(3);
    std::fs::write(at("source.raw"), &content).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1048576", &at("source.raw"), &at("clean.vhdx")]);
    Some((std::fs::read(at("clean.vhdx")).unwrap(), content))
}

/// The BAT page and a data page are broken and in the log; a zeroed range is broken and in the log too.
fn dirty(file: &[u8], start: usize, first_sequence: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
    let bat = read64(file, (192 << 10) + 16 + 16) as usize;
    let block = |n: usize| (read64(file, bat + n * 8) >> 20 << 20) as usize;
    let (data, zeros) = (block(0) + 8192, block(1) + 4096);
    let page = |at: usize| file[at..at + 4096].to_vec();
    let mut broken = file.to_vec();
    broken[bat..bat + 4096].fill(0xFF);
    broken[data..data + 4096].fill(0x11);
    broken[zeros..zeros + 8192].fill(0x22);
    let length = broken.len();
    // The first entry's data page is stale: the later entry must win. The second zeroes a page that is then rewritten.
    let entries = vec![
        entry(first_sequence, start, length, &[Change::Page(data, vec![9; 4096]), Change::Page(bat, page(bat))]),
        entry(first_sequence + 1, start, length, &[Change::Zero(data, 4096), Change::Zero(zeros, 8192)]),
        entry(first_sequence + 2, start, length, &[Change::Page(data, page(data))]),
    ];
    write_log(&mut broken, start, &entries);
    (broken, entries)
}

fn the_log_is_replayed_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let Some((file, content)) = clean(folder.path()) else { return };
    let path = folder.path().join("dirty.vhdx");
    // In the middle of the ring, and across its end.
    for start in [0, 64 << 10, MIB - 8192] {
        let (broken, _) = dirty(&file, start, 0xFFFF_FFFF);
        std::fs::write(&path, &broken).unwrap();
        assert_same(&read_all(&*image(&path)), &content, &format!("log at {start:#x}"));
        assert_eq!(std::fs::read(&path).unwrap(), broken, "reading must not write");
        let marks = image(&path).in_use_marks();
        assert!(marks.len() == 1 && marks[0].contains("dirty.vhdx has a log"), "{marks:?}");
        // QEMU 7.2 says that it replayed an entry that runs across the end of the ring, but leaves the block table as
        // it was; the format allows such entries, so only the other two are shown to it. (The crate vhdx-core is no
        // judge: it takes a descriptor's sequence number for its file offset, and the ring's first byte for the log's.)
        if start + 8192 == MIB {
            continue;
        }
        // QEMU replays only when it may write.
        support::run(Command::new("qemu-img").args(["check", "-q", "-r", "all", "-f", "vhdx"]).arg(&path));
        assert_same(&read_qemu(&path, "vhdx"), &content, "after QEMU's replay");
    }
}

fn a_torn_log_ends_before_the_tear() {
    let folder = tempfile::tempdir().unwrap();
    let Some((file, content)) = clean(folder.path()) else { return };
    let path = folder.path().join("dirty.vhdx");
    let (mut broken, entries) = dirty(&file, 0, 5);
    // A fourth entry that was never completed: its checksum is wrong, so that it counts as not written.
    let mut torn = entry(8, 0, broken.len(), &[Change::Zero(3 << 20, 4096)]);
    torn[100] ^= 1;
    let mut all = entries;
    all.push(torn);
    write_log(&mut broken, 0, &all);
    std::fs::write(&path, &broken).unwrap();
    assert_same(&read_all(&*image(&path)), &content, "torn last entry");
}

fn a_log_that_cannot_be_replayed_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let Some((file, _)) = clean(folder.path()) else { return };
    let path = folder.path().join("dirty.vhdx");
    let mut broken = file.clone();
    write_log(&mut broken, 0, &[]);
    std::fs::write(&path, &broken).unwrap();
    assert_eq!(open_error(&path).kind(), Kind::Damaged);

    // The log knows of a longer file.
    let longer = entry(1, 0, file.len() + MIB, &[Change::Zero(3 << 20, 4096)]);
    write_log(&mut broken, 0, &[longer]);
    std::fs::write(&path, &broken).unwrap();
    let error = open_error(&path);
    assert!(error.to_string().contains("truncated"), "{error}");

    // A range of zeros that does not end.
    let endless = entry(1, 0, file.len(), &[Change::Zero(4096, usize::MAX & !4095)]);
    write_log(&mut broken, 0, &[endless]);
    std::fs::write(&path, &broken).unwrap();
    assert_eq!(open_error(&path).kind(), Kind::Damaged);
}

/// A VHDX with a log of one entry, and where that entry is, for the campaign of mutations.
pub fn for_mutation(mut file: Vec<u8>) -> (Vec<u8>, std::ops::Range<u64>) {
    let page = file[3 << 20..(3 << 20) + 4096].to_vec();
    let length = file.len();
    let only = entry(3, 0, length, &[Change::Page(3 << 20, page), Change::Zero(5 << 20, 8192)]);
    let range = MIB as u64..MIB as u64 + only.len() as u64;
    write_log(&mut file, 0, &[only]);
    (file, range)
}

tests![the_log_is_replayed_in_memory, a_torn_log_ends_before_the_tear, a_log_that_cannot_be_replayed_is_an_error,];
