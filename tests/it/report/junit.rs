//! Answers as JUnit XML.

use super::{judged, run, setting};
use crate::support;

/// Failures, errors and tests of a JUnit file, as the judge counts them.
fn counts(path: &std::path::Path) -> Option<[u32; 3]> {
    let judge = support::judge("junit.py")?;
    let text = judged(&judge, &[path]);
    let counts: Vec<u32> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    Some(counts.try_into().unwrap())
}

/// There is a failure in the file exactly when the command answers with no, and an error when it cannot answer.
fn tests_fail_exactly_when_the_answer_is_no() {
    let folder = setting();
    let injected = ["inject", "win10.qcow2", "--drivers", "drivers", "--output", "new.qcow2"];
    assert!(run(folder.path(), &injected).status.success());
    std::fs::write(folder.path().join("empty.raw"), [0; 1 << 16]).unwrap();
    let one = ["--bus", "virtio-scsi"];
    let cases: [(&[&str], i32); 6] = [
        (&["check", "win10.qcow2"], 1),
        (&["check", "new.qcow2"], 0),
        (&["check", "new.qcow2", one[0], one[1]], 0),
        (&["check", "empty.raw"], 4),
        (&["fsck", "new.qcow2"], 0),
        (&["fsck", "empty.raw"], 4),
    ];
    for (words, code) in cases {
        let mut words = words.to_vec();
        words.extend(["--junit", "answer.xml"]);
        let output = run(folder.path(), &words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        let Some([failures, errors, tests]) = counts(&folder.path().join("answer.xml")) else { return };
        assert_eq!((failures > 0, errors > 0), (code == 1, code > 1), "{words:?}: {failures} {errors}");
        assert!(tests > if code > 1 { 0 } else { 5 }, "{words:?}: {tests}");
    }
}

/// A volume with faults, and a Windows whose strings are not to be trusted.
fn hostile_strings_and_damage_give_sound_documents() {
    let folder = setting();
    let forged = "]]></failure>\u{1b}\u{202e}\u{fffe}&\"<x>\n</testsuites>";
    let key = r"HKLM\SYSTEM\ControlSet001\Control\Class\{4d36e967-e325-11ce-bfc1-08002be10318}";
    let set = [
        "reg",
        "set",
        "win10.qcow2",
        key,
        "--value",
        "UpperFilters",
        "--type",
        "multi_sz",
        "--data",
        forged,
        "--in-place",
    ];
    let output = run(folder.path(), &set);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(run(folder.path(), &["check", "win10.qcow2", "--junit", "c.xml"]).status.code(), Some(1));
    let text = std::fs::read_to_string(folder.path().join("c.xml")).unwrap();
    assert!(!text.contains("<x>"), "{text}");
    counts(&folder.path().join("c.xml"));
}

fn it_replaces_only_a_report_of_ours() {
    let folder = setting();
    let path = folder.path().join("mine.xml");
    std::fs::write(&path, "<?xml version=\"1.0\"?>\n<testsuites name=\"mine\"/>").unwrap();
    for words in [
        ["check", "win10.qcow2", "--junit", "mine.xml"],
        ["fsck", "win10.qcow2", "--junit", "mine.xml"],
        ["check", "win10.qcow2", "--junit", "win10.qcow2"],
        ["fsck", "win10.qcow2", "--junit", "nowhere/mine.xml"],
    ] {
        assert_eq!(run(folder.path(), &words).status.code(), Some(2), "{words:?}");
    }
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("<testsuites name=\"mine\"/>"));
    assert!(std::fs::read(folder.path().join("win10.qcow2")).unwrap().starts_with(b"QFI"));
    for _ in 0..2 {
        assert_eq!(run(folder.path(), &["fsck", "win10.qcow2", "--junit", "ours.xml"]).status.code(), Some(0));
    }
}

tests![
    tests_fail_exactly_when_the_answer_is_no,
    hostile_strings_and_damage_give_sound_documents,
    it_replaces_only_a_report_of_ours,
];
