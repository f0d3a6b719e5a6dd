//! A `VirtualMachine` of KubeVirt (kubevirt.io/v1).

use std::fmt::Write as _;

use super::model::{MEMORY_MIB, Machine, PROCESSORS};
use crate::drivers::Arch;
use crate::escape::{escape, json};

/// A string of YAML: every JSON string is one.
fn string(text: &str) -> String {
    json(serde_json::Value::from(text).to_string())
}

/// The manifest.
pub(super) fn manifest(machine: &Machine) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_manifest(&mut out, machine);
    out
}

fn write_manifest(out: &mut String, machine: &Machine) -> std::fmt::Result {
    let (name, hardware) = (&machine.name, &machine.hardware);
    for note in &machine.notes {
        writeln!(out, "# {}", escape(note))?;
    }
    out.push_str("# Each disk is a claim; upload its file first, with a size that holds the whole disk:\n");
    for (index, disk) in machine.disks.iter().enumerate() {
        writeln!(
            out,
            "#   virtctl image-upload pvc {name}-disk{index} --size=SIZE --image-path={}",
            escape(&disk.path)
        )?;
    }
    if machine.is_local_time() {
        out.push_str("# The guest's hardware clock runs in local time: put its zone in place of utc, as timezone: Europe/Berlin.\n");
    }
    let is_arm = machine.arch == Arch::Arm64;
    writeln!(
        out,
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata:\n  name: {}\n  annotations:\n    description: {}\n\
         spec:\n  runStrategy: Halted\n  template:\n    metadata:\n      labels:\n        kubevirt.io/domain: {}\n    spec:",
        string(name),
        string(&escape(&machine.title)),
        string(name)
    )?;
    writeln!(out, "      architecture: {}\n      domain:", if is_arm { "arm64" } else { "amd64" })?;
    writeln!(out, "        cpu:\n          cores: {PROCESSORS}\n        memory:\n          guest: {MEMORY_MIB}Mi")?;
    // KubeVirt's default list of machines has no pc.
    writeln!(out, "        machine:\n          type: {}", if is_arm { "virt" } else { "q35" })?;
    out.push_str("        firmware:\n          bootloader:\n");
    if machine.is_uefi() {
        writeln!(
            out,
            "            efi:\n              secureBoot: {}\n              persistent: true",
            hardware.secure_boot
        )?;
    } else {
        out.push_str("            bios: {}\n");
    }
    out.push_str("        clock:\n          utc: {}\n");
    if !is_arm {
        out.push_str(
            "          timer:\n            hpet:\n              present: false\n            pit:\n              \
             tickPolicy: delay\n            rtc:\n              tickPolicy: catchup\n",
        );
        if machine.knows_hyperv() {
            out.push_str("            hyperv: {}\n");
        }
    }
    out.push_str("        features:\n          acpi: {}\n");
    if !is_arm {
        out.push_str("          apic: {}\n");
    }
    if machine.knows_hyperv() {
        out.push_str(
            "          hyperv:\n            relaxed: {}\n            vapic: {}\n            spinlocks:\n              \
             spinlocks: 8191\n",
        );
    }
    if hardware.secure_boot && !is_arm {
        out.push_str("          smm:\n            enabled: true\n");
    }
    write_devices(out, machine)?;
    out.push_str("      networks:\n");
    for index in 0..machine.nics.len() {
        match index {
            0 => out.push_str("        - name: net0\n          pod: {}\n"),
            // A pod has one network of its own; others are attachments that the cluster defines.
            _ => writeln!(out, "        - name: net{index}\n          multus:\n            networkName: net{index}")?,
        }
    }
    out.push_str("      volumes:\n");
    for index in 0..machine.disks.len() {
        writeln!(
            out,
            "        - name: disk{index}\n          persistentVolumeClaim:\n            claimName: {}",
            string(&format!("{name}-disk{index}"))
        )?;
    }
    Ok(())
}

fn write_devices(out: &mut String, machine: &Machine) -> std::fmt::Result {
    let hardware = &machine.hardware;
    let bus = match hardware.bus {
        "virtio-blk" => "virtio",
        "virtio-scsi" => "scsi",
        // KubeVirt has no IDE.
        _ => "sata",
    };
    out.push_str("        devices:\n          disks:\n");
    for (index, disk) in machine.disks.iter().enumerate() {
        writeln!(out, "            - name: disk{index}\n              bootOrder: {}", disk.boot_order)?;
        writeln!(out, "              disk:\n                bus: {bus}")?;
        if let Some(size) = machine.block_size() {
            writeln!(
                out,
                "              blockSize:\n                custom:\n                  logical: {size}\n                  \
                 physical: {size}"
            )?;
        }
    }
    out.push_str("          interfaces:\n");
    for (index, nic) in machine.nics.iter().enumerate() {
        let binding = if index == 0 { "masquerade" } else { "bridge" };
        writeln!(
            out,
            "            - name: net{index}\n              model: {}\n              {binding}: {{}}",
            hardware.net_model
        )?;
        if let Some(mac) = &nic.mac {
            writeln!(out, "              macAddress: {}", string(&mac.to_lowercase()))?;
        }
    }
    out.push_str("          inputs:\n            - name: tablet\n              type: tablet\n              bus: usb\n");
    if hardware.tpm {
        out.push_str("          tpm:\n            persistent: true\n");
    }
    if machine.has("virtio-rng") {
        out.push_str("          rng: {}\n");
    }
    if !machine.has("virtio-balloon") {
        out.push_str("          autoattachMemBalloon: false\n");
    }
    Ok(())
}
