//! The last edit in place is taken back: every byte, the length, and the neighbours; or it is refused and nothing is
//! touched.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use winject::Kind;
use winject::internals::block::commit::{self, CommitOptions, UndoOptions, Undone, on};
use winject::internals::block::convert::{ConvertOptions, convert};
use winject::internals::block::{Format, Locking, PathPolicy, RealHost};

use super::read::{SIZE, VARIANTS};
use super::virtual_host::FailingHost;
use super::*;

fn allowing(path: &Path) -> PathPolicy {
    PathPolicy::default().allow(path.with_file_name("data.bin"))
}

/// Edits the image, keeping the record; returns what it holds then.
fn edit(path: &Path, seed: u64, keep_undo: bool) -> Vec<u8> {
    let mut stage = stage(path);
    let mut model = read_all(stage.image());
    scribble(&mut stage, &mut model, &mut Random::new(seed), 12);
    let options = CommitOptions { path_policy: allowing(path), keep_undo, ..CommitOptions::default() };
    let done = commit::commit_in_place(&mut stage, path, &options).unwrap();
    assert_eq!(done.undo_record.is_some(), keep_undo);
    assert_eq!(done.undo_record.is_some(), commit::undo_path(path).exists());
    model
}

fn options(path: &Path) -> UndoOptions {
    UndoOptions { path_policy: allowing(path), ..UndoOptions::default() }
}

fn undo(path: &Path) -> winject::Result<Undone> {
    commit::undo(path, &options(path))
}

/// All files of the folder with their content.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[track_caller]
fn assert_refused(folder: &Path, path: &Path, word: &str) {
    let before = contents(folder);
    let error = undo(path).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().contains(word), "{word}: {error}");
    assert!(error.hint_text().is_some(), "{error}");
    assert!(contents(folder) == before, "{word}: something was touched");
}

/// Undo after an edit is the identity, and the same edit after it gives the same image again.
fn undo_after_an_edit_is_the_identity() {
    if !has_qemu() {
        return;
    }
    let variants =
        ["", "data_file=data.bin", "data_file=data.bin,data_file_raw=on", "data_file=data.bin,extended_l2=on"];
    let variants = variants.iter().map(|v| if v.is_empty() { String::new() } else { format!("-o {v}") });
    let variants = variants.chain(VARIANTS.iter().map(|v| (*v).to_owned()));
    for (number, variant) in variants.enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write_file(path, "source.raw", &mixed(SIZE, number as u64));
        let format = if variant.is_empty() { "raw" } else { "qcow2" };
        qemu_img(path, &format!("convert -f raw -O {format} {variant} source.raw image"));
        std::fs::remove_file(path.join("source.raw")).unwrap();
        if number % 2 == 1 && !variant.contains("data_file") && !variant.contains("refcount_bits") {
            qemu_img(path, "snapshot -c before image");
        }
        let image = path.join("image");
        let before = contents(path);
        edit(&image, 100, true);
        let after = contents(path);
        let record = commit::undo_path(&image);
        assert_eq!(record.metadata().unwrap().permissions().mode() & 0o777, 0o600, "it holds parts of the disk");
        let done = commit::undo(&image, &UndoOptions { is_dry_run: true, ..options(&image) }).unwrap();
        assert!(done.bytes_restored > 0 && contents(path) == after, "{variant}: a dry run writes nothing");
        undo(&image).unwrap();
        assert!(contents(path) == before, "{variant}: not as before");
        edit(&image, 100, true);
        let again = contents(path);
        let without = |files: &[(PathBuf, Vec<u8>)]| -> Vec<(PathBuf, Vec<u8>)> {
            files.iter().filter(|(name, _)| *name != record).cloned().collect()
        };
        assert!(without(&again) == without(&after), "{variant}: the same edit again");
        // The next edit replaces the record; one that keeps none removes it.
        edit(&image, 101, true);
        undo(&image).unwrap();
        assert!(contents(path) == without(&after), "{variant}: only the last edit is undone");
        edit(&image, 102, true);
        edit(&image, 103, false);
        assert_refused(path, &image, "no undo record");
    }
}

