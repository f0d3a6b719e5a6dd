//! A run was interrupted, and its journal lies next to the image: the next run has to see it, by whatever name and for
//! whatever purpose it opens the image; and a journal that comes from elsewhere must do no harm.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use winject::Kind;
use winject::internals::block::commit::{self, CommitOptions, Recovery, on};
use winject::internals::block::convert::{ConvertOptions, convert};
use winject::internals::block::{Locking, PathPolicy, RealHost, describe, formats::qcow2};

use super::virtual_host::FailingHost;
use super::*;
use crate::support::blocks::sha256;

/// Whether there was an interrupted run to deal with. Data files beside the image are allowed to be written.
fn recover(path: &Path) -> winject::Result<bool> {
    Ok(commit::recover(path, &allowing(path))? != Recovery::Nothing)
}

/// Allows the data file `data.bin` of the image at `path` to be written.
fn allowing(path: &Path) -> PathPolicy {
    PathPolicy::default().allow(path.with_file_name("data.bin"))
}

/// Begins to edit the image at `path` and stops in the middle of writing.
pub fn interrupt(path: &Path) {
    let before = sha256(path);
    for steps in 0..200 {
        let mut stage = stage(path);
        let size = stage.len();
        for place in [0, size / 3, size / 2] {
            stage.write_at(ImageOffset(place / 512 * 512), &[0xEE; 5000]).unwrap();
        }
        let result = on::in_place(&FailingHost::new(steps), &mut stage, path, &CommitOptions::default());
        drop(stage);
        match result {
            Err(error) if error.kind() == Kind::Pending => {
                if sha256(path) != before {
                    return;
                }
                assert!(recover(path).unwrap());
            }
            Err(_) => {
                // A run that stopped earlier leaves a journal that was never completed.
                recover(path).unwrap();
            }
            Ok(_) => break,
        }
        assert_eq!(sha256(path), before);
    }
    panic!("never interrupted while writing");
}

fn the_journal_goes_with_the_file_and_not_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let old = mixed(1 << 20, 70);
    let real = write_file(&store, "vm1.raw", &old);
    let link = folder.path().join("current.img");
    symlink("store/vm1.raw", &link).unwrap();
    let folder_link = folder.path().join("folder-link");
    symlink(&store, &folder_link).unwrap();
    let names = [&link, &real, &folder_link.join("vm1.raw"), &store.join("../store/vm1.raw")];
    for interrupted_by in names {
        for found_by in names {
            interrupt(interrupted_by);
            let error = block::open(found_by, &OpenOptions::default()).unwrap_err();
            assert_eq!(error.kind(), Kind::Pending, "{error}");
            assert!(recover(found_by).unwrap());
            assert_equal(&std::fs::read(&real).unwrap(), &old, "restored");
            assert!(!recover(interrupted_by).unwrap());
            let left: Vec<_> = std::fs::read_dir(&store).unwrap().collect();
            assert_eq!(left.len(), 1, "{left:?}");
        }
    }
}

fn a_half_written_image_is_not_read() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let old = mixed(1 << 20, 71);
    let base = write_file(path, "base.raw", &old);
    qemu_img(path, "create -q -f qcow2 -b base.raw -F raw top.qcow2");
    qemu_img(path, "convert -f raw -O qcow2 base.raw alone.qcow2");
    let (top, alone) = (path.join("top.qcow2"), path.join("alone.qcow2"));
    interrupt(&base);
    interrupt(&alone);
    let mode = commit::journal_path(&base).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the journal holds parts of the disk");
    let options = OpenOptions::default();
    let errors = [
        block::open(&base, &options).map(drop).unwrap_err(),
        block::open(&top, &options).map(drop).unwrap_err(),
        block::open(&alone, &options).map(drop).unwrap_err(),
        describe::info(&base, &options).map(drop).unwrap_err(),
        qcow2::check(&alone, &options).map(drop).unwrap_err(),
        qcow2::info(&alone).map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), Kind::Pending, "{error}");
        assert!(error.hint_text().unwrap().contains("winject recover /"), "{error:?}");
    }
    for input in [&base, &top, &alone] {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("winject"));
        let output = command.arg("convert").arg(input).arg(path.join("new.qcow2")).output().unwrap();
        assert_eq!(output.status.code(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!path.join("new.qcow2").exists());
    }
    assert!(recover(&base).unwrap() && recover(&alone).unwrap());
    assert_equal(&read_all(&*open(&top)), &old, "the base is whole again");
    // A journal that was never completed says that nothing was written yet.
    std::fs::write(commit::journal_path(&base), [0; 4096]).unwrap();
    assert_equal(&read_all(&*open(&top)), &old, "nothing was written yet");
}

