//! Regular files of the host, besides the images themselves: how inputs are opened without waiting and read up to a
//! limit, how every new file is written, and which files a run must not write to.
//!
//! A new file is written under a temporary name in its folder and renamed when it is complete, so that its name never
//! shows half of it. Its permissions are those that all of its sources have in common, less the umask.

pub(crate) mod leftover;
mod lock;
mod read;
mod run_files;
mod write;

pub(crate) use lock::LockedFile;
pub(crate) use read::{Unreadable, open, open_as_it_is, read};
pub(crate) use run_files::{REPORT, RunFiles};
pub(crate) use write::{NewFile, Target, TextOutput, common_mode, rewrite};

use std::path::Path;

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
