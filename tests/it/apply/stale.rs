//! A plan for an image that has changed since is refused, and says what has changed.

use super::{apply, fail, plan};
use crate::block::pending::interrupt;
use crate::inject::{
    disk_sha256, expected_fixture, fixture_drivers, folder, names, sha256, stderr, succeed, winject, writable_fixture,
};
use crate::support;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use winject::internals::block::{self, Format, Stage, StageOptions};
use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::fat::FatVolume;
use winject::internals::job::{self, Destination, InjectRequest, SavedPlan, Silent};
use winject::internals::ntfs::{OpenOptions, Volume};
use winject::internals::partition::{self, PartitionView};
use winject::internals::plan::saved::{HiveFacts, PlanDocument};
use winject::internals::random::Random;
use winject::internals::units::ImageOffset;
use winject::internals::windows::{BootDisks, Bus, CheckOptions, VmDisk, boot_checks};

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

/// The content of a hive, or of one of its logs, wherever it is changed, and whether or not it can be read then.
fn a_byte_inside_a_hive() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let saved = SavedPlan::read(&plan(&image, "")).unwrap();
    let (document, old) = (saved.document(), sha256(&image));
    let mut random = Random::new(77);
    assert!(document.hives.len() >= 2);
    for facts in &document.hives {
        for ending in std::iter::once("").chain(facts.logs.iter().map(|log| log.name.as_str())) {
            let path = format!("{}/{}{ending}", document.windows.config, facts.hive);
            let extents = extents(&image, document, &path).unwrap();
            assert!(!extents.is_empty() || !ending.is_empty(), "{path}");
            if extents.is_empty() {
                continue; // an empty log
            }
            // The first byte, so that the file is not a hive any more, and some others.
            for round in 0..support::rounds(4, 40) {
                let (start, length) = extents[if round == 0 { 0 } else { random.index(extents.len()) }];
                let within = if round == 0 { 0 } else { random.below(length.min(4096)) };
                let offset = start + within;
                flip(&image, offset);
                let error = job::apply(&saved, &request(&image), &Silent).unwrap_err();
                assert_eq!(error.kind(), Kind::Stale, "{path} {within}: {error}");
                let name = format!("{}{ending}", facts.hive);
                assert!(error.to_string().contains(&name), "{path} {within}: {error}");
                flip(&image, offset);
            }
        }
    }
    assert_eq!(sha256(&image), old);
}

/// Where the content of a file of the Windows volume lies on the disk, as (offset, length); `None` without the file.
fn extents(image: &Path, document: &PlanDocument, path: &str) -> Option<Vec<(u64, u64)>> {
    let disk = block::open(image, &block::OpenOptions::default()).unwrap();
    let table = partition::read(&*disk).unwrap();
    let view = PartitionView::new(&*disk, table.partition(document.partition.number).unwrap()).unwrap();
    let volume = Volume::open(view, &OpenOptions::read_only()).unwrap();
    let extents = volume.extents(volume.find(path).unwrap()?).unwrap();
    Some(extents.into_iter().map(|(start, length)| (document.partition.start + start.0, length)).collect())
}

/// Where a file of the EFI system partition begins on the disk.
fn start_on_esp(image: &Path, path: &str) -> u64 {
    let disk = block::open(image, &block::OpenOptions::default()).unwrap();
    let esp = partition::read(&*disk).unwrap().partition(1).unwrap().clone();
    let disk: &dyn block::Image = &*disk;
    let content =
        FatVolume::open(PartitionView::new(&disk, &esp).unwrap()).unwrap().read(path, 1 << 24).unwrap().unwrap();
    let first = &content[..content.len().min(512)];
    let file = File::open(image).unwrap();
    let mut bytes = vec![0; usize::try_from(esp.length).unwrap()];
    file.read_exact_at(&mut bytes, esp.start.0).unwrap();
    let at = bytes.chunks(512).position(|sector| sector.starts_with(first)).unwrap();
    esp.start.0 + at as u64 * 512
}

/// What the boot check read of the image belongs to the plan: its verdict is part of it.
fn a_byte_that_the_boot_check_read() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let saved = SavedPlan::read(&plan(&image, "")).unwrap();
    let (document, old) = (saved.document(), sha256(&image));
    let drivers = ["fvevol.sys", "partmgr.sys", "ntfs.sys", "storport.sys"].into_iter().filter_map(|name| {
        let path = format!("{}/System32/drivers/{name}", document.windows.folder);
        Some((name, extents(&image, document, &path)?.first()?.0))
    });
    let boot_files = [("BCD", "/EFI/Microsoft/Boot/BCD"), (".efi", "/EFI/Microsoft/Boot/bootmgfw.efi")];
    let boot_files = boot_files.map(|(name, path)| (name, start_on_esp(&image, path)));
    let places: Vec<(&str, u64)> = boot_files.into_iter().chain(drivers).collect();
    assert!(places.len() > 3, "{places:?}");
    for (name, offset) in places {
        flip(&image, offset);
        let error = job::apply(&saved, &request(&image), &Silent).unwrap_err();
        assert_eq!(error.kind(), Kind::Stale, "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains("the plan is stale: ") && text.contains(name), "{name}: {text}");
        flip(&image, offset);
    }
    assert_eq!(sha256(&image), old);
}