fn what_something_else_wrote_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let old = mixed(SIZE, 200);
    let image = write_file(path, "disk.raw", &old);
    let new = edit(&image, 201, true);
    let differs: Vec<usize> = (0..old.len() / 512).filter(|s| old[s * 512..][..512] != new[s * 512..][..512]).collect();
    let same = (0..old.len() / 4096).rev().find(|b| old[b * 4096..][..4096] == new[b * 4096..][..4096]).unwrap();
    for sector in [differs[0], differs[differs.len() / 2], *differs.last().unwrap()] {
        let mut changed = new.clone();
        changed[sector * 512 + 77] ^= 1;
        std::fs::write(&image, &changed).unwrap();
        assert_refused(path, &image, &format!("{:#x} (512 bytes)", sector * 512));
    }
    // Another length.
    std::fs::write(&image, &new[..new.len() - 4096]).unwrap();
    assert_refused(path, &image, "something else has written");
    // A place that the edit did not write keeps what it has now.
    let mut changed = new.clone();
    changed[same * 4096 + 9] ^= 1;
    std::fs::write(&image, &changed).unwrap();
    undo(&image).unwrap();
    let mut expected = old;
    expected[same * 4096 + 9] ^= 1;
    assert_equal(&std::fs::read(&image).unwrap(), &expected, "undone around it");
}

fn a_record_goes_with_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let old = mixed(SIZE, 210);
    let image = write_file(path, "disk.raw", &old);
    let new = edit(&image, 211, true);
    let twin = write_file(path, "twin.raw", &new);
    std::fs::copy(commit::undo_path(&image), commit::undo_path(&twin)).unwrap();
    assert_refused(path, &twin, "another file");
    // Copied together; the way to it is found at any step.
    for steps in 0.. {
        std::fs::write(&twin, &new).unwrap();
        std::fs::copy(commit::undo_path(&image), commit::undo_path(&twin)).unwrap();
        let host = FailingHost::new(steps);
        let copied = UndoOptions { is_copied: true, ..options(&twin) };
        let result = on::undo(&host, &twin, &copied);
        commit::recover(&twin, &allowing(&twin)).unwrap();
        if commit::undo_path(&twin).exists() {
            assert!(result.is_err());
            assert_equal(&std::fs::read(&twin).unwrap(), &new, &format!("step {steps}"));
            commit::undo(&twin, &copied).unwrap();
        }
        assert_equal(&std::fs::read(&twin).unwrap(), &old, &format!("step {steps}"));
        assert!(!commit::undo_path(&twin).exists());
        if result.is_ok() {
            break;
        }
        assert!(steps < 100);
    }
    // Moved together they are what they were.
    let moved = path.join("moved.raw");
    std::fs::rename(commit::undo_path(&image), commit::undo_path(&moved)).unwrap();
    std::fs::rename(&image, &moved).unwrap();
    undo(&moved).unwrap();
    assert_equal(&std::fs::read(&moved).unwrap(), &old, "moved");
}

fn a_record_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let old = mixed(SIZE, 220);
    let image = write_file(path, "disk.raw", &old);
    assert_eq!(commit::forget(&image).unwrap_err().kind(), Kind::Refused);
    let new = edit(&image, 221, true);
    commit::forget(&image).unwrap();
    assert_eq!(contents(path), [(image.clone(), new.clone())]);
    assert_refused(path, &image, "no undo record");
    // The old content was put back in another way: nothing is left to do.
    std::fs::write(&image, &old).unwrap();
    edit(&image, 221, true);
    std::fs::write(&image, &old).unwrap();
    assert!(undo(&image).unwrap().was_undone);
    assert_eq!(contents(path), [(image.clone(), old.clone())]);
    // An output that replaces the image takes the record with it.
    edit(&image, 221, true);
    let source = write_file(path, "source.raw", &old);
    let options = ConvertOptions { format: Format::Raw, overwrite: true, ..Default::default() };
    convert(&*open(&source), &image, &options).unwrap();
    assert_eq!(contents(path).len(), 2, "{:?}", std::fs::read_dir(path).unwrap().collect::<Vec<_>>());
}

