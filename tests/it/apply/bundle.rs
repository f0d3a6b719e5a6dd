//! A plan with the files that it takes from the media, and without.

use super::{apply, fail, plan};
use crate::inject::{disk_sha256, expected_fixture, fixture_drivers, folder, names, sha256, succeed, writable_fixture};
use crate::support;
use std::path::{Path, PathBuf};
use std::process::Command;
use winject::internals::block::Format;

/// A plan with its image and bundle, moved to a folder of its own.
fn moved(to: &Path) -> (PathBuf, PathBuf) {
    let from = folder();
    let image = writable_fixture(from.path(), Format::Qcow2);
    let saved = plan(&image, "--bundle");
    assert_eq!(names(from.path()), ["plan.files", "plan.json", "win10.qcow2"]);
    for name in names(from.path()) {
        support::run(Command::new("mv").arg(from.path().join(name)).arg(to));
    }
    (to.join(image.file_name().unwrap()), to.join(saved.file_name().unwrap()))
}

fn it_needs_no_media() {
    let to = folder();
    let (image, saved) = moved(to.path());
    succeed(&mut apply(&saved, "--in-place"));
    assert_eq!(disk_sha256(&image), expected_fixture());
}

fn it_makes_the_same_plan_and_is_written_again() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let without = std::fs::read(plan(&image, "")).unwrap();
    for _ in 0..2 {
        assert_eq!(std::fs::read(plan(&image, "--bundle --overwrite")).unwrap(), without);
    }
    let bundle = folder.path().join("plan.files");
    for name in names(&bundle) {
        let sum = support::run(Command::new("sha256sum").arg(bundle.join(&name)));
        assert!(sum.stdout.starts_with(name.as_bytes()), "{name}");
    }
}

/// Every way in which a file of the bundle can be wrong: nothing is written then.
fn what_is_missing_or_wrong_is_refused() {
    let to = folder();
    let (image, saved) = moved(to.path());
    let old = sha256(&image);
    let bundle = saved.with_extension("files");
    let name = names(&bundle).into_iter().max_by_key(|name| bundle.join(name).metadata().unwrap().len()).unwrap();
    let file = bundle.join(&name);
    let content = std::fs::read(&file).unwrap();
    let refused = |what: &str| {
        let text = fail(&mut apply(&saved, "--in-place"), 6);
        assert!(text.contains("--drivers virtio-win.iso"), "{what}: {text}");
        assert_eq!(sha256(&image), old, "{what}");
    };
    let mut wrong = content.clone();
    wrong[content.len() / 2] ^= 1;
    std::fs::write(&file, &wrong).unwrap();
    refused("a wrong byte");
    std::fs::write(&file, &content[1..]).unwrap();
    refused("a byte less");
    // Even if it leads to the right content: what lies outside can be exchanged by others.
    let outside = to.path().join("outside");
    std::fs::write(&outside, &content).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&outside, &file).unwrap();
    refused("a link");
    std::fs::remove_file(&file).unwrap();
    refused("a file less");
    std::fs::create_dir(&file).unwrap();
    refused("a folder");
    // The media have it.
    succeed(apply(&saved, "--in-place --drivers").arg(fixture_drivers()));
    assert_eq!(disk_sha256(&image), expected_fixture());
}

/// Files of the media are found by their hashes, wherever they are.
fn media_may_be_rearranged() {
    let to = folder();
    let image = writable_fixture(to.path(), Format::Qcow2);
    let saved = plan(&image, "");
    let old = sha256(&image);
    let text = fail(&mut apply(&saved, "--in-place"), 6);
    assert!(text.contains("of the plan's files") && text.contains(".sys"), "{text}");
    let media = to.path().join("media");
    std::fs::create_dir(&media).unwrap();
    let mut pending = vec![fixture_drivers()];
    let mut count = 0;
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                std::fs::copy(&path, media.join(format!("{count}.bin"))).unwrap();
                count += 1;
            }
        }
    }
    succeed(apply(&saved, "--overlay").arg(to.path().join("overlay.qcow2")).arg("--drivers").arg(&media));
    assert_eq!(sha256(&image), old);
    assert_eq!(disk_sha256(&to.path().join("overlay.qcow2")), expected_fixture());
    // One of them is another file by now.
    let driver = std::fs::read_dir(&media).unwrap().map(|entry| entry.unwrap().path());
    let driver = driver.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut wrong = std::fs::read(&driver).unwrap();
    wrong[0] ^= 1;
    std::fs::write(&driver, wrong).unwrap();
    fail(apply(&saved, "--in-place --drivers").arg(&media), 6);
    assert_eq!(sha256(&image), old);
}

/// The folder's name may be taken: then neither it nor the plan is written.
fn a_taken_name_is_refused() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, folder.path().join("plan.files")).unwrap();
    let mut command = crate::inject::winject();
    command.arg("plan").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--bundle");
    let text = fail(command.arg("-o").arg(folder.path().join("plan.json")), 2);
    assert!(text.contains("the bundle"), "{text}");
    assert!(names(&outside).is_empty() && !folder.path().join("plan.json").exists());
}

/// A file of the bundle has a name that can be known before: a link of that name leads nowhere, and no other file is
/// replaced. What was written is removed again.
fn no_file_of_others_is_replaced_through_its_name() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let saved = plan(&image, "--bundle");
    let bundle = saved.with_extension("files");
    let all = names(&bundle);
    std::fs::remove_file(&saved).unwrap();
    let taken = bundle.join(&all[0]);
    let old = sha256(&image);
    let refused = |what: &str, options: &str| {
        let mut command = crate::inject::winject();
        command.arg("plan").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--bundle").arg("-o").arg(&saved);
        let text = fail(command.args(options.split_whitespace()), 2);
        assert!(text.contains("a file of the bundle"), "{what}: {text}");
        assert_eq!(sha256(&image), old, "{what}");
        assert!(!saved.exists(), "{what}");
        // What the failed run had written is gone, what was there before is not.
        assert_eq!(names(&bundle), [all[0].as_str()], "{what}");
    };
    for name in &all[1..] {
        std::fs::remove_file(bundle.join(name)).unwrap();
    }
    for options in ["", "--overwrite"] {
        std::fs::remove_file(&taken).unwrap();
        std::os::unix::fs::symlink(&image, &taken).unwrap();
        refused("a link", options);
        assert_eq!(std::fs::read_link(&taken).unwrap(), image);
    }
    std::fs::remove_file(&taken).unwrap();
    std::fs::write(&taken, "other").unwrap();
    refused("another file", "");
    assert_eq!(std::fs::read(&taken).unwrap(), b"other");
    plan(&image, "--bundle --overwrite");
    assert_eq!(names(&bundle), all);
}

fn it_is_as_private_as_what_it_is_made_from() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o600)).unwrap();
    let bundle = plan(&image, "--bundle").with_extension("files");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bundle), 0o700);
    assert!(names(&bundle).iter().all(|name| mode(&bundle.join(name)) == 0o600));
}

tests![
    no_file_of_others_is_replaced_through_its_name,
    it_is_as_private_as_what_it_is_made_from,
    it_needs_no_media,
    it_makes_the_same_plan_and_is_written_again,
    what_is_missing_or_wrong_is_refused,
    media_may_be_rearranged,
    a_taken_name_is_refused,
];
