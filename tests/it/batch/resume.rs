//! Running a batch again goes on from where it stopped.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{batch, code, events, guests, inject, outcomes, pairs};
use crate::inject::{fixture_drivers, names, stderr, winject};

/// What is done is seen in the images, and only looked at.
fn in_place_the_image_itself_says_that_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2", "b.qcow2"]);
    let first = inject(at, "a.qcow2 --in-place --no-undo").output().unwrap();
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    let before = std::fs::read(at.join("a.qcow2")).unwrap();
    let again = inject(at, "*.qcow2 --in-place --no-undo --json --results results").output().unwrap();
    assert_eq!(outcomes(&again), pairs(&[("a.qcow2", "already-done"), ("b.qcow2", "done")]));
    assert!(std::fs::read(at.join("a.qcow2")).unwrap() == before);
    let third = inject(at, "*.qcow2 --in-place --no-undo --json --results results").output().unwrap();
    assert!(events(&third).iter().all(|event| event["attempt"].as_u64().is_none_or(|attempt| attempt == 2)));
    assert_eq!(code(&third), 0);
}

/// A finished output that stands for its image is done; another file of its name is refused and stays.
fn a_finished_output_is_done_and_a_foreign_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2", "b.qcow2"]);
    for (line, plain) in [
        ("inject [ab].qcow2 -o {name}.raw", false),
        ("inject [ab].qcow2 --overlay {name}-over.qcow2", false),
        ("convert [ab].qcow2 -o {name}-plain.raw", true),
    ] {
        let run = || {
            let mut command = batch(at, line);
            if !plain {
                command.arg("--drivers").arg(fixture_drivers());
            }
            command.arg("--json").output().unwrap()
        };
        let (first, second) = (run(), run());
        assert_eq!(outcomes(&first), pairs(&[("a.qcow2", "done"), ("b.qcow2", "done")]), "{line}: {}", stderr(&first));
        let done = pairs(&[("a.qcow2", "already-done"), ("b.qcow2", "already-done")]);
        assert_eq!((outcomes(&second), code(&second)), (done, 0), "{line}: {}", stderr(&second));
    }
    for foreign in [vec![7; 1 << 16], std::fs::read(at.join("a-plain.raw")).unwrap()] {
        std::fs::write(at.join("a.raw"), &foreign).unwrap();
        let output = inject(at, "a.qcow2 -o {name}.raw --json").output().unwrap();
        assert_eq!((outcomes(&output), code(&output)), (pairs(&[("a.qcow2", "failed")]), 1));
        assert!(std::fs::read(at.join("a.raw")).unwrap() == foreign);
    }
    // The single command refuses what it did before.
    let mut single = winject();
    let single = single.current_dir(at).args(["convert", "a.qcow2", "a-plain.raw"]).output().unwrap();
    assert_eq!(code(&single), 2);
}

/// An output is done only if it holds what the run would write: no byte of it may be another, nothing may be cut off.
fn an_output_with_other_content_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2"]);
    let run = |line: &str, injects: bool| {
        let mut command = batch(at, line);
        if injects {
            command.arg("--drivers").arg(fixture_drivers());
        }
        outcomes(&command.arg("--json").output().unwrap())
    };
    for (line, file, injects) in [
        ("convert a.qcow2 -o {name}-plain.raw", "a-plain.raw", false),
        ("convert a.qcow2 -o {name}-plain.qcow2", "a-plain.qcow2", false),
        ("convert a.qcow2 -o {name}-injected.raw", "a-injected.raw", true),
        ("inject a.qcow2 -o {name}-injected.qcow2", "a-injected.qcow2", true),
        ("inject a.qcow2 --overlay {name}-over.qcow2", "a-over.qcow2", true),
    ] {
        assert_eq!(run(line, injects), pairs(&[("a.qcow2", "done")]), "{line}");
        assert_eq!(run(line, injects), pairs(&[("a.qcow2", "already-done")]), "{line}");
        let whole = std::fs::read(at.join(file)).unwrap();
        let mut flipped = whole.clone();
        // The last byte that says something.
        let last = flipped.iter().rposition(|byte| *byte != 0).unwrap();
        flipped[last] ^= 1;
        let cut = whole[..whole.len() - 70_000].to_vec();
        for other in [flipped, cut] {
            std::fs::write(at.join(file), &other).unwrap();
            assert_eq!(run(line, injects), pairs(&[("a.qcow2", "failed")]), "{line}");
            assert!(std::fs::read(at.join(file)).unwrap() == other, "{line}");
        }
        std::fs::write(at.join(file), whole).unwrap();
    }
    let injected = run("convert a.qcow2 -o {name}-injected.raw", false);
    assert_eq!(injected, pairs(&[("a.qcow2", "failed")]), "an injected disk is not the plain one");
}