/// Every block that a boot check of the image reads is in the read set, or among the hives that are hashed by themselves.
fn the_read_set_holds_all_that_the_boot_check_reads() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let saved = SavedPlan::read(&plan(&image, "")).unwrap();
    let document = saved.document();
    let disk = block::open(&image, &block::OpenOptions::default()).unwrap();
    let mut stage = Stage::new(disk, StageOptions::default());
    stage.record_reads();
    let table = partition::read(&stage).unwrap();
    let windows = table.partition(document.partition.number).unwrap();
    let volume = Volume::open(PartitionView::new(&stage, windows).unwrap(), &OpenOptions::read_only()).unwrap();
    let vm_disk = VmDisk { disk: &stage, table: &table, name: "win10.raw" };
    let disks = BootDisks { windows: vm_disk, partition: windows, others: &[], unread: &[], planned: None };
    let options = CheckOptions { signatures: document.expects.signature_policy };
    let answers = boot_checks(&volume, Some(&disks), &Bus::ALL, &options).unwrap();
    assert!(answers.iter().all(|answer| !answer.boots));
    drop(volume);
    let mut left = stage.take_reads();
    assert!(left.bytes() > 0);
    document.reads.ranges.iter().for_each(|range| left.remove(ImageOffset(range.start), range.length));
    let logs = |facts: &HiveFacts| facts.logs.iter().map(|log| log.name.clone()).collect::<Vec<_>>();
    for facts in &document.hives {
        for ending in std::iter::once(String::new()).chain(logs(facts)) {
            let path = format!("{}/{}{ending}", document.windows.config, facts.hive);
            extents(&image, document, &path).unwrap().into_iter().for_each(|(at, n)| left.remove(ImageOffset(at), n));
        }
    }
    assert_eq!(left.ranges().collect::<Vec<_>>(), [], "read, and not in the plan");
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
            // The contents of hives are hashed file by file.
            Err(error) if error.kind() == Kind::Stale => {
                let of_hive = ["SYSTEM", "SOFTWARE", "DRIVERS"].iter().any(|hive| error.to_string().contains(hive));
                assert!(of_hive && error.to_string().contains(" has changed"), "{offset:#x}: {error}");
            }
            Err(error) => assert!(matches!(error.kind(), Kind::Damaged | Kind::Verify), "{offset:#x}: {error}"),
        }
        flip(&image, offset);
    }
}

/// It says that it has been applied, as long as the guest holds all of it.
fn an_applied_plan_is_stale() {
    for format in [Format::Raw, Format::Qcow2] {
        let folder = folder();
        let image = writable_fixture(folder.path(), format);
        let saved = plan(&image, "--bundle");
        succeed(&mut apply(&saved, "--in-place"));
        assert_eq!(disk_sha256(&image), expected_fixture());
        let (new, files) = (sha256(&image), names(folder.path()));
        let text = fail(&mut apply(&saved, "--in-place"), 9);
        assert!(text.contains("the plan has been applied already") && text.contains("winject check "), "{text}");
        assert_eq!((sha256(&image), names(folder.path())), (new, files));
        let key = r"HKLM\SYSTEM\CurrentControlSet\Services\viostor";
        let options = ["--value", "Start", "--type", "dword", "--data", "4", "--in-place"];
        succeed(winject().args(["reg", "set"]).arg(&image).arg(key).args(options));
        let text = fail(&mut apply(&saved, "--in-place"), 9);
        assert!(text.contains("the SYSTEM hive has changed") && text.contains("winject plan "), "{text}");
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

/// An image that holds no Windows is the same fault for `apply` as for the other verbs.
fn an_image_without_windows_is_not_stale() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let saved = plan(&image, "--bundle");
    let mut disk = vec![0; 4 << 20];
    // One partition of type 7 from sector 2048 on.
    disk[446 + 4] = 7;
    disk[446 + 9] = 8;
    disk[446 + 13] = 8;
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    let other = folder.path().join("other.raw");
    std::fs::write(&other, &disk).unwrap();
    let inspected = winject().arg("inspect").arg(&other).output().unwrap();
    assert_eq!(inspected.status.code(), Some(4), "{}", stderr(&inspected));
    let applied = winject().arg("apply").arg(&saved).arg("-n").arg("--image").arg(&other).output().unwrap();
    assert_eq!(applied.status.code(), Some(4), "{}", stderr(&applied));
}

fn an_interrupted_run_comes_first() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let saved = plan(&image, "--bundle");
    interrupt(&image);
    let old = sha256(&image);
    let before = names(folder.path());
    for destination in ["--in-place", "--dry-run", "--overlay out.qcow2", "--output out.raw"] {
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
    a_byte_inside_a_hive,
    a_byte_that_the_boot_check_read,
    the_read_set_holds_all_that_the_boot_check_reads,
    a_byte_outside_the_read_set,
    an_applied_plan_is_stale,
    differences_are_named,
    an_image_without_windows_is_not_stale,
    an_interrupted_run_comes_first,
    overrides_have_to_be_repeated,
];
