//! Saved plans: applied, they do what an injection does; to another image they do nothing.

mod bundle;
mod equal;
mod forge;
mod guest_state;
mod hostile;
mod real_guests;
mod stale;

use crate::inject::{fixture_drivers, stderr, winject};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Saves the plan for an image as `plan.json` in the image's folder.
fn plan(image: &Path, options: &str) -> PathBuf {
    let path = image.with_file_name("plan.json");
    let mut command = winject();
    command.arg("plan").arg(image).arg("--drivers").arg(fixture_drivers()).arg("-o").arg(&path);
    crate::support::run(command.args(options.split_whitespace()));
    path
}

/// `winject apply` without media.
fn apply(plan: &Path, options: &str) -> Command {
    let mut command = winject();
    command.arg("apply").arg(plan).args(options.split_whitespace());
    command
}

/// Runs a command that must fail with this code; what it says.
fn fail(command: &mut Command, code: i32) -> String {
    let output: Output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}", stderr(&output));
    stderr(&output)
}

tests![in bundle, equal, hostile, real_guests, stale;];
