//! Options of the repairs that a guest of another hypervisor may need.

use crate::windows::{DataDisks, Hypervisor, RepairOptions};

// Repairs: the same for `inject`, `plan`, `convert --drivers` and a document
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct RepairArgs {
    /// Disable the services and filter drivers of a former hypervisor's tools and run their uninstaller at the first
    /// boot; auto does it for all that are found; separated by commas, or repeatable
    #[arg(long, value_name = "HYPERVISOR", value_enum, value_delimiter = ',')]
    pub remove_tools: Vec<ToolsArg>,

    /// Keep a stop error on the screen instead of letting Windows restart at once
    #[arg(long)]
    pub no_auto_reboot: bool,

    /// Choose what Windows does with data disks that it has not seen before
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    pub data_disks: DataDisksArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ToolsArg {
    /// Those that are found
    Auto,
    /// VMware Tools
    Vmware,
    /// Hyper-V integration services
    Hyperv,
    /// XenServer, XCP-ng and Xen PV tools
    Xen,
    /// VirtualBox Guest Additions
    Virtualbox,
    /// Nutanix Guest Tools
    Nutanix,
    /// Parallels Tools
    Parallels,
}

impl ToolsArg {
    /// The hypervisor; `None` for all that are found.
    fn hypervisor(self) -> Option<Hypervisor> {
        match self {
            Self::Auto => None,
            Self::Vmware => Some(Hypervisor::Vmware),
            Self::Hyperv => Some(Hypervisor::Hyperv),
            Self::Xen => Some(Hypervisor::Xen),
            Self::Virtualbox => Some(Hypervisor::Virtualbox),
            Self::Nutanix => Some(Hypervisor::Nutanix),
            Self::Parallels => Some(Hypervisor::Parallels),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DataDisksArg {
    /// What it does now
    #[default]
    Leave,
    /// Bring each of them online
    Online,
}

impl RepairArgs {
    /// The options of the injection.
    #[must_use]
    pub fn options(&self) -> RepairOptions {
        RepairOptions {
            remove_tools: self.remove_tools.iter().filter_map(|tools| tools.hypervisor()).collect(),
            remove_tools_found: self.remove_tools.contains(&ToolsArg::Auto),
            no_auto_reboot: self.no_auto_reboot,
            data_disks: match self.data_disks {
                DataDisksArg::Leave => DataDisks::Leave,
                DataDisksArg::Online => DataDisks::Online,
            },
        }
    }
}
