//! `winject explain`, and errors for programs.

use super::answer;
use crate::inject::{fixture, folder, stderr, stdout, succeed, winject};
use serde_json::Value;
use std::collections::BTreeSet;

/// The pages of all codes.
fn all_pages() -> Vec<Value> {
    let listed = succeed(winject().args(["explain", "--list", "--json"]));
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["schema"], "winject/explain");
    listed["pages"].as_array().unwrap().clone()
}

fn every_code_has_a_line_in_the_list_and_a_page() {
    let list = stdout(&succeed(winject().args(["explain", "--list"])));
    let pages = all_pages();
    assert!(pages.len() > 200, "{}", pages.len());
    for page in &pages {
        let [code, title] = ["code", "title"].map(|field| page[field].as_str().unwrap());
        assert!(list.lines().any(|line| line.trim_start().starts_with(code) && line.ends_with(title)), "{code}");
    }
    for code in ["output-exists", "NO-DEVICE-ID", "b12", "SL-order"] {
        let text = stdout(&succeed(winject().args(["explain", code])));
        assert!(text.to_lowercase().starts_with(&format!("{}: ", code.to_lowercase())), "{text}");
        assert!(text.contains("\nWhy it matters\n") && text.contains("\nWhat to do\n"), "{text}");
    }
}

fn an_unknown_code_is_a_usage_error_that_names_the_nearest() {
    let output = winject().args(["explain", "output-exist"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("winject explain output-exists"), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

fn an_error_names_its_page_and_is_json_where_json_was_asked_for() {
    let folder = folder();
    std::fs::copy(fixture(), folder.path().join("w.qcow2")).unwrap();
    std::fs::write(folder.path().join("a.gz"), b"\x1F\x8B and more").unwrap();
    std::fs::write(folder.path().join("empty.raw"), vec![0; 1 << 20]).unwrap();
    let known: BTreeSet<String> = all_pages().iter().map(|page| page["code"].as_str().unwrap().to_owned()).collect();
    for (arguments, code) in [
        (&["inspect", "nowhere.qcow2", "--json"][..], "file-not-found"),
        (&["check", "a.gz", "--json"], "not-a-disk-image"),
        (&["fsck", "--json", "empty.raw"], "no-partitions"),
        (&["inspect", "w.qcow2", "--partition", "77", "--json"], "usage"),
        (&["check", "w.qcow2", "--partition", "77", "--json"], "no-such-partition"),
        (&["check", "w.qcow2", "--partition", "1", "--json"], "not-ntfs"),
        (&["check", "w.qcow2", "--json", "--frobnicate"], "usage"),
        (&["check", "--json"], "usage"),
        (&["explain", "--json", "nonsense"], "usage"),
        (&["drivers", "list", "nowhere", "--json"], "file-not-found"),
    ] {
        let output = answer(folder.path(), arguments);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{arguments:?}: {error}: {}{}", stdout(&output), stderr(&output));
        });
        assert_eq!(json["schema"], "winject/error", "{arguments:?}");
        assert_eq!(json["error"]["code"], code, "{arguments:?}: {json}");
        assert!(known.contains(code));
        assert_eq!(json["error"]["exit_code"].as_i64(), output.status.code().map(i64::from), "{arguments:?}");
        let text = stderr(&output);
        // What clap finds is text of clap's own.
        if !text.starts_with("error: ") {
            assert!(text.ends_with(&format!("More: winject explain {code}\n")), "{arguments:?}: {text}");
            assert!(text.contains(json["error"]["message"].as_str().unwrap()), "{arguments:?}: {text}");
        }
        let plain: Vec<&str> = arguments.iter().copied().filter(|argument| *argument != "--json").collect();
        assert_eq!(stdout(&answer(folder.path(), &plain)), "", "{plain:?}");
    }
}

fn findings_name_their_codes_and_how_to_explain_them() {
    let folder = folder();
    std::fs::copy(fixture(), folder.path().join("w.qcow2")).unwrap();
    let output = answer(folder.path(), &["check", "w.qcow2"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let known: Vec<Value> = all_pages();
    let text = stdout(&output);
    let failures: Vec<&str> = text.lines().filter(|line| line.starts_with("  NO ")).collect();
    assert!(!failures.is_empty(), "{text}");
    for line in failures {
        let code = line.rsplit_once('[').unwrap().1.trim_end_matches(']');
        assert!(known.iter().any(|page| page["code"] == code), "{line}");
    }
    assert!(stderr(&output).contains("winject explain "), "{}", stderr(&output));
}

tests![
    every_code_has_a_line_in_the_list_and_a_page,
    an_unknown_code_is_a_usage_error_that_names_the_nearest,
    an_error_names_its_page_and_is_json_where_json_was_asked_for,
    findings_name_their_codes_and_how_to_explain_them,
];
