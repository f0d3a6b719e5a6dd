//! Every answer in JSON is what its schema says, whatever strings the guest holds: judged by Python's `jsonschema`.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::inject::{fixture_drivers, folder, stderr, stdout, succeed, winject, writable_fixture};
use crate::support::{judge, judge_python, root};
use winject::Format;

/// Control characters, marks for the direction of writing, a quote, and half of a character: a lone surrogate.
const HOSTILE: &str = "0900 0a00 1b00 9b00 7f00 2e20 6620 2820 2200 5c00 00d8 6100";

/// What winject answers to these words in the folder; a word `<hive>` is the name of a hive file.
fn ask(folder: &Path, line: &str) -> Output {
    let mut command = winject();
    command.current_dir(folder).args(line.split_whitespace()).arg("--json");
    command.output().unwrap()
}

/// The one JSON document that standard output holds.
fn document(output: &Output, line: &str) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}"));
    let steers = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{2028}".contains(c);
    assert!(!text.contains(steers), "{line}: {text}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{line}: {error}\n{text}\n{}", stderr(output)))
}

/// Commands of every kind, with the exit code and the schema of the answer.
const COMMANDS: &[(&str, i32, &str)] = &[
    ("inspect win10.qcow2", 0, "inspect"),
    ("check win10.qcow2", 1, "check"),
    ("drivers list drivers --for win10.qcow2", 0, "drivers-list"),
    ("drivers list drivers", 0, "drivers-list"),
    ("image info win10.qcow2", 0, "image-info"),
    ("image check win10.qcow2", 0, "image-check"),
    ("image map win10.qcow2", 0, "image-map"),
    ("ls win10.qcow2 / -R", 0, "ls"),
    ("cp win10.qcow2 /Windows/System32/config/SYSTEM SYSTEM", 0, "cp"),
    ("fsck win10.qcow2", 0, "fsck"),
    ("ntfs-log show win10.qcow2", 0, "ntfs-log-show"),
    ("ntfs-log replay win10.qcow2 -n", 0, "ntfs-log-replay"),
    ("reg check SYSTEM", 0, "reg-check"),
    (r"reg query SYSTEM \ --recursive", 0, "reg-query"),
    (r"reg query win10.qcow2 HKLM\SYSTEM\Select", 0, "reg-query"),
    (r"reg query win10.qcow2 HKLM\SYSTEM\Select --value Current", 0, "reg-query"),
    (r"reg set win10.qcow2 HKLM\SYSTEM\Select --value Odd --data x -n", 0, "reg-edit"),
    ("diff win10.qcow2 win10.qcow2", 0, "diff"),
    ("explain --list", 0, "explain"),
    ("inspect absent.qcow2", 7, "error"),
    ("inspect --frob", 2, "error"),
    ("inject win10.qcow2 --drivers drivers -n", 0, "report"),
    ("plan win10.qcow2 --drivers drivers -o plan.json", 0, "plan"),
    ("plan --show plan.json", 0, "plan"),
    ("apply plan.json --drivers drivers --overlay applied.qcow2", 0, "report"),
    ("remove applied.qcow2 -n", 0, "report"),
    ("check applied.qcow2", 0, "check"),
    ("diff win10.qcow2 applied.qcow2", 1, "diff"),
    ("inject win10.qcow2 --drivers drivers --in-place --report report.json", 0, "report"),
    ("undo win10.qcow2 -n", 0, "undo"),
    ("undo win10.qcow2", 0, "undo"),
    ("recover win10.qcow2 -n", 0, "recover"),
    ("recover win10.qcow2", 0, "recover"),
    ("convert win10.qcow2 new.raw -n", 0, "convert"),
    ("convert win10.qcow2 new.qcow2 --checksum", 0, "convert"),
    ("schema --list", 0, "schema-list"),
];

