//! A batch that is stopped, killed or in the way of another one.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{batch, code, events, guests, inject, outcomes, pairs};
use crate::block::Random;
use crate::inject::{names, stderr};

const SOURCE_BYTES: usize = 48 << 20;

/// A batch of two slow conversions.
fn slow(folder: &Path) -> Command {
    for name in ["a.raw", "b.raw"] {
        if !folder.join(name).exists() {
            std::fs::write(folder.join(name), Random::new(91).bytes(SOURCE_BYTES)).unwrap();
        }
    }
    std::fs::create_dir_all(folder.join("out")).unwrap();
    let command = batch(
        folder,
        "convert a.raw b.raw -o out/{name}.qcow2 --compress --jobs 1 --threads 1 --json --results results",
    );
    let mut clean = Command::new("env");
    clean.arg("--default-signal").arg(command.get_program()).args(command.get_args()).current_dir(folder);
    clean.stdout(Stdio::piped()).stderr(Stdio::piped());
    clean
}

pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Starts it, and waits until its worker writes.
fn start(command: &mut Command, folder: &Path) -> Child {
    let child = command.spawn().unwrap();
    wait_for("nothing was written", || {
        let mut entries = std::fs::read_dir(folder.join("out")).unwrap().flatten();
        entries.any(|entry| entry.metadata().is_ok_and(|metadata| metadata.len() > 1 << 20))
    });
    child
}

fn kill(child: &Child, signal: &str) {
    let killed = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
    assert!(killed.success());
}

/// The item that runs rolls back, the other one does not begin, nothing is left, and the batch ends by the signal.
fn a_signal_stops_the_batch_and_its_worker_rolls_back() {
    for (signal, number) in [("TERM", 15), ("INT", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let child = start(&mut slow(folder.path()), folder.path());
        kill(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(number), "{}", stderr(&output));
        assert_eq!(names(&folder.path().join("out")), [""; 0]);
        let ended: Vec<String> = outcomes(&output).into_iter().map(|(_, outcome)| outcome).collect();
        assert!(ended.contains(&"cancelled".to_owned()) && ended.contains(&"not-started".to_owned()), "{ended:?}");
        let last = events(&output).pop().unwrap();
        assert_eq!((&last["event"], &last["code"]), (&"ended".into(), &75.into()));
    }
}

/// A worker is told to stop when its batch is killed; the next run goes on in the same results.
fn workers_do_not_outlive_a_killed_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(&mut slow(folder.path()), folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the worker goes on", || names(&folder.path().join("out")).is_empty());
    let output = slow(folder.path()).output().unwrap();
    assert_eq!(outcomes(&output), pairs(&[("a.raw", "done"), ("b.raw", "done")]), "{}", stderr(&output));
    assert_eq!(names(&folder.path().join("out")), ["a.qcow2", "b.qcow2"]);
    let lines = std::fs::read_to_string(folder.path().join("results/events.jsonl")).unwrap();
    assert_eq!(lines.matches("\"event\":\"begun\"").count(), 2);
}

/// A worker that dies costs its item, which is named; the rest goes on.
fn a_killed_worker_costs_its_item() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(&mut slow(folder.path()), folder.path());
    signal(worker_of(folder.path()), "KILL");
    let output = child.wait_with_output().unwrap();
    let mut ended: Vec<String> = outcomes(&output).into_iter().map(|(_, outcome)| outcome).collect();
    ended.sort();
    assert_eq!((ended, code(&output)), (vec!["done".to_owned(), "killed".to_owned()], 75));
    let again = slow(folder.path()).output().unwrap();
    assert_eq!(code(&again), 0, "{}", stderr(&again));
}

/// The process id of the worker that runs.
fn worker_of(folder: &Path) -> u64 {
    let text = std::fs::read_to_string(folder.join("results/events.jsonl")).unwrap();
    let started = text.lines().rev().find(|line| line.contains("\"started\"")).unwrap();
    serde_json::from_str::<serde_json::Value>(started).unwrap()["pid"].as_u64().unwrap()
}

