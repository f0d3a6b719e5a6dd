//! Temporary files of new files, and those of runs that were killed.
//!
//! A new file is written under a hidden name in the folder of its output, made from the output's name, and locked
//! (`flock`) meanwhile. The leftover of a killed run is recognised by its name, its owner and the missing lock, which
//! ended with the process; the next run to the same output removes it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::folder::folder_of;
use super::read::open_as_it_is;

/// How the names end.
const SUFFIX: &str = ".partial";

/// What separates the output's name from the characters that make the name unique.
const MARK: &[u8] = b".winject-";

/// So many bytes of the output's name are taken, so that names stay below the 255 bytes that file systems allow.
const NAME_BYTES_MAX: usize = 200;

/// A name for a temporary file of this output, in its folder; `number` makes it another one when it is taken.
pub(super) fn temporary_name(output: &Path, number: u32) -> PathBuf {
    let mut name = prefix(output);
    name.push(format!("{}n{number}{SUFFIX}", std::process::id()));
    output.with_file_name(name)
}

/// The one name for a temporary file of this output that all runs try first which must not write the output at the same time.
pub(super) fn only_name(output: &Path) -> PathBuf {
    let mut name = prefix(output);
    name.push(format!("only{SUFFIX}"));
    output.with_file_name(name)
}

/// Whether another process is writing this temporary file. Without locks this cannot be known: no.
pub(super) fn is_claimed(path: &Path) -> bool {
    open_as_it_is(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
}

/// How the names of temporary files for this output begin; a few characters follow that make them unique.
fn prefix(output: &Path) -> OsString {
    let name = output.file_name().unwrap_or_default().as_bytes();
    let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
    OsString::from_vec([b".", name, MARK].concat())
}

/// Locks a new temporary file as long as it is open, so that it does not count as a leftover.
///
/// # Errors
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) when another run took it for a leftover before it was locked:
/// another name is to be tried.
pub(super) fn claim(file: &File) -> io::Result<()> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        // Without locks nothing is taken for a leftover.
        Err(error) if error != Errno::WOULDBLOCK => return Ok(()),
        Err(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(()) => {}
    }
    if file.metadata()?.nlink() == 0 { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(()) }
}

/// Removes the leftovers of killed runs to this output. One that cannot be removed stays, with a warning.
pub(super) fn remove(output: &Path) {
    let Ok(entries) = std::fs::read_dir(folder_of(output)) else { return };
    let prefix = prefix(output);
    for entry in entries.flatten() {
        if is_named_so(&entry.file_name(), &prefix) {
            remove_if_left(&entry.path());
        }
    }
}

fn remove_if_left(path: &Path) {
    if !is_left(path) {
        return;
    }
    match std::fs::remove_file(path) {
        Ok(()) => tracing::info!(path = %path.display(), "removed the temporary file of a killed run"),
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove a temporary file"),
    }
}

/// Removes the leftovers of killed runs to all outputs in a folder. One that cannot be removed stays, with a warning.
pub(crate) fn remove_all_in(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let bytes = name.as_bytes();
        let unique = bytes.windows(MARK.len()).rposition(|part| part == MARK).map(|at| at.saturating_add(MARK.len()));
        let prefix = unique.and_then(|end| bytes.get(..end)).map(OsStr::from_bytes);
        if bytes.starts_with(b".") && prefix.is_some_and(|prefix| is_named_so(&name, prefix)) {
            remove_if_left(&entry.path());
        }
    }
}

fn is_named_so(name: &OsStr, prefix: &OsStr) -> bool {
    let unique = name.as_bytes().strip_prefix(prefix.as_bytes()).and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    unique.is_some_and(|unique| !unique.is_empty() && unique.iter().all(u8::is_ascii_alphanumeric))
}

/// Whether it is a regular file of ours that no process is writing any more.
fn is_left(path: &Path) -> bool {
    let Ok(file) = open_as_it_is(path) else { return false };
    let is_ours = |m: std::fs::Metadata| m.is_file() && m.uid() == rustix::process::geteuid().as_raw();
    file.metadata().is_ok_and(is_ours) && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_killed_run_to_the_same_output_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("new.qcow2");
        let left = folder.path().join(".new.qcow2.winject-aB3xyz.partial");
        let busy = folder.path().join(".new.qcow2.winject-busy01.partial");
        let link = folder.path().join(".new.qcow2.winject-link01.partial");
        let others = [".other.qcow2.winject-aB3xyz.partial", ".new.qcow2.winject-.partial", "new.qcow2", "x.partial"];
        others.iter().for_each(|name| std::fs::write(folder.path().join(name), b"x").unwrap());
        std::fs::write(&left, b"x").unwrap();
        std::os::unix::fs::symlink("new.qcow2", &link).unwrap();
        let file = File::create(&busy).unwrap();
        claim(&file).unwrap();
        remove(&output);
        assert!(!left.exists());
        assert!(busy.exists() && link.is_symlink());
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
        drop(file);
        remove(&output);
        assert!(!busy.exists());
        remove_all_in(folder.path());
        let left = |name: &&&str| folder.path().join(name).exists();
        assert_eq!(others.iter().filter(left).count(), others.len() - 1);
        assert!(!folder.path().join(others[0]).exists() && link.is_symlink());
    }
}
