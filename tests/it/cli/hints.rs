//! The command that a hint names works as it is printed: it has the image and the options of the command that failed.

use std::path::Path;

use super::answer;
use super::grammar::{on, setting};
use super::recover::paste;
use crate::inject::{disk_sha256, fixture, folder, stderr, stdout, succeed, winject};
use crate::support;

/// The command in the hint of a command that ends with `code`: from `winject VERB` on, up to `end`.
fn hinted(folder: &Path, line: &str, code: i32, verb: &str, end: &str) -> String {
    let output = answer(folder, &on(line, "i.qcow2"));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{line}: {text}");
    let (_, hint) = text.split_once("Hint: ").unwrap_or_else(|| panic!("{line}: no hint: {text}"));
    let hint = hint.lines().next().unwrap();
    let at = hint.find(&format!("winject {verb} ")).unwrap_or_else(|| panic!("{line}: {hint}"));
    let command = hint[at..].split(end).next().unwrap();
    command.to_owned()
}

fn the_command_of_a_hint_works_as_it_is_printed() {
    let folder = setting();
    let path = folder.path();
    for (line, code, verb, end, expected) in [
        // The EFI system partition, and not the volume of Windows.
        ("ls --partition 1 X /none", 2, "ls", " lists", "EFI/"),
        ("cat X /none --partition 1", 2, "ls", " lists", "EFI/"),
        (r"reg query X HKLM\SYSTEM\None --partition 3 -f qcow2", 2, "reg query", "\n", "Select"),
        (r"reg export -f qcow2 X HKLM\SYSTEM\Select\None", 2, "reg query", "\n", "Current"),
    ] {
        let command = hinted(path, line, code, verb, end);
        for option in ["--partition 1", "--partition 3", "qcow2"].iter().filter(|option| line.contains(*option)) {
            assert!(command.contains(option), "{line}: {command}");
        }
        let done = paste(path, &command);
        assert!(done.status.success() && stdout(&done).contains(expected), "{command}: {}", stderr(&done));
    }
    // The image stands in place of its placeholder.
    let text = stderr(&answer(path, &on("ls -f qcow2 --partition 1 X /none", "i.qcow2")));
    assert!(!text.contains("IMAGE") && text.contains("winject inspect --format qcow2 i.qcow2"), "{text}");
    // A document has its options in itself.
    std::fs::write(path.join("run.yaml"), "vmdk: i.qcow2\ndrivers: none\ndry_run: true\n").unwrap();
    assert_eq!(answer(path, &["--config", "run.yaml"]).status.code(), Some(6));
}

/// With `--json` the hint is the same.
fn a_hint_in_json_is_the_one_that_is_printed() {
    let folder = setting();
    let output = answer(folder.path(), &["ls", "--json", "--partition", "1", "i.qcow2", "/none"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let hint = json["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("winject ls --partition 1 i.qcow2 /"), "{hint}");
    assert!(stderr(&output).contains(&format!("Hint: {hint}\n")), "{}", stderr(&output));
}

/// The undo of an edit writes to the data file, too.
fn the_command_that_undoes_an_edit_names_the_data_file() {
    let Some(qemu_img) = support::program("qemu-img") else { return };
    let folder = folder();
    let convert = ["convert", "-O", "qcow2", "-o", "data_file=data.bin"];
    let mut make = std::process::Command::new(qemu_img);
    support::run(make.current_dir(folder.path()).args(convert).arg(fixture()).arg("i.qcow2"));
    let before = disk_sha256(&folder.path().join("i.qcow2"));
    let set = ["reg", "set", "i.qcow2", r"HKLM\SYSTEM\Made", "--in-place", "--allow-path", "data.bin"];
    let output = succeed(winject().current_dir(folder.path()).args(set));
    let text = stderr(&output);
    let (_, undo) = text.split_once("undo: ").unwrap();
    let undo = undo.lines().next().unwrap();
    assert!(undo.starts_with("winject undo i.qcow2 --allow-path "), "{undo}");
    let done = paste(folder.path(), undo);
    assert!(done.status.success(), "{undo}: {}", stderr(&done));
    assert_eq!(disk_sha256(&folder.path().join("i.qcow2")), before);
}

tests![
    the_command_of_a_hint_works_as_it_is_printed,
    a_hint_in_json_is_the_one_that_is_printed,
    the_command_that_undoes_an_edit_names_the_data_file,
];
