//! The job of the first boot: scripts that install the staged packages, and the service that starts them.

mod job;
mod script;

pub(super) use job::install_job;
