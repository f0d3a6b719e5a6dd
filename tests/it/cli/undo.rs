//! `winject undo`, as it is typed.

use super::answer;
use crate::inject::{copy, disk_sha256, fixture_drivers, folder, names, sha256, stderr, stdout, writable_fixture};
use winject::internals::block::Format;

fn an_injection_is_taken_back_by_the_command_that_it_prints() {
    for format in [Format::Raw, Format::Qcow2] {
        let folder = folder();
        let folder = folder.path();
        let made = writable_fixture(folder, format);
        let image = folder.join("win 10.img");
        std::fs::rename(made, &image).unwrap();
        let old = sha256(&image);
        let drivers = fixture_drivers();
        let inject = ["inject", "win 10.img", "--drivers", drivers.to_str().unwrap(), "--in-place", "--report", "r.md"];
        let done = answer(folder, &inject);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        let (edited, disk) = (sha256(&image), disk_sha256(&image));
        let text = stdout(&done);
        let command = text.lines().find_map(|line| line.strip_prefix("Undo:     ")).unwrap();
        assert_eq!(command, "winject undo 'win 10.img'");
        let markdown = std::fs::read_to_string(folder.join("r.md")).unwrap();
        assert!(markdown.contains("winject undo"), "{markdown}");
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("r.json")).unwrap()).unwrap();
        assert_eq!(report["run"]["undo"], command);
        assert_eq!(names(folder), ["r.json", "r.md", "win 10.img", "win 10.img.winject-undo"]);
        let tried = answer(folder, &["undo", "win 10.img", "--dry-run"]);
        assert!(tried.status.success() && stdout(&tried).starts_with("Can be undone: "), "{}", stderr(&tried));
        assert_eq!(sha256(&image), edited);
        let program = env!("CARGO_BIN_EXE_winject");
        let line = command.replacen("winject", &format!("'{program}'"), 1);
        let undone = std::process::Command::new("sh").current_dir(folder).args(["-c", &line]).output().unwrap();
        assert!(undone.status.success() && stdout(&undone).starts_with("Undone: "), "{}", stderr(&undone));
        assert_eq!(sha256(&image), old);
        assert_eq!(names(folder), ["r.json", "r.md", "win 10.img"]);
        let nothing = answer(folder, &["undo", "win 10.img"]);
        assert_eq!(nothing.status.code(), Some(3));
        assert!(stderr(&nothing).contains("overlay (--output) is undone by deleting it"), "{}", stderr(&nothing));
        // The same once more gives the same.
        assert!(answer(folder, &inject).status.success());
        assert_eq!(disk_sha256(&image), disk);
        assert!(answer(folder, &["undo", "win 10.img", "--forget"]).status.success());
        assert_eq!(names(folder), ["r.json", "r.md", "win 10.img"]);
    }
}

fn an_edit_of_the_registry_is_taken_back() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let name = image.file_name().unwrap().to_str().unwrap();
    let old = sha256(&image);
    let set = ["reg", "set", name, r"HKLM\SYSTEM\Test", "--value", "x", "--data", "y", "--in-place"];
    let done = answer(folder.path(), &set);
    assert!(done.status.success() && stderr(&done).contains("winject undo"), "{}", stderr(&done));
    // An unchanged image keeps its record.
    assert!(answer(folder.path(), &set).status.success());
    assert!(answer(folder.path(), &["undo", name]).status.success());
    assert_eq!(sha256(&image), old);
    let done = answer(folder.path(), &[&set[..], &["--no-undo"]].concat());
    assert!(done.status.success() && !stderr(&done).contains("winject undo"), "{}", stderr(&done));
    assert_eq!(names(folder.path()), [name]);
    assert_eq!(answer(folder.path(), &["undo", name]).status.code(), Some(3));
}

/// The journal of a run is found by the name that the run used.
fn an_image_with_several_names_is_not_written() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let (name, drivers) = (image.file_name().unwrap().to_str().unwrap(), fixture_drivers());
    let inject = |name| ["inject", name, "--drivers", drivers.to_str().unwrap(), "--in-place"];
    let other = folder.path().join("b.raw");
    let refused = |arguments: &[&str]| {
        let before = (sha256(&image), names(folder.path()));
        let output = answer(folder.path(), arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {text}");
        let (_, command) = text.split_once("this shows: ").expect(&text);
        let command = command.lines().next().unwrap().replacen("find /", "find .", 1);
        let found =
            std::process::Command::new("sh").current_dir(folder.path()).args(["-c", &command]).output().unwrap();
        assert_eq!(stdout(&found).lines().count(), 2, "{command}");
        assert_eq!((sha256(&image), names(folder.path())), before);
    };
    std::fs::hard_link(&image, &other).unwrap();
    for name in [name, "b.raw"] {
        refused(&inject(name));
        refused(&["recover", name]);
    }
    std::fs::remove_file(&other).unwrap();
    let old = sha256(&image);
    assert!(answer(folder.path(), &inject(name)).status.success());
    std::fs::hard_link(&image, &other).unwrap();
    refused(&["undo", name]);
    std::fs::remove_file(&other).unwrap();
    assert!(answer(folder.path(), &["undo", name]).status.success());
    assert_eq!(sha256(&image), old);
}

fn the_names_of_records_are_not_for_outputs() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let name = image.file_name().unwrap().to_str().unwrap();
    copy(&image, &folder.path().join("b.raw"));
    let done = answer(folder.path(), &["convert", name, "b.raw.winject-undo"]);
    assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
    assert!(stderr(&done).contains("kept for undo journals and records"), "{}", stderr(&done));
}

tests![
    an_injection_is_taken_back_by_the_command_that_it_prints,
    an_edit_of_the_registry_is_taken_back,
    an_image_with_several_names_is_not_written,
    the_names_of_records_are_not_for_outputs,
];
