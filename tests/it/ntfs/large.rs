//! Large things: directories with many entries, files with many names and streams, fragmented space, a full $MFT.

use std::collections::BTreeMap;

use winject::internals::io::VolumeRead;
use winject::internals::ntfs::attribute::AttributeType;
use winject::internals::ntfs::record::Record;
use winject::internals::ntfs::{CreateOptions, FileId};
use winject::internals::units::VolumeOffset;

use super::model::Random;
use super::volume::{Shape, TestVolume, read_by_us, sum};
use crate::support;

const MIB: u64 = 1 << 20;

/// Names of random lengths; `longest`: the longest that there can be are among them.
fn names(count: u64, order: &str, longest: bool, random: &mut Random) -> Vec<String> {
    let mut names: Vec<String> = (0..count)
        .map(|n| {
            let length = if longest && n % 8 == 0 { 248 } else { random.below(90) as usize };
            format!("{n:06}{}", "n".repeat(length))
        })
        .collect();
    match order {
        "descending" => names.reverse(),
        "random" => {
            for i in (1..names.len()).rev() {
                names.swap(i, random.below(i as u64 + 1) as usize);
            }
        }
        _ => {}
    }
    names
}

/// What there should be in `/directory`, as foreign readers report it.
fn listing<'a>(names: impl Iterator<Item = (usize, &'a String)>) -> BTreeMap<String, Option<Vec<u8>>> {
    let files = names.map(|(n, name)| (format!("/directory/{name}"), Some(content(n))));
    files.chain([("/directory".to_owned(), None)]).collect()
}

fn content(n: usize) -> Vec<u8> {
    vec![n as u8; n % 3]
}

/// A foreign reader sees this: the crate `ntfs`, or dissect where clusters are larger than index blocks. Dissect reads
/// every block of an index, released ones too: it may see names that are gone, but none may be missing.
fn assert_listing(test: &TestVolume, cluster: u32, wanted: &BTreeMap<String, Option<Vec<u8>>>, what: &str) {
    if cluster <= 4096 {
        return assert!(test.read_by_crate() == *wanted, "{what}: the foreign reader's listing");
    }
    let wanted: BTreeMap<_, _> = wanted.iter().map(|(path, c)| (path.clone(), c.as_deref().map(sum))).collect();
    if let Some(found) = test.read_by_dissect() {
        let missing = wanted.iter().find(|&(path, facts)| found.get(path).map(|seen| seen.sum) != Some(*facts));
        assert_eq!(missing, None, "{what}: the foreign reader's listing");
    }
}

/// Creates in some order, deletes every second one, renames the others, deletes all.
fn grow_and_shrink(order: &str, cluster: u32, count: u64, longest: bool) {
    let size = if cluster > 4096 { 192 * MIB } else { 48 * MIB }.max(count * 6144).next_multiple_of(MIB);
    let Some(test) = TestVolume::make(Shape { size, cluster, sector: 512 }) else { return };
    let mut volume = test.open();
    let dir = volume.create_dir_all("/directory", &CreateOptions::default()).unwrap();
    let names = names(count, order, longest, &mut Random::new(7));
    let entries = || names.iter().enumerate();
    for (n, name) in entries() {
        volume.create_file(dir, name, &content(n), &CreateOptions::default()).unwrap();
    }
    volume.flush().unwrap();
    test.assert_clean(&format!("{order}: {count} created"));
    for (_, name) in entries().step_by(2) {
        volume.delete(&format!("/directory/{name}")).unwrap();
    }
    volume.flush().unwrap();
    test.assert_clean(&format!("{order}: every second deleted"));
    assert_listing(&test, cluster, &listing(entries().skip(1).step_by(2)), &format!("{order}: every second deleted"));
    let new_names: Vec<String> = names.iter().map(|name| format!("~{}", &name[..name.len().min(254)])).collect();
    for (n, name) in entries() {
        let there = volume.find(&format!("/directory/{name}")).unwrap();
        assert_eq!(there.is_some(), n % 2 == 1, "{name}");
        if there.is_some() {
            volume.rename(&format!("/directory/{name}"), &format!("/directory/{}", new_names[n])).unwrap();
        }
    }
    volume.flush().unwrap();
    test.assert_clean(&format!("{order}: the others renamed"));
    test.assert_judges("checkdisk", &format!("{order}: the others renamed"));
    let wanted = listing(new_names.iter().enumerate().skip(1).step_by(2));
    assert_listing(&test, cluster, &wanted, &format!("{order}: the others renamed"));
    for name in new_names.iter().skip(1).step_by(2) {
        volume.delete(&format!("/directory/{name}")).unwrap();
    }
    assert_eq!(volume.entries(dir).unwrap(), []);
    volume.flush().unwrap();
    test.assert_clean(&format!("{order}: all deleted"));
    volume.delete("/directory").unwrap();
    volume.flush().unwrap();
    test.assert_clean(&format!("{order}: directory deleted"));
}

fn directories_grow_and_shrink_in_every_order() {
    for (order, cluster) in [("ascending", 4096), ("descending", 512), ("random", 1024), ("random", 65536)] {
        grow_and_shrink(order, cluster, support::rounds(1500, 3000).min(6000), false);
    }
}

