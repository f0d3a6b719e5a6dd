//! Hives: the bytes are a hive file (its checksum is made right) and, behind its bins, a log; or, when they begin as no
//! hive does, changes to a sound one. Whatever they hold, an edit leaves no fault behind that was not there before.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use winject::internals::clock::FileTime;
use winject::internals::hive::check::{Severity, check};
use winject::internals::hive::reader::Reader;
use winject::internals::hive::reg_file::{KeyPath, export};
use winject::internals::hive::{RegistryData, Hive, Name};

const NOW: FileTime = FileTime(1);

/// Sound hives of each version with every structure in them.
static SOUND: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| [3, 5].map(sound).into());

fn sound(minor: u8) -> Vec<u8> {
    let mut bytes = Hive::create("R", NOW).finish(&[]).unwrap();
    bytes[24] = minor;
    seal(&mut bytes);
    let mut hive = Hive::open(bytes).unwrap();
    let top = hive.create_key(hive.root(), r"a\bb\ccc", NOW).unwrap();
    hive.set_class(top, Some(&Name::from("Class")), NOW).unwrap();
    for (name, size) in [("", 7), ("four", 4), ("large", 16_400)] {
        let data = RegistryData::binary(vec![1; size]);
        hive.set_value(top, name, &data, NOW).unwrap();
    }
    for name in ["x", "Ω", "y"] {
        let key = hive.create_key(hive.root(), name, NOW).unwrap();
        let mut other = hive.security(key).unwrap().to_vec();
        *other.last_mut().unwrap() = name.len() as u8;
        hive.set_security(key, &other, NOW).unwrap();
    }
    hive.finish(&[]).unwrap()
}

fn seal(bytes: &mut [u8]) {
    let sum = bytes[..508].chunks_exact(4).fold(0, |sum, w| sum ^ u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    let sum = match sum {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    };
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// Marvin32 with the registry's seed.
fn marvin(data: &[u8]) -> u64 {
    let (mut lo, mut hi) = (0x7A4E_55C5u32, 0x82EF_4D88u32);
    let mut padded = data.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(4) + 4, 0);
    for word in padded.chunks_exact(4) {
        lo = lo.wrapping_add(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        hi ^= lo;
        lo = lo.rotate_left(20).wrapping_add(hi);
        hi = hi.rotate_left(9) ^ lo;
        lo = lo.rotate_left(27).wrapping_add(hi);
        hi = hi.rotate_left(19);
    }
    u64::from(hi) << 32 | u64::from(lo)
}

/// A log of this type whose base block is that of the hive; in the new format `body` is one entry with right hashes.
fn log(hive: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut log = hive[..512].to_vec();
    log[28] = kind;
    log.copy_within(4..8, 8);
    seal(&mut log);
    let mut entry = body.to_vec();
    if kind == 6 && entry.len() >= 40 {
        entry.resize(entry.len().next_multiple_of(512), 0);
        entry[..4].copy_from_slice(b"HvLE");
        let size = entry.len() as u32;
        entry[4..8].copy_from_slice(&size.to_le_bytes());
        entry[12..16].copy_from_slice(&hive[4..8]);
        let hash = marvin(&entry[40..]);
        entry[24..32].copy_from_slice(&hash.to_le_bytes());
        let hash = marvin(&entry[..32]);
        entry[32..40].copy_from_slice(&hash.to_le_bytes());
    }
    log.extend(entry);
    log
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let mut bytes = data.to_vec();
    if !data.starts_with(b"regf") || data.len() < 8192 {
        let _ = Hive::open(data.to_vec());
        bytes.clone_from(&SOUND[usize::from(choice) % SOUND.len()]);
        for change in rest.chunks_exact(4).take(16) {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % (bytes.len() - 2);
            bytes[at..at + 2].copy_from_slice(&change[2..]);
        }
        bytes[..4].copy_from_slice(b"regf");
    }
    bytes.copy_within(4..8, 8);
    seal(&mut bytes);
    let before = check(&bytes);
    if let Ok(reader) = Reader::open(&bytes) {
        let _ = reader.walk(&mut |_, node| node.values().map(drop));
    }

    // As a dirty hive with a log: two entries, or the dirty sectors of old.
    let mut dirty = bytes.clone();
    dirty[4] = dirty[4].wrapping_add(1);
    seal(&mut dirty);
    for kind in [6, 1] {
        let log = log(&bytes, kind, rest);
        if let Ok((mut hive, _)) = Hive::open_with_logs(dirty.clone(), Some(&log), None) {
            let _ = hive.create_key(hive.root(), r"new\key", NOW);
            let _ = hive.finish(&[&log]);
        }
    }

    let Ok(mut hive) = Hive::open(bytes) else { return };
    let _ = export(&hive, hive.root(), &KeyPath::default());
    if let Ok(key) = hive.create_key(hive.root(), r"new\key", NOW) {
        let data = RegistryData::binary(&data[..data.len() % 40_000]);
        let _ = hive.set_value(key, "value", &data, NOW);
    }
    for key in hive.subkeys(hive.root()).unwrap_or_default().into_iter().take(3) {
        let _ = hive.delete_key(key, NOW);
    }
    if let Ok(after) = hive.finish(&[]) {
        let errors = |faults: &[winject::internals::hive::check::Fault]| {
            faults.iter().filter(|fault| fault.severity() == Severity::Error).count()
        };
        let after = check(&after);
        assert!(errors(&after) <= errors(&before) && after.len() <= before.len());
    }
});
