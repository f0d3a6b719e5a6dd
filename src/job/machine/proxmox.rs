//! Commands of Proxmox VE, as `qm(1)` describes them.

use super::model::{MEMORY_MIB, Machine, PROCESSORS};
use super::qemu::word;
use crate::drivers::Arch;
use crate::escape::escape;

/// Proxmox's name for the guest's release.
fn os_type(osinfo: &str) -> &'static str {
    match osinfo {
        "winxp" => "wxp",
        "win2k3" => "w2k3",
        "winvista" => "wvista",
        "win2k8" => "w2k8",
        "win7" | "win2k8r2" => "win7",
        "win8" | "win8.1" | "win2k12" | "win2k12r2" => "win8",
        "win11" | "win2k22" | "win2k25" => "win11",
        _ => "win10",
    }
}

/// A shell script for a node of Proxmox.
pub(super) fn commands(machine: &Machine) -> String {
    let (hardware, name) = (&machine.hardware, &machine.name);
    let mut out = format!("#!/bin/sh\n# {}\n", escape(&machine.title));
    for note in &machine.notes {
        out.push_str(&format!("# {}\n", escape(note)));
    }
    out.push_str("set -eu\nVMID=${VMID:-100} STORAGE=${STORAGE:-local-lvm} BRIDGE=${BRIDGE:-vmbr0}\n");
    let mut create = vec![
        format!("--name {name} --ostype {}", os_type(&machine.osinfo)),
        format!("--memory {MEMORY_MIB} --cores {PROCESSORS} --cpu host --tablet 1"),
        format!("--localtime {}", u8::from(machine.is_local_time())),
        format!("--balloon {}", if machine.has("virtio-balloon") { MEMORY_MIB } else { 0 }),
        format!("--agent {}", u8::from(machine.has("virtio-serial"))),
    ];
    match machine.arch {
        Arch::Arm64 => create.push("--arch aarch64 --machine virt".to_owned()),
        // Its name for QEMU's pc.
        _ if hardware.machine == "pc" => create.push("--machine pc".to_owned()),
        _ => create.push(format!("--machine {}", hardware.machine)),
    }
    create.push(format!("--bios {}", if machine.is_uefi() { "ovmf" } else { "seabios" }));
    if hardware.bus == "virtio-scsi" {
        create.push("--scsihw virtio-scsi-pci".to_owned());
    }
    if machine.has("virtio-gpu") {
        create.push("--vga virtio".to_owned());
    } else if machine.has("qxl") {
        create.push("--vga qxl".to_owned());
    }
    if machine.has("virtio-rng") {
        create.push("--rng0 source=/dev/urandom".to_owned());
    }
    for (index, nic) in machine.nics.iter().enumerate() {
        let mac = nic.mac.as_ref().map(|mac| format!("={}", word(mac))).unwrap_or_default();
        create.push(format!("--net{index} {}{mac},bridge=\"$BRIDGE\"", hardware.net_model));
    }
    if let Some(size) = machine.block_size() {
        let device = if hardware.bus == "virtio-blk" { "virtio-blk-pci" } else { "scsi-hd" };
        create.push(format!(
            "--args '-global {device}.logical_block_size={size} -global {device}.physical_block_size={size}'"
        ));
    }
    out.push_str("qm create \"$VMID\"");
    for option in create {
        out.push_str(&format!(" \\\n  {option}"));
    }
    out.push('\n');
    if machine.is_uefi() {
        let keys = u8::from(hardware.secure_boot);
        out.push_str(&format!("qm set \"$VMID\" --efidisk0 \"$STORAGE\":1,efitype=4m,pre-enrolled-keys={keys}\n"));
    }
    if hardware.tpm {
        out.push_str("qm set \"$VMID\" --tpmstate0 \"$STORAGE\":1,version=v2.0\n");
    }
    let slot = match hardware.bus {
        "virtio-blk" => "virtio",
        "virtio-scsi" => "scsi",
        "ide" => "ide",
        _ => "sata",
    };
    out.push_str("# The images, at the same paths on this node.\n");
    let mut order: Vec<(usize, usize)> = Vec::new();
    for (index, disk) in machine.disks.iter().enumerate() {
        order.push((disk.boot_order, index));
        out.push_str(&format!(
            "qm disk import \"$VMID\" {} \"$STORAGE\" --target-disk {slot}{index}\n",
            word(&disk.path)
        ));
    }
    order.sort_unstable();
    let order: Vec<String> = order.into_iter().map(|(_, index)| format!("{slot}{index}")).collect();
    out.push_str(&format!("qm set \"$VMID\" --boot 'order={}'\n", order.join(";")));
    out
}
