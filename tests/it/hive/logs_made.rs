//! Replaying logs made here: every combination of a primary and its logs, in both formats.

use winject::Kind;
use winject::internals::hive::{Hive, RegistryData};

use super::support::{NOW, assert_clean, hivereplay, seal, word};

/// Marvin32 with the registry's seed, from its description.
fn marvin(data: &[u8]) -> u64 {
    let (mut lo, mut hi) = (0x7A4E_55C5u32, 0x82EF_4D88u32);
    let mut padded = data.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(4) + 4, 0);
    for word in padded.chunks_exact(4) {
        lo = lo.wrapping_add(u32::from_le_bytes(word.try_into().unwrap()));
        hi ^= lo;
        lo = lo.rotate_left(20).wrapping_add(hi);
        hi = hi.rotate_left(9) ^ lo;
        lo = lo.rotate_left(27).wrapping_add(hi);
        hi = hi.rotate_left(19);
    }
    u64::from(hi) << 32 | u64::from(lo)
}

pub fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// States of one hive, each after one more edit; `sequence` is the first's.
fn states(sequence: u32, count: usize) -> Vec<Vec<u8>> {
    let mut bytes = Hive::create("ROOT", NOW).finish(&[]).unwrap();
    put(&mut bytes, 4, sequence);
    put(&mut bytes, 8, sequence);
    seal(&mut bytes);
    let mut all = vec![bytes];
    for i in 1..count {
        let mut hive = Hive::open(all.last().unwrap().clone()).unwrap();
        let key = hive.create_key(hive.root(), &format!(r"State {i}\below"), NOW).unwrap();
        hive.set_value(key, "Large", &RegistryData::binary(vec![i as u8; 5000 * i]), NOW).unwrap();
        all.push(hive.finish(&[]).unwrap());
    }
    all
}

/// The 4096-byte pages of bins in which two states differ.
fn pages(old: &[u8], new: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let changed = new[4096..].chunks(4096).enumerate();
    let changed = changed.filter(|(i, page)| old.get(4096 * (i + 1)..4096 * (i + 2)) != Some(*page));
    changed.map(|(i, page)| (i as u32 * 4096, page.to_vec())).collect()
}

/// A log's base block: the primary's, with this type and sequence number.
fn log_head(primary: &[u8], kind: u32, sequence: u32) -> Vec<u8> {
    let mut head = primary[..512].to_vec();
    put(&mut head, 4, sequence);
    put(&mut head, 8, sequence);
    put(&mut head, 28, kind);
    seal(&mut head);
    head
}

fn entry(sequence: u32, length: u32, pages: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut entry = b"HvLE".to_vec();
    for number in [0, 0, sequence, length, pages.len() as u32] {
        entry.extend(number.to_le_bytes());
    }
    entry.resize(40, 0);
    for (at, page) in pages {
        entry.extend(at.to_le_bytes());
        entry.extend((page.len() as u32).to_le_bytes());
    }
    pages.iter().for_each(|(_, page)| entry.extend(page));
    entry.resize(entry.len().next_multiple_of(512), 0);
    let size = entry.len() as u32;
    put(&mut entry, 4, size);
    hash(&mut entry);
    entry
}

fn hash(entry: &mut [u8]) {
    let data = marvin(&entry[40..]);
    entry[24..32].copy_from_slice(&data.to_le_bytes());
    let head = marvin(&entry[..32]);
    entry[32..40].copy_from_slice(&head.to_le_bytes());
}

/// A new-format log that leads from each of these states to the next.
pub fn new_log(states: &[Vec<u8>], first: u32) -> Vec<u8> {
    let mut log = log_head(&states[0], 6, first);
    for (i, pair) in states.windows(2).enumerate() {
        let length = word(&pair[1], 40);
        log.extend(entry(first.wrapping_add(i as u32), length, &pages(&pair[0], &pair[1])));
    }
    log
}

/// An old-format log that leads from one state to another.
pub fn old_log(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut log = log_head(new, 1, word(new, 4));
    log.extend(b"DIRT");
    let sectors = (new.len() - 4096) / 512;
    let dirty: Vec<usize> = (0..sectors)
        .filter(|s| old.get(4096 + s * 512..4608 + s * 512) != new.get(4096 + s * 512..4608 + s * 512))
        .collect();
    let mut vector = vec![0u8; sectors / 8];
    dirty.iter().for_each(|s| vector[s / 8] |= 1 << (s % 8));
    log.extend(vector);
    log.resize(log.len().next_multiple_of(512), 0);
    dirty.iter().for_each(|s| log.extend(&new[4096 + s * 512..4608 + s * 512]));
    log
}

