//! `winject batch`: many images, each in a process of its own.

mod limits;
mod lists;
mod resume;
mod stop;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::inject::{fixture_drivers, stderr, winject};
use crate::support;

/// A command of a batch in this folder, with its words.
fn batch(folder: &Path, line: &str) -> Command {
    let mut command = winject();
    command.current_dir(folder).arg("batch").args(line.split_whitespace());
    command
}

/// A batch of injections in this folder.
fn inject(folder: &Path, line: &str) -> Command {
    let mut command = batch(folder, &format!("inject {line}"));
    command.arg("--drivers").arg(fixture_drivers());
    command
}

/// Copies of the fixture, by their names.
fn guests(folder: &Path, names: &[&str]) {
    for name in names {
        std::fs::copy(support::root().join("test-images/win10.qcow2"), folder.join(name)).unwrap();
    }
}

/// The JSON lines of a batch.
fn events(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.collect()
}

/// The ids that ended, with what became of them, sorted.
fn outcomes(output: &Output) -> Vec<(String, String)> {
    let of = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    let finished = events(output).into_iter().filter(|event| event["event"] == "finished");
    let mut found: Vec<_> = finished.map(|event| (of(&event, "id"), of(&event, "outcome"))).collect();
    found.sort();
    found
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(id, outcome)| ((*id).to_owned(), (*outcome).to_owned())).collect()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{}: {}", output.status, stderr(output)))
}

/// One image that is damaged, missing or not of Windows costs its own item, and each end has its outcome and code.
fn one_failure_is_no_other_items() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2", "b.qcow2"]);
    std::fs::write(at.join("bad.qcow2"), [0x5a; 70_000]).unwrap();
    let before = std::fs::read(at.join("bad.qcow2")).unwrap();
    let output =
        inject(at, "a.qcow2 bad.qcow2 b.qcow2 absent.qcow2 --in-place --json --results results").output().unwrap();
    let expected = [("a.qcow2", "done"), ("absent.qcow2", "failed"), ("b.qcow2", "done"), ("bad.qcow2", "failed")];
    assert_eq!(outcomes(&output), pairs(&expected), "{}", stderr(&output));
    assert_eq!(code(&output), 1);
    assert_eq!(std::fs::read(at.join("bad.qcow2")).unwrap(), before);
    for event in events(&output).iter().filter(|event| event["event"] == "finished") {
        let item = std::fs::read(at.join("results").join(event["report"].as_str().unwrap())).unwrap();
        let item: Value = serde_json::from_slice(&item).unwrap();
        assert_eq!((&item["schema"], &item["id"]), (&"winject/batch-item".into(), &event["id"]));
        let kind = if event["outcome"] == "done" { "winject/report" } else { "winject/error" };
        assert_eq!(item["answer"]["schema"], kind);
        if event["id"] == "absent.qcow2" {
            assert_eq!((&event["reason"], &event["code"]), (&"file-not-found".into(), &7.into()));
            assert!(event["hint"].is_string() && event["retryable"] == false, "{event}");
        }
    }
    // The file holds the same lines.
    let written = std::fs::read_to_string(at.join("results/events.jsonl")).unwrap();
    assert_eq!(written, std::str::from_utf8(&output.stdout).unwrap());
    // What a batch leaves is what single runs leave.
    let left = crate::inject::names(at);
    let undo = ["a.qcow2.winject-undo", "b.qcow2.winject-undo"];
    assert_eq!(left, ["a.qcow2", undo[0], "b.qcow2", undo[1], "bad.qcow2", "results"]);
}

/// Each worker has the rights of the single command: the file of another image cannot be reached.
fn a_check_has_findings_and_the_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    guests(folder.path(), &["a.qcow2"]);
    let output = batch(folder.path(), "check a.qcow2 --json").output().unwrap();
    assert_eq!((outcomes(&output), code(&output)), (pairs(&[("a.qcow2", "findings")]), 1));
    let output = batch(folder.path(), "inspect a.qcow2").output().unwrap();
    assert_eq!(code(&output), 0);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 done"));
}

/// The document has the same items with their own options; its folder is what its paths are relative to.
fn a_document_overrides_options_for_one_image() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2", "b.qcow2", "c.qcow2"]);
    std::fs::create_dir(at.join("new")).unwrap();
    let text = format!(
        "job: inject\ndrivers: {}\nresults: results\ndefaults:\n  to_output: 'new/{{name}}.raw'\nimages:\n  - '[ab].qcow2'\n  \
         - {{id: third, image: c.qcow2, overlay: new/c-over.qcow2}}\n",
        fixture_drivers().display()
    );
    std::fs::write(at.join("fleet.yaml"), text).unwrap();
    let mut command = winject();
    let output = command.arg("batch").arg(at.join("fleet.yaml")).arg("--json").output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(outcomes(&output), pairs(&[("a.qcow2", "done"), ("b.qcow2", "done"), ("third", "done")]));
    assert_eq!(crate::inject::names(&at.join("new")), ["a.raw", "b.raw", "c-over.qcow2"]);
    assert!(at.join("results/events.jsonl").exists());
}

tests![in limits, lists, resume, stop; one_failure_is_no_other_items, a_check_has_findings_and_the_code_says_so, a_document_overrides_options_for_one_image];
