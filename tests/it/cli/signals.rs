//! Ctrl-C and its relatives: nothing is left, and the process ends by the signal.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::recover::Case;
use crate::block::Random;
use crate::inject::{names, stderr};
use crate::support;

const SOURCE_BYTES: usize = 48 << 20;

fn convert(source: &Path, output: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("winject"));
    command.args(["convert", "-q", "--compress", "--threads", "1"]).arg(source).arg(output).stderr(Stdio::null());
    command
}

/// Starts the command, and waits until it has begun to write into the folder.
fn start_writing(command: &mut Command, folder: &Path) -> Child {
    let child = command.spawn().unwrap();
    let begin = Instant::now();
    let is_writing = || {
        let mut entries = std::fs::read_dir(folder).unwrap().flatten();
        entries.any(|entry| entry.metadata().is_ok_and(|metadata| metadata.len() > 1 << 20))
    };
    while !is_writing() {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn end(mut child: Child, signal: &str) -> ExitStatus {
    let killed = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
    assert!(killed.success());
    child.wait().unwrap()
}

fn a_signal_leaves_no_unfinished_file() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, Random::new(90).bytes(SOURCE_BYTES)).unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        // A test run in the background of a shell, or under nohup, inherits ignored signals.
        let convert = convert(&source, &out.join("new.qcow2"));
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(convert.get_program()).args(convert.get_args()).stderr(Stdio::null());
        let child = start_writing(&mut command, &out);
        let status = end(child, signal);
        assert_eq!(status.signal(), Some(number), "{status}");
        assert_eq!(names(&out), [""; 0], "SIG{signal}");
    }
}

fn what_a_killed_run_left_is_removed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, Random::new(91).bytes(SOURCE_BYTES)).unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let child = start_writing(&mut convert(&source, &out.join("new.qcow2")), &out);
    assert_eq!(end(child, "KILL").signal(), Some(9));
    assert_eq!(names(&out).len(), 1);
    let small = folder.path().join("small.raw");
    std::fs::write(&small, Random::new(92).bytes(1 << 20)).unwrap();
    // A run to another output leaves it alone.
    assert!(convert(&small, &out.join("other.qcow2")).status().unwrap().success());
    assert_eq!(names(&out).len(), 2);
    assert!(convert(&small, &out.join("new.qcow2")).status().unwrap().success());
    assert_eq!(names(&out), ["new.qcow2", "other.qcow2"]);
}

fn ignored_signals_stay_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, Random::new(93).bytes(SOURCE_BYTES)).unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let mut command = Command::new("nohup");
    let convert = convert(&source, &out.join("new.qcow2"));
    command.arg(convert.get_program()).args(convert.get_args()).stdin(Stdio::null());
    let child = start_writing(command.stdout(Stdio::null()).stderr(Stdio::null()), &out);
    assert!(end(child, "HUP").success());
    assert_eq!(names(&out), ["new.qcow2"]);
}

/// A signal comes at each step of an edit in place: what the message says is what the image holds.
fn signals_at_every_step(case: &Case) {
    let Some(strace) = support::program("strace") else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let calls = ["pwrite64", "fsync", "fallocate", "unlink"];
    case.reset();
    let trace = format!("trace={}", calls.join(","));
    assert!(case.traced(&strace, &["-o", log.to_str().unwrap(), "-e", &trace]).status.success());
    let log = std::fs::read_to_string(log).unwrap();
    let (mut before, mut after) = (0, 0);
    for call in calls {
        let count = log.lines().filter(|line| line.contains(&format!("{call}("))).count();
        for n in 1..=count {
            case.reset();
            let output = case.signalled(&strace, "INT", call, n);
            let (text, image) = (stderr(&output), case.image());
            let place = format!("{call} {n}: {}: {text}", output.status);
            assert_eq!(case.left().len(), case.old.len(), "{place}");
            if text.contains(&format!("Interrupted before the commit point: {image} is as it was.")) {
                assert!(case.hashes() == case.old && output.status.signal() == Some(2), "{place}");
                before += 1;
            } else if text
                .contains(&format!("Interrupted after the commit point: the change of {image} was completed."))
            {
                assert!(case.hashes() == case.new && output.status.signal() == Some(2), "{place}");
                after += 1;
            } else {
                panic!("{place}");
            }
        }
    }
    eprintln!("{before} before the commit point, {after} after it");
    assert!(before > 0 && after > 0);
}

fn the_message_says_what_became_of_a_raw_image() {
    signals_at_every_step(&Case::raw("win10.raw"));
}

fn the_message_says_what_became_of_a_qcow2() {
    signals_at_every_step(&Case::qcow2());
}

tests![
    a_signal_leaves_no_unfinished_file,
    what_a_killed_run_left_is_removed_by_the_next,
    ignored_signals_stay_ignored,
    the_message_says_what_became_of_a_raw_image,
    the_message_says_what_became_of_a_qcow2,
];
