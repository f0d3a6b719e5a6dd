//! `winject undo`, as it is typed.

use std::path::Path;

use super::answer;
use super::recover::paste;
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
        assert!(stderr(&nothing).contains("overlay is undone by deleting it"), "{}", stderr(&nothing));
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
    for options in [&[][..], &["--no-undo"]] {
        assert!(answer(folder.path(), &[&set[..], options].concat()).status.success());
    }
    assert!(answer(folder.path(), &["undo", name]).status.success());
    assert_eq!(sha256(&image), old);
    let done = answer(folder.path(), &[&set[..], &["--no-undo"]].concat());
    assert!(done.status.success() && !stderr(&done).contains("winject undo"), "{}", stderr(&done));
    assert_eq!(names(folder.path()), [name]);
    assert_eq!(answer(folder.path(), &["undo", name]).status.code(), Some(3));
}

/// Sets a value of the fixture in place.
fn edit(folder: &Path, name: &str) {
    let set = ["reg", "set", name, r"HKLM\SYSTEM\Test", "--value", "x", "--data", "y", "--in-place"];
    let done = answer(folder, &[&set[..], &["--skip-volume-check"]].concat());
    assert!(done.status.success(), "{}", stderr(&done));
}

/// What the hint of a failed `undo` says, from `winject` on; `None` if it names no command.
fn hinted(folder: &Path, name: &str) -> Option<String> {
    let output = answer(folder, &["undo", name]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    let (_, hint) = text.split_once("Hint: ").unwrap_or_else(|| panic!("no hint: {text}"));
    let at = hint.find("winject undo ")?;
    Some(hint[at..].lines().next().unwrap().to_owned())
}

/// An unusable record: the command that the hint names works; for a file that is not winject's the hint names none.
fn every_hint_about_a_record_works_when_it_is_pasted() {
    let folder = folder();
    let folder = folder.path();
    let name = "it's an image.qcow2";
    let pristine = writable_fixture(folder, Format::Qcow2);
    let (image, record) = (folder.join(name), folder.join(format!("{name}.winject-undo")));
    copy(&pristine, &image);
    edit(folder, name);
    let (good, edited) = (std::fs::read(&record).unwrap(), sha256(&image));
    for foreign in [&b""[..], b"a letter", &[0; 4096]] {
        std::fs::write(&record, foreign).unwrap();
        assert_eq!(hinted(folder, name), None);
        let forget = answer(folder, &["undo", "--forget", name]);
        assert_eq!(forget.status.code(), Some(3), "{}", stderr(&forget));
        assert!(stderr(&forget).contains("find out who made that file"), "{}", stderr(&forget));
        assert_eq!(std::fs::read(&record).unwrap(), foreign);
    }
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for damaged in [&good[..good.len() / 2], &flipped] {
        std::fs::write(&record, damaged).unwrap();
        let line = hinted(folder, name).unwrap();
        let done = paste(folder, &line);
        assert!(done.status.success() && !record.exists(), "{line}: {}", stderr(&done));
        assert_eq!(sha256(&image), edited);
    }
    // Something else wrote where the edit wrote.
    std::fs::write(&record, &good).unwrap();
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 8], 16).unwrap();
    let line = hinted(folder, name).unwrap();
    assert!(paste(folder, &line).status.success() && !record.exists(), "{line}");
    // Image and record were copied together.
    copy(&pristine, &image);
    edit(folder, name);
    let moved = folder.join("copy 2.qcow2");
    copy(&image, &moved);
    copy(&record, &folder.join("copy 2.qcow2.winject-undo"));
    let line = hinted(folder, "copy 2.qcow2").unwrap();
    let done = paste(folder, &line);
    assert!(stdout(&done).starts_with("Undone: all that the edit wrote to "), "{line}: {}", stderr(&done));
    assert_eq!(sha256(&moved), sha256(&pristine));
}

