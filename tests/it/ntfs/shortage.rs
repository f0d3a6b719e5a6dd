//! Volumes that become full at every place: each kind of growth is met with none of the clusters that it needs, with one,
//! with two …, and either it goes through, or the call is refused and not a byte that was in use has changed.

use winject::internals::error::{Kind, Result};
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::attribute::AttributeType;
use winject::internals::ntfs::security::{Protected, descriptor};
use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, Volume};

use super::geometry::Matrix;
use super::volume::{Shape, TestVolume, clock, read_by_us};
use crate::ntfs_check::surgeon::Surgeon;
use crate::support;

type Target = Volume<MemoryVolume>;

/// Something that grows, one call at a time.
struct Growth {
    what: &'static str,
    /// Bytes of the volume, cluster and record.
    volume: (u64, u32, u32),
    steps: u64,
    start: fn(&mut Target) -> Result<()>,
    /// One call that changes the volume.
    step: fn(&mut Target, u64) -> Result<()>,
    /// Whether the interesting allocation took place between the two states.
    grew: fn(&Surgeon, &Surgeon) -> bool,
}

fn allocated(s: &Surgeon, record: u64, kind: AttributeType, name: &str) -> u64 {
    s.sizes(record, kind, name).0
}

/// A valid descriptor that no volume has.
fn unusual(n: u32, size: usize) -> Vec<u8> {
    let mut bytes = Protected::File.descriptor();
    let owner = descriptor::OWNER.get(&bytes) as usize;
    bytes[owner + 12..owner + 16].copy_from_slice(&(0x1_0000 + n).to_le_bytes());
    bytes.resize(bytes.len() + size, 0);
    bytes
}

fn index_size(s: &Surgeon, record: u64, name: &str) -> u64 {
    let there = s.record(record).find(AttributeType::INDEX_ALLOCATION, name).is_some();
    if there { allocated(s, record, AttributeType::INDEX_ALLOCATION, name) } else { 0 }
}

fn extensions(s: &Surgeon) -> usize {
    s.all().filter(|(_, r)| r.is_in_use() && r.base().is_some()).count()
}

fn lists_in_clusters(s: &Surgeon) -> usize {
    let list = |r: &winject::internals::ntfs::record::Record| {
        r.find(AttributeType::ATTRIBUTE_LIST, "").is_some_and(|a| !a.is_resident())
    };
    s.all().filter(|(_, r)| r.is_in_use() && list(r)).count()
}

