//! The operations one by one.

use winject::ntfs::{FileId, New};

use super::volume::{Shape, TestVolume, read_by_us};

const MIB: u64 = 1 << 20;

#[test]
fn first_file() {
    let Some(test) = TestVolume::make(Shape { size: 64 * MIB, cluster: 4096, sector: 512 }) else { return };
    let mut volume = test.open();
    let dir = volume.create_dir_all("/Windows/System32", &New::default()).unwrap();
    volume.create_file(dir, "hello.txt", b"Hello", &New::default()).unwrap();
    volume.create_file(dir, "a rather long name.bin", &vec![7; 100_000], &New::default()).unwrap();
    volume.flush().unwrap();
    test.assert_clean("two files");
    for n in 0..600 {
        volume.create_file(dir, &format!("file number {n}"), &vec![n as u8; n * 10], &New::default()).unwrap();
    }
    volume.flush().unwrap();
    test.assert_clean("600 files");
    assert_eq!(read_by_us(&volume), test.read_by_crate());
    for n in (0..600).step_by(2) {
        volume.delete(&format!("/windows/SYSTEM32/File Number {n}")).unwrap();
    }
    volume.flush().unwrap();
    test.assert_clean("300 deleted");
    for n in (1..600).step_by(2) {
        volume.rename(&format!("/Windows/System32/file number {n}"), &format!("/{n}")).unwrap();
    }
    volume.flush().unwrap();
    test.assert_clean("300 renamed");
    assert_eq!(volume.entries(dir).unwrap().len(), 3);
    assert!(volume.entries(FileId::ROOT).unwrap().len() > 300);
    assert_eq!(read_by_us(&volume), test.read_by_crate());
}