/// An option that would have no effect is refused, and nothing is written.
fn no_undo_is_for_an_edit_in_place() {
    let folder = folder();
    let folder = folder.path();
    let drivers = fixture_drivers();
    let drivers = drivers.to_str().unwrap();
    let image = writable_fixture(folder, Format::Qcow2);
    let planned = answer(folder, &["plan", "win10.qcow2", "--drivers", drivers, "-o", "plan.json"]);
    assert!(planned.status.success(), "{}", stderr(&planned));
    let (old, files) = (sha256(&image), names(folder));
    for arguments in [
        &["inject", "win10.qcow2", "--drivers", drivers, "--overlay", "o.qcow2"][..],
        &["apply", "plan.json", "--drivers", drivers, "--overlay", "o.qcow2"],
        &["apply", "plan.json", "--drivers", drivers, "-o", "o.qcow2"],
        &["reg", "set", "win10.qcow2", r"HKLM\SYSTEM\Test", "--value", "x", "--data", "y", "--overlay", "o.qcow2"],
        &["remove", "win10.qcow2", "--overlay", "o.qcow2"],
    ] {
        let done = answer(folder, &[arguments, &["--no-undo"]].concat());
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", stderr(&done));
        assert!(stderr(&done).contains("--no-undo"), "{}", stderr(&done));
    }
    assert_eq!((sha256(&image), names(folder)), (old, files));
}

/// A name that leaves no room for the journal's is refused before the work, with the reason.
fn a_name_too_long_for_a_journal_is_called_so() {
    let folder = folder();
    let made = writable_fixture(folder.path(), Format::Qcow2);
    let image = folder.path().join(format!("{}.qcow2", "n".repeat(240)));
    std::fs::rename(made, &image).unwrap();
    let old = sha256(&image);
    let name = image.file_name().unwrap().to_str().unwrap();
    let drivers = fixture_drivers();
    let done = answer(folder.path(), &["inject", name, "--drivers", drivers.to_str().unwrap(), "--in-place"]);
    let text = stderr(&done);
    assert_eq!(done.status.code(), Some(7), "{text}");
    assert!(text.contains("give the image a shorter name") && !text.contains("writable"), "{text}");
    assert_eq!((sha256(&image), names(folder.path()).len()), (old, 1));
}

/// What cannot be changed in place: each verb names a command of its own that works when pasted.
fn a_refused_edit_in_place_names_a_command_that_works() {
    let Some(qemu_img) = crate::support::program("qemu-img") else { return };
    let folder = folder();
    let folder = folder.path();
    let drivers = fixture_drivers();
    let drivers = drivers.to_str().unwrap();
    let image = folder.join("a disk.vmdk");
    let mut convert = std::process::Command::new(qemu_img);
    crate::support::run(convert.args(["convert", "-O", "vmdk"]).arg(crate::inject::fixture()).arg(&image));
    let planned = answer(folder, &["plan", "a disk.vmdk", "--drivers", drivers, "-o", "plan.json"]);
    assert!(planned.status.success(), "{}", stderr(&planned));
    let set = ["reg", "set", "a disk.vmdk", r"HKLM\SYSTEM\Test", "--value", "x", "--data", "y", "--in-place"];
    for arguments in [
        &["inject", "a disk.vmdk", "--drivers", drivers, "--in-place"][..],
        &["apply", "plan.json", "--drivers", drivers, "--in-place"],
        &["remove", "a disk.vmdk", "--in-place"],
        &set,
    ] {
        // A dry run refuses what the run would.
        let tried = answer(folder, &[arguments, &["--dry-run"]].concat());
        assert_eq!(tried.status.code(), Some(4), "{arguments:?}: {}", stderr(&tried));
        let done = answer(folder, arguments);
        let text = stderr(&done);
        assert_eq!(done.status.code(), Some(4), "{text}");
        let (_, hint) = text.split_once("Hint: ").unwrap();
        let line = &hint[hint.find("winject ").unwrap_or_else(|| panic!("{text}"))..];
        let done = paste(folder, line.lines().next().unwrap());
        assert!(done.status.success(), "{line}: {}", stderr(&done));
        std::fs::remove_file(folder.join("NEW.qcow2")).unwrap();
        let _ = std::fs::remove_file(folder.join("NEW.qcow2.winject-undo"));
    }
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
    let done = answer(folder.path(), &["convert", "-O", "raw", name, "b.raw.winject-undo"]);
    assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
    assert!(stderr(&done).contains("kept for undo journals and records"), "{}", stderr(&done));
}

tests![
    an_injection_is_taken_back_by_the_command_that_it_prints,
    an_edit_of_the_registry_is_taken_back,
    every_hint_about_a_record_works_when_it_is_pasted,
    no_undo_is_for_an_edit_in_place,
    a_name_too_long_for_a_journal_is_called_so,
    a_refused_edit_in_place_names_a_command_that_works,
    an_image_with_several_names_is_not_written,
    the_names_of_records_are_not_for_outputs,
];