/// The answers of the items in a results folder, by id.
fn answers(folder: &Path) -> Vec<Value> {
    let items = folder.join("results/items");
    let read = |name: &String| serde_json::from_slice::<Value>(&std::fs::read(items.join(name)).unwrap()).unwrap();
    names(&items).iter().map(read).collect()
}

/// What a run delivers next to its image, an item that was done before delivers, too: sums and descriptions of machines.
fn an_item_that_is_done_delivers_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2"]);
    let sum_of = |name: &str| {
        let output = Command::new("sha256sum").arg(at.join(name)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned()
    };
    let machine = "--machine libvirt --machine-output {name}.xml";
    for (line, file, key) in [
        ("convert a.qcow2 -o {name}-plain.raw --checksum".to_owned(), "a-plain.raw", "/sha256"),
        (format!("inject a.qcow2 -o {{name}}-new.qcow2 --checksum {machine}"), "a-new.qcow2", "/run/output_sha256"),
        (format!("inject a.qcow2 --overlay {{name}}-over.qcow2 {machine}"), "a-over.qcow2", ""),
        (format!("inject a.qcow2 --in-place --no-undo {machine}"), "a.qcow2", ""),
    ] {
        let run = || {
            let mut command = batch(at, &format!("{line} --json --results results"));
            if line.starts_with("inject") {
                command.arg("--drivers").arg(fixture_drivers());
            }
            command.output().unwrap()
        };
        let first = run();
        assert_eq!(outcomes(&first), pairs(&[("a.qcow2", "done")]), "{line}: {}", stderr(&first));
        let xml = std::fs::read(at.join("a.xml")).ok();
        // With what the first run left; then without the description, as if the batch had been stopped before it.
        for is_left in [true, false] {
            if !is_left && xml.is_some() {
                std::fs::remove_file(at.join("a.xml")).unwrap();
            }
            let again = run();
            let (expected, found) = (pairs(&[("a.qcow2", "already-done")]), outcomes(&again));
            assert_eq!((found, code(&again)), (expected, 0), "{line}: {}", stderr(&again));
            assert_eq!(std::fs::read(at.join("a.xml")).ok(), xml, "{line}");
            if !key.is_empty() {
                assert_eq!(answers(at)[0]["answer"].pointer(key).unwrap(), &Value::from(sum_of(file)), "{line}");
            }
        }
        if xml.is_some() {
            // A file of something else stays, and the item says so.
            std::fs::write(at.join("a.xml"), "mine").unwrap();
            let output = run();
            assert_eq!(outcomes(&output), pairs(&[("a.qcow2", "failed")]), "{line}");
            assert_eq!(std::fs::read(at.join("a.xml")).unwrap(), b"mine");
            std::fs::remove_file(at.join("a.xml")).unwrap();
        }
        std::fs::remove_dir_all(at.join("results")).unwrap();
    }
}

/// The time of the run that made an output is found, whether its guest has had a manifest before or not.
fn an_output_over_a_guest_that_was_injected_before_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2"]);
    let first = inject(at, "a.qcow2 --in-place --no-undo --registration minimal").output().unwrap();
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    for line in [
        "-o {name}-same.raw --registration minimal",
        "-o {name}-full.raw --registration full",
        "-o {name}-boot.raw --test-signing on",
    ] {
        // The clock goes on by a second at least.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let run = || outcomes(&inject(at, &format!("a.qcow2 {line} --json")).output().unwrap());
        assert_eq!(run(), pairs(&[("a.qcow2", "done")]), "{line}");
        assert_eq!(run(), pairs(&[("a.qcow2", "already-done")]), "{line}");
    }
}

tests![
    an_item_that_is_done_delivers_what_was_asked_for,
    an_output_over_a_guest_that_was_injected_before_is_done,
    in_place_the_image_itself_says_that_it_is_done,
    a_finished_output_is_done_and_a_foreign_one_refused,
    an_output_with_other_content_is_refused,
];
