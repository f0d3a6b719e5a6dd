//! What the guest tools of other hypervisors bring into Windows.
//!
//! Where the names come from: SYSTEM hives of two VMware guests and one VirtualBox guest (services with their start types,
//! class and device filters); virt-v2v's conversion of Xen and Parallels guests (`xenfilt` filters the classes System and
//! HDC, `prl_strg` the class DiskDrive); the projects' public documentation for the others. Drivers of virtio, which
//! Nutanix brings too, are no tools: the new machine needs them.

use std::fmt;

/// A hypervisor that a guest may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hypervisor {
    /// VMware ESXi, Workstation, Fusion.
    Vmware,
    /// Microsoft Hyper-V.
    Hyperv,
    /// Xen: `XenServer`, XCP-ng, Xen Project.
    Xen,
    /// Oracle `VirtualBox`.
    Virtualbox,
    /// Nutanix AHV.
    Nutanix,
    /// Parallels Desktop.
    Parallels,
}

impl Hypervisor {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Vmware, Self::Hyperv, Self::Xen, Self::Virtualbox, Self::Nutanix, Self::Parallels];

    pub(super) fn tools(self) -> &'static Tools {
        match self {
            Self::Vmware => &VMWARE,
            Self::Hyperv => &HYPERV,
            Self::Xen => &XEN,
            Self::Virtualbox => &VIRTUALBOX,
            Self::Nutanix => &NUTANIX,
            Self::Parallels => &PARALLELS,
        }
    }
}

impl fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmware => "VMware",
            Self::Hyperv => "Hyper-V",
            Self::Xen => "Xen",
            Self::Virtualbox => "VirtualBox",
            Self::Nutanix => "Nutanix",
            Self::Parallels => "Parallels",
        })
    }
}

/// The services of one hypervisor's tools, by what becomes of them.
pub(super) struct Tools {
    /// Programs and drivers without a device: disabled where Windows starts them by itself.
    pub(super) programs: &'static [&'static str],
    /// Filter drivers: taken out of the lists, then disabled.
    pub(super) filters: &'static [&'static str],
    /// Drivers of the former machine's devices. They stay: Windows starts them with such a device only, and a disk may
    /// hang on one of them.
    pub(super) devices: &'static [&'static str],
    /// The first words of the `DisplayName` under which they are installed.
    pub(super) products: &'static [&'static str],
    /// Arguments with which an uninstaller that is a program of its own asks nothing; `None`: it is not run.
    pub(super) silent: Option<&'static str>,
}

const VMWARE: Tools = Tools {
    programs: &[
        "VMTools",
        "VGAuthService",
        "VMMemCtl",
        "VMRawDsk",
        "vmci",
        "vsock",
        "vmhgfs",
        "vm3dservice",
        "vmvss",
        "VMUpgradeHelper",
        "vmdebug",
        "giappdef",
        "vnetflt",
        "vnetWFP",
        "vsepflt",
    ],
    filters: &["vmmouse", "vmusbmouse"],
    devices: &[
        "pvscsi",
        "vmscsi",
        "vmxnet",
        "vmxnet3ndis6",
        "vm3dmp",
        "vm3dmp-debug",
        "vm3dmp-stats",
        "vm3dmp_loader",
        "vmx_svga",
        "vmwefifw",
    ],
    products: &["VMware Tools"],
    silent: None,
};

/// All of it comes with Windows. Only Windows 7 and Server 2008 R2 start the integration services by themselves.
const HYPERV: Tools = Tools {
    programs: &[
        "vmicheartbeat",
        "vmickvpexchange",
        "vmicshutdown",
        "vmictimesync",
        "vmicvss",
        "vmicrdv",
        "vmicguestinterface",
        "vmicvmsession",
    ],
    filters: &[],
    devices: &[],
    products: &[],
    silent: None,
};

const XEN: Tools = Tools {
    programs: &["xenagent", "xenbus_monitor", "XenSvc", "xenlite"],
    filters: &["xenfilt"],
    devices: &[
        "xenbus",
        "xenvbd",
        "xendisk",
        "xencrsh",
        "xeniface",
        "xenvif",
        "xennet",
        "xenpci",
        "xenevtchn",
        "rhelscsi",
    ],
    products: &[
        "Citrix XenServer Tools",
        "Citrix XenServer Windows Guest",
        "Citrix Hypervisor PV",
        "Citrix Hypervisor VM Tools",
        "XenServer VM Tools",
        "XCP-ng Windows Guest",
        "XCP-ng Windows Management Agent",
        "XCP-ng Windows PV",
    ],
    silent: None,
};

const VIRTUALBOX: Tools = Tools {
    programs: &["VBoxService", "VBoxSF", "VBoxGuest"],
    filters: &["VBoxMouse"],
    devices: &["VBoxVideo", "VBoxVideoW8", "VBoxWddm"],
    products: &["Oracle VM VirtualBox Guest Additions", "Oracle VirtualBox Guest Additions"],
    silent: Some("/S"),
};

/// Its uninstaller may take the drivers of virtio with it, on which the guest's disk hangs: it is not run.
const NUTANIX: Tools = Tools {
    programs: &["Nutanix Guest Tools Agent", "Nutanix Guest Agent", "Nutanix Self Service Restore Gateway"],
    filters: &[],
    devices: &[],
    products: &[],
    silent: None,
};

const PARALLELS: Tools = Tools {
    programs: &[
        "Parallels Tools Service",
        "Parallels Coherence Service",
        "prl_boot",
        "prl_fs",
        "prl_memdev",
        "prl_pv32",
        "prl_pv64",
        "prl_tg",
        "prl_time",
        "prl_uprof",
    ],
    filters: &["prl_strg", "prl_mouf"],
    devices: &["prl_scsi", "prl_eth5", "prl_dd", "prl_sound", "prl_va"],
    products: &["Parallels Tools"],
    silent: None,
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::saved::REMOVABLE_FILTERS;

    #[test]
    fn each_service_has_one_fate_and_saved_plans_know_every_filter() {
        let mut seen = BTreeSet::new();
        let mut filters = BTreeSet::new();
        for hypervisor in Hypervisor::ALL {
            let Tools { programs, filters: own, devices, .. } = hypervisor.tools();
            for name in programs.iter().chain(*own).chain(*devices) {
                assert!(seen.insert(name.to_ascii_lowercase()), "{name}");
            }
            filters.extend(own.iter().map(|name| name.to_ascii_lowercase()));
        }
        assert!(filters.into_iter().eq(REMOVABLE_FILTERS.map(str::to_owned)));
        assert!(
            ["viostor", "vioscsi", "netkvm", "vmbus", "storvsc", "lsi_sas"].iter().all(|name| !seen.contains(*name))
        );
    }
}
