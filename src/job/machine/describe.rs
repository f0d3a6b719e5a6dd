//! The description of a machine, for each of the tools.

use super::model::{Machine, MachineKind};
use super::{kubevirt, libvirt, proxmox, qemu};

impl Machine {
    /// The description, with a final line break.
    #[must_use]
    pub fn describe(&self, kind: MachineKind) -> String {
        match kind {
            MachineKind::Libvirt => libvirt::domain(self),
            MachineKind::Qemu => qemu::command(self),
            MachineKind::KubeVirt => kubevirt::manifest(self),
            MachineKind::Proxmox => proxmox::commands(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{MachineDisk, Nic};
    use super::*;
    use crate::block::Format;
    use crate::drivers::Arch;
    use crate::job::report::Recommendation;

    /// A machine of everything, with text that has to be escaped.
    fn machine(bus: &'static str, path: &str) -> Machine {
        Machine {
            name: "win-11".to_owned(),
            title: "Windows <11> & 'more' \u{202e}x\ny".to_owned(),
            osinfo: "win11".to_owned(),
            arch: Arch::Amd64,
            major: 10,
            hardware: Recommendation {
                bus,
                buses: vec![bus],
                net_model: "virtio",
                machine: "q35",
                firmware: "uefi",
                secure_boot: true,
                tpm: true,
                clock: "localtime",
                extra_devices: vec!["virtio-rng", "virtio-balloon", "virtio-serial", "virtio-gpu", "virtio-input"],
                logical_block_size: Some(4096),
                mac_addresses: Vec::new(),
                notes: Vec::new(),
            },
            disks: vec![
                MachineDisk { path: path.to_owned(), format: Format::Qcow2, boot_order: 1 },
                MachineDisk { path: "/vm/b.raw".to_owned(), format: Format::Raw, boot_order: 2 },
            ],
            nics: vec![Nic { mac: Some("52:54:00:12:34:56".to_owned()) }],
            notes: vec!["a note -- with\nlines & <tags>".to_owned()],
        }
    }

    #[test]
    fn no_text_of_others_begins_a_line_or_a_tag() {
        for kind in MachineKind::ALL {
            for bus in ["virtio-blk", "virtio-scsi", "sata", "ide"] {
                let text = machine(bus, "/vm/it's <a> & \"b\", $(c) `d`.qcow2").describe(kind);
                assert!(text.ends_with('\n') && !text.contains('\u{202e}') && !text.contains("\ny"), "{text}");
                assert!(!text.contains("\nlines"), "{text}");
                // Emulated controllers know blocks of 512 bytes only.
                assert_eq!(text.contains("logical"), bus.starts_with("virtio-"), "{bus}: {text}");
                assert!(text.to_lowercase().contains("tpm") && text.contains("52:54:00:12:34:56"), "{text}");
                assert!(kind != MachineKind::Libvirt || text.contains("&lt;11&gt; &amp; &#39;more&#39;"), "{text}");
            }
        }
    }
}
