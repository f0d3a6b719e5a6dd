//! `winject plan` on the small Windows that comes with the package.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use winject::internals::block::Format;
use winject::internals::plan::saved::PlanDocument;

use crate::inject::{copy, fixture, fixture_drivers, folder, succeed, winject, writable_fixture};

/// `winject plan` for an image, with drivers.
fn plan(image: &Path) -> Command {
    let mut command = winject();
    command.arg("plan").arg(image).arg("--drivers").arg(fixture_drivers());
    command
}

/// The plan as `--json` prints it.
fn document(command: &mut Command) -> Vec<u8> {
    succeed(command.arg("--json")).stdout
}

/// Name, time of the last change, and content of all files of a folder.
fn state(folder: &Path) -> BTreeMap<String, (i64, i64, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let state = |entry: std::fs::DirEntry| {
        let about = entry.metadata().unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, (about.mtime(), about.mtime_nsec(), std::fs::read(entry.path()).unwrap()))
    };
    files.map(state).collect()
}

fn writes_nothing_to_the_image_nor_its_folder() {
    let (images, outputs) = (folder(), folder());
    for format in [Format::Raw, Format::Qcow2] {
        let image = writable_fixture(images.path(), format);
        let before = state(images.path());
        let (saved, review) =
            (outputs.path().join(format!("{format}.json")), outputs.path().join(format!("{format}.html")));
        succeed(plan(&image).arg("-o").arg(&saved).arg("--review").arg(&review));
        let check = plan(&image).args(["--check", "--quiet"]).output().unwrap();
        assert_eq!((check.status.code(), check.stdout.is_empty()), (Some(1), true));
        assert!(state(images.path()) == before, "{format}");
        let bytes = std::fs::read(&saved).unwrap();
        let read = PlanDocument::parse(&bytes).unwrap();
        read.judge().unwrap();
        assert_eq!(bytes, document(&mut plan(&image)));
        assert!(std::fs::read_to_string(review).unwrap().starts_with("<!DOCTYPE html>"));
    }
}

/// The same input gives the same bytes, whenever, wherever and however it is read.
fn the_same_image_gives_the_same_bytes() {
    let (first, second) = (folder(), folder());
    let image = first.path().join("win10.qcow2");
    copy(&fixture(), &image);
    // the same disk in another container, and in another folder
    let raw = writable_fixture(second.path(), Format::Raw);
    let other = second.path().join("win10.qcow2");
    std::fs::rename(raw, &other).unwrap();
    let expected = document(&mut plan(&image));
    assert!(!String::from_utf8_lossy(&expected).contains(first.path().to_str().unwrap()));
    for (name, value) in
        [("TZ", "Asia/Kathmandu"), ("LANG", "tr_TR.UTF-8"), ("SOURCE_DATE_EPOCH", "1"), ("COLUMNS", "20")]
    {
        assert!(document(plan(&image).env(name, value)) == expected, "{name}");
    }
    assert!(document(plan(&image).env_remove("SOURCE_DATE_EPOCH")) == expected);
    for threads in ["1", "2", "8"] {
        assert!(document(plan(&image).args(["--threads", threads])) == expected, "{threads}");
    }
    assert!(document(&mut plan(&other)) == expected, "another container");
    assert!(document(plan(Path::new("win10.qcow2")).current_dir(first.path())) == expected, "a relative path");
}

/// The verdict of the plan is what `inject` makes true; then nothing is left to do.
fn nothing_is_left_to_do_after_the_injection() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    for form in ["minimal", "full"] {
        let planned = PlanDocument::parse(&document(plan(&image).args(["--registration", form]))).unwrap();
        assert!(!planned.steps.is_empty() && planned.verdict.after.iter().all(|bus| bus.boots));
        succeed(winject().arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).args([
            "--in-place",
            "--registration",
            form,
        ]));
        let mut again = plan(&image);
        succeed(again.args(["--registration", form, "--check"]));
        let again = PlanDocument::parse(&document(&mut again)).unwrap();
        assert!(again.steps.is_empty() && again.files.is_empty(), "{:?}", again.steps);
        assert_eq!(again.verdict.before, planned.verdict.after);
        assert_eq!(again.verdict.before, again.verdict.after);
        assert_ne!(again.reads, planned.reads);
    }
}

fn a_saved_plan_is_shown_again() {
    let folder = folder();
    let (saved, page) = (folder.path().join("p.json"), folder.path().join("p.md"));
    let made = succeed(plan(&fixture()).arg("-o").arg(&saved).arg("--review").arg(&page));
    let again = folder.path().join("again.md");
    let shown = succeed(winject().arg("plan").arg("--show").arg(&saved).arg("--review").arg(&again));
    assert_eq!(String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&shown.stdout));
    for line in ["rem Installs the staged driver packages. Run it as administrator.", "winject-firstboot\\u{9}1"] {
        assert!(String::from_utf8_lossy(&shown.stdout).contains(&format!("    | {line}\n")), "{line}");
    }
    assert_eq!(std::fs::read_to_string(page).unwrap(), std::fs::read_to_string(again).unwrap());
    let text = std::fs::read_to_string(&saved).unwrap();
    let forged = text.replacen("\"path\": \"/hyper2kvm/setup.cmd\"", "\"path\": \"/Users/setup.cmd\"", 1);
    for (wrong, why) in
        [(forged, "no such edit in this place"), (text.replacen(' ', "", 1), "not as winject plan wrote it")]
    {
        std::fs::write(&saved, wrong).unwrap();
        let output = winject().arg("plan").arg("--show").arg(&saved).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && message.contains(why) && message.contains("p.json"), "{message}");
    }
}

fn an_output_replaces_only_what_it_may() {
    let folder = folder();
    let image = folder.path().join("win10.qcow2");
    copy(&fixture(), &image);
    let there = folder.path().join("p.json");
    std::fs::write(&there, "mine").unwrap();
    let code =
        |arguments: &[&str]| plan(&image).current_dir(folder.path()).args(arguments).output().unwrap().status.code();
    for arguments in [
        &["-o", "p.json"][..],
        &["-o", "win10.qcow2", "--overwrite"],
        &["-o", "n.json", "--review", "n.json"],
        &["-o", "n.json", "--review", "n.pdf"],
        &["-o", "missing/n.json"],
        &["-o", "n.md", "--review", "n.md"],
    ] {
        assert_eq!(code(arguments), Some(2), "{arguments:?}");
    }
    assert_eq!(std::fs::read(&there).unwrap(), b"mine");
    assert_eq!(std::fs::read(&image).unwrap(), std::fs::read(fixture()).unwrap());
    assert!(!folder.path().join("n.json").exists());
    assert_eq!(code(&["-o", "p.json", "--overwrite", "-q"]), Some(0));
    PlanDocument::parse(&std::fs::read(&there).unwrap()).unwrap();
}

tests![
    writes_nothing_to_the_image_nor_its_folder,
    the_same_image_gives_the_same_bytes,
    nothing_is_left_to_do_after_the_injection,
    a_saved_plan_is_shown_again,
    an_output_replaces_only_what_it_may,
];
