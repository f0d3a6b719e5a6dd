//! What a batch runs out of: space for its results, memory, its own program.

use std::process::{Command, Stdio};

use super::{code, events, guests, outcomes, pairs};
use crate::inject::stderr;

/// A results folder that is full stops the batch before anything more is begun, and the code says that it can go on.
fn a_full_results_folder_is_named_and_can_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2"]);
    let before = std::fs::read(at.join("a.qcow2")).unwrap();
    let mut command = super::inject(at, "a.qcow2 --in-place --results results --json");
    command.args((0..400).map(|number| format!("none-{number}.qcow2")));
    let mut limited = Command::new("bash");
    limited.current_dir(at).args(["-c", "ulimit -f 20; exec \"$@\"", "bash"]).arg(command.get_program());
    let output = limited.args(command.get_args()).output().unwrap();
    assert_eq!(code(&output), 75, "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot write the results") && stderr(&output).contains("results-full"));
    assert!(std::fs::read(at.join("a.qcow2")).unwrap() == before);
    let again = super::inject(at, "a.qcow2 --in-place --results results --json").output().unwrap();
    assert_eq!(outcomes(&again), pairs(&[("a.qcow2", "done")]), "{}", stderr(&again));
}

/// A program that was removed while the batch ran is named with what to do.
fn a_program_that_was_removed_is_named() {
    let folder = crate::inject::folder();
    let at = folder.path();
    std::fs::hard_link(env!("CARGO_BIN_EXE_winject"), at.join("winject")).unwrap();
    for name in ["a.raw", "b.raw"] {
        std::fs::write(at.join(name), crate::block::Random::new(5).bytes(24 << 20)).unwrap();
    }
    let mut command = Command::new(at.join("winject"));
    command
        .current_dir(at)
        .args("batch convert a.raw b.raw -o {name}.qcow2 --compress --jobs 1 --json --results r".split(' '));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let has_begun =
        || std::fs::read_to_string(at.join("r/events.jsonl")).is_ok_and(|text| text.contains("\"started\""));
    super::stop::wait_for("nothing began", has_begun);
    std::fs::remove_file(at.join("winject")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((outcomes(&output), code(&output)), (pairs(&[("a.raw", "done"), ("b.raw", "failed")]), 75));
    let failed = events(&output).into_iter().find(|event| event["outcome"] == "failed").unwrap();
    assert!(failed["hint"].as_str().unwrap().contains("install"), "{failed}");
}

/// An image whose worker needs more than its part of the memory fails by name, and nothing else does.
fn a_worker_without_memory_costs_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2"]);
    let before = std::fs::read(at.join("a.qcow2")).unwrap();
    let run = |memory: &str| {
        let line = format!("a.qcow2 absent.qcow2 --in-place --no-undo --jobs 2 --memory {memory} --json");
        // Backtraces need memory, too.
        super::inject(at, &line).env("RUST_BACKTRACE", "1").output().unwrap()
    };
    let output = run("6M");
    let expected = [("a.qcow2", "failed"), ("absent.qcow2", "failed")];
    assert_eq!((outcomes(&output), code(&output)), (pairs(&expected), 1), "{}", stderr(&output));
    let of =
        |id: &str| events(&output).into_iter().find(|event| event["event"] == "finished" && event["id"] == id).unwrap();
    let failed = of("a.qcow2");
    assert!(failed["reason"] == "worker-memory" && failed["hint"].as_str().unwrap().contains("--memory"), "{failed}");
    assert_eq!(of("absent.qcow2")["reason"], "file-not-found");
    assert_eq!(events(&output)[0]["jobs"], 1);
    assert!(std::fs::read(at.join("a.qcow2")).unwrap() == before && crate::inject::names(at) == ["a.qcow2"]);
    let output = run("1G");
    assert_eq!(outcomes(&output), pairs(&[("a.qcow2", "done"), ("absent.qcow2", "failed")]), "{}", stderr(&output));
    assert_eq!(events(&output)[0]["jobs"], 2);
}

tests![
    a_full_results_folder_is_named_and_can_be_tried_again,
    a_program_that_was_removed_is_named,
    a_worker_without_memory_costs_its_image,
];
