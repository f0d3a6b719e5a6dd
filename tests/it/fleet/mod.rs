//! What is made from the results of a fleet, and the files that engines start it with.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::inject::{fixture, folder, winject};
use crate::support;

fn run(folder: &Path, words: &[&str]) -> Output {
    winject().current_dir(folder).arg("batch").args(words).output().unwrap()
}

/// Runs a judge with a file, and demands that it is content. Returns what it printed; `None` without the judge.
fn judged(name: &str, python: &Path, file: &Path) -> Option<String> {
    let output = Command::new(python).arg(support::judge(name)?).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

/// Results of two shards of 12 images, two of which are none, one with a hostile name. The codes of the shards.
fn shards(folder: &Path) -> Vec<i32> {
    std::fs::create_dir(folder.join("vms")).unwrap();
    for number in 0..10 {
        std::fs::copy(fixture(), folder.join(format!("vms/vm-{number}.qcow2"))).unwrap();
    }
    std::fs::write(folder.join("vms/bad.qcow2"), "x").unwrap();
    std::fs::write(folder.join("vms/e<b>'\"&\u{202e}\u{1b}[2J\n#.qcow2"), "x").unwrap();
    let shard = |index: u32| {
        let (part, results) = (format!("{index}/2"), format!("shard-{index}"));
        run(folder, &["inspect", "vms/*.qcow2", "--shard", &part, "--results", &results]).status.code().unwrap()
    };
    vec![shard(0), shard(1)]
}

/// The merged results of two shards have every image once, and each file that is made of them is sound.
fn shards_are_merged_into_files_that_foreign_readers_take() {
    let folder = folder();
    assert!(shards(folder.path()).contains(&1));
    let merged = run(folder.path(), &["merge", "shard-*", "-o", "merged", "--json"]);
    assert_eq!(merged.status.code(), Some(0), "{merged:?}");
    let answer: Value = serde_json::from_slice(&merged.stdout).unwrap();
    assert_eq!((&answer["items"], &answer["expected"], &answer["is_whole"]), (&12.into(), &12.into(), &true.into()));
    let lines = std::fs::read_to_string(folder.path().join("merged/items.jsonl")).unwrap();
    let mut ids: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 12, "{ids:?}");
    // A shard's own folder has the same files.
    for results in ["merged", "shard-0"] {
        let file = |name: &str| folder.path().join(results).join(name);
        let text = std::fs::read_to_string(file("fleet.html")).unwrap();
        assert!(!text.contains(['\u{202e}', '\u{1b}']) && !text.contains("<b>'"), "{text}");
        let python = Path::new("/usr/bin/python3");
        if support::program("chromium").is_some() && support::program("chromedriver").is_some() {
            judged("page.py", python, &file("fleet.html"));
        }
        if let Some(counts) = judged("junit.py", python, &file("junit.xml"))
            && results == "merged"
        {
            // One test for each image, and one for the whole.
            assert_eq!(counts.trim(), "0 2 13");
        }
        if let Some(promtool) = support::program("promtool") {
            let metrics = std::fs::File::open(file("winject.prom")).unwrap();
            let output = Command::new(promtool).args(["check", "metrics"]).stdin(metrics).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        }
    }
}

/// What is missing or double is named, and the exit code says so.
fn results_that_are_not_whole_are_named() {
    let folder = folder();
    shards(folder.path());
    let one = run(folder.path(), &["merge", "shard-1"]);
    assert_eq!(one.status.code(), Some(1));
    let text = String::from_utf8_lossy(&one.stderr).into_owned();
    assert!(text.contains("no results of shard 0") && text.contains("missing"), "{text}");
    // The same images without shards.
    run(folder.path(), &["inspect", "vms/*.qcow2", "--results", "all"]);
    let both = run(folder.path(), &["merge", "shard-1", "all", "--json"]);
    assert_eq!(both.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&both.stdout).unwrap();
    assert!(!answer["double"].as_array().unwrap().is_empty(), "{answer}");
    let none = run(folder.path(), &["merge", "vms"]);
    assert_ne!(none.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&none.stderr).contains("--results"), "{none:?}");
}

/// The manifests are what Kubernetes and Argo Workflows know, and give away no right.
fn manifests_are_valid() {
    let Some(python) = support::judge_python() else { return };
    judged("fleet/manifests.py", &python, &support::root().join("deploy"));
}

tests![
    shards_are_merged_into_files_that_foreign_readers_take,
    results_that_are_not_whole_are_named,
    manifests_are_valid,
];
