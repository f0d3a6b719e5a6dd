//! Reads everything back that a plan touched, from the first sector on, with readers that share no code with the
//! writers, and compares it with the plan.

mod absent;
mod before;
mod boot;
mod hive_edits;
pub mod independent;
mod mismatch;
mod staged;

pub use absent::{Absent, verify_absent};
pub use before::{blame, check_before, check_files_before};
pub use boot::verify_boot;
pub use staged::{Verified, verify, verify_files};
