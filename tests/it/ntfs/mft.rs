//! `$MFT` itself over several records: free space in pieces of one cluster makes an extent of every record that it grows.

use std::os::unix::fs::FileExt as _;

use winject::internals::ntfs::{CreateOptions, FileId};

use super::large::fragmented;
use super::volume::TestVolume;
use crate::support;

const MIB: u64 = 1 << 20;

/// Bytes of `$MFT:$DATA`, and whether it has an attribute list, read from record 0 without our reader.
fn mft(test: &TestVolume) -> (u64, bool) {
    let file = std::fs::File::open(&test.path).unwrap();
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let boot = read(0, 512);
    let cluster = u64::from(u16::from_le_bytes([boot[11], boot[12]])) * u64::from(boot[13]);
    let mut record = read(number(&boot, 0x30) * cluster, 1024);
    let array = usize::from(record[4]);
    record.copy_within(array + 2..array + 4, 510);
    record.copy_within(array + 4..array + 6, 1022);
    let (mut at, mut size, mut has_list) = (usize::from(record[0x14]), 0, false);
    loop {
        let kind = u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
        match kind {
            u32::MAX => return (size, has_list),
            0x20 => has_list = true,
            // sizes are in the first extent only
            0x80 if number(&record, at + 0x10) == 0 => size = number(&record, at + 0x30),
            _ => {}
        }
        at += u32::from_le_bytes(record[at + 4..at + 8].try_into().unwrap()) as usize;
    }
}

fn it_grows_by_single_clusters_over_many_records() {
    let Some(test) = fragmented(40 * MIB, 1024) else { return };
    let wanted = support::rounds(1200, 2000);
    let (before, has_list) = mft(&test);
    assert!(!has_list);
    let mut volume = test.open();
    let dir = volume.create_dir_all("/many", &CreateOptions::default()).unwrap();
    let (mut made, mut sessions) = (0u64, 0);
    // first the records that are free, then those that $MFT has to grow for
    while mft(&test).0 < before + wanted * 1024 {
        for _ in 0..500 {
            volume.create_file(dir, &format!("small {made}"), b"resident", &CreateOptions::default()).unwrap();
            made += 1;
        }
        volume.flush().unwrap();
        sessions += 1;
        if sessions % 8 == 0 {
            test.assert_clean(&format!("{made} files"));
            volume = test.open();
        }
    }
    assert!(mft(&test).1, "$MFT has no attribute list");
    test.assert_clean("grown");
    // ntfs-3g finds the last file through all of it
    if let Some(ntfscat) = support::program("ntfscat") {
        let mut cat = std::process::Command::new(ntfscat);
        let output = support::run(cat.arg("-f").arg(&test.path).arg(format!("many/small {}", made - 1)));
        assert_eq!(output.stdout, b"resident");
    }
    // records that were freed are used again, and the volume stays sound
    let mut volume = test.open();
    for n in (0..made).step_by(3) {
        volume.delete(&format!("/many/small {n}")).unwrap();
    }
    volume.forget_freed().unwrap();
    for n in 0..200 {
        volume.create_file(FileId::ROOT, &format!("again {n}"), &[7; 600], &CreateOptions::default()).unwrap();
    }
    volume.flush().unwrap();
    test.assert_clean("used again");
    println!("$MFT grew from {before} to {} bytes for {made} files", mft(&test).0);
}

tests![it_grows_by_single_clusters_over_many_records,];