/// The state as a primary in the middle of a write: its second sequence number has yet to follow.
pub fn dirty(state: &[u8]) -> Vec<u8> {
    let mut bytes = state.to_vec();
    put(&mut bytes, 4, word(state, 8).wrapping_add(1));
    seal(&mut bytes);
    bytes
}

/// The state with a base block whose checksum is wrong.
fn torn(state: &[u8]) -> Vec<u8> {
    let mut bytes = state.to_vec();
    bytes[60] ^= 0xFF;
    bytes
}

/// Asserts that ours and the foreign replay both give `expected` (up to sequence numbers, checksum and file name).
fn assert_replay(primary: &[u8], logs: [Option<&[u8]>; 2], expected: &[u8]) {
    let (hive, replay) = Hive::open_with_logs(primary.to_vec(), logs[0], logs[1]).unwrap();
    assert!(replay.is_some());
    let ours = hive.finish(&[]).unwrap();
    assert_eq!(ours[4096..], expected[4096..], "bins after the replay");
    assert_eq!(word(&ours, 40), word(expected, 40));
    assert_clean(&ours, None);
    if let Some(foreign) = hivereplay(primary, logs) {
        let mut foreign = foreign.unwrap();
        foreign[4..12].copy_from_slice(&ours[4..12]);
        seal(&mut foreign);
        assert!(foreign == ours, "the foreign replay differs");
    }
}

fn assert_refused(primary: &[u8], logs: [Option<&[u8]>; 2]) {
    let error = Hive::open_with_logs(primary.to_vec(), logs[0], logs[1]).err().expect("refused");
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.hint_text().is_some());
    if let Some(foreign) = hivereplay(primary, logs) {
        assert!(foreign.is_none(), "the foreign replay accepts what we refuse: {error}");
    }
}

fn new_format_in_every_combination() {
    for first in [100, u32::MAX - 1] {
        let states = states(first, 6);
        // The entries 0..2 are in one log, 2..5 in the other; they start with the primary's number.
        let (early, late) = (new_log(&states[..3], first), new_log(&states[2..], first.wrapping_add(2)));
        let primary = dirty(&states[0]);
        assert_replay(&primary, [Some(&early), Some(&late)], &states[5]);
        assert_replay(&primary, [Some(&late), Some(&early)], &states[5]);
        assert_replay(&primary, [Some(&early), None], &states[2]);
        assert_replay(&primary, [None, Some(&early)], &states[2]);
        assert_refused(&primary, [None, None]);
        // A log that is older than the primary does not count.
        let later = dirty(&states[3]);
        let after = new_log(&states[3..], first.wrapping_add(4));
        assert_replay(&later, [Some(&early), Some(&after)], &states[5]);
        assert_refused(&later, [Some(&early), None]);
        // A gap between the logs: only the first one is applied.
        let gap = new_log(&states[3..], first.wrapping_add(9));
        assert_replay(&primary, [Some(&gap), Some(&early)], &states[2]);
        // The last entry is torn, or follows garbage of older use.
        let mut short = late.clone();
        short.truncate(late.len() - 700);
        assert_replay(&primary, [Some(&early), Some(&short)], &states[4]);
        let mut garbage = late.clone();
        garbage.extend(&early[512..]);
        assert_replay(&primary, [Some(&early), Some(&garbage)], &states[5]);
    }
}

fn new_format_with_a_torn_base_block() {
    let states = states(100, 4);
    let log = new_log(&states, 100);
    let mut expected = states[3].clone();
    expected[..512].copy_from_slice(&states[0][..512]);
    let (mut hive, replay) = Hive::open_with_logs(torn(&states[0]), Some(&log), None).unwrap();
    assert_eq!(replay.unwrap().notes.len(), 1, "the note says where the base block came from");
    hive.create_key(hive.root(), "new", NOW).unwrap();
    assert_clean(&hive.finish(&[]).unwrap(), None);
    assert_refused(&torn(&states[0]), [None, None]);
}

fn new_format_with_impossible_entries() {
    let states = states(100, 3);
    let primary = dirty(&states[0]);
    let good = new_log(&states[..2], 100);
    let append = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bad = entry(101, word(&states[2], 40), &pages(&states[1], &states[2]));
        change(&mut bad);
        hash(&mut bad);
        [good.clone(), bad].concat()
    };
    let refused = |log: &[u8]| {
        let error = Hive::open_with_logs(primary.clone(), Some(log), None).err().expect("refused");
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    };
    refused(&append(&|e| put(e, 40, 0x4000_0000))); // a page beyond the hive
    refused(&append(&|e| put(e, 44, 0x4000_0000))); // a page longer than the entry
    refused(&append(&|e| put(e, 16, 4095))); // no whole bins
    refused(&append(&|e| put(e, 20, 0)));
    refused(&append(&|e| put(e, 16, 0x7FFF_E000))); // a hive length that nothing backs
    // One page of the entry is left out: the bins do not tile any more.
    let mut few = pages(&states[1], &states[2]);
    few.remove(few.iter().position(|(at, _)| *at >= word(&states[1], 40)).unwrap());
    refused(&[good.clone(), entry(101, word(&states[2], 40), &few)].concat());
}