fn signal(pid: u64, signal: &str) {
    let killed = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap();
    assert!(killed.success());
}

/// A worker that does not answer has the time of grace, or until a second signal; then it is killed. The next run finishes all.
fn a_worker_that_does_not_stop_is_killed_after_the_grace_or_by_a_second_signal() {
    for (grace, has_second) in [("1", false), ("600", true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = slow(folder.path());
        let mut child = start(command.arg("--grace").arg(grace), folder.path());
        // It takes no signal but the last one.
        signal(worker_of(folder.path()), "STOP");
        let begun = Instant::now();
        kill(&child, "TERM");
        std::thread::sleep(Duration::from_millis(700));
        assert!(child.try_wait().unwrap().is_none(), "killed before its time");
        if has_second {
            kill(&child, "TERM");
        }
        let output = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        assert_eq!(output.status.signal(), Some(15), "{}", stderr(&output));
        let ended: Vec<String> = outcomes(&output).into_iter().map(|(_, outcome)| outcome).collect();
        assert!(ended.contains(&"killed".to_owned()) && ended.contains(&"not-started".to_owned()), "{ended:?}");
        let finished = events(&output).into_iter().find(|event| event["outcome"] == "killed").unwrap();
        assert!(finished["signal"] == 9 && finished["retryable"] == true, "{finished}");
        assert!(names(&folder.path().join("out")).iter().all(|name| name.starts_with('.')));
        let again = slow(folder.path()).output().unwrap();
        assert_eq!(code(&again), 0, "{}", stderr(&again));
        assert_eq!(names(&folder.path().join("out")), ["a.qcow2", "b.qcow2"]);
    }
}

/// Two runs that meet: one works, the other says busy before it copies.
fn a_second_run_finds_the_image_busy() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(&mut slow(folder.path()), folder.path());
    let second = batch(folder.path(), "convert a.raw b.raw -o out/{name}.qcow2 --json --jobs 2 --results other")
        .output()
        .unwrap();
    let busy = outcomes(&second).into_iter().filter(|(_, outcome)| outcome == "busy").count();
    assert!(busy >= 1, "{:?}", outcomes(&second));
    assert_eq!(code(&second), 75);
    // Nor do two runs write into one results folder.
    let third = batch(folder.path(), "inspect a.raw --results results --json").output().unwrap();
    assert_eq!(code(&third), 75, "{}", stderr(&third));
    let answer: serde_json::Value = serde_json::from_slice(&third.stdout).unwrap();
    assert_eq!((&answer["error"]["code"], &answer["error"]["exit_code"]), (&"results-in-use".into(), &75.into()));
    let first = child.wait_with_output().unwrap();
    assert!(first.status.success() || code(&first) == 75, "{}", stderr(&first));
    assert_eq!(names(&folder.path().join("out")), ["a.qcow2", "b.qcow2"]);
}

/// The batch stops when too many have failed.
fn too_many_failures_stop_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    guests(folder.path(), &["good.qcow2"]);
    let line = "none-1 none-2 none-3 none-4 good.qcow2 --in-place --jobs 1 --json --max-failures";
    let output = inject(folder.path(), &format!("{line} 1")).output().unwrap();
    let count = |wanted: &str| outcomes(&output).iter().filter(|(_, outcome)| outcome == wanted).count();
    assert_eq!((outcomes(&output).len(), code(&output)), (5, 1));
    assert!(count("failed") >= 2 && count("not-started") >= 1, "{:?}", outcomes(&output));
    let output = inject(folder.path(), &format!("{line} 80%")).output().unwrap();
    assert!(outcomes(&output).iter().all(|(_, outcome)| outcome != "not-started"));
}

tests![
    a_signal_stops_the_batch_and_its_worker_rolls_back,
    workers_do_not_outlive_a_killed_batch,
    a_killed_worker_costs_its_item,
    a_worker_that_does_not_stop_is_killed_after_the_grace_or_by_a_second_signal,
    a_second_run_finds_the_image_busy,
    too_many_failures_stop_the_batch,
];
