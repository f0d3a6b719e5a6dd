//! A call that fails changes nothing: on full volumes, and on devices that fail.

use std::cell::Cell;
use std::rc::Rc;

use winject::internals::error::{Error, Kind, Layer, Result};
use winject::internals::io::{MemoryVolume, VolumeRead, VolumeWrite};
use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, Volume};
use winject::internals::units::VolumeOffset;

use super::model::{Model, Random, step};
use super::volume::{Shape, TestVolume, clock, read_by_us};
use crate::support;

/// A volume in memory whose writes fail when a countdown reaches zero.
struct Failing {
    inner: MemoryVolume,
    left: Rc<Cell<u64>>,
}

impl VolumeRead for Failing {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset, buf)
    }
}

impl VolumeWrite for Failing {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        let left = self.left.get();
        if left == 0 {
            return Err(Error::new(Kind::Io, Layer::Block, "no space on the host"));
        }
        self.left.set(left - 1);
        self.inner.write_at(offset, data)
    }
}

fn small_volume(size: u64, cluster: u32) -> Option<Vec<u8>> {
    let test = TestVolume::make(Shape { size, cluster, sector: 512 })?;
    Some(std::fs::read(&test.path).unwrap())
}

fn judge(bytes: Vec<u8>, what: &str) {
    TestVolume::copy_of(&bytes, 0).assert_clean(what);
}

fn a_full_volume_refuses_and_stays_as_it_was() {
    let mut refusals = 0;
    for (seed, cluster) in [(1, 512), (2, 1024), (3, 4096)] {
        let Some(start) = small_volume(2 << 20, cluster) else { return };
        let mut volume = Volume::open(MemoryVolume(start), &OpenOptions::new(clock())).unwrap();
        let mut random = Random::new(seed);
        // fill it up with files of all sizes, then work on the edge
        let (mut model, mut full) = (Model::default(), 0);
        for _ in 0..support::rounds(1500, 4000) {
            let before = (volume.free_space().unwrap(), read_by_us(&volume).len());
            match step(&mut volume, &mut model, &mut random, 40_000) {
                Ok(()) => {}
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Refused, "{e}");
                    assert!(e.hint_text().is_some(), "{e}");
                    assert_eq!((volume.free_space().unwrap(), read_by_us(&volume).len()), before, "{e}");
                    full += 1;
                }
            }
        }
        assert!(full > 0, "cluster {cluster}: never full");
        refusals += full;
        volume.flush().unwrap();
        judge(volume.into_device().0, &format!("full volume, cluster {cluster}"));
    }
    println!("{refusals} operations refused on full volumes");
}

/// One changing call.
type Operation = fn(&mut Volume<MemoryVolume>) -> Result<()>;

fn every_failing_allocation_of_each_operation() {
    // free space shrinks cluster by cluster under the same operation, so that each allocation is once the one that fails
    let Some(start) = small_volume(2 << 20, 512) else { return };
    let operations: [(&str, Operation); 5] = [
        ("create", |v| {
            v.create_file(FileId::ROOT, "a new file with a long name", &[1; 3000], &CreateOptions::default())
                .map(|_| ())
        }),
        ("create_dir_all", |v| v.create_dir_all("/one directory/two/three", &CreateOptions::default()).map(|_| ())),
        ("replace", |v| v.replace_file("/file 7", &[2; 5000], &CreateOptions::default()).map(|_| ())),
        ("overwrite", |v| v.overwrite(v.find("/file 9")?.unwrap(), &[3; 9000])),
        ("stream", |v| v.write_stream(v.find("/file 11")?.unwrap(), "side", &[4; 2500])),
    ];
    let mut base = Volume::open(MemoryVolume(start), &OpenOptions::new(clock())).unwrap();
    for n in 0..60 {
        base.create_file(FileId::ROOT, &format!("file {n}"), &vec![n as u8; 700], &CreateOptions::default()).unwrap();
    }
    let free = base.free_space().unwrap();
    base.create_file(FileId::ROOT, "filler", &vec![0; free as usize - 24 * 512 - 2048], &CreateOptions::default())
        .unwrap();
    base.flush().unwrap();
    let base = base.into_device();
    let (mut refused, mut done) = (0, 0);
    for (what, operation) in operations {
        for taken in 0..40 {
            let mut volume = Volume::open(base.clone(), &OpenOptions::new(clock())).unwrap();
            for n in 0..taken {
                // each filler of one cluster; the record comes from $MFT's spare ones
                if volume.create_file(FileId::ROOT, &format!("f{n}"), &[9; 900], &CreateOptions::default()).is_err() {
                    break;
                }
            }
            volume.flush().unwrap();
            let before = volume.device().below().0.clone();
            let listing = read_by_us(&volume);
            match operation(&mut volume) {
                Ok(()) => done += 1,
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Refused, "{what}: {e}");
                    assert!(read_by_us(&volume) == listing, "{what} with {taken} taken: not as before");
                    volume.flush().unwrap();
                    let metadata_only = volume.device().below().0 == before;
                    refused += 1;
                    // data may have gone to free clusters; nothing that is in use may differ
                    if !metadata_only {
                        judge(volume.device().below().0.clone(), what);
                        assert!(
                            read_by_us(&Volume::open(volume.into_device(), &OpenOptions::new(clock())).unwrap())
                                == listing
                        );
                        continue;
                    }
                }
            }
            if taken % 8 == 0 {
                volume.flush().unwrap();
                judge(volume.into_device().0, what);
            }
        }
    }
    println!("{done} done, {refused} refused");
    assert!(refused > 0 && done > 0);
}

fn a_device_that_fails_leaves_the_volume_as_before_the_call() {
    let Some(start) = small_volume(4 << 20, 1024) else { return };
    for fail_after in 0..support::rounds(25, 80) {
        let left = Rc::new(Cell::new(u64::MAX));
        let device = Failing { inner: MemoryVolume(start.clone()), left: Rc::clone(&left) };
        let mut volume = Volume::open(device, &OpenOptions::new(clock())).unwrap();
        let mut random = Random::new(fail_after);
        let mut model = Model::default();
        for _ in 0..40 {
            let _ = step(&mut volume, &mut model, &mut random, 30_000);
        }
        left.set(fail_after);
        for _ in 0..10 {
            let before = read_by_us(&volume);
            if let Err(e) = step(&mut volume, &mut model, &mut random, 30_000)
                && e.kind() == Kind::Io
            {
                assert!(read_by_us(&volume) == before, "after {fail_after} writes: not as before");
            }
        }
        left.set(u64::MAX);
        volume.flush().unwrap();
        judge(volume.into_device().inner.0, &format!("device failing after {fail_after} writes"));
    }
}

tests![
    a_full_volume_refuses_and_stays_as_it_was,
    every_failing_allocation_of_each_operation,
    a_device_that_fails_leaves_the_volume_as_before_the_call,
];
