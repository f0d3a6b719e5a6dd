//! Large things: directories with many entries, files with many names and streams, fragmented space, a full $MFT.

use winject::ntfs::{FileId, New};

use super::model::Random;
use super::volume::{Shape, TestVolume, read_by_us};
use crate::support;

const MIB: u64 = 1 << 20;

#[test]
fn directories_grow_and_shrink_in_every_order() {
    let count = support::rounds(1500, 6000);
    for (order, cluster) in [("ascending", 4096), ("descending", 512), ("random", 1024), ("random", 65536)] {
        let size = if cluster > 4096 { 192 * MIB } else { 48 * MIB };
        let Some(test) = TestVolume::make(Shape { size, cluster, sector: 512 }) else { return };
        let mut volume = test.open();
        let dir = volume.create_dir_all("/directory", &New::default()).unwrap();
        let mut random = Random::new(7);
        let mut names: Vec<String> =
            (0..count).map(|n| format!("{n:06}{}", "n".repeat(random.below(90) as usize))).collect();
        match order {
            "descending" => names.reverse(),
            "random" => {
                for i in (1..names.len()).rev() {
                    names.swap(i, random.below(i as u64 + 1) as usize);
                }
            }
            _ => {}
        }
        for name in &names {
            volume.create_file(dir, name, b"", &New::default()).unwrap();
        }
        volume.flush().unwrap();
        test.assert_clean(&format!("{order}: {count} created"));
        for name in names.iter().step_by(2) {
            volume.delete(&format!("/directory/{name}")).unwrap();
        }
        volume.flush().unwrap();
        test.assert_clean(&format!("{order}: every second deleted"));
        for name in &names {
            let there = volume.find(&format!("/directory/{name}")).unwrap();
            if let Some(n) = names.iter().position(|x| x == name) {
                assert_eq!(there.is_some(), n % 2 == 1, "{name}");
            }
            if there.is_some() {
                volume.rename(&format!("/directory/{name}"), &format!("/directory/~{name}")).unwrap();
            }
        }
        volume.flush().unwrap();
        test.assert_clean(&format!("{order}: the others renamed"));
        for name in names.iter().skip(1).step_by(2) {
            volume.delete(&format!("/directory/~{name}")).unwrap();
        }
        assert_eq!(volume.entries(dir).unwrap(), []);
        volume.flush().unwrap();
        test.assert_clean(&format!("{order}: all deleted"));
        volume.delete("/directory").unwrap();
        volume.flush().unwrap();
        test.assert_clean(&format!("{order}: directory deleted"));
    }
}

#[test]
fn files_with_many_names_and_streams_need_attribute_lists() {
    for (cluster, sector) in [(4096, 512), (512, 512), (4096, 4096)] {
        let Some(test) = TestVolume::make(Shape { size: 48 * MIB, cluster, sector }) else { return };
        let mut volume = test.open();
        let dir = volume.create_dir_all("/names", &New::default()).unwrap();
        let file = volume.create_file(FileId::ROOT, "file", &[1; 5000], &New::default()).unwrap();
        for n in 0..300 {
            volume.link(file, dir, &format!("name {n} of the file, rather long")).unwrap();
            if n % 3 == 0 {
                volume.write_stream(file, &format!("stream {n}"), &vec![n as u8; n * 5]).unwrap();
            }
            if n % 100 == 1 {
                volume.flush().unwrap();
                test.assert_clean(&format!("{n} names"));
            }
        }
        volume.overwrite(file, &vec![2; 50_000]).unwrap();
        let mut buf = [0; 600];
        assert_eq!(volume.read_at(file, "STREAM 99", 0, &mut buf).unwrap(), 495);
        volume.flush().unwrap();
        test.assert_clean("300 names");
        assert_eq!(volume.stat(file).unwrap().streams.len(), 100);
        // a directory with streams of its own
        for n in 0..40 {
            volume.write_stream(dir, &format!("s{n}"), &[3; 100]).unwrap();
        }
        volume.flush().unwrap();
        test.assert_clean("a directory with an attribute list");
        for n in 0..300 {
            volume.delete(&format!("/names/name {n} of the file, rather long")).unwrap();
        }
        volume.flush().unwrap();
        test.assert_clean("one name left");
        volume.delete("/file").unwrap();
        volume.delete("/names").unwrap();
        volume.flush().unwrap();
        test.assert_clean("all deleted");
        assert!(read_by_us(&volume).is_empty());
    }
}

/// A volume on which every second cluster is taken.
pub(super) fn fragmented(size: u64, cluster: u32) -> Option<TestVolume> {
    let test = TestVolume::make(Shape { size, cluster, sector: 512 })?;
    let mut volume = test.open();
    let dir = volume.create_dir_all("/fillers", &New::default()).unwrap();
    let mut made = 0;
    while volume.create_file(dir, &format!("{made}"), &vec![0xAA; cluster as usize], &New::default()).is_ok() {
        made += 1;
    }
    for n in (0..made).step_by(2) {
        volume.delete(&format!("/fillers/{n}")).unwrap();
    }
    volume.forget_freed().unwrap();
    test.assert_clean("fragmented");
    Some(test)
}

#[test]
pub(super) fn fragmented_space_gives_run_lists_over_several_records() {
    let Some(test) = fragmented(8 * MIB, 1024) else { return };
    let mut volume = test.open();
    let free = volume.free_space().unwrap();
    assert!(free > MIB);
    let data = Random::new(1).bytes(free as usize * 2 / 3);
    let file = volume.create_file(FileId::ROOT, "scattered", &data, &New::default()).unwrap();
    volume.flush().unwrap();
    test.assert_clean("a scattered file");
    assert!(volume.read(file, 1 << 30).unwrap() == data);
    volume.overwrite(file, &data[..data.len() / 3]).unwrap();
    volume.flush().unwrap();
    test.assert_clean("a third of it");
    volume.forget_freed().unwrap();
    volume.overwrite(file, &data[..data.len() / 2]).unwrap();
    volume.write_stream(file, "side", &data[..data.len() / 6]).unwrap();
    volume.flush().unwrap();
    test.assert_clean("grown again");
    assert!(volume.read(file, 1 << 30).unwrap() == data[..data.len() / 2]);
    assert!(test.read_by_crate() == read_by_us(&volume));
    volume.delete("/scattered").unwrap();
    volume.flush().unwrap();
    test.assert_clean("deleted");
}

#[test]
fn mft_grows_in_fragmented_space() {
    let Some(test) = fragmented(24 * MIB, 1024) else { return };
    let mut volume = test.open();
    let dir = volume.create_dir_all("/many", &New::default()).unwrap();
    let mut made = 0;
    while made < support::rounds(3000, 8000) {
        if volume.create_file(dir, &format!("small {made}"), b"resident", &New::default()).is_err() {
            break;
        }
        made += 1;
    }
    volume.flush().unwrap();
    test.assert_clean(&format!("{made} records on a fragmented volume"));
    assert!(made > 1000);
    // $MFT itself can be read again from its first record
    let volume = test.open();
    assert_eq!(
        volume
            .entries(volume.find("/many").unwrap().unwrap())
            .unwrap()
            .iter()
            .filter(|e| e.namespace != winject::ntfs::Namespace::Dos)
            .count() as u64,
        made
    );
    println!("{made} files");
}
