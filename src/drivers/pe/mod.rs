//! Windows programs (portable executables): the facts that the boot loader and the signature check need.
//!
//! [`PeFacts::parse`] reads a whole file and checks that nothing of it is cut off. [`machine`] and [`file_version`] answer one
//! question each, and accept a file that is damaged elsewhere.

mod certificates;
mod digest;
mod facts;
mod format;
mod headers;
#[cfg(test)]
pub(crate) mod sample;
mod version;

pub(super) use certificates::signed_data;
pub use facts::{PeError, PeFacts};
pub use format::SUBSYSTEM_NATIVE;
pub use headers::machine;
pub use version::file_version;
