//! The choice of driver packages for a guest.
//!
//! [`discover`](candidates::discover) groups the INFs of the media by driver, [`evaluate`](evaluate::evaluate) finds the
//! best candidate of a group, [`assemble`](assemble::assemble) makes a package of it. [`select()`] does it for all
//! drivers, [`list`] shows all packages with the reasons.

mod assemble;
mod boot_driver;
mod candidates;
mod contents;
mod evaluate;
pub mod list;
mod select;
mod without_inf;

pub use select::select;
pub(crate) use select::select_with_or_without_storage;