/// A dry run writes nothing, not even what an interrupted run owes.
fn a_dry_run_rolls_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_file(folder.path(), "disk.raw", &mixed(1 << 20, 72));
    interrupt(&path);
    let before = std::fs::read(&path).unwrap();
    let request = winject::internals::job::HiveRequest {
        state: winject::internals::job::StateOverrides::default(),
        image: path.clone(),
        options: OpenOptions::default(),
        bitlocker: winject::internals::partition::BitLockerKeys::default(),
        rehearsed: None,
        overwrite_output: false,
        keep_undo: false,
        partition: None,
        clock: winject::internals::clock::FileTime(0),
        skip_volume_check: false,
        cancel: winject::internals::cancel::Cancel::default(),
    };
    let (hive, _) =
        winject::internals::job::HiveName::of(&winject::internals::hive::reg_file::KeyPath::from(r"HKLM\SYSTEM"))
            .unwrap();
    let edit = |destination| {
        winject::internals::job::edit_hive(&request, hive, &destination, &winject::Silent, &mut |_| Ok(()))
    };
    assert_eq!(edit(winject::internals::job::Destination::DryRun).unwrap_err().kind(), Kind::Pending);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(commit::journal_path(&path).exists());
    // Another one does, and finds no Windows then.
    assert_ne!(edit(winject::internals::job::Destination::InPlace).unwrap_err().kind(), Kind::Pending);
    assert!(!commit::journal_path(&path).exists());
}

/// A journal for `image` of files (length before, length after, name) without records, complete and with the right
/// checksum.
fn journal(image: &Path, version: u32, owner: [u8; 28], files: &[(u64, u64, &Path)]) -> Vec<u8> {
    let metadata = image.metadata().unwrap();
    let mut out = vec![0; 8];
    out.extend(version.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend((files.len() as u32).to_le_bytes());
    out.extend(owner);
    for (old, new, path) in files {
        out.extend(old.to_le_bytes());
        out.extend(new.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend(metadata.ino().to_le_bytes());
        out.extend([0; 16]); // created: not known
        out.extend([0; 16]);
        let path = path.to_str().unwrap().as_bytes();
        out.extend((path.len() as u32).to_le_bytes());
        out.extend(path);
    }
    out.extend(b"ENDJ");
    out.extend(0u64.to_le_bytes());
    let mut counted = out.clone();
    if version > 3 {
        // The process does not count.
        counted[20..48].fill(0);
    }
    out.extend(crc32fast::hash(&counted).to_le_bytes());
    out[..8].copy_from_slice(b"WINJUNDO");
    out
}

/// Whoever can put an image and a journal into a folder could have any file of the user written.
fn a_planted_journal_writes_to_no_other_file() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unpacked");
    std::fs::create_dir(&path).unwrap();
    let victim = write_file(folder.path(), "victim", b"export PATH=/usr/bin");
    let beside = write_file(&path, "beside", b"not this one either");
    let raw = write_file(&path, "disk.raw", &mixed(1 << 20, 73));
    qemu_img(&path, "create -q -f qcow2 plain.qcow2 1M");
    qemu_img(&path, "create -q -f qcow2 -o data_file=data.bin named.qcow2 1M");
    qemu_img(&path, "create -q -f qcow2 -o data_file=out.bin outside.qcow2 1M");
    // An image that names the victim itself: as long as the name is that of the file which is there.
    std::fs::remove_file(path.join("out.bin")).unwrap();
    symlink(&victim, path.join("out.bin")).unwrap();
    let images = [raw, path.join("plain.qcow2"), path.join("named.qcow2"), path.join("outside.qcow2")];
    let real = |path: &Path| path.canonicalize().unwrap();
    for image in &images {
        for target in [&real(&victim), &real(&beside), &path.join("../victim"), &path.join("out.bin")] {
            let length = image.metadata().unwrap().len();
            let content = journal(image, VERSION, [0; 28], &[(length, length, Path::new("")), (0, 1 << 62, target)]);
            std::fs::write(commit::journal_path(image), content).unwrap();
            let error = recover(image).unwrap_err();
            assert!(matches!(error.kind(), Kind::Pending | Kind::Refused), "{error}");
            assert!(error.hint_text().is_some(), "{error}");
            assert_eq!(std::fs::read(&victim).unwrap(), b"export PATH=/usr/bin");
            assert_eq!(std::fs::read(&beside).unwrap(), b"not this one either");
        }
    }
    // The journal's own name may be a link, too.
    let journal_file = commit::journal_path(&images[0]);
    std::fs::remove_file(&journal_file).unwrap();
    symlink(&victim, &journal_file).unwrap();
    assert_eq!(recover(&images[0]).unwrap_err().kind(), Kind::Pending);
    assert_eq!(std::fs::read(&victim).unwrap(), b"export PATH=/usr/bin");
}

fn journals_of_other_versions_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let old = mixed(1 << 20, 74);
    let image = write_file(folder.path(), "disk.raw", &old);
    for version in [1, 2, VERSION + 1] {
        let content = journal(&image, version, [0; 28], &[(4096, 1 << 20, Path::new(""))]);
        std::fs::write(commit::journal_path(&image), content).unwrap();
        let error = recover(&image).unwrap_err();
        assert_eq!(error.kind(), Kind::Pending);
        assert!(error.to_string().contains(&format!("version {version}")), "{error}");
        assert_eq!(block::open(&image, &OpenOptions::default()).unwrap_err().kind(), Kind::Pending);
        assert!(std::fs::read(&image).unwrap() == old);
    }
}

