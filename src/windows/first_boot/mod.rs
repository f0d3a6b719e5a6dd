//! The job of the first boot: what installs the staged packages, and the service that starts it.
//!
//! [`description`] is the job itself; `job_file` and `script` print it for the service program and for `cmd.exe`, `setup`
//! for people. `job` plans what of it the guest gets, and `outcome` reads what the job left when it has run.

pub mod description;
mod job;
mod job_file;
mod markers;
mod options;
mod others;
pub(super) mod outcome;
mod program;
mod publishers;
mod script;
mod service;
mod setup;
mod text;

pub use description::Reboot;
pub(super) use job::{ended, install_job, is_script};
pub use options::{FirstBootMethod, FirstBootOptions};
pub use outcome::{FirstBootOutcome, FirstBootState, JobResult, StepResult};
pub use program::is_foreign_program;
pub use script::print as print_script;
pub use setup::print as print_setup;
