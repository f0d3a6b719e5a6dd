//! Checks a whole hive against every rule that the Windows kernel enforces or relies on.
//!
//! The checker walks bins, cells, keys, indexes, values and security cells, and verifies that every allocated cell has
//! exactly one owner. It shares the declarations of the structures with the editor, but none of its code.

mod cell_bitmap;
mod checker;
mod fault;
mod keys;
mod lists;
mod security;
mod space;
mod survey;
mod values;

pub use checker::FAULTS_MAX;
pub(crate) use checker::Survey;
pub use fault::{Code, Fault, Severity};
pub(super) use security::descriptor_fault;
pub use survey::check;
pub(super) use survey::{new_fault, survey};