fn a_replay_that_lost_entries_is_read_but_not_edited() {
    let states = states(100, 4);
    // The middle entry's pages are missing: its key is referenced by the index, but is not there.
    let mut log = log_head(&states[0], 6, 100);
    log.extend(entry(100, word(&states[2], 40), &pages(&states[0], &states[2])));
    let mut lost = pages(&states[2], &states[3]);
    let bins = lost.iter().position(|(_, page)| !page.starts_with(b"hbin")).unwrap_or(0);
    lost[bins].1[64..].fill(0xFF);
    log.extend(entry(101, word(&states[3], 40), &lost));
    let (mut hive, replay) = Hive::open_with_logs(dirty(&states[0]), Some(&log), None).unwrap();
    assert!(replay.is_some());
    let error = hive.create_key(hive.root(), "new", NOW).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.hint_text().unwrap().contains("log entries"), "{error}");
}

fn old_format_in_every_combination() {
    let mut states = states(7, 4);
    for state in &mut states {
        state[24] = 3; // as on Windows 7; big data are not used below
        seal(state);
    }
    let log = old_log(&states[0], &states[3]);
    let primary = dirty(&states[0]);
    for logs in [[Some(&log[..]), None], [None, Some(&log[..])], [Some(&log[..]), Some(&[0u8; 512][..])]] {
        let (hive, replay) = Hive::open_with_logs(primary.clone(), logs[0], logs[1]).unwrap();
        assert_eq!(replay.unwrap().entries, 1);
        assert_eq!(hive.finish(&[]).unwrap()[4096..], states[3][4096..]);
        assert_replay_old(&primary, logs);
        assert_replay_old(&torn(&states[0]), logs);
    }
    // Older than the primary: never. Newer: with a note.
    let mut newer = primary.clone();
    newer[12] ^= 1;
    newer[19] = 0x70;
    seal(&mut newer);
    assert_refused(&newer, [Some(&log), None]);
    let mut older = primary.clone();
    older[12..20].fill(1);
    seal(&mut older);
    let (_, replay) = Hive::open_with_logs(older, Some(&log), None).unwrap();
    assert_eq!(replay.unwrap().notes, ["the log is newer than the hive"]);
    // Torn logs.
    assert_refused(&primary, [Some(&log[..log.len() - 100]), None]);
    assert_refused(&primary, [Some(&log[..520]), None]);
    let mut unmarked = log.clone();
    unmarked[512] = b'X';
    assert_refused(&primary, [Some(&unmarked), None]);
    assert_refused(&primary, [None, None]);
}

fn a_stale_log_of_the_old_format_cannot_undo_an_edit() {
    let states = states(7, 3);
    let log = old_log(&states[0], &states[2]);
    // The log was needed, or is what a clean hive keeps beside it.
    for primary in [dirty(&states[0]), torn(&states[0]), states[2].clone()] {
        let (mut hive, _) = Hive::open_with_logs(primary, Some(&log), None).unwrap();
        hive.create_key(hive.root(), "new", NOW).unwrap();
        let edited = hive.finish(&[]).unwrap();
        assert_clean(&edited, None);
        let (hive, replay) = Hive::open_with_logs(edited.clone(), Some(&log), None).unwrap();
        assert_eq!(replay, None);
        assert!(hive.find(hive.root(), "new").unwrap().is_some());
        assert_eq!(edited[12..20], edited[4096 + 20..4096 + 28], "the first bin has the base block's time");
        // Dirty or torn again, before Windows has written a log of its own.
        for again in [dirty(&edited), torn(&edited)] {
            assert_refused(&again, [Some(&log), None]);
        }
    }
}

fn assert_replay_old(primary: &[u8], logs: [Option<&[u8]>; 2]) {
    let (hive, _) = Hive::open_with_logs(primary.to_vec(), logs[0], logs[1]).unwrap();
    let ours = hive.finish(&[]).unwrap();
    if let Some(foreign) = hivereplay(primary, logs) {
        let mut foreign = foreign.unwrap();
        foreign[4..12].copy_from_slice(&ours[4..12]);
        seal(&mut foreign);
        assert!(foreign == ours, "the foreign replay differs");
    }
}

tests![
    new_format_in_every_combination,
    new_format_with_a_torn_base_block,
    new_format_with_impossible_entries,
    a_replay_that_lost_entries_is_read_but_not_edited,
    old_format_in_every_combination,
    a_stale_log_of_the_old_format_cannot_undo_an_edit,
];
