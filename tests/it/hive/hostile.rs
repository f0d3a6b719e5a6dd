//! Hostile hives: bytes changed in every header of small hives. Nothing may panic or run away.

use winject::internals::hive::check::check;
use winject::internals::hive::reader::Reader;
use winject::internals::hive::reg_file::{KeyPath, export};
use winject::internals::hive::{Hive, Name, RegistryData, ValueType};
use winject::internals::random::Random;

use super::support::{NOW, seal, word};
use crate::support;

/// A small hive with every structure of its version in it.
fn small(minor: u32) -> Vec<u8> {
    let mut hive = Hive::create_version("R", minor, NOW);
    let top = hive.create_key(hive.root(), r"a\bb\ccc", NOW).unwrap();
    hive.set_class(top, Some(&Name::from("Class")), NOW).unwrap();
    for (name, size) in [("", 7), ("four", 4), ("large", if minor > 3 { 16_400 } else { 200 })] {
        hive.set_value(top, name, &RegistryData::new(ValueType(size), vec![1; size as usize]), NOW).unwrap();
    }
    for name in ["x", "Ω", "y"] {
        let key = hive.create_key(hive.root(), name, NOW).unwrap();
        let mut other = hive.security(key).unwrap().to_vec();
        *other.last_mut().unwrap() = name.len() as u8;
        hive.set_security(key, &other, NOW).unwrap();
    }
    hive.finish(&[]).unwrap()
}

/// Every byte of a header: base block, bins, the first bytes of each cell.
fn headers(bytes: &[u8]) -> Vec<usize> {
    let mut all: Vec<usize> = (0..52).chain(144..168).chain(508..512).collect();
    let mut bin = 4096;
    while bin < bytes.len() {
        let (next, mut at) = (bin + word(bytes, bin + 8) as usize, bin + 32);
        all.extend(bin..bin + 32);
        while at < next {
            let size = (word(bytes, at) as i32).unsigned_abs() as usize;
            all.extend(at..at + size.min(84));
            at += size;
        }
        bin = next;
    }
    all
}

fn mutate(bytes: &mut [u8], headers: &[usize], random: &mut Random) {
    for _ in 0..1 + random.index(3) {
        let at = headers[random.index(headers.len())];
        match random.index(5) {
            0 => bytes[at] = random.byte(),
            1 => bytes[at] ^= 1 << random.index(8),
            2 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.index(5)],
            3 => bytes[at] = bytes[at].wrapping_add(8),
            _ => {
                // another reference, or a number near a limit
                let at = at & !3;
                let other = headers[random.index(headers.len())] & !7;
                let number =
                    [other as u32 - other.min(4096) as u32, u32::MAX, 0x8000_0000, 0x7FFF_FFFF, 0][random.index(5)];
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
        }
    }
    if random.index(20) > 0 {
        let primary: [u8; 4] = bytes[4..8].try_into().unwrap();
        bytes[8..12].copy_from_slice(&primary);
        seal(bytes);
    }
}

/// Everything that the library does with a hive.
fn exercise(bytes: &[u8], log: &[u8], random: &mut Random) {
    let faults = check(bytes);
    if let Ok(reader) = Reader::open(bytes) {
        let mut left = 10_000;
        let _ = reader.walk(&mut |_, node| {
            left -= 1;
            let _ = (node.values(), node.class(), node.security(), node.subkey(&[0x78]));
            if left == 0 { Err(winject::Error::bug(winject::Layer::Hive, "enough")) } else { Ok(()) }
        });
        let _ = reader.reach_all();
        let _ = reader.key(r"a\bb\ccc");
    }
    let Ok((mut hive, _)) = Hive::open_with_logs(bytes.to_vec(), Some(log), None) else { return };
    let _ = export(&hive, hive.root(), &KeyPath::default());
    let _ =
        hive.find(hive.root(), r"a\bb\CCC").map(|key| key.map(|key| (hive.key_path(key), hive.security(key).is_ok())));
    let data = RegistryData::binary(vec![7; random.index(300)]);
    if let Ok(key) = hive.create_key(hive.root(), r"a\new\key", NOW) {
        let _ = hive.set_value(key, "v", &data, NOW);
    }
    for path in [r"a\bb\ccc", "x"] {
        if let Ok(Some(key)) = hive.find(hive.root(), path) {
            let _ = hive.set_value(key, "four", &data, NOW);
            let _ = hive.delete_value(key, "", NOW);
            let _ = hive.delete_key(key, NOW);
        }
    }
    if let Ok(result) = hive.finish(&[log]) {
        // What comes out of an edit has no fault that was not there before.
        assert!(check(&result).len() <= faults.len());
    }
}

/// A log in the new format whose base block is right; its entries are not.
fn log_of(bytes: &[u8]) -> Vec<u8> {
    let mut log = bytes[..512].to_vec();
    log[28] = 6;
    seal(&mut log);
    log.extend(b"HvLE\0\x02\0\0");
    log.resize(1024, 0);
    log
}

fn mutated_headers_never_panic() {
    let count = support::rounds(30_000, 70_000);
    std::thread::scope(|scope| {
        for minor in [3u32, 5, 6] {
            scope.spawn(move || {
                let sound = small(minor);
                let (headers, log) = (headers(&sound), log_of(&sound));
                let mut random = Random::new(u64::from(minor));
                let mut bytes = sound.clone();
                for _ in 0..count.div_ceil(3) {
                    bytes.copy_from_slice(&sound);
                    mutate(&mut bytes, &headers, &mut random);
                    exercise(&bytes, &log, &mut random);
                }
            });
        }
    });
}

fn cut_off_hives_never_panic() {
    let (sound, mut random) = (small(5), Random::new(4));
    for length in (0..sound.len()).step_by(61) {
        exercise(&sound[..length], &sound[..length.min(600)], &mut random);
    }
}

tests![mutated_headers_never_panic, cut_off_hives_never_panic,];
