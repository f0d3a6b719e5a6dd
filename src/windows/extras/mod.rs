//! What a user puts into the guest in addition to drivers: files, scripts for the first boot, the guest agent.

mod guest_path;
mod options;
mod plan;
mod script_file;
mod scripts;
mod uploads;

pub use options::{ExtrasOptions, SCRIPT_SECONDS, Upload};
pub(super) use plan::{note_skipped_scripts, plan_extras};
