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

/// The sample drivers are signed for tests, so that Windows asks before it installs them.
const PUBLISHER: &str = "vioscsi, viostor, netkvm, balloon signed by winject test publisher, not by Microsoft: Windows asks before \
    it installs them, and at the first boot nothing answers; --trust-publisher 'drivers/vioscsi/w10/amd64/vioscsi.cat' answers it, \
    with the certificate in that catalogue (of an ISO image: copy the file out first)";

fn a_first_and_a_second_run() {
    let folder = setting();
    let first = session(folder.path(), &["inject", "win10.qcow2", "--drivers", "drivers", "--overlay", "new.qcow2"]);
    assert_eq!(
        first,
        format!(
            "\
$ winject inject win10.qcow2 --drivers drivers --overlay new.qcow2
Windows:  Windows 10 (build 19045, amd64)
Packages: vioscsi, viostor, netkvm, BALLOON
Machine:  q35, uefi, disk on virtio-blk or virtio-scsi, network virtio, clock localtime
Done: Windows 10 (GPT) boots with vioscsi and viostor.
Output:   new.qcow2
Warning: {PUBLISHER}
[exit 0]
"
        )
    );
    let second = session(folder.path(), &["inject", "new.qcow2", "--drivers", "drivers", "--dry-run"]);
    assert_eq!(
        second,
        format!(
            "\
$ winject inject new.qcow2 --drivers drivers --dry-run
nothing to change
warning: {PUBLISHER}
Windows:  Windows 10 (build 19045, amd64)
Packages: vioscsi, viostor, netkvm, BALLOON
Machine:  q35, uefi, disk on virtio-blk or virtio-scsi, network virtio, clock localtime
Unchanged: Windows 10 (GPT) boots with vioscsi and viostor already; nothing was written.
Warning: {PUBLISHER}
[exit 0]
"
        )
    );
}

fn errors_say_what_where_and_what_to_do() {
    let folder = setting();
    assert_eq!(
        session(folder.path(), &["inject", "win10.qcow2", "--drivers", "drivers"]),
        "\
$ winject inject win10.qcow2 --drivers drivers
Error: no destination given
Hint: -o NEW.qcow2 writes a new image; --overlay NEW.qcow2 a small one over the untouched original; --in-place changes the image itself; --dry-run writes nothing
More: winject explain no-destination
[exit 2]
"
    );
    assert_eq!(
        session(folder.path(), &["inject", "win10.qcow2", "--drivers", "drivers", "--output", "win10.qcow2"]),
        "\
$ winject inject win10.qcow2 --drivers drivers --output win10.qcow2
Error: win10.qcow2: cannot write the output: it is the same file as the input image
Hint: choose another name
More: winject explain output-is-input
[exit 2]
"
    );
    assert_eq!(
        session(folder.path(), &["inject", "win10.qcow2", "--drivers", "drivers", "--dry-run", "--report", "out.doc"]),
        "\
$ winject inject win10.qcow2 --drivers drivers --dry-run --report out.doc
Error: out.doc: cannot write the report: its name ends neither in .html nor in .md or .json
Hint: name it report.html, report.md (report.json is written, too) or report.json
More: winject explain usage
[exit 2]
"
    );
}

