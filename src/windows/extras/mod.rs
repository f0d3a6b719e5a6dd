//! What a user puts into the guest in addition to drivers: files.

mod guest_path;
mod options;
mod uploads;

pub use options::{ExtrasOptions, Upload};
pub(super) use uploads::plan_uploads;
