//! The job of the first boot: what installs the staged packages, and the service that starts it.
//!
//! [`description`] is the job itself; `job_file` and `script` print it for the service program and for `cmd.exe`, `setup`
//! for people; `job` plans what of it the guest gets.

pub mod description;
mod job;
mod job_file;
mod script;
mod setup;
mod text;

pub(super) use job::install_job;
