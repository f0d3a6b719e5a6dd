//! QEMU's programs as judges.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::blocks::sha256;

/// `qemu-img check` finds no fault in a qcow2, and, unless it `may_leak`, no cluster that is unused.
///
/// # Errors
/// What it says.
pub fn check(path: &Path, may_leak: bool) -> Result<(), String> {
    let folder = path.parent().unwrap();
    // QEMU looks for a relative data file in the current folder.
    let mut command = Command::new("qemu-img");
    let output = command.current_dir(folder).args(["check", "-f", "qcow2"]).arg(path).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(3) if may_leak => Ok(()),
        code => {
            let text = [output.stdout, output.stderr].concat();
            Err(format!("qemu-img check ends with {code:?}: {}", String::from_utf8_lossy(&text)))
        }
    }
}

/// The guest's disk, as QEMU reads it from a small qcow2.
///
/// # Errors
/// What qemu-img says.
pub fn disk(path: &Path, scratch: &Path) -> Result<Vec<u8>, String> {
    Ok(std::fs::read(convert(path, scratch)?).unwrap())
}

/// SHA-256 of the guest's disk, as QEMU reads it.
///
/// # Errors
/// What qemu-img says.
pub fn disk_sha256(path: &Path, scratch: &Path) -> Result<String, String> {
    Ok(sha256(&convert(path, scratch)?))
}

fn convert(path: &Path, scratch: &Path) -> Result<PathBuf, String> {
    let raw = scratch.join("judged.raw");
    let mut command = Command::new("qemu-img");
    command.current_dir(path.parent().unwrap()).args(["convert", "-f", "qcow2", "-O", "raw"]).args([path, &raw]);
    let output = command.output().unwrap();
    if output.status.success() {
        return Ok(raw);
    }
    Err(format!("qemu-img convert: {}", String::from_utf8_lossy(&output.stderr)))
}