/// A run may have been interrupted before winject was brought up to date.
fn a_journal_of_the_version_before_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_file(folder.path(), "disk.raw", &mixed(1 << 20, 74));
    let content = journal(&image, 3, [0; 28], &[(4096, 1 << 20, Path::new(""))]);
    std::fs::write(commit::journal_path(&image), content).unwrap();
    assert!(recover(&image).unwrap());
    assert_eq!(image.metadata().unwrap().len(), 4096);
}

/// Without locks nothing but the journal tells that the other run is still going.
fn a_run_that_is_still_going_is_not_undone() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_file(folder.path(), "disk.raw", &mixed(1 << 20, 79));
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", other.id())).unwrap();
    let began: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    let mut owner = [0; 28];
    owner[..16].copy_from_slice(&boot.to_be_bytes());
    owner[16..20].copy_from_slice(&other.id().to_le_bytes());
    owner[20..].copy_from_slice(&began.to_le_bytes());
    let content = journal(&image, VERSION, owner, &[(1 << 20, 1 << 20, Path::new(""))]);
    std::fs::write(commit::journal_path(&image), content).unwrap();
    let recover = || on::recover(&RealHost, &image, Locking::Ignore, &PathPolicy::default());
    assert_eq!(recover().unwrap_err().kind(), Kind::Refused);
    assert!(commit::journal_path(&image).exists());
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(recover().unwrap(), Recovery::Restored);
}

