//! A `VirtualMachine` of KubeVirt (kubevirt.io/v1).

use std::fmt::Write as _;

use super::model::{MEMORY_MIB, Machine, PROCESSORS};
use super::qemu::word;
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
        writeln!(out, "#   virtctl image-upload pvc {name}-disk{index} --size=SIZE --image-path={}", word(&disk.path))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::machine::model::MachineDisk;
    use crate::job::report::Recommendation;

    #[test]
    fn no_string_of_a_guest_breaks_the_manifest() {
        for code in
            (0..0xa0).chain([0x202e, 0x2028, 0xfdd0, 0xfeff, 0xfffd, 0xfffe, 0xffff, 0x1_f600, 0x1_fffe, 0x10_ffff])
        {
            let text = format!("a{}b", char::from_u32(code).unwrap());
            let machine = Machine {
                name: "win".to_owned(),
                title: text.clone(),
                osinfo: "win10".to_owned(),
                arch: Arch::Amd64,
                major: 10,
                hardware: Recommendation { bus: "virtio-blk", net_model: "virtio", ..Recommendation::default() },
                disks: vec![MachineDisk { path: text.clone(), format: crate::block::Format::Raw, boot_order: 1 }],
                nics: Vec::new(),
                notes: vec![text.clone()],
            };
            let manifest = manifest(&machine);
            let found: serde_json::Value =
                serde_saphyr::from_str(&manifest).unwrap_or_else(|error| panic!("{code:x}: {error}: {manifest}"));
            assert_eq!(found["metadata"]["annotations"]["description"], *escape(&text), "{code:x}");
            // Not all parsers are as strict as the specification (YAML 1.2, section 5.1).
            let is_forbidden = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{fffe}' | '\u{ffff}');
            assert!(!manifest.contains(is_forbidden), "{code:x}: {manifest}");
        }
    }
}
