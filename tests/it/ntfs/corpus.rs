//! The same operations on volumes that Windows made: no judge may find anything that it did not find before.

use winject::internals::error::Kind;
use winject::internals::io::VolumeRead;
use winject::internals::ntfs::check::{CheckOptions, check};
use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, Replay, Volume};

use super::model::{Model, Random, assert_foreign_files, burst, step};
use super::volume::{FileDevice, TestVolume, clock, read_by_us};
use crate::support;

/// File, where the volume begins, and whether it can be opened for editing.
const VOLUMES: [(&str, u64); 4] = [
    ("ntfs/dfvfs-ntfs.raw.xz", 0),
    ("ntfs/ntfs-2m.raw.gz", 65536),
    ("ntfs/ntfs-lastaccess.raw.gz", 65536),
    ("ntfs/ntfs-ptrn.raw.gz", 65536),
];

fn operations_on_volumes_by_windows() {
    for (number, (file, start)) in VOLUMES.into_iter().enumerate() {
        let Some(bytes) = support::corpus_bytes(file) else { return };
        let test = TestVolume::copy_of(&bytes, start);
        drop(bytes);
        let options = OpenOptions { allow_dirty: true, ..OpenOptions::new(clock()) };
        let mut volume = Volume::open(test.device(), &options).unwrap_or_else(|e| panic!("{file}: {e}"));
        let foreign = read_by_us(&volume);
        let dir = volume.create_dir_all("/winject test", &CreateOptions::default()).unwrap();
        let file_id = volume.create_file(dir, "hello.txt", b"hello", &CreateOptions::default()).unwrap();
        assert!(volume.stat(file_id).unwrap().security.is_some());
        let mut random = Random::new(number as u64);
        let mut model = Model::default();
        let (mut done, mut refused) = (0, 0);
        for number in 0..support::rounds(400, 1000) {
            let result = if number % 25 == 12 {
                burst(&mut volume, &mut model, &mut random)
            } else {
                step(&mut volume, &mut model, &mut random, 60_000).map(|()| 1)
            };
            match result {
                Ok(count) => done += count,
                Err(e) if e.kind() == Kind::Refused => refused += 1,
                Err(e) => panic!("{file}: {e}"),
            }
        }
        volume.flush().unwrap();
        test.assert_clean(file);
        // what chkdsk would say of our own checker's making: nothing that was not there before
        let report = |device| check(&device, &CheckOptions::default()).unwrap();
        let before = report(FileDevice::open(test.baseline.as_ref().unwrap(), start));
        let after = report(test.device());
        assert_eq!(before.errors, 0, "{file}: {before}");
        assert_eq!(after.errors, 0, "{file}: {after}");
        assert_foreign_files(&test, &model, file);
        // what Windows had written is still there
        let now = read_by_us(&volume);
        for (path, content) in &foreign {
            assert!(now.get(path) == Some(content), "{file}: {path} changed");
        }
        println!("{file}: {} foreign files, {done} operations, {refused} refused", foreign.len());
    }
}

/// The log of a volume that Windows had mounted when it was copied.
fn an_open_log_is_replayed_before_the_first_edit() {
    let Some(bytes) = support::corpus_bytes("ntfs/tiny-unclean-log.raw.xz") else { return };
    let test = TestVolume::copy_of(&bytes, 0);
    let options = OpenOptions { allow_dirty: true, ..OpenOptions::new(clock()) };
    let mut volume = Volume::open(test.device(), &options).unwrap();
    assert!(volume.device().replay().is_some() && volume.device().has_unwritten());
    let seen = read_by_us(&volume);
    volume.create_file(FileId::ROOT, "after.txt", b"x", &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    assert!(!volume.device().has_unwritten());
    let volume = Volume::open(test.device(), &options).unwrap();
    assert!(volume.device().is_closed(), "{:?}", volume.device().replay_failure());
    let now = read_by_us(&volume);
    assert!(seen.iter().all(|(path, content)| now.get(path) == Some(content)));
}

fn without_replay_an_open_log_is_refused_and_can_be_discarded() {
    let Some(bytes) = support::corpus_bytes("ntfs/tiny-unclean-log.raw.xz") else { return };
    let test = TestVolume::copy_of(&bytes, 0);
    let without_replay = OpenOptions { replay: Replay::Never, ..OpenOptions::new(clock()) };
    let error = Volume::open(test.device(), &without_replay).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.hint_text().is_some());
    Volume::open(test.device(), &OpenOptions::read_only()).unwrap();
    let options = OpenOptions { discard_log: true, allow_dirty: true, ..without_replay };
    let mut volume = Volume::open(test.device(), &options).unwrap();
    volume.create_file(FileId::ROOT, "after.txt", b"x", &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    // the volume is marked to be checked, so a second run needs to be told
    let error = Volume::open(test.device(), &OpenOptions::new(clock())).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    Volume::open(test.device(), &OpenOptions { allow_dirty: true, ..OpenOptions::new(clock()) }).unwrap();
    assert!(test.device().len() > 0);
}

tests![
    operations_on_volumes_by_windows,
    an_open_log_is_replayed_before_the_first_edit,
    without_replay_an_open_log_is_refused_and_can_be_discarded,
];
