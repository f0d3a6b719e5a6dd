//! Files of the host: opening, locking and reading of images and other inputs, the policy for files that an image
//! names, and atomic writing of new files.
//!
//! A new file is written under a temporary name in its folder and renamed when it is complete, so that its name never
//! shows half of it. Its permissions are those that all of its sources have in common, less the umask.

mod appended_file;
mod atomic_file;
mod file_id;
mod file_storage;
mod files;
mod folder;
mod in_use;
mod kernel_use;
mod leftover;
mod locked_file;
mod memory_storage;
mod mount;
mod name_lock;
mod nbd_name;
mod permissions;
mod policy;
mod qemu_lock;
mod read;
mod run_files;
mod storage;
mod target;
mod text_output;

pub(crate) use appended_file::AppendedFile;
pub(crate) use atomic_file::{AtomicFile, refuse_rewrite, rewrite};
pub(crate) use file_id::{file_key, is_same_file, several_names};
pub use file_storage::FileStorage;
pub use files::{HostFiles, RealHost};
pub(crate) use folder::{create_folder, create_private_folder, folder_of, next_to, remove_folder};
pub(crate) use leftover::remove_all_in as remove_leftovers_in;
pub(crate) use locked_file::LockedFile;
pub use memory_storage::MemoryStorage;
pub(crate) use mount::lock_notes;
pub(crate) use name_lock::NameLock;
pub use nbd_name::is_nbd_name;
pub(crate) use permissions::PRIVATE;
pub use policy::PathPolicy;
pub use qemu_lock::{LockMode, Locking};
pub(crate) use read::{Unreadable, open, read};
pub(crate) use run_files::{REPORT, RunFiles};
pub use storage::{FileIdentity, Fingerprint, HostRun, Storage, StorageExt};
pub(crate) use target::{JOURNAL_ENDING, Target, UNDO_RECORD_ENDING, is_reserved, refuse_missing_folder};
pub(crate) use text_output::TextOutput;
