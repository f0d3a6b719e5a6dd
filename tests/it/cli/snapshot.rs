//! Exactly what a person sees, exit status included.

use crate::inject::{fixture, fixture_drivers, folder};
use std::path::Path;

/// Runs in a folder with `win10.qcow2` and `drivers` and shows everything as a terminal session would.
fn session(folder: &Path, arguments: &[&str]) -> String {
    let output = crate::inject::winject().current_dir(folder).args(arguments).output().unwrap();
    let mut text = format!("$ winject {}\n", arguments.join(" "));
    text.push_str(&String::from_utf8(output.stdout).unwrap());
    text.push_str(&String::from_utf8(output.stderr).unwrap());
    text.push_str(&format!("[exit {}]\n", output.status.code().unwrap()));
    text
}

fn setting() -> tempfile::TempDir {
    let folder = folder();
    std::fs::copy(fixture(), folder.path().join("win10.qcow2")).unwrap();
    std::os::unix::fs::symlink(fixture_drivers(), folder.path().join("drivers")).unwrap();
    folder
}

#[test]
fn a_first_and_a_second_run() {
    let folder = setting();
    let first = session(folder.path(), &["inject", "win10.qcow2", "--drivers", "drivers", "--output", "new.qcow2"]);
    assert_eq!(
        first,
        "\
$ winject inject win10.qcow2 --drivers drivers --output new.qcow2
Windows:  Windows 10 (build 19045, amd64)
Packages: vioscsi, viostor, netkvm, BALLOON
Machine:  q35, uefi, disk on virtio-blk or virtio-scsi, network virtio, clock localtime
Done: Windows 10 (GPT) boots with vioscsi and viostor.
Output:   new.qcow2
[exit 0]
"
    );
    let second = session(folder.path(), &["inject", "new.qcow2", "--drivers", "drivers", "--dry-run"]);
    assert_eq!(
        second,
        "\
$ winject inject new.qcow2 --drivers drivers --dry-run
nothing to change
Windows:  Windows 10 (build 19045, amd64)
Packages: vioscsi, viostor, netkvm, BALLOON
Machine:  q35, uefi, disk on virtio-blk or virtio-scsi, network virtio, clock localtime
Unchanged: Windows 10 (GPT) boots with vioscsi and viostor already, nothing was written.
[exit 0]
"
    );
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let folder = setting();
    assert_eq!(
        session(folder.path(), &["inject", "win10.qcow2", "--drivers", "drivers"]),
        "\
$ winject inject win10.qcow2 --drivers drivers
Error: command line: it was not said where the changed disk shall go
Hint: --output NEW.qcow2 keeps the image as it is; --in-place changes it; --dry-run only shows
[exit 3]
"
    );
    assert_eq!(
        session(folder.path(), &["inject", "win10.qcow2", "--drivers", "drivers", "--output", "win10.qcow2"]),
        "\
$ winject inject win10.qcow2 --drivers drivers --output win10.qcow2
Error: host: win10.qcow2: cannot write the output: it is the same file as the input image
Hint: choose another name
[exit 2]
"
    );
    assert_eq!(
        session(folder.path(), &["inject", "win10.qcow2", "--drivers", "drivers", "--dry-run", "--report", "out.doc"]),
        "\
$ winject inject win10.qcow2 --drivers drivers --dry-run --report out.doc
Error: job: out.doc: the report's name says neither .md nor .json
Hint: name it report.md (a report.json is written beside it) or report.json
[exit 2]
"
    );
}

/// A name in an image cannot steer the terminal of whoever looks at the image.
#[test]
fn control_characters_are_shown_and_not_obeyed() {
    let folder = folder();
    let mut disk = crate::partition::gpt_disk(512, 600, 128, &[(crate::partition::BASIC_DATA, 200, 209)]);
    // the name of the first partition becomes ESC c (which resets a terminal); both checksums are made right again
    for table in [2 * 512usize, (600 - 1 - 32) * 512] {
        disk[table + 56..table + 60].copy_from_slice(&[0x1B, 0, b'c', 0]);
    }
    let entries = crc32fast::hash(&disk[1024..1024 + 128 * 128]);
    for header in [512usize, 599 * 512] {
        disk[header + 88..header + 92].copy_from_slice(&entries.to_le_bytes());
        disk[header + 16..header + 20].fill(0);
        let sum = crc32fast::hash(&disk[header..header + 92]);
        disk[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(folder.path().join("disk.raw"), disk).unwrap();
    let text = session(folder.path(), &["inspect", "disk.raw"]);
    assert!(text.contains("\\u{1b}c"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}
