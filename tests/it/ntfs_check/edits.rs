//! Edits on volumes with damage that a reader does not notice: refused, and nothing is changed. And what an edit that
//! moves content must tell the directory.

use std::process::Command;

use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::attribute::{AttributeType as T, non_resident, resident};
use winject::internals::ntfs::attribute_list::layout as list;
use winject::internals::ntfs::check::{CheckOptions, check};
use winject::internals::ntfs::runlist::Runlist;
use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, RecordNumber, Volume};

use super::surgeon::{Surgeon, fixture};
use crate::support::{judge, program};

fn open(bytes: Vec<u8>) -> Volume<MemoryVolume> {
    Volume::open(MemoryVolume(bytes), &OpenOptions::new(FileTime(132_000_000_000_000_000))).unwrap()
}

/// An edit is refused as damage in these words, and after a flush not one byte differs.
fn refused<R>(bytes: &[u8], words: &str, edit: impl FnOnce(&mut Volume<MemoryVolume>) -> winject::Result<R>) {
    let mut volume = open(bytes.to_vec());
    let error = edit(&mut volume).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    volume.flush().unwrap();
    assert!(volume.into_device().0 == bytes, "{words}: something was written");
}

/// Neither our checker nor the foreign one has anything to say.
fn sound(volume: &MemoryVolume, what: &str) {
    let report = check(volume, &CheckOptions::default()).unwrap();
    assert!(report.faults.is_empty(), "{what}: {report}");
    let (Some(python), Some(judge)) = (program("python3"), judge("ntfscheck.py")) else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &volume.0).unwrap();
    let output = Command::new(python).arg(judge).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stdout));
}

fn id(surgeon: &Surgeon, number: u64) -> FileId {
    FileId { record: RecordNumber(number), sequence: surgeon.sequence(number) }
}

/// The file whose content lies in one run.
fn in_one_run(surgeon: &Surgeon) -> u64 {
    surgeon.named("SYSTEM")
}

fn content_that_claims_the_clusters_of_mft() {
    let mut surgeon = Surgeon::open(fixture());
    let file = in_one_run(&surgeon);
    let old = surgeon.runs(file, T::DATA, "");
    let mut runs = Runlist::default();
    runs.push(Some(surgeon.geometry.mft), old.end());
    let pairs = runs.encode();
    let record = surgeon.record(file);
    let (at, attribute) = record.attributes().find(|(_, a)| a.kind() == T::DATA && !a.is_resident()).unwrap();
    let start = at + usize::from(non_resident::PAIRS_OFFSET.get(attribute.bytes()));
    assert!(start + pairs.len() <= at + attribute.bytes().len());
    surgeon.patch(file, |b| b[start..start + pairs.len()].copy_from_slice(&pairs));
    let (_, size, _) = surgeon.sizes(file, T::DATA, "");
    let data = vec![0x5A; usize::try_from(size).unwrap()];
    refused(&surgeon.bytes, "own structures", |v| v.overwrite(id(&surgeon, file), &data));
}

fn content_in_clusters_that_are_marked_as_free() {
    let mut surgeon = Surgeon::open(fixture());
    let file = in_one_run(&surgeon);
    let lcn = surgeon.runs(file, T::DATA, "").runs()[0].lcn.unwrap();
    surgeon.flip(6, T::DATA, "", lcn.0);
    refused(&surgeon.bytes, "marked as free", |v| v.overwrite(id(&surgeon, file), b"new content"));
}

fn an_attribute_that_the_list_does_not_name() {
    let mut volume = open(fixture());
    let made = volume.create_file(FileId::ROOT, "listed", b"x", &CreateOptions::default()).unwrap();
    for n in 0..4 {
        volume.link(made, FileId::ROOT, &format!("{n}{}", "long".repeat(30))).unwrap();
    }
    volume.flush().unwrap();
    let mut surgeon = Surgeon::open(volume.into_device().0);
    let file = made.record.0;
    let record = surgeon.record(file);
    let value = record.find(T::ATTRIBUTE_LIST, "").unwrap().value().unwrap().to_vec();
    let (mut at, mut last) = (0, 0);
    while at < value.len() {
        last = at;
        at += usize::from(list::LENGTH.get(&value[at..]));
    }
    surgeon.set_attribute((file, T::ATTRIBUTE_LIST, ""), resident::VALUE_LENGTH, u32::try_from(last).unwrap());
    refused(&surgeon.bytes, "does not name all", |v| v.write_stream(id(&surgeon, file), "new", b"x"));
}

fn bitmaps_that_were_never_written_to_their_end() {
    let mut surgeon = Surgeon::open(fixture());
    let (_, data, _) = surgeon.sizes(0, T::BITMAP, "");
    surgeon.set_attribute((0, T::BITMAP, ""), non_resident::INITIALIZED, data - 8);
    let options = OpenOptions::new(FileTime(132_000_000_000_000_000));
    let error = Volume::open(MemoryVolume(surgeon.bytes), &options).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

fn directories_learn_that_content_went_to_clusters() {
    for edit in ["rename", "link", "stream"] {
        let mut volume = open(fixture());
        let file = volume.create_file(FileId::ROOT, "short", &[7; 560], &CreateOptions::default()).unwrap();
        let long = "a name that is so long that the record has no room for it and the content".repeat(3);
        match edit {
            "rename" => volume.rename("/short", &format!("/{long}")).unwrap(),
            "link" => volume.link(file, FileId::ROOT, &long).unwrap(),
            _ => volume.write_stream(file, "side", &[1; 300]).unwrap(),
        }
        volume.flush().unwrap();
        sound(&volume.into_device(), edit);
    }
}

fn discarding_needs_no_edit_and_survives_a_refused_one() {
    let forced = OpenOptions { discard_log: true, ..OpenOptions::new(FileTime(132_000_000_000_000_000)) };
    let bytes = super::state::with_log(fixture(), (1, 1), 0);
    for is_refused in [false, true] {
        let mut volume = Volume::open(MemoryVolume(bytes.clone()), &forced).unwrap();
        if is_refused {
            volume.create_file(FileId::ROOT, "$MFT", b"", &CreateOptions::default()).unwrap_err();
        } else {
            volume.apply_admission().unwrap();
        }
        volume.flush().unwrap();
        let after = Surgeon::open(volume.into_device().0);
        let at = after.stream_at(2, T::DATA, "", 0);
        assert!(after.bytes[at..at + 8192].iter().all(|&b| b == 0xFF));
        let flags = after.record(3).find(T::VOLUME_INFORMATION, "").unwrap().value().unwrap()[10];
        assert_eq!(flags & 1, 1, "an emptied log on a volume that is not marked");
    }
}

tests![
    content_that_claims_the_clusters_of_mft,
    content_in_clusters_that_are_marked_as_free,
    an_attribute_that_the_list_does_not_name,
    bitmaps_that_were_never_written_to_their_end,
    directories_learn_that_content_went_to_clusters,
    discarding_needs_no_edit_and_survives_a_refused_one,
];
