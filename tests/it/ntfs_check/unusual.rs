//! Volumes that are unusual or damaged in one place, under the writer: it does not add to the damage.

use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::attribute::{
    AttributeType as T, StreamSizes, build_non_resident, header as attribute, non_resident, resident,
};
use winject::internals::ntfs::check::{CheckOptions, CheckReport, Code, check};
use winject::internals::ntfs::record::header;
use winject::internals::ntfs::runlist::Runlist;
use winject::internals::ntfs::{CreateOptions, FileId, Lcn, NtfsName, OpenOptions, Vcn, Volume};

use super::state::with_log;
use super::surgeon::{Surgeon, fixture};

fn options() -> OpenOptions {
    OpenOptions::new(FileTime(132_000_000_000_000_000))
}

fn open(bytes: Vec<u8>) -> Volume<MemoryVolume> {
    Volume::open(MemoryVolume(bytes), &options()).unwrap()
}

fn flushed(mut volume: Volume<MemoryVolume>) -> Vec<u8> {
    volume.flush().unwrap();
    volume.into_device().0
}

fn report(bytes: Vec<u8>) -> CheckReport {
    check(&MemoryVolume(bytes), &CheckOptions::default()).unwrap()
}

fn a_bitmap_that_is_not_written_to_its_end_is_not_edited() {
    for (record, kind) in [(0, T::BITMAP), (6, T::DATA)] {
        let mut s = Surgeon::open(fixture());
        assert!(!s.is_resident(record, kind, ""));
        let (_, data, _) = s.sizes(record, kind, "");
        s.set_attribute((record, kind, ""), non_resident::INITIALIZED, data - 8);
        let error = Volume::open(MemoryVolume(s.bytes.clone()), &options()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(Volume::open(MemoryVolume(s.bytes), &OpenOptions::read_only()).is_ok());
    }
}

fn content_is_not_written_over_clusters_that_the_file_does_not_own() {
    // the bit of one of its clusters is clear: the cluster could be given to somebody else
    let mut s = Surgeon::open(fixture());
    let number = s.named("SYSTEM");
    let lcn = s.runs(number, T::DATA, "").runs()[0].lcn.unwrap().0;
    s.flip(6, T::DATA, "", lcn);
    let before = s.bytes.clone();
    let mut volume = open(s.bytes);
    let file = volume.find("/Windows/System32/config/SYSTEM").unwrap().unwrap();
    let error = volume.overwrite(file, &[9; 30_000]).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(flushed(volume) == before);

    // its clusters are those of $MFT
    let mut s = Surgeon::open(fixture());
    let mft = s.geometry.mft;
    let mut runs = Runlist::starting_at(Vcn(0));
    runs.push(Some(mft), 8);
    let sizes = StreamSizes { allocated: 32768, data: 30_000, initialized: 30_000, ..StreamSizes::default() };
    s.replace_attribute(number, T::DATA, "", &build_non_resident(T::DATA, &NtfsName::default(), &runs, &sizes, 0));
    let before = s.bytes.clone();
    let mut volume = open(s.bytes);
    let error = volume.overwrite(file, &[9; 30_000]).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(flushed(volume) == before);
}

fn an_attribute_that_the_list_does_not_name_is_not_dropped() {
    let mut s = Surgeon::open(fixture());
    s.edit(|v| {
        let file = v.create_file(FileId::ROOT, "listed", b"", &CreateOptions::default())?;
        (0..30).try_for_each(|n| v.write_stream(file, &format!("stream {n:02}"), &[n; 90]))
    });
    let number = s.named("listed");
    // the entry of the last stream goes
    let shorter = {
        let record = s.record(number);
        let size = record.find(T::ATTRIBUTE_LIST, "").expect("a list").data_size();
        size - (0x1A + 2 * 9u64).next_multiple_of(8)
    };
    let list = (number, T::ATTRIBUTE_LIST, "");
    if s.is_resident(number, T::ATTRIBUTE_LIST, "") {
        s.set_attribute(list, resident::VALUE_LENGTH, shorter as u32);
    } else {
        s.set_attribute(list, non_resident::DATA_SIZE, shorter);
        s.set_attribute(list, non_resident::INITIALIZED, shorter);
    }
    assert!(report(s.bytes.clone()).has(Code::B13));
    let before = s.bytes.clone();
    let mut volume = open(s.bytes);
    let file = volume.find("/listed").unwrap().unwrap();
    let error = volume.set_attributes(file, 0x21).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(flushed(volume) == before);
}

fn directory_entries_follow_data_that_leaves_the_record() {
    let mut volume = open(fixture());
    let dir = volume.create_dir(FileId::ROOT, "sizes", &CreateOptions::default()).unwrap();
    for size in (400..720).step_by(8) {
        for what in ["rename", "link", "stream"] {
            let name = format!("{what} {size}");
            let file = volume.create_file(dir, &name, &vec![1; size], &CreateOptions::default()).unwrap();
            let long = format!("{name} with a name that takes a lot more room than the one before");
            match what {
                "rename" => volume.rename(&format!("/sizes/{name}"), &format!("/sizes/{long}")).unwrap(),
                "link" => volume.link(file, dir, &long).unwrap(),
                _ => volume.write_stream(file, "side", &[2; 150]).unwrap(),
            }
        }
    }
    let report = report(flushed(volume));
    assert!(report.faults.is_empty(), "{report}");
}

fn a_refused_call_does_not_lose_the_mark_of_a_discarded_log() {
    let forced = OpenOptions { discard_log: true, ..options() };
    let mut volume = Volume::open(MemoryVolume(with_log(fixture(), (1, 1), 0)), &forced).unwrap();
    volume.delete("/there is no such file").unwrap_err();
    let report = report(flushed(volume));
    // either nothing was done, or the log is empty and the volume is marked
    assert_ne!(report.has(Code::A4), report.has(Code::D11), "{report}");
}

fn flags_of_resident_attributes_stay() {
    let mut s = Surgeon::open(fixture());
    let number = s.named("packed");
    // what ntfs-3g and Windows set on the index of a compressed directory
    s.set_attribute((number, T::INDEX_ROOT, "$I30"), attribute::FLAGS, 1);
    s.edit(|v| {
        let dir = v.find("/packed")?.unwrap();
        v.create_file(dir, "another", b"", &CreateOptions::default()).map(drop)
    });
    assert_eq!(s.record(number).find(T::INDEX_ROOT, "$I30").unwrap().flags(), 1);
}

fn names_that_differ_in_case_only_can_be_deleted() {
    // a directory that is case-sensitive, as Windows marks it, with many such pairs
    let mut s = Surgeon::open(fixture());
    s.edit(|v| {
        let dir = v.create_dir(FileId::ROOT, "cases", &CreateOptions::default())?;
        for n in 0..200 {
            v.create_file(dir, &format!("name number {n:03} of a directory x"), b"", &CreateOptions::default())?;
        }
        Ok(())
    });
    let number = s.named("cases");
    // the last letter of every second name becomes the capital of the one before, in record and entry
    for n in (1..200).step_by(2) {
        let (old, new) =
            (format!("name number {n:03} of a directory x"), format!("name number {:03} of a directory X", n - 1));
        s.respell(number, &old, &new);
    }
    let mut volume = open(s.bytes);
    for n in (0..200).step_by(2) {
        for last in ['X', 'x'] {
            volume.delete(&format!("/cases/name number {n:03} of a directory {last}")).unwrap();
        }
    }
    assert!(volume.entries(volume.find("/cases").unwrap().unwrap()).unwrap().is_empty());
    let report = report(flushed(volume));
    assert!(report.is_clean(), "{report}");
}

fn nothing_is_created_below_a_junction() {
    let mut s = Surgeon::open(fixture());
    s.edit(|v| v.create_dir(FileId::ROOT, "junction", &CreateOptions::default()).map(drop));
    let number = s.named("junction");
    let mut point = 0xA000_0003u32.to_le_bytes().to_vec();
    point.extend_from_slice(&[0; 20]);
    s.add_attribute(
        number,
        &winject::internals::ntfs::attribute::build_resident(T::REPARSE_POINT, &NtfsName::default(), &point),
    );
    s.value(number, T::STANDARD_INFORMATION, "", |v| v[0x21] |= 4);
    let mut volume = open(s.bytes);
    let dir = volume.find("/junction").unwrap().unwrap();
    for error in [
        volume.create_file(dir, "x", b"", &CreateOptions::default()).unwrap_err(),
        volume.create_dir_all("/junction/a/b", &CreateOptions::default()).unwrap_err(),
        volume.replace_file("/junction/x", b"", &CreateOptions::default()).unwrap_err(),
        volume.rename("/streams", "/junction/x").unwrap_err(),
        volume.link(volume.find("/streams").unwrap().unwrap(), dir, "x").unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
}

/// A run list with one real cluster and a hole of 2^40 clusters.
fn giant(lcn: Lcn, kind: T, name: &str, cluster: u64) -> Vec<u8> {
    let mut runs = Runlist::starting_at(Vcn(0));
    runs.push(Some(lcn), 1);
    runs.push(None, 1 << 40);
    let allocated = ((1 << 40) + 1) * cluster;
    let sizes = StreamSizes { allocated, data: allocated, initialized: 0, ..StreamSizes::default() };
    build_non_resident(kind, &name.into(), &runs, &sizes, 0)
}

fn giant_holes_in_metadata_are_damage() {
    for (number, kind, name) in [(9, T::DATA, "$SDS"), (0, T::BITMAP, ""), (6, T::DATA, ""), (2, T::DATA, "")] {
        let mut s = Surgeon::open(fixture());
        let lcn = s.runs(number, kind, name).runs()[0].lcn.unwrap();
        s.replace_attribute(number, kind, name, &giant(lcn, kind, name, 4096));
        let forced = OpenOptions { discard_log: true, allow_dirty: true, ..options() };
        let error = Volume::open(MemoryVolume(s.bytes), &forced).and_then(|mut v| {
            v.create_file(FileId::ROOT, "new", &[1; 100], &CreateOptions::default())?;
            let mut unusual = winject::internals::ntfs::security::Protected::File.descriptor();
            let last = unusual.len();
            unusual.resize(last + 70_000, 0);
            v.security_id(&unusual)
        });
        assert!(error.is_err(), "{number} {kind}:{name}");
    }
}

fn a_record_that_is_another_one_is_not_edited() {
    let mut s = Surgeon::open(fixture());
    let number = s.named("SYSTEM");
    s.set(number, header::NUMBER, 5);
    let before = s.bytes.clone();
    let mut volume = open(s.bytes);
    let error = volume.delete("/Windows/System32/config/SYSTEM").unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(flushed(volume) == before);
}

tests![
    a_bitmap_that_is_not_written_to_its_end_is_not_edited,
    content_is_not_written_over_clusters_that_the_file_does_not_own,
    an_attribute_that_the_list_does_not_name_is_not_dropped,
    directory_entries_follow_data_that_leaves_the_record,
    a_refused_call_does_not_lose_the_mark_of_a_discarded_log,
    flags_of_resident_attributes_stay,
    names_that_differ_in_case_only_can_be_deleted,
    nothing_is_created_below_a_junction,
    giant_holes_in_metadata_are_damage,
    a_record_that_is_another_one_is_not_edited,
];