/// A record counts only if no other user can have made it, and if it is whole.
fn a_record_that_cannot_be_trusted_is_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let image = write_file(path, "disk.raw", &mixed(SIZE, 230));
    edit(&image, 231, true);
    let record = commit::undo_path(&image);
    let good = std::fs::read(&record).unwrap();
    for damage in 0..60 {
        let mut bytes = good.clone();
        if damage < 20 {
            bytes.truncate(damage * good.len() / 20);
        } else {
            bytes[8 + (damage - 20) * (good.len() - 8) / 40] ^= 0x10;
        }
        std::fs::write(&record, &bytes).unwrap();
        // Which process wrote it is of no use any more.
        if damage < 20 || bytes[20..48] == good[20..48] {
            assert_refused(path, &image, "cannot use the undo record");
        }
    }
    std::fs::write(&record, [&good[..], b"\n"].concat()).unwrap();
    assert_refused(path, &image, "after its end");
    std::fs::write(&record, &good).unwrap();
    std::fs::set_permissions(&record, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_refused(path, &image, "other users may write to it");
    std::fs::set_permissions(&record, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&record, path.join("elsewhere")).unwrap();
    symlink("elsewhere", &record).unwrap();
    assert_refused(path, &image, "symbolic link");
    assert_eq!(commit::forget(&image).unwrap_err().kind(), Kind::Refused);
    std::fs::remove_file(&record).unwrap();
    // The journal of an interrupted run is not a record under another name.
    std::fs::rename(path.join("elsewhere"), commit::journal_path(&image)).unwrap();
    assert_eq!(undo(&image).unwrap_err().kind(), Kind::Pending);
}

/// A file of somebody else at the record's place is neither replaced nor removed.
fn a_file_of_the_user_in_the_place_of_the_record_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let old = mixed(SIZE, 250);
    let image = write_file(path, "disk.raw", &old);
    let letter = write_file(path, "disk.raw.winject-undo", b"a letter that has nothing to do with winject");
    let before = contents(path);
    for keep_undo in [true, false] {
        let mut stage = stage(&image);
        scribble(&mut stage, &mut old.clone(), &mut Random::new(251), 4);
        let early = commit::check_in_place(&stage, &image, &PathPolicy::default()).unwrap_err();
        let options = CommitOptions { keep_undo, ..CommitOptions::default() };
        let late = commit::commit_in_place(&mut stage, &image, &options).unwrap_err();
        for error in [early, late] {
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            assert!(error.to_string().contains("disk.raw.winject-undo"), "{error}");
        }
        assert!(contents(path) == before);
    }
    assert_refused(path, &image, "cannot use the undo record");
    assert_eq!(commit::forget(&image).unwrap_err().kind(), Kind::Refused);
    let source = write_file(path, "source.raw", &mixed(SIZE, 252));
    convert(&*open(&source), &image, &ConvertOptions { format: Format::Raw, overwrite: true, ..Default::default() })
        .unwrap();
    assert_eq!(std::fs::read(&letter).unwrap(), b"a letter that has nothing to do with winject");
}

/// The data file of an image is written only if it is allowed by name; both files fail at any step, in any folder.
fn a_data_file_and_its_image_are_undone_together() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_file(path, "source.raw", &mixed(SIZE, 240));
    qemu_img(path, "convert -f raw -O qcow2 -o data_file=data.bin,cluster_size=4k source.raw top.qcow2");
    std::fs::remove_file(path.join("source.raw")).unwrap();
    let image = path.join("top.qcow2");
    let before = contents(path);
    for make in [FailingHost::new, FailingHost::once] {
        for steps in 0.. {
            edit(&image, 241, true);
            let edited = contents(path);
            let error = commit::undo(&image, &UndoOptions::default()).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            assert!(error.hint_text().unwrap().contains("--allow-path"), "{error:?}");
            assert!(contents(path) == edited);
            let host = make(steps);
            let result = on::undo(&host, &image, &options(&image));
            if matches!(&result, Err(error) if error.kind() == Kind::Pending) {
                let format = Some(Format::Raw);
                let data = block::open(&path.join("data.bin"), &OpenOptions { format, ..OpenOptions::default() });
                assert_eq!(data.unwrap_err().kind(), Kind::Pending, "step {steps}: the data file alone");
            }
            on::recover(&RealHost, &image, Locking::default(), &allowing(&image)).unwrap();
            if commit::undo_path(&image).exists() {
                undo(&image).unwrap();
            }
            // A marker that is left means nothing.
            commit::check_in_place(&stage(&image), &image, &allowing(&image)).unwrap();
            assert!(contents(path) == before, "step {steps}: {result:?}");
            if result.is_ok() && host.left() > 0 && host.left() < usize::MAX / 2 {
                break;
            }
            assert!(steps < 200);
        }
    }
}

tests![
    undo_after_an_edit_is_the_identity,
    what_something_else_wrote_is_not_overwritten,
    a_record_goes_with_one_file,
    a_record_is_given_up,
    a_record_that_cannot_be_trusted_is_not_obeyed,
    a_file_of_the_user_in_the_place_of_the_record_stays,
    a_data_file_and_its_image_are_undone_together,
];
