//! The operations one by one.

use std::os::unix::fs::FileExt;

use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::ntfs::{
    CreateOptions, FileId, Namespace, OpenOptions, Security, ShortNames, Times, Volume, fixup,
};

use super::volume::{FileDevice, Shape, TestVolume, clock, read_by_us};

const MIB: u64 = 1 << 20;

fn first_file() {
    let Some(test) = TestVolume::make(Shape { size: 64 * MIB, cluster: 4096, sector: 512 }) else { return };
    let mut volume = test.open();
    let dir = volume.create_dir_all("/Windows/System32", &CreateOptions::default()).unwrap();
    volume.create_file(dir, "hello.txt", b"Hello", &CreateOptions::default()).unwrap();
    volume.create_file(dir, "a rather long name.bin", &vec![7; 100_000], &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    test.assert_clean("two files");
    for n in 0..600 {
        volume
            .create_file(dir, &format!("file number {n}"), &vec![n as u8; n * 10], &CreateOptions::default())
            .unwrap();
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

fn volume_of(size: u64) -> Option<TestVolume> {
    TestVolume::make(Shape { size, cluster: 4096, sector: 512 })
}

fn namespaces(volume: &Volume<FileDevice>) -> Vec<(String, Namespace)> {
    let entries = volume.entries(FileId::ROOT).unwrap();
    entries.into_iter().filter(|e| e.file.record.0 >= 24).map(|e| (e.name.to_string(), e.namespace)).collect()
}

/// Changes `$VOLUME_INFORMATION`'s flags in record 3 and its mirror.
fn set_volume_flags(test: &TestVolume, flags: u16) {
    let device = std::fs::File::options().read(true).write(true).open(&test.path).unwrap();
    let geometry = test.open().geometry().clone();
    for lcn in [geometry.mft, geometry.mirror] {
        let at = lcn.0 * u64::from(geometry.cluster_size) + 3 * u64::from(geometry.record_size);
        let mut block = vec![0; geometry.record_size as usize];
        device.read_exact_at(&mut block, at).unwrap();
        fixup::unseal(&mut block, fixup::FILE).unwrap();
        let place = block.windows(10).position(|w| w == [0, 0, 0, 0, 0, 0, 0, 0, 3, 1]).unwrap() + 10;
        block[place..place + 2].copy_from_slice(&flags.to_le_bytes());
        fixup::seal(&mut block).unwrap();
        device.write_all_at(&block, at).unwrap();
    }
}

fn short_names_follow_the_volume() {
    let Some(test) = volume_of(16 * MIB) else { return };
    let mut volume = test.open();
    for name in ["short.txt", "a long name.txt", "a long name too.txt", ".dot"] {
        volume.create_file(FileId::ROOT, name, b"x", &CreateOptions::default()).unwrap();
    }
    let mut names = namespaces(&volume);
    names.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        (".dot", Namespace::Win32),
        ("ALONGN~1.TXT", Namespace::Dos),
        ("ALONGN~2.TXT", Namespace::Dos),
        ("DOT~1", Namespace::Dos),
        ("a long name too.txt", Namespace::Win32),
        ("a long name.txt", Namespace::Win32),
        ("short.txt", Namespace::Win32AndDos),
    ];
    assert_eq!(names, expected.map(|(n, s)| (n.to_string(), s)));
    // found, replaced and deleted under either name
    let file = volume.find("/alongn~1.txt").unwrap();
    assert_eq!(file, volume.find("/A LONG NAME.TXT").unwrap());
    assert_eq!(volume.stat(file.unwrap()).unwrap().links, 2);
    volume.replace_file("/ALONGN~1.TXT", b"replaced", &CreateOptions::default()).unwrap();
    assert_eq!(volume.read(volume.find("/a long name.txt").unwrap().unwrap(), 10).unwrap(), b"replaced");
    assert!(volume.create_file(FileId::ROOT, "dot~1", b"", &CreateOptions::default()).is_err());
    volume.delete("/dot~1").unwrap();
    assert_eq!(volume.find("/.dot").unwrap(), None);
    // a link, with the file's only pair of names elsewhere, has none of its own
    let file = volume.find("/a long name too.txt").unwrap().unwrap();
    volume.link(file, FileId::ROOT, "another long name").unwrap();
    assert!(namespaces(&volume).contains(&("another long name".into(), Namespace::Posix)));
    volume.rename("/a long name too.txt", "/now short").unwrap();
    volume.flush().unwrap();
    test.assert_clean("with short names");

    set_volume_flags(&test, 0x0080);
    let mut volume = test.open();
    volume.create_file(FileId::ROOT, "off.txt", b"x", &CreateOptions::default()).unwrap();
    assert!(namespaces(&volume).contains(&("off.txt".into(), Namespace::Posix)));
    volume.flush().unwrap();
    test.assert_clean("short names off");
    let options = OpenOptions { short_names: ShortNames::Never, ..OpenOptions::new(clock()) };
    set_volume_flags(&test, 0);
    let mut volume = Volume::open(test.device(), &options).unwrap();
    volume.create_file(FileId::ROOT, "never a short name", b"x", &CreateOptions::default()).unwrap();
    assert!(namespaces(&volume).contains(&("never a short name".into(), Namespace::Posix)));
}

fn a_dirty_volume_is_refused_unless_allowed() {
    let Some(test) = volume_of(16 * MIB) else { return };
    set_volume_flags(&test, 1);
    let error = Volume::open(test.device(), &OpenOptions::new(clock())).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.hint_text().is_some_and(|h| h.contains("--allow-dirty")));
    Volume::open(test.device(), &OpenOptions { allow_dirty: true, ..OpenOptions::new(clock()) }).unwrap();
    let mut volume = Volume::open(test.device(), &OpenOptions::read_only()).unwrap();
    assert_eq!(
        volume.create_file(FileId::ROOT, "x", b"", &CreateOptions::default()).unwrap_err().kind(),
        Kind::Refused
    );
}

fn a_hibernated_volume_is_refused_and_can_be_forced() {
    let Some(test) = volume_of(16 * MIB) else { return };
    let mut volume = test.open();
    let mut image = b"HIBR".to_vec();
    image.resize(20_000, 0x11);
    volume.create_file(FileId::ROOT, "hiberfil.sys", &image, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    let error = Volume::open(test.device(), &OpenOptions::new(clock())).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let options = OpenOptions { discard_hibernation: true, ..OpenOptions::new(clock()) };
    let mut volume = Volume::open(test.device(), &options).unwrap();
    // nothing is thrown away before the first edit
    assert_eq!(volume.read(volume.find("/hiberfil.sys").unwrap().unwrap(), 1 << 20).unwrap(), image);
    volume.create_file(FileId::ROOT, "edit", b"", &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    image[..4096].fill(0);
    assert_eq!(volume.read(volume.find("/hiberfil.sys").unwrap().unwrap(), 1 << 20).unwrap(), image);
    let error = Volume::open(test.device(), &OpenOptions::new(clock())).unwrap_err();
    assert!(error.to_string().contains("dirty"), "{error}");
}

fn times_attributes_and_security() {
    let Some(test) = volume_of(16 * MIB) else { return };
    let mut volume = test.open();
    let file = volume.create_file(FileId::ROOT, "file", b"x", &CreateOptions::default()).unwrap();
    let id = volume.stat(file).unwrap().security.unwrap();
    let like = CreateOptions { security: Security::Like(file), attributes: Some(0x7), time: Some(FileTime(1 << 56)) };
    let second = volume.create_file(FileId::ROOT, "second", b"x", &like).unwrap();
    let stat = volume.stat(second).unwrap();
    assert_eq!((stat.security, stat.attributes, stat.times), (Some(id), 7, Times::all(FileTime(1 << 56))));
    let times = Times { accessed: FileTime(5 << 50), ..Times::all(FileTime(3 << 54)) };
    volume.set_attributes(file, 0x21 | 0x800).unwrap();
    volume.set_times(file, &times).unwrap();
    let stat = volume.stat(file).unwrap();
    assert_eq!((stat.times, stat.attributes), (times, 0x21));
    volume.set_security(file, 0x100).unwrap();
    assert_eq!(volume.stat(file).unwrap().security, Some(0x100));
    assert_eq!(volume.set_security(file, 0x7777).unwrap_err().kind(), Kind::Refused);
    assert_eq!(volume.set_times(file, &Times::all(FileTime(0))).unwrap_err().kind(), Kind::Refused);
    assert!(volume.set_attributes(FileId::ROOT, 0).is_err());
    // replacing keeps what the old file was
    let replaced = volume.replace_file("/second", &[1; 5000], &CreateOptions::default()).unwrap();
    let stat = volume.stat(replaced).unwrap();
    assert_eq!((stat.security, stat.attributes, stat.times.created), (Some(id), 7, FileTime(1 << 56)));
    volume.flush().unwrap();
    test.assert_clean("facts changed");
}

fn overwriting_writes_only_what_differs() {
    let Some(test) = volume_of(16 * MIB) else { return };
    let mut volume = test.open();
    let mut data = vec![1u8; 1 << 20];
    let file = volume.create_file(FileId::ROOT, "hive", &data, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    drop(volume);
    let before = std::fs::read(&test.path).unwrap();
    let mut volume = test.open();
    data[500_000] = 2;
    volume.overwrite(file, &data).unwrap();
    volume.flush().unwrap();
    let after = std::fs::read(&test.path).unwrap();
    let changed = before.chunks(4096).zip(after.chunks(4096)).filter(|(a, b)| a != b).count();
    // the data, the record, and the directory's index
    assert!(changed <= 4, "{changed} blocks changed");
    // the same content and the same clock: nothing but sequence counters
    volume.overwrite(file, &data[..100_000]).unwrap();
    volume.overwrite(file, &data).unwrap();
    assert!(volume.read(file, 1 << 20).unwrap() == data);
    volume.flush().unwrap();
    test.assert_clean("overwritten");
}

tests![
    first_file,
    short_names_follow_the_volume,
    a_dirty_volume_is_refused_unless_allowed,
    a_hibernated_volume_is_refused_and_can_be_forced,
    times_attributes_and_security,
    overwriting_writes_only_what_differs,
];