/// Strings of a guest stay inside their line, on the terminal, in the log and in the report, and arrive in JSON as they
/// are.
fn strings_of_a_guest_forge_no_lines() {
    let folder = setting();
    let forged = "22H2\nState:     clean, FORGED\r\nvirtio-blk: yes FORGED\u{202e}\u{2066}\u{9b}31m\u{7f}\u{2028}x";
    let key = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion";
    let set = ["reg", "set", "win10.qcow2", key, "--value", "DisplayVersion", "--data", forged, "--in-place"];
    assert!(session(folder.path(), &set).ends_with("[exit 0]\n"));
    let inject = ["inject", "win10.qcow2", "--drivers", "drivers", "--overlay", "new.qcow2", "--report", "r.md", "-vv"];
    let pages: [&[&str]; 4] =
        [&["inspect", "win10.qcow2"], &["check", "win10.qcow2"], &inject, &["reg", "query", "win10.qcow2", key]];
    let mut texts: Vec<String> = pages.iter().map(|page| session(folder.path(), page)).collect();
    texts.push(std::fs::read_to_string(folder.path().join("r.md")).unwrap());
    for (number, text) in texts.into_iter().enumerate() {
        // The summary of an injection names the product without its version.
        assert!(number == 2 || text.contains("FORGED"), "{text}");
        assert!(
            !text.lines().any(|l| l.starts_with("State:     clean, F") || l.starts_with("virtio-blk: yes F")),
            "{text}"
        );
        let steers = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{2028}".contains(c);
        assert!(!text.contains(steers), "{text}");
    }
    for verb in ["inspect", "check"] {
        let output = crate::inject::winject().current_dir(folder.path()).args([verb, "--json", "win10.qcow2"]).output();
        let answer: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        assert!(holds(&answer, forged), "{verb}: {answer}");
    }
}

/// Whether a string of the document contains the text.
fn holds(value: &serde_json::Value, text: &str) -> bool {
    match value {
        serde_json::Value::String(string) => string.contains(text),
        serde_json::Value::Array(list) => list.iter().any(|value| holds(value, text)),
        serde_json::Value::Object(fields) => fields.values().any(|value| holds(value, text)),
        _ => false,
    }
}

/// What fits one command fits the others: the options of an image, and what a signature must prove.
fn all_commands_take_the_same_options() {
    let folder = setting();
    let drivers = ["--drivers", "drivers", "--dry-run"];
    for verb in ["inspect", "check", "fsck", "inject"] {
        let more: &[&str] = if verb == "inject" { &drivers } else { &[] };
        let image = ["win10.qcow2", "--format", "qcow2", "--allow-path", "."];
        let text = session(folder.path(), &[&[verb], &image[..], more].concat());
        assert!(!text.contains("[exit 2]"), "{text}");
    }
    for policy in ["require", "present", "warn"] {
        for (verb, more) in [("check", &[][..]), ("inject", &drivers[..])] {
            let policy = ["win10.qcow2", "--signature-policy", policy];
            let text = session(folder.path(), &[&[verb], &policy[..], more].concat());
            assert!(!text.contains("[exit 2]"), "{text}");
        }
    }
}

/// An overlay in another folder than its original: the message names the option, and the option works.
fn a_refused_backing_file_names_the_option() {
    let folder = setting();
    std::fs::create_dir(folder.path().join("my overlays")).unwrap();
    std::fs::create_dir(folder.path().join("it's base")).unwrap();
    std::fs::rename(folder.path().join("win10.qcow2"), folder.path().join("it's base/i.qcow2")).unwrap();
    let out = "my overlays/o.qcow2";
    let made = session(folder.path(), &["inject", "it's base/i.qcow2", "--drivers", "drivers", "--overlay", out]);
    assert!(made.ends_with("[exit 0]\n"), "{made}");
    for verb in ["inspect", "fsck"] {
        let text = session(folder.path(), &[verb, out]);
        if text.ends_with("[exit 0]\n") {
            continue;
        }
        let (_, option) = text.split_once("--allow-path ").unwrap();
        let option = option.lines().next().unwrap();
        let winject = env!("CARGO_BIN_EXE_winject");
        let line = format!("'{winject}' {verb} '{out}' --allow-path {option}");
        let done = std::process::Command::new("sh").current_dir(folder.path()).args(["-c", &line]).output().unwrap();
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// A name in an image cannot steer the terminal of the user who inspects it.
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

tests![
    a_first_and_a_second_run,
    errors_say_what_where_and_what_to_do,
    strings_of_a_guest_forge_no_lines,
    all_commands_take_the_same_options,
    a_refused_backing_file_names_the_option,
    control_characters_are_shown_and_not_obeyed,
];