const GROWTHS: [Growth; 8] = [
    Growth {
        what: "$MFT",
        volume: (4 << 20, 1024, 1024),
        steps: 300,
        start: |v| v.create_dir(FileId::ROOT, "d", &CreateOptions::default()).map(drop),
        step: |v, n| v.create_file(v.find("/d")?.unwrap(), &format!("{n}"), b"", &CreateOptions::default()).map(drop),
        grew: |a, b| a.records != b.records,
    },
    Growth {
        what: "$MFT with records of 4 KiB",
        volume: (6 << 20, 512, 4096),
        steps: 200,
        start: |v| v.create_dir(FileId::ROOT, "d", &CreateOptions::default()).map(drop),
        step: |v, n| v.create_file(v.find("/d")?.unwrap(), &format!("{n}"), b"", &CreateOptions::default()).map(drop),
        grew: |a, b| a.records != b.records,
    },
    Growth {
        what: "$MFT:$BITMAP",
        volume: (8 << 20, 512, 1024),
        steps: 400,
        start: |v| {
            let dir = v.create_dir(FileId::ROOT, "d", &CreateOptions::default())?;
            // a cluster of bits is 4096 records
            (0..3900).try_for_each(|n| v.create_file(dir, &format!("s{n}"), b"", &CreateOptions::default()).map(drop))
        },
        step: |v, n| v.create_file(v.find("/d")?.unwrap(), &format!("{n}"), b"", &CreateOptions::default()).map(drop),
        grew: |a, b| {
            let size = |s| allocated(s, 0, AttributeType::BITMAP, "");
            size(a) != size(b)
        },
    },
    Growth {
        what: "index block",
        volume: (4 << 20, 512, 1024),
        steps: 150,
        start: |v| {
            let dir = v.create_dir(FileId::ROOT, "d", &CreateOptions::default())?;
            // records to spare, so that $MFT does not grow
            (0..200).try_for_each(|n| v.create_file(dir, &format!("{n}"), b"", &CreateOptions::default()).map(drop))?;
            (0..200).try_for_each(|n| v.delete(&format!("/d/{n}")))?;
            v.forget_freed()
        },
        step: |v, n| {
            let name = format!("{n:03}{}", "long".repeat(30));
            v.create_file(v.find("/d")?.unwrap(), &name, b"", &CreateOptions::default()).map(drop)
        },
        grew: |a, b| index_size(a, a.named("d"), "$I30") != index_size(b, b.named("d"), "$I30"),
    },
    Growth {
        what: "attribute list and extension record",
        volume: (4 << 20, 1024, 1024),
        steps: 120,
        start: |v| v.create_file(FileId::ROOT, "f", &[1; 3000], &CreateOptions::default()).map(drop),
        step: |v, n| v.write_stream(v.find("/f")?.unwrap(), &format!("stream {n}"), &[2; 90]),
        grew: |a, b| extensions(a) != extensions(b),
    },
    Growth {
        what: "attribute list in clusters",
        volume: (4 << 20, 512, 1024),
        steps: 120,
        start: |v| v.create_file(FileId::ROOT, "f", &[1; 3000], &CreateOptions::default()).map(drop),
        step: |v, n| v.link(v.find("/f")?.unwrap(), FileId::ROOT, &format!("{n:03}{}", " another name".repeat(4))),
        grew: |a, b| {
            let size = |s: &Surgeon| {
                let f = s.named("f");
                if s.record(f).find(AttributeType::ATTRIBUTE_LIST, "").is_some_and(|l| !l.is_resident()) {
                    allocated(s, f, AttributeType::ATTRIBUTE_LIST, "")
                } else {
                    0
                }
            };
            lists_in_clusters(a) != lists_in_clusters(b) || size(a) != size(b)
        },
    },
    Growth {
        what: "$Secure",
        volume: (4 << 20, 1024, 1024),
        steps: 60,
        start: |_| Ok(()),
        step: |v, n| v.security_id(&unusual(n as u32, 1200)).map(drop),
        grew: |a, b| {
            let size =
                |s| allocated(s, 9, AttributeType::DATA, "$SDS") + index_size(s, 9, "$SII") + index_size(s, 9, "$SDH");
            size(a) != size(b)
        },
    },
    Growth {
        what: "data in place",
        volume: (4 << 20, 512, 1024),
        steps: 30,
        start: |v| v.create_file(FileId::ROOT, "f", &[1; 900], &CreateOptions::default()).map(drop),
        step: |v, n| v.overwrite(v.find("/f")?.unwrap(), &vec![n as u8; 900 + 700 * n as usize]),
        grew: |a, b| {
            let size = |s: &Surgeon| s.sizes(s.named("f"), AttributeType::DATA, "").0;
            size(a) != size(b)
        },
    },
];

fn open(bytes: Vec<u8>) -> Target {
    Volume::open(MemoryVolume(bytes), &OpenOptions::new(clock())).unwrap()
}

fn flushed(mut volume: Target) -> Vec<u8> {
    volume.flush().unwrap();
    volume.into_device().0
}

fn judge(bytes: &[u8], what: &str) {
    let test = TestVolume::copy_of(bytes, 0);
    TestVolume { baseline: None, ..test }.assert_clean(what);
}

/// Lets one file take all clusters, and gives the number of them.
fn fill_up(bytes: Vec<u8>) -> (Vec<u8>, u64) {
    let mut volume = open(bytes);
    let cluster = u64::from(volume.geometry().cluster_size);
    let file = volume.find("/ballast").unwrap().unwrap();
    let size = volume.stat(file).unwrap().size + volume.free_space().unwrap();
    volume.overwrite(file, &vec![0; size as usize]).unwrap();
    assert_eq!(volume.free_space().unwrap(), 0);
    (flushed(volume), size / cluster)
}

/// Gives `count` clusters back.
fn with_room(bytes: &[u8], ballast: u64, count: u64) -> Vec<u8> {
    let mut volume = open(bytes.to_vec());
    let cluster = u64::from(volume.geometry().cluster_size);
    let file = volume.find("/ballast").unwrap().unwrap();
    volume.overwrite(file, &vec![0; ((ballast - count) * cluster) as usize]).unwrap();
    assert_eq!(volume.free_space().unwrap(), count * cluster);
    flushed(volume)
}

/// Nothing differs but what was in clusters that were free.
fn assert_unchanged(before: &[u8], after: &[u8], what: &str) {
    let surgeon = Surgeon::open(before.to_vec());
    let cluster = surgeon.geometry.cluster_size as usize;
    for (number, (a, b)) in before.chunks(cluster).zip(after.chunks(cluster)).enumerate() {
        if a != b {
            let at = surgeon.stream_at(6, AttributeType::DATA, "", number as u64 / 8);
            assert!(before[at] >> (number % 8) & 1 == 0, "{what}: cluster {number}, which was in use, has changed");
        }
    }
}

