//! Reports as files: the page, JUnit, and the machine to create.

mod junit;
mod machine;
mod markdown;
mod page;

use std::path::Path;
use std::process::{Command, Output};

use crate::inject::{fixture, fixture_drivers, winject};

/// Runs `winject` with these words in a folder, which holds the fixture as `win10.qcow2`, and its drivers.
fn run(folder: &Path, words: &[&str]) -> Output {
    winject().current_dir(folder).args(words).output().unwrap()
}

/// A folder with the fixture and its drivers.
fn setting() -> tempfile::TempDir {
    let folder = crate::inject::folder();
    std::fs::copy(fixture(), folder.path().join("win10.qcow2")).unwrap();
    std::os::unix::fs::symlink(fixture_drivers(), folder.path().join("drivers")).unwrap();
    folder
}

/// Runs a script of the judges with these arguments, and demands that it is content. Returns what it printed.
fn judged(judge: &Path, arguments: &[&Path]) -> String {
    let output = Command::new("/usr/bin/python3").arg(judge).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {text}{}", judge.display(), String::from_utf8_lossy(&output.stderr));
    text
}

tests![in junit, machine, markdown, page;];
