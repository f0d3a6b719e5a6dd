//! A plan for an image that has changed since is refused, and says what has changed.

use super::{apply, fail, plan};
use crate::block::pending::interrupt;
use crate::inject::{disk_sha256, expected_fixture, fixture_drivers, folder, names, sha256, succeed, writable_fixture};
use crate::support;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use winject::internals::block::Format;
use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::job::{self, Destination, InjectRequest, SavedPlan, Silent};
use winject::internals::plan::saved::PlanDocument;
use winject::internals::random::Random;

/// Flips one byte of a file.
fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

fn request(image: &Path) -> InjectRequest {
    let clock = FileTime::from_unix_seconds(1_700_000_000).unwrap();
    InjectRequest::new(image, vec![fixture_drivers()], Destination::DryRun, clock)
}

/// Whatever was read for the plan: one byte of it is enough.
fn a_byte_inside_the_read_set() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let saved = SavedPlan::read(&plan(&image, "")).unwrap();
    let old = sha256(&image);
    let document = saved.document();
    assert!(document.reads.ranges.len() > 3 && document.reads.bytes < document.disk.size, "{:?}", document.reads);
    let mut random = Random::new(14);
    let count = document.reads.ranges.len();
    let more: Vec<usize> = (0..support::rounds(10, 60)).map(|_| random.index(count)).collect();
    for index in (0..count).chain(more) {
        let range = document.reads.ranges[index];
        let offset = range.start + random.below(range.length);
        flip(&image, offset);
        match job::apply(&saved, &request(&image), &Silent) {
            Err(error) if error.kind() == Kind::Stale => {
                let hint = error.hint_text().unwrap();
                assert!(hint.contains("winject plan ") && error.to_string().contains("the plan is stale: "), "{error}");
            }
            // Where the disk or the volume cannot be opened any more, that is said first.
            Err(error) if offset < 1 << 20 => {
                assert!(matches!(error.kind(), Kind::Damaged | Kind::Unsupported | Kind::NotWindows), "{error}");
            }
            other => panic!("{offset:#x}: {other:?}"),
        }
        flip(&image, offset);
    }
    assert_eq!(sha256(&image), old);
    job::apply(&saved, &request(&image), &Silent).unwrap();
}

/// What was not read does not count: the plan still applies, and is made again as it is. (Damage is another matter.)
fn a_byte_outside_the_read_set() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let path = plan(&image, "");
    let saved = SavedPlan::read(&path).unwrap();
    let (document, text) = (saved.document(), std::fs::read(&path).unwrap());
    let is_read = |at: u64| document.reads.ranges.iter().any(|r| (r.start..r.start + r.length).contains(&at));
    let mut random = Random::new(41);
    let (mut applied, mut tries) = (0, 0);
    while applied < support::rounds(4, 12) {
        tries += 1;
        assert!(tries < 400, "{applied} applied");
        let offset = random.below(document.disk.size);
        if is_read(offset) {
            continue;
        }
        flip(&image, offset);
        match job::apply(&saved, &request(&image), &Silent) {
            Ok(_) => {
                applied += 1;
                plan(&image, "--overwrite");
                assert_eq!(std::fs::read(&path).unwrap(), text, "{offset:#x}");
            }
            Err(error) => assert!(matches!(error.kind(), Kind::Damaged | Kind::Verify), "{offset:#x}: {error}"),
        }
        flip(&image, offset);
    }
}

fn an_applied_plan_is_stale() {
    for format in [Format::Raw, Format::Qcow2] {
        let folder = folder();
        let image = writable_fixture(folder.path(), format);
        let saved = plan(&image, "--bundle");
        succeed(&mut apply(&saved, "--in-place"));
        assert_eq!(disk_sha256(&image), expected_fixture());
        let (new, files) = (sha256(&image), names(folder.path()));
        let text = fail(&mut apply(&saved, "--in-place"), 9);
        assert!(text.contains("the SYSTEM hive has changed") && text.contains("winject plan "), "{text}");
        assert_eq!((sha256(&image), names(folder.path())), (new, files));
    }
}

/// Each difference has its own sentence.
fn differences_are_named() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let path = plan(&image, "");
    let saved = SavedPlan::read(&path).unwrap();
    let say = |change: &dyn Fn(&mut PlanDocument), sentence: &str| {
        let mut document = saved.document().clone();
        change(&mut document);
        let path = folder.path().join("other.json");
        std::fs::write(&path, document.to_bytes()).unwrap();
        let error = job::apply(&SavedPlan::read(&path).unwrap(), &request(&image), &Silent).unwrap_err();
        assert_eq!(error.kind(), Kind::Stale, "{error}");
        assert!(error.to_string().contains(sentence), "{error}");
    };
    say(&|plan| plan.disk.size += 4096, "the size of the disk is ");
    say(&|plan| plan.disk.id = None, "the id of the disk is ");
    say(&|plan| plan.partition.start += 4096, "the place of partition 3 is ");
    say(&|plan| plan.partition.number += 90, "the disk has no partition 9");
    say(&|plan| plan.volume.serial.0 ^= 1, "the serial number of the volume is ");
    say(&|plan| plan.volume.log_sha256.0[0] ^= 1, "the head of $LogFile has changed");
    say(&|plan| plan.hives.iter_mut().for_each(|hive| hive.size += 4096), "the SOFTWARE hive has changed");
    say(&|plan| plan.reads.sha256.0[0] ^= 1, "something that the plan was made from has changed");
    say(&|plan| plan.windows.build += 1, "Windows");
}

fn an_interrupted_run_comes_first() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let saved = plan(&image, "--bundle");
    interrupt(&image);
    let old = sha256(&image);
    let before = names(folder.path());
    for destination in ["--in-place", "--dry-run", "--overlay out.qcow2", "--to-output out.raw"] {
        let text = fail(apply(&saved, destination).current_dir(folder.path()), 9);
        assert!(!text.contains("stale"), "{text}");
        assert_eq!((sha256(&image), names(folder.path())), (old.clone(), before.clone()), "{destination}");
    }
}

/// Who applies a plan takes the decision again that something of the guest is lost.
fn overrides_have_to_be_repeated() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let saved = plan(&image, "--bundle --skip-volume-check --allow-dirty");
    let old = sha256(&image);
    let text = fail(&mut apply(&saved, "--in-place --skip-volume-check"), 3);
    assert!(text.contains("add --allow-dirty"), "{text}");
    let text = fail(&mut apply(&saved, "--in-place --skip-volume-check --allow-dirty --discard-ntfs-log"), 2);
    assert!(text.contains("leave out --discard-ntfs-log"), "{text}");
    assert_eq!(sha256(&image), old);
    succeed(&mut apply(&saved, "--in-place --skip-volume-check --allow-dirty"));
    assert_eq!(disk_sha256(&image), expected_fixture());
}

tests![
    a_byte_inside_the_read_set,
    a_byte_outside_the_read_set,
    an_applied_plan_is_stale,
    differences_are_named,
    an_interrupted_run_comes_first,
    overrides_have_to_be_repeated,
];
