//! What a run is going to change: a list of typed edits with their reasons, and how it is applied and verified.
//!
//! A [`Plan`] is a value. It is computed without writing, it can be printed and serialised, and a dry run prints
//! exactly the plan that a real run applies.

mod apply;
mod boot;
mod change;
mod document;
pub mod review;
pub mod saved;
pub mod verify;

pub(crate) use apply::edit_hive;
pub use apply::{Applied, apply, apply_edit};
pub use boot::{
    BOOT_MANAGER, BOOT_MANAGER_BYTES_MAX, BootFiles, BootPlace, STORES, apply_boot, boot_files, fallback_loader,
    read_boot_volume,
};
pub(crate) use change::value_name;
pub use change::{Access, Change, Content, GuestHive, Step};
pub use document::Plan;
pub use verify::{
    Absent, Verified, blame, check_before, check_files_before, verify, verify_absent, verify_boot, verify_files,
};
