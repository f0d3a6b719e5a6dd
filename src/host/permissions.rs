//! Permissions of new files: open to no more users than what they are made from.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Permissions of a file that only its owner may use.
pub(crate) const PRIVATE: u32 = 0o600;

/// Permissions for a new file in `folder` that is made from `sources`: what each of them allows, never to be executed.
/// Where the new file's group is another one, its members are among the source's others. The umask comes on top.
pub(super) fn common_mode(sources: &[PathBuf], folder: &Path) -> u32 {
    const SET_GROUP_ID: u32 = 0o2000;
    let group = match std::fs::metadata(folder) {
        Ok(meta) if meta.mode() & SET_GROUP_ID != 0 => meta.gid(),
        _ => rustix::process::getegid().as_raw(),
    };
    let mode_of = |file: &PathBuf| {
        let Ok(meta) = std::fs::metadata(file) else { return PRIVATE };
        let mode = meta.mode();
        if meta.gid() == group {
            return mode;
        }
        let others = mode & (mode >> 3) & 0o7;
        (mode & 0o700) | (others << 3) | others
    };
    sources.iter().map(mode_of).fold(0o666, |mode, next| mode & next) | PRIVATE
}
