//! A libvirt domain, as `formatdomain` of libvirt's documentation describes it.

use std::fmt::Write as _;

use super::model::{MEMORY_MIB, Machine, PROCESSORS};
use crate::drivers::Arch;
use crate::escape::xml;

/// The ids of libosinfo's database.
fn osinfo_url(id: &str) -> Option<String> {
    let version = id.strip_prefix("win")?;
    let version = match version {
        "xp" => "xp",
        "vista" => "vista",
        "nt" => return None,
        other => other,
    };
    Some(format!("http://microsoft.com/win/{version}"))
}

/// Name of a disk's target: `vda`, `sdb`, and `vdaa` after `vdz`.
fn target(prefix: &str, index: usize) -> String {
    let letter = |index: usize| char::from(b'a' + u8::try_from(index % 26).unwrap_or_default());
    match (index / 26).checked_sub(1) {
        None => format!("{prefix}{}", letter(index)),
        Some(first) => format!("{prefix}{}{}", letter(first), letter(index)),
    }
}

/// The domain.
pub(super) fn domain(machine: &Machine) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_domain(&mut out, machine);
    out
}

fn write_domain(out: &mut String, machine: &Machine) -> std::fmt::Result {
    let hardware = &machine.hardware;
    let notes: Vec<String> = machine.notes.iter().map(|note| xml(note)).collect();
    writeln!(out, "<domain type='kvm'>\n  <name>{}</name>", xml(&machine.name))?;
    writeln!(out, "  <title>{}</title>\n  <description>{}</description>", xml(&machine.title), notes.join("; "))?;
    if let Some(url) = osinfo_url(&machine.osinfo) {
        writeln!(
            out,
            "  <metadata>\n    <libosinfo:libosinfo xmlns:libosinfo=\"http://libosinfo.org/xmlns/libvirt/domain/1.0\">\n      \
             <libosinfo:os id=\"{url}\"/>\n    </libosinfo:libosinfo>\n  </metadata>"
        )?;
    }
    writeln!(out, "  <memory unit='MiB'>{MEMORY_MIB}</memory>\n  <vcpu>{PROCESSORS}</vcpu>")?;
    let (arch, board) = match machine.arch {
        Arch::Arm64 => ("aarch64", "virt"),
        Arch::Amd64 | Arch::X86 => ("x86_64", hardware.machine),
    };
    let secure = if hardware.secure_boot { "yes" } else { "no" };
    if machine.is_uefi() {
        writeln!(
            out,
            "  <os firmware='efi'>\n    <type arch='{arch}' machine='{board}'>hvm</type>\n    <firmware>\n      \
             <feature enabled='{secure}' name='enrolled-keys'/>\n      <feature enabled='{secure}' name='secure-boot'/>\n    \
             </firmware>\n  </os>"
        )?;
    } else {
        writeln!(out, "  <os>\n    <type arch='{arch}' machine='{board}'>hvm</type>\n  </os>")?;
    }
    write_features(out, machine)?;
    writeln!(out, "  <cpu mode='{}'/>", if machine.arch == Arch::Arm64 { "host-passthrough" } else { "host-model" })?;
    writeln!(out, "  <clock offset='{}'>", hardware.clock)?;
    if machine.arch != Arch::Arm64 {
        out.push_str(
            "    <timer name='rtc' tickpolicy='catchup'/>\n    <timer name='pit' tickpolicy='delay'/>\n    \
             <timer name='hpet' present='no'/>\n",
        );
    }
    if machine.knows_hyperv() {
        out.push_str("    <timer name='hypervclock' present='yes'/>\n");
    }
    out.push_str("  </clock>\n  <devices>\n");
    write_disks(out, machine)?;
    for nic in &machine.nics {
        out.push_str("    <interface type='network'>\n");
        if let Some(mac) = &nic.mac {
            writeln!(out, "      <mac address='{}'/>", xml(&mac.to_lowercase()))?;
        }
        let model = hardware.net_model;
        writeln!(out, "      <source network='default'/>\n      <model type='{model}'/>\n    </interface>")?;
    }
    write_devices(out, machine)?;
    out.push_str("  </devices>\n</domain>\n");
    Ok(())
}

