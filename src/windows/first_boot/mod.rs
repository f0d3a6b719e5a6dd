//! The job of the first boot: scripts that install the staged packages, and the service that starts them.

pub(super) mod script;