fn every_answer_is_what_its_schema_says() {
    let (Some(python), Some(script)) = (judge_python(), judge("schemacheck.py")) else { return };
    let folder = folder();
    let at = folder.path();
    writable_fixture(at, Format::Qcow2);
    std::os::unix::fs::symlink(fixture_drivers(), at.join("drivers")).unwrap();
    let key = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion";
    for value in ["ProductName", "DisplayVersion", "EditionID"] {
        let set = ["reg", "set", "win10.qcow2", key, "--value", value, "--type", "1", "--data", HOSTILE, "--in-place"];
        succeed(winject().current_dir(at).args(set));
    }
    let mut documents = Vec::new();
    for &(line, code, name) in COMMANDS {
        let output = ask(at, line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", stderr(&output));
        let answer = document(&output, line);
        if name == "plan" {
            assert_eq!(answer["schema"], "winject.plan.v1", "{line}");
        } else {
            assert_eq!(answer["schema"], format!("winject/{name}"), "{line}");
            assert_eq!(answer["version"], 1, "{line}");
        }
        documents.push((name.to_owned(), answer));
    }
    let read = |name: &str| serde_json::from_slice(&std::fs::read(at.join(name)).unwrap()).unwrap();
    documents.push(("report-file".to_owned(), read("report.json")));
    documents.push(("plan-file".to_owned(), read("plan.json")));
    let batch = "batch inspect win10.qcow2 absent.qcow2 --results results";
    let lines = stdout(&ask(at, batch));
    documents.extend(lines.lines().map(|line| ("batch".to_owned(), serde_json::from_str(line).unwrap())));
    for name in crate::inject::names(&at.join("results/items")) {
        documents.push(("batch".to_owned(), read(&format!("results/items/{name}"))));
    }
    documents.push(("batch".to_owned(), document(&ask(at, "batch merge results"), "batch merge")));
    // Names of the host that are no text.
    let odd = at.join(std::ffi::OsStr::from_bytes(b"\xff\x1b\xe2\x80\xae.qcow2"));
    std::fs::copy(at.join("win10.qcow2"), &odd).unwrap();
    for verb in [&["inspect"][..], &["image", "info"], &["fsck"]] {
        let output = winject().args(verb).arg(&odd).arg("--json").output().unwrap();
        documents.push(("odd".to_owned(), document(&output, &verb.join(" "))));
    }
    documents.extend(progress_lines(at).into_iter().map(|line| ("progress".to_owned(), line)));
    documents.extend(documents_of_the_readme().into_iter().map(|document| ("config".to_owned(), document)));
    judge_all(at, &documents, &python, &script);
}

/// Has the judge look at all documents, and at whether every schema was used.
fn judge_all(at: &Path, documents: &[(String, Value)], python: &Path, script: &Path) {
    let list: Value = serde_json::from_slice(&ask(at, "schema --list").stdout).unwrap();
    let names = list["schemas"].as_array().unwrap().iter().map(|schema| schema["name"].as_str().unwrap().to_owned());
    let names: BTreeSet<String> = names.collect();
    let judged = at.join("judged");
    std::fs::create_dir_all(judged.join("schemas")).unwrap();
    for name in &names {
        let schema = succeed(winject().args(["schema", name]));
        std::fs::write(judged.join(format!("schemas/{name}.json")), schema.stdout).unwrap();
    }
    for (number, (name, document)) in documents.iter().enumerate() {
        let path = judged.join(format!("{name}-{number}.json"));
        std::fs::write(path, serde_json::to_vec(document).unwrap()).unwrap();
    }
    let output = Command::new(python).arg(script).arg(&judged).output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    let used = text.lines().find_map(|line| line.strip_prefix("used: ")).unwrap();
    let used: BTreeSet<String> = used.split(' ').map(str::to_owned).collect();
    assert_eq!(used, names, "{text}");
}

/// The JSON lines of runs whose phases begin and end one after the other; what is written, read or copied is counted to its end.
fn progress_lines(at: &Path) -> Vec<Value> {
    let staged = ["open", "inspect", "choose-drivers", "plan", "stage", "check-volume"];
    let with = |last: &[&'static str]| staged.into_iter().chain(last.iter().copied()).collect::<Vec<_>>();
    let mut all = Vec::new();
    let edited = |last: &'static str| vec!["open", "inspect", "edit-registry", "check-volume", "stage", "verify", last];
    let set = |to: &str| format!(r"reg set win10.qcow2 HKLM\SOFTWARE\winject --value a --data b {to}");
    for (command, phases, counted) in [
        ("inject win10.qcow2 --drivers drivers -o copied.raw", with(&["copy"]), &["copy"][..]),
        (
            "inject win10.qcow2 --drivers drivers --overlay over.qcow2",
            with(&["verify", "commit-overlay"]),
            &["commit-overlay"],
        ),
        ("fsck win10.qcow2 --partition 3", vec!["check-volume", "check-folders"], &["check-volume", "check-folders"]),
        ("cp -r win10.qcow2 /Windows copied", vec!["open", "copy-files"], &["copy-files"]),
        (&*set("-o set.raw"), edited("copy"), &["check-volume", "copy"]),
        (&*set("--overlay set.qcow2"), edited("commit-overlay"), &["check-volume", "commit-overlay"]),
        (&*set("--in-place"), edited("commit"), &["check-volume", "commit"]),
        (
            "undo win10.qcow2",
            vec!["open", "read-journal", "compare-journal", "restore"],
            &["compare-journal", "restore"],
        ),
        ("ntfs-log replay win10.qcow2 --partition 3 -o replayed.raw", vec!["open", "replay-log", "copy"], &["copy"]),
        ("inject win10.qcow2 --drivers drivers --in-place", with(&["verify", "commit"]), &["commit"]),
    ] {
        let lines = lines_of(at, command, &phases);
        for phase in counted {
            let last = lines.iter().rfind(|line| line["phase"] == *phase).unwrap();
            assert!(last["done"].as_u64() > Some(0) && last["done"] == last["total"], "{command}: {last}");
        }
        all.extend(lines);
    }
    all
}

/// The lines of a command that has these phases.
fn lines_of(at: &Path, command: &str, expected: &[&str]) -> Vec<Value> {
    let mut run = winject();
    run.current_dir(at).args(command.split(' ')).args(["-q", "--progress", "json"]);
    let output = run.output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{command}: {}", stderr(&output));
    let lines: Vec<Value> = stderr(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut open: Option<&Value> = None;
    let mut phases = Vec::new();
    for line in &lines {
        match line["state"].as_str().unwrap() {
            "begin" => {
                assert_eq!(open.replace(&line["phase"]), None, "{line}");
                phases.push(line["phase"].as_str().unwrap());
            }
            "running" => assert_eq!(open, Some(&line["phase"]), "{line}"),
            "end" => assert_eq!(open.take(), Some(&line["phase"]), "{line}"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(open, None);
    assert_eq!(phases, expected, "{command}");
    lines
}

/// The documents of `--config` that the README shows.
fn documents_of_the_readme() -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let fenced = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let documents: Vec<Value> = fenced
        .filter(|yaml| yaml.contains("vmdk:") || yaml.contains("image:"))
        .map(|yaml| serde_saphyr::from_str(yaml).unwrap())
        .collect();
    assert!(!documents.is_empty());
    documents
}

/// A name that is not known is answered with the way to the others.
fn an_unknown_schema_is_a_usage_error() {
    let output = winject().args(["schema", "inject\u{1b}"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("winject schema --list") && !stderr(&output).contains('\u{1b}'));
    let output = winject().args(["schema", "winject/report"]).output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["properties"]["schema"]["const"], "winject/report");
}

/// With `--json`, what is printed for people is not.
fn content_is_not_printed_as_json() {
    let folder = folder();
    writable_fixture(folder.path(), Format::Qcow2);
    let output = ask(folder.path(), "cat win10.qcow2 /Windows/win.ini");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

/// A short command prints no progress for people, on no kind of output.
fn a_short_command_shows_no_progress() {
    let folder = folder();
    writable_fixture(folder.path(), Format::Qcow2);
    for mode in ["auto", "bar", "none"] {
        let mut command = winject();
        command.current_dir(folder.path()).args(["image", "info", "win10.qcow2", "--progress", mode]);
        assert_eq!(stderr(&succeed(&mut command)), "", "{mode}");
    }
    let mut command = winject();
    command.env("WINJECT_PROGRESS", "loud").args(["image", "info", "x"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--progress FORM"), "{}", stderr(&output));
}

tests![
    every_answer_is_what_its_schema_says,
    an_unknown_schema_is_a_usage_error,
    content_is_not_printed_as_json,
    a_short_command_shows_no_progress
];
