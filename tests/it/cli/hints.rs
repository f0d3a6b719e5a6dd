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

/// Reports of all kinds and the answers in JSON have the commands as they are printed.
fn the_commands_in_reports_work_as_they_stand_there() {
    let folder = setting();
    let path = folder.path();
    let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();

    // The hint of an error.
    std::fs::copy(path.join("i.qcow2"), path.join("u.qcow2")).unwrap();
    let line = r"inject X --drivers drivers --upload tool.txt=C:\Tools\tool.txt";
    std::fs::write(path.join("tool.txt"), "one").unwrap();
    assert!(answer(path, &on(&format!("{line} --in-place"), "u.qcow2")).status.success());
    std::fs::write(path.join("tool.txt"), "two").unwrap();
    let line = format!("{line} --partition 3 -n --report r.html --report r.md --json");
    let output = answer(path, &on(&line, "u.qcow2"));
    assert_eq!(output.status.code(), Some(3));
    let expected = "winject remove --partition 3 u.qcow2 --in-place";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    let hint = json(&read("r.json"))["error"]["hint"].clone();
    assert!(hint.as_str().unwrap().contains(expected), "{hint}");
    assert_eq!(json(&stdout(&output))["error"]["hint"], hint);
    for name in ["r.html", "r.md"] {
        assert!(read(name).contains(expected), "{name}: {}", read(name));
    }
    assert!(paste(path, expected).status.success());
    let output = answer(path, &on("fsck X --partition 1 -f qcow2 --junit junit.xml", "i.qcow2"));
    let expected = "winject inspect --format qcow2 i.qcow2";
    assert!(!output.status.success() && read("junit.xml").contains(expected), "{}", read("junit.xml"));
    assert!(paste(path, expected).status.success());

    // What a removal leaves, with the command that removes it. The name of the image is quoted, and stays on its line.
    let image = "a 'b'.qcow2";
    std::fs::copy(path.join("i.qcow2"), path.join(image)).unwrap();
    let trust = "inject X --drivers drivers --in-place --trust-publisher drivers/vioscsi/w10/amd64/vioscsi.cat";
    assert!(answer(path, &on(trust, image)).status.success());
    let line = "remove X --partition 3 -n --report left.html --report left.md";
    let output = answer(path, &on(line, image));
    assert!(output.status.success(), "{}", stderr(&output));
    let expected = r"winject reg delete --partition 3 'a '\''b'\''.qcow2' KEY --in-place";
    assert!(stdout(&output).contains(expected), "{}", stdout(&output));
    let left = json(&read("left.json"))["removal"]["left"].to_string();
    assert!(left.contains(&expected.replace('\\', r"\\")), "{left}");
    assert!(read("left.html").contains("winject reg delete --partition 3 "), "{}", read("left.html"));
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
    the_commands_in_reports_work_as_they_stand_there,
    the_command_that_undoes_an_edit_names_the_data_file,
];