/// The journal is removed, but a power cut may bring it back: nothing that it restores has been given up by then.
fn a_journal_that_comes_back_finds_what_it_needs() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let old = mixed(1 << 20, 75);
    write_file(path, "source.raw", &old);
    qemu_img(path, "convert -f raw -O qcow2 -o data_file=data.bin,cluster_size=4k source.raw top.qcow2");
    let file = path.join("top.qcow2");
    let journal_file = commit::journal_path(&file);
    let before = ["top.qcow2", "data.bin"].map(|name| (name, std::fs::read(path.join(name)).unwrap()));
    let mut came_back = 0;
    for steps in 0..200 {
        for (name, content) in &before {
            std::fs::write(path.join(name), content).unwrap();
        }
        let mut stage = stage(&file);
        // Also where nothing was stored: then the tables change.
        let mut new = old.clone();
        scribble(&mut stage, &mut new, &mut Random::new(76), 8);
        let host = FailingHost::once(steps);
        let options = CommitOptions { path_policy: allowing(&file), ..CommitOptions::default() };
        let result = on::in_place(&host, &mut stage, &file, &options);
        drop(stage);
        if let Ok(done) = &result
            && done.warnings.iter().any(|w| w.contains("power cut"))
        {
            std::fs::write(&journal_file, &host.removed()[&journal_file]).unwrap();
            came_back += 1;
            assert!(recover(&file).unwrap());
            assert_equal(&read_all(&*open(&file)), &old, "restored");
            assert_clean(&file);
        }
        recover(&file).unwrap();
        if result.is_ok() && host.left() < usize::MAX / 2 {
            break;
        }
    }
    assert_eq!(came_back, 1);
}

/// The version of the journal's layout.
const VERSION: u32 = 4;

/// A conversion into a name for which a journal lies there is covered with the outputs; this is the input's side.
fn nothing_is_converted_over_a_pending_image() {
    let folder = tempfile::tempdir().unwrap();
    let source = write_file(folder.path(), "source.raw", &mixed(1 << 20, 77));
    let target = write_file(folder.path(), "target.raw", &mixed(1 << 20, 78));
    interrupt(&target);
    let before = std::fs::read(&target).unwrap();
    let options = ConvertOptions { overwrite: true, ..Default::default() };
    assert_eq!(convert(&*open(&source), &target, &options).unwrap_err().kind(), Kind::Pending);
    // Nor when the image itself is gone.
    std::fs::remove_file(&target).unwrap();
    assert_eq!(convert(&*open(&source), &target, &options).unwrap_err().kind(), Kind::Pending);
    assert!(!target.exists() && !before.is_empty());
}

/// A journal is obeyed only if nobody else can have put it there.
fn a_journal_that_another_user_may_have_made_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let old = mixed(1 << 20, 80);
    let image = write_file(folder.path(), "disk.raw", &old);
    let journal_file = commit::journal_path(&image);
    let length = old.len() as u64;
    let planted = journal(&image, VERSION, [0; 28], &[(4096, length, Path::new(""))]);
    let elsewhere = write_file(folder.path(), "elsewhere", &planted);
    let is_root = elsewhere.metadata().unwrap().uid() == 0;
    let write = |mode: u32| {
        std::fs::write(&journal_file, &planted).unwrap();
        std::fs::set_permissions(&journal_file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let cases: &[(&str, &dyn Fn())] = &[
        ("other users may write", &|| write(0o666)),
        ("other users may write", &|| write(0o620)),
        ("symbolic link", &|| symlink("elsewhere", &journal_file).unwrap()),
        ("symbolic link", &|| symlink("nowhere", &journal_file).unwrap()),
        ("regular file", &|| std::fs::create_dir(&journal_file).unwrap()),
        ("regular file", &|| {
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &journal_file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }),
        ("belongs to user 65534", &|| {
            write(0o644);
            std::os::unix::fs::chown(&journal_file, Some(65534), None).unwrap();
        }),
    ];
    for (reason, plant) in cases {
        if reason.contains("65534") && !is_root {
            continue;
        }
        plant();
        for error in [
            recover(&image).unwrap_err(),
            block::open(&image, &OpenOptions::default()).map(drop).unwrap_err(),
            describe::info(&image, &OpenOptions::default()).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Pending, "{reason}: {error}");
            assert!(error.to_string().contains(reason), "{reason}: {error}");
        }
        assert!(std::fs::read(&image).unwrap() == old);
        assert!(journal_file.symlink_metadata().is_ok(), "the journal is left alone");
        std::fs::remove_file(&journal_file).or_else(|_| std::fs::remove_dir(&journal_file)).unwrap();
    }
    // That of the image's owner counts, whoever runs.
    write(0o600);
    if is_root {
        std::os::unix::fs::chown(&journal_file, Some(65534), None).unwrap();
        std::os::unix::fs::chown(&image, Some(65534), None).unwrap();
        assert!(recover(&image).unwrap(), "it is rolled back");
        assert_eq!(image.metadata().unwrap().len(), 4096, "the length that the journal names");
        assert!(!journal_file.exists());
    }
}