/// `WINJECT_CAMPAIGN=100000` is the long form: a directory like WinSxS.
fn a_large_directory_with_the_longest_names() {
    grow_and_shrink("random", 4096, support::rounds(3000, 8000).min(1_000_000), true);
}

/// Long-lived directories of Windows are like this: the base record is full of other things.
fn an_index_spread_over_several_records_grows_and_shrinks() {
    let Some(test) = TestVolume::make(Shape { size: 64 * MIB, cluster: 1024, sector: 512 }) else { return };
    let mut volume = test.open();
    let dir = volume.create_dir_all("/directory", &CreateOptions::default()).unwrap();
    for n in 0..12 {
        volume.write_stream(dir, &format!("stream {n}"), &[3; 60]).unwrap();
    }
    let names = names(support::rounds(2000, 4000).min(20_000), "random", true, &mut Random::new(9));
    for (n, name) in names.iter().enumerate() {
        volume.create_file(dir, name, &content(n), &CreateOptions::default()).unwrap();
        if n % 5 == 4 {
            volume.delete(&format!("/directory/{}", names[n - 2])).unwrap();
        }
    }
    volume.flush().unwrap();
    test.assert_clean("created");
    let base = base_record(&test, dir);
    let holds = |kind| base.find(kind, "$I30").is_some();
    assert!(base.find(AttributeType::ATTRIBUTE_LIST, "").is_some());
    assert!(holds(AttributeType::INDEX_ROOT) != holds(AttributeType::INDEX_ALLOCATION), "both in one record");
    assert!(test.read_by_crate() == listing(names.iter().enumerate().filter(|(n, _)| n % 5 != 2)));
    test.assert_judges("checkdisk", "an index spread over several records");
    for (n, name) in names.iter().enumerate().filter(|(n, _)| n % 5 != 2) {
        volume.delete(&format!("/directory/{name}")).unwrap();
        if n == names.len() / 2 {
            volume.flush().unwrap();
            test.assert_clean("half deleted");
        }
    }
    volume.flush().unwrap();
    test.assert_clean("all deleted");
    assert!(test.read_by_crate() == listing(std::iter::empty()));
}

/// The base record of a file that lies in the first extent of `$MFT`.
fn base_record(test: &TestVolume, file: FileId) -> Record {
    let volume = test.open();
    let geometry = volume.geometry();
    let mut block = vec![0; geometry.record_size as usize];
    let offset = geometry.mft.0 * u64::from(geometry.cluster_size) + file.record.0 * u64::from(geometry.record_size);
    test.device().read_at(VolumeOffset(offset), &mut block).unwrap();
    Record::parse(block).unwrap()
}

fn files_with_many_names_and_streams_need_attribute_lists() {
    for (cluster, sector) in [(4096, 512), (512, 512), (4096, 4096)] {
        let Some(test) = TestVolume::make(Shape { size: 48 * MIB, cluster, sector }) else { return };
        let mut volume = test.open();
        let dir = volume.create_dir_all("/names", &CreateOptions::default()).unwrap();
        let file = volume.create_file(FileId::ROOT, "file", &[1; 5000], &CreateOptions::default()).unwrap();
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
    let dir = volume.create_dir_all("/fillers", &CreateOptions::default()).unwrap();
    let mut made = 0;
    while volume.create_file(dir, &format!("{made}"), &vec![0xAA; cluster as usize], &CreateOptions::default()).is_ok()
    {
        made += 1;
    }
    for n in (0..made).step_by(2) {
        volume.delete(&format!("/fillers/{n}")).unwrap();
    }
    volume.forget_freed().unwrap();
    test.assert_clean("fragmented");
    Some(test)
}

pub(super) fn fragmented_space_gives_run_lists_over_several_records() {
    let Some(test) = fragmented(8 * MIB, 1024) else { return };
    let mut volume = test.open();
    let free = volume.free_space().unwrap();
    assert!(free > MIB);
    let data = Random::new(1).bytes(free as usize * 2 / 3);
    let file = volume.create_file(FileId::ROOT, "scattered", &data, &CreateOptions::default()).unwrap();
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

fn mft_grows_in_fragmented_space() {
    let Some(test) = fragmented(24 * MIB, 1024) else { return };
    let mut volume = test.open();
    let dir = volume.create_dir_all("/many", &CreateOptions::default()).unwrap();
    let mut made = 0;
    while made < support::rounds(3000, 8000) {
        if volume.create_file(dir, &format!("small {made}"), b"resident", &CreateOptions::default()).is_err() {
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
            .filter(|e| e.namespace != winject::internals::ntfs::Namespace::Dos)
            .count() as u64,
        made
    );
    println!("{made} files");
}

tests![
    directories_grow_and_shrink_in_every_order,
    a_large_directory_with_the_longest_names,
    an_index_spread_over_several_records_grows_and_shrinks,
    files_with_many_names_and_streams_need_attribute_lists,
    fragmented_space_gives_run_lists_over_several_records,
    mft_grows_in_fragmented_space,
];
