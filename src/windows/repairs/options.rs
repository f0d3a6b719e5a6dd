//! Options of the repairs.

use std::collections::BTreeSet;

use super::hypervisor::Hypervisor;

/// What Windows does with data disks that it has not seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataDisks {
    /// What it does now.
    #[default]
    Leave,
    /// It brings each of them online.
    Online,
}

/// Repairs that are made only when they are asked for; by default none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairOptions {
    /// The former hypervisors whose tools are disabled.
    pub remove_tools: BTreeSet<Hypervisor>,
    /// Whether the tools of every hypervisor that are found are disabled.
    pub remove_tools_found: bool,
    /// Whether a stop error stays on the screen instead of restarting Windows.
    pub no_auto_reboot: bool,
    /// What Windows does with data disks that it has not seen before.
    pub data_disks: DataDisks,
}
