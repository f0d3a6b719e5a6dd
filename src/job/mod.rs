//! Whole jobs as library calls, and their reports.
//!
//! ```text
//! recover → open → stage → partitions → Windows → drivers → plan → apply → verify → commit → report
//! ```
//!
//! Everything before commit happens on the stage, in memory. A job that fails has written nothing. (A new image is copied
//! to a temporary file meanwhile, which is removed when the job fails.)

mod apply;
mod bitlocker_start;
mod boot_verdict;
mod bundle;
mod check;
mod choose_disk;
pub mod diff;
mod disks;
mod expectation;
mod explain;
mod finished_output;
mod folder;
mod hive_check;
mod hive_name;
mod inject;
mod inspect;
pub(crate) mod junit;
mod locate;
mod log_replay;
pub mod look;
mod machine;
mod match_disks;
mod ntfs_log;
mod outputs;
mod phases;
mod plan;
mod recover;
mod registry;
mod remove;
pub mod report;
mod report_log;
mod request;
mod saved_plan;
mod staging;
mod standalone;
mod step;
mod undo;
mod verify;
mod volume_check;
mod write_stage;

pub use apply::{apply, apply_into, check_apply_outputs};
pub use bitlocker_start::{BitLockerStart, describe as describe_encryption};
pub use bundle::{Bundle, check_bundle, write_bundle};
pub use check::{BootAnswer, check, check_and_describe};
pub use disks::image_files;
pub(crate) use explain::explain_path;
pub use finished_output::{FinishedOutput, find_finished_output};
pub(crate) use folder::require_folder;
pub use hive_check::{CheckedHive, check_hives};
pub use hive_name::HiveName;
pub use inject::{inject, inject_into, prepare};
pub use inspect::{Fault, Found as FoundWindows, Inspection, find_guest, inspect, inspect_disks, no_windows_in};
pub use junit::Junit;
pub use locate::{Installation, Search, locate, no_ntfs_volume, search_installations};
pub use log_replay::LogReplayRecord;
pub use machine::{Machine, MachineDisk, MachineKind, Nic};
pub use ntfs_log::{LogRecord, LogReplayOutcome, LogReplayRequest, LogTransaction, VolumeLog, read_logs, replay_logs};
pub use outputs::{check_outputs, check_text_outputs};
pub use plan::{SavablePlan, plan, plan_into};
pub(crate) use recover::UNDO_GIVEN_UP;
pub use recover::{find_interrupted, recover, recover_image};
pub use registry::{HiveEdit, HiveRequest, edit_hive, import_into_image, read_hive};
pub use remove::{RemoveOptions, remove, remove_into};
pub use report::Report;
pub use request::{Destination, InjectRequest, Observer, Silent, StateOverrides};
pub use saved_plan::{SavedPlan, bundle_of};
pub use staging::Staged;
pub use step::Step;
pub use undo::{forget_undo, undo};
