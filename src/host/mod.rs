//! Files of the host: how images and other inputs are opened, locked and read, which files an image may name, and how
//! new files are written.
//!
//! A new file is written under a temporary name in its folder and renamed when it is complete, so that its name never
//! shows half of it. Its permissions are those that all of its sources have in common, less the umask.

mod atomic_file;
mod files;
pub(crate) mod leftover;
mod lock;
mod locked_file;
mod policy;
mod read;
mod run_files;
mod storage;

pub(crate) use atomic_file::{NewFile, Target, TextOutput, common_mode, rewrite};
pub(crate) use files::PRIVATE;
pub use files::{HostFiles, RealHost};
pub use lock::{LockMode, Locking};
pub(crate) use locked_file::LockedFile;
pub use policy::PathPolicy;
pub(crate) use policy::escape;
pub(crate) use read::{Unreadable, open, open_as_it_is, read};
pub(crate) use run_files::{REPORT, RunFiles};
pub use storage::{FileIdentity, FileStorage, Fingerprint, HostRun, MemoryStorage, Storage, StorageExt};

use std::path::Path;

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
