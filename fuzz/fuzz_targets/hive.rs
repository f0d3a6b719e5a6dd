//! Hives: the bytes are a hive file (its checksum is made right) and, after it, a log. Whatever they hold, an edit
//! leaves no fault behind that was not there before.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::clock::FileTime;
use winject::hive::check::check;
use winject::hive::reader::Reader;
use winject::hive::reg::{KeyPath, export};
use winject::hive::{Data, Hive};

fn seal(bytes: &mut [u8]) {
    bytes.copy_within(4..8, 8);
    let sum = bytes[..508].chunks_exact(4).fold(0, |sum, w| sum ^ u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    let sum = match sum {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    };
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
}

fuzz_target!(|data: &[u8]| {
    if data.len() < 8192 {
        let _ = Hive::open(data.to_vec());
        return;
    }
    let mut bytes = data.to_vec();
    seal(&mut bytes);
    let before = check(&bytes);
    if let Ok(reader) = Reader::open(&bytes) {
        let _ = reader.walk(&mut |_, node| node.values().map(drop));
    }
    // As a dirty hive whose log is its own tail.
    let mut dirty = bytes.clone();
    dirty[8] ^= 1;
    let _ = Hive::open_with_logs(dirty, Some(&data[4096..]), Some(data));

    let Ok(mut hive) = Hive::open(bytes) else { return };
    let _ = export(&hive, hive.root(), &KeyPath::default());
    let now = FileTime(1);
    if let Ok(key) = hive.create_key(hive.root(), r"new\key", now) {
        let data = Data::binary(&data[..data.len() % 40_000]);
        let _ = hive.set_value(key, "value", data.kind, &data.bytes, now);
    }
    for key in hive.subkeys(hive.root()).unwrap_or_default().into_iter().take(3) {
        let _ = hive.delete_key(key, now);
    }
    if let Ok(after) = hive.finish(&[]) {
        assert!(check(&after).len() <= before.len());
    }
});