/// A journal that was copied from an image to its twin says nothing about the twin.
fn a_journal_goes_with_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let old = mixed(1 << 20, 81);
    let image = write_file(path, "disk.raw", &old);
    let whole = {
        let mut stage = stage(&image);
        let size = stage.len();
        for place in [0, size / 3, size / 2] {
            stage.write_at(ImageOffset(place / 512 * 512), &[0xEE; 5000]).unwrap();
        }
        commit::commit_in_place(&mut stage, &image, &CommitOptions::default()).unwrap();
        drop(stage);
        std::fs::read(&image).unwrap()
    };
    std::fs::write(&image, &old).unwrap();
    interrupt(&image);
    let half = std::fs::read(&image).unwrap();
    assert!(half != old && half != whole);
    let copy_journal = |to: &Path| std::fs::copy(commit::journal_path(&image), commit::journal_path(to)).unwrap();
    let stranger = mixed(1 << 20, 82);
    for content in [&old, &whole, &stranger] {
        let twin = write_file(path, "twin.raw", content);
        copy_journal(&twin);
        let error = recover(&twin).unwrap_err();
        assert_eq!(error.kind(), Kind::Pending);
        assert!(error.to_string().contains("another file"), "{error}");
        assert!(error.hint_text().unwrap().contains("winject-journal"), "{error:?}");
        assert!(std::fs::read(&twin).unwrap() == *content && commit::journal_path(&twin).exists());
    }
    // Both together may be copied to another file system, and renamed.
    let moved = write_file(path, "moved.raw", &half);
    copy_journal(&moved);
    assert!(recover(&moved).unwrap());
    assert_equal(&std::fs::read(&moved).unwrap(), &old, "restored");
    let renamed = path.join("renamed.raw");
    std::fs::rename(commit::journal_path(&image), commit::journal_path(&renamed)).unwrap();
    std::fs::rename(&image, &renamed).unwrap();
    assert!(recover(&renamed).unwrap());
    assert_equal(&std::fs::read(&renamed).unwrap(), &old, "restored");
}

/// Nothing of a run that had written everything is thrown away, and it is not said to be.
fn a_run_that_can_be_completed_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let old = mixed(1 << 20, 83);
    let image = write_file(folder.path(), "disk.raw", &old);
    let mut seen = std::collections::BTreeMap::new();
    for steps in 0..200 {
        std::fs::write(&image, &old).unwrap();
        let mut stage = stage(&image);
        let mut new = old.clone();
        scribble(&mut stage, &mut new, &mut Random::new(84), 6);
        let result = on::in_place(&FailingHost::new(steps), &mut stage, &image, &CommitOptions::default());
        drop(stage);
        let before = std::fs::read(&image).unwrap();
        let recovery = commit::recover(&image, &PathPolicy::default()).unwrap();
        let now = std::fs::read(&image).unwrap();
        match recovery {
            Recovery::Nothing => assert!(now == if result.is_ok() { &new[..] } else { &old[..] }),
            Recovery::Restored => assert!(now == old && before != new),
            Recovery::Completed => assert!(now == new && before == new),
            Recovery::Undone | Recovery::GivenUp | Recovery::NotWritten => panic!("no undo, and a file"),
        }
        *seen.entry(format!("{recovery:?}")).or_insert(0) += 1;
        if result.is_ok() {
            break;
        }
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["Completed", "Nothing", "Restored"], "{seen:?}");
}

tests![
    the_journal_goes_with_the_file_and_not_with_its_name,
    a_half_written_image_is_not_read,
    a_dry_run_rolls_nothing_back,
    a_planted_journal_writes_to_no_other_file,
    journals_of_other_versions_are_refused_by_name,
    a_journal_of_the_version_before_is_obeyed,
    a_run_that_is_still_going_is_not_undone,
    a_journal_that_comes_back_finds_what_it_needs,
    nothing_is_converted_over_a_pending_image,
    a_journal_that_another_user_may_have_made_does_not_count,
    a_journal_goes_with_one_file,
    a_run_that_can_be_completed_is_completed,
];
