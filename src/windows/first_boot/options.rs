//! Options of the first-boot job.

use super::description::Reboot;

/// How the first-boot job is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstBootMethod {
    /// By the service program, where winject has one for the guest's CPU and Windows; else by the script.
    #[default]
    Auto,
    /// By winject's own service program.
    Service,
    /// By a script for `cmd.exe`.
    Script,
    /// Not at all: the packages are staged, and `setup.cmd` installs them.
    None,
}

/// Options of the first-boot job. By default it is installed, by the service program where there is one, and never
/// restarts the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FirstBootOptions {
    /// How the job is started.
    pub method: FirstBootMethod,
    /// Whether it restarts the guest at its end.
    pub reboot: Reboot,
    /// Run the job again in a guest that has finished it or given up.
    pub rearm: bool,
}