/// The states before the first and the last step in which the thing grew, and what those steps took.
fn interesting(growth: &Growth, most: usize) -> Option<Vec<(u64, Vec<u8>, u64)>> {
    let (size, cluster, record) = growth.volume;
    let test = (Matrix { shape: Shape { size, cluster, sector: 512 }, record }).make()?;
    let mut volume = open(std::fs::read(&test.path).unwrap());
    volume.create_file(FileId::ROOT, "ballast", &[0; 8192], &CreateOptions::default()).unwrap();
    (growth.start)(&mut volume).unwrap();
    let mut before = flushed(volume);
    let mut found = Vec::new();
    for n in 0..growth.steps {
        let mut volume = open(before.clone());
        let free = volume.free_space().unwrap();
        (growth.step)(&mut volume, n).unwrap();
        let taken = free.saturating_sub(volume.free_space().unwrap()) / u64::from(cluster);
        let after = flushed(volume);
        if taken > 0 && (growth.grew)(&Surgeon::open(before.clone()), &Surgeon::open(after.clone())) {
            found.push((n, before, taken));
        }
        before = after;
    }
    assert!(!found.is_empty(), "{}: never grew", growth.what);
    while found.len() > most {
        // the first ones and the last one are kept
        found.remove(most - 1);
    }
    Some(found)
}

fn every_kind_of_growth_is_refused_without_a_trace() {
    let mut total = 0;
    for growth in &GROWTHS {
        let Some(states) = interesting(growth, support::rounds(2, 3) as usize) else { return };
        let (mut refused, mut done) = (0, 0);
        for (n, state, taken) in states {
            let (full, ballast) = fill_up(state);
            for room in 0..=taken.min(40) + 2 {
                let what = format!("{}, step {n}, {room} clusters free", growth.what);
                let before = with_room(&full, ballast, room);
                let mut volume = open(before.clone());
                let listing = read_by_us(&volume);
                match (growth.step)(&mut volume, n) {
                    Ok(()) => {
                        done += 1;
                        judge(&flushed(volume), &what);
                    }
                    Err(e) => {
                        assert_eq!(e.kind(), Kind::Refused, "{what}: {e}");
                        assert!(e.hint_text().is_some(), "{what}: {e}");
                        assert!(read_by_us(&volume) == listing, "{what}: not as before");
                        assert_unchanged(&before, &flushed(volume), &what);
                        refused += 1;
                    }
                }
            }
        }
        println!("{}: {refused} refused, {done} done", growth.what);
        assert!(refused > 0 && done > 0, "{}: {refused} refused, {done} done", growth.what);
        total += refused;
    }
    println!("{total} refused in all");
}

fn the_last_cluster_of_a_volume() {
    // every place of the volume's end in the last byte of $Bitmap
    for extra in 0..9 {
        let shape = Shape { size: (2 << 20) + extra * 4096, cluster: 4096, sector: 512 };
        let Some(test) = TestVolume::make(shape) else { return };
        let mut volume = open(std::fs::read(&test.path).unwrap());
        let mut made = 0;
        while volume.create_file(FileId::ROOT, &format!("f{made}"), &[7; 4096], &CreateOptions::default()).is_ok() {
            made += 1;
        }
        let bytes = flushed(volume);
        let surgeon = Surgeon::open(bytes.clone());
        let last = surgeon.geometry.cluster_count - 1;
        let owner = (0..made).find(|n| {
            let runs = surgeon.runs(surgeon.named(&format!("f{n}")), AttributeType::DATA, "");
            runs.real().any(|(lcn, length)| lcn.0 + length == last + 1)
        });
        let owner = owner.unwrap_or_else(|| panic!("{extra}: the last cluster was not used"));
        let mut volume = open(bytes);
        volume.delete(&format!("/f{owner}")).unwrap();
        volume.forget_freed().unwrap();
        let free = volume.free_space().unwrap() / 4096;
        let before = flushed(volume);
        let mut volume = open(before.clone());
        let wanted = vec![8; (free as usize + 1) * 4096];
        let error = volume.create_file(FileId::ROOT, "too large", &wanted, &CreateOptions::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert_unchanged(&before, &flushed(volume), "one cluster more than there are");
        let mut volume = open(before);
        volume.create_file(FileId::ROOT, "fits", &wanted[4096..], &CreateOptions::default()).unwrap();
        assert_eq!(volume.free_space().unwrap(), 0);
        let after = flushed(volume);
        let runs = Surgeon::open(after.clone());
        let runs = runs.runs(runs.named("fits"), AttributeType::DATA, "");
        assert!(runs.real().any(|(lcn, length)| lcn.0 + length == last + 1), "{extra}: {runs:?}");
        judge(&after, &format!("{} clusters", last + 1));
    }
}

tests![every_kind_of_growth_is_refused_without_a_trace, the_last_cluster_of_a_volume,];