fn write_features(out: &mut String, machine: &Machine) -> std::fmt::Result {
    out.push_str("  <features>\n    <acpi/>\n");
    if machine.arch != Arch::Arm64 {
        out.push_str("    <apic/>\n");
    }
    if machine.knows_hyperv() {
        out.push_str(
            "    <hyperv mode='custom'>\n      <relaxed state='on'/>\n      <vapic state='on'/>\n      \
             <spinlocks state='on' retries='8191'/>\n    </hyperv>\n",
        );
    }
    if machine.hardware.secure_boot && machine.arch != Arch::Arm64 {
        out.push_str("    <smm state='on'/>\n");
    }
    out.push_str("  </features>\n");
    Ok(())
}

fn write_disks(out: &mut String, machine: &Machine) -> std::fmt::Result {
    let (prefix, bus) = match machine.hardware.bus {
        "virtio-blk" => ("vd", "virtio"),
        "virtio-scsi" => ("sd", "scsi"),
        "ide" => ("hd", "ide"),
        _ => ("sd", "sata"),
    };
    if bus == "scsi" {
        out.push_str("    <controller type='scsi' index='0' model='virtio-scsi'/>\n");
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        writeln!(out, "    <disk type='file' device='disk'>\n      <driver name='qemu' type='{}'/>", disk.format)?;
        writeln!(out, "      <source file='{}'/>", xml(&disk.path))?;
        if let Some(size) = machine.block_size() {
            writeln!(out, "      <blockio logical_block_size='{size}' physical_block_size='{size}'/>")?;
        }
        let target = target(prefix, index);
        writeln!(
            out,
            "      <target dev='{target}' bus='{bus}'/>\n      <boot order='{}'/>\n    </disk>",
            disk.boot_order
        )?;
    }
    Ok(())
}

fn write_devices(out: &mut String, machine: &Machine) -> std::fmt::Result {
    if machine.has("virtio-serial") {
        out.push_str(
            "    <channel type='unix'>\n      <target type='virtio' name='org.qemu.guest_agent.0'/>\n    </channel>\n",
        );
    }
    out.push_str("    <input type='tablet' bus='usb'/>\n");
    if machine.has("virtio-input") || machine.arch == Arch::Arm64 {
        let bus = if machine.has("virtio-input") { "virtio" } else { "usb" };
        writeln!(out, "    <input type='keyboard' bus='{bus}'/>")?;
    }
    if machine.hardware.tpm {
        let model = if machine.arch == Arch::Arm64 { "tpm-tis" } else { "tpm-crb" };
        writeln!(out, "    <tpm model='{model}'>\n      <backend type='emulator' version='2.0'/>\n    </tpm>")?;
    }
    let video = match machine.arch {
        _ if machine.has("virtio-gpu") => "virtio",
        Arch::Arm64 => "ramfb",
        _ if machine.has("qxl") => "qxl",
        _ => "vga",
    };
    writeln!(
        out,
        "    <graphics type='vnc' autoport='yes'/>\n    <video>\n      <model type='{video}'/>\n    </video>"
    )?;
    let balloon = if machine.has("virtio-balloon") { "virtio" } else { "none" };
    writeln!(out, "    <memballoon model='{balloon}'/>")?;
    if machine.has("virtio-rng") {
        out.push_str("    <rng model='virtio'>\n      <backend model='random'>/dev/urandom</backend>\n    </rng>\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_go_on_after_z() {
        assert_eq!([0, 25, 26, 63].map(|index| target("vd", index)), ["vda", "vdz", "vdaa", "vdbl"]);
    }
}
