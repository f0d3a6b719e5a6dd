//! A command line of QEMU, as its manual describes it.

use super::model::{MEMORY_MIB, Machine, PROCESSORS};
use crate::drivers::Arch;
use crate::escape::{escape, shell_word};

/// The text as one word of a shell. Paths of a machine can be pasted, see [`Machine::of_report`].
pub(super) fn word(text: &str) -> String {
    shell_word(text).unwrap_or_else(|| "'?'".to_owned())
}

/// A value in a list of QEMU's options: a comma is doubled.
fn value(text: &str) -> String {
    text.replace(',', ",,")
}

/// A shell script with one command.
pub(super) fn command(machine: &Machine) -> String {
    let hardware = &machine.hardware;
    let name = &machine.name;
    let mut out = format!("#!/bin/sh\n# {}\n", escape(&machine.title));
    for note in &machine.notes {
        out.push_str(&format!("# {}\n", escape(note)));
    }
    let is_arm = machine.arch == Arch::Arm64;
    if machine.is_uefi() {
        let package = if is_arm { "AAVMF" } else { "OVMF" };
        out.push_str(&format!(
            "# the firmware's files are those of Debian's package; others have {package} elsewhere\n"
        ));
        out.push_str(&format!("test -e {name}-vars.fd || cp {} {name}-vars.fd || exit\n", variables(machine)));
    }
    if hardware.tpm {
        out.push_str(&format!(
            "mkdir -p {name}-tpm && swtpm socket --tpm2 --daemon --tpmstate dir={name}-tpm \
             --ctrl type=unixio,path={name}-tpm.sock || exit\n"
        ));
    }
    let program = if is_arm { "qemu-system-aarch64" } else { "qemu-system-x86_64" };
    out.push_str(&format!("exec {program}"));
    for argument in arguments(machine) {
        out.push_str(&format!(" \\\n  {argument}"));
    }
    out.push('\n');
    out
}

/// The firmware's program.
fn code(machine: &Machine) -> &'static str {
    match (machine.arch, machine.hardware.secure_boot) {
        (Arch::Arm64, _) => "/usr/share/AAVMF/AAVMF_CODE.fd",
        (_, true) => "/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
        (_, false) => "/usr/share/OVMF/OVMF_CODE_4M.fd",
    }
}

/// The firmware's variables, of which each machine has its own.
fn variables(machine: &Machine) -> &'static str {
    match (machine.arch, machine.hardware.secure_boot) {
        (Arch::Arm64, _) => "/usr/share/AAVMF/AAVMF_VARS.fd",
        (_, true) => "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
        (_, false) => "/usr/share/OVMF/OVMF_VARS_4M.fd",
    }
}

fn arguments(machine: &Machine) -> Vec<String> {
    let hardware = &machine.hardware;
    let name = &machine.name;
    let is_arm = machine.arch == Arch::Arm64;
    let board = if is_arm { "virt" } else { hardware.machine };
    let smm = if hardware.secure_boot && !is_arm { ",smm=on" } else { "" };
    let hyperv = if machine.knows_hyperv() { ",hv_relaxed,hv_spinlocks=0x1fff,hv_vapic,hv_time" } else { "" };
    let mut out = vec![
        format!("-name {name}"),
        format!("-machine {board},accel=kvm{smm}"),
        format!("-cpu host{hyperv} -smp {PROCESSORS} -m {MEMORY_MIB}"),
        format!("-rtc base={}{}", hardware.clock, if is_arm { "" } else { ",driftfix=slew" }),
    ];
    if machine.is_uefi() {
        if !smm.is_empty() {
            out.push("-global driver=cfi.pflash01,property=secure,value=on".to_owned());
        }
        out.push(format!("-drive if=pflash,format=raw,readonly=on,file={}", code(machine)));
        out.push(format!("-drive if=pflash,format=raw,file={name}-vars.fd"));
    }
    match hardware.bus {
        "virtio-scsi" => out.push("-device virtio-scsi-pci,id=scsi0".to_owned()),
        "sata" => out.push("-device ich9-ahci,id=ahci".to_owned()),
        _ => {}
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        let drive = format!("if=none,id=disk{index},format={},file={}", disk.format, value(&disk.path));
        out.push(format!("-drive {}", word(&drive)));
        let device = match hardware.bus {
            "virtio-blk" => "virtio-blk-pci".to_owned(),
            "virtio-scsi" => "scsi-hd,bus=scsi0.0".to_owned(),
            "sata" => format!("ide-hd,bus=ahci.{index}"),
            _ => format!("ide-hd,bus=ide.{},unit={}", index / 2, index % 2),
        };
        let blocks = machine.block_size().map(|size| format!(",logical_block_size={size},physical_block_size={size}"));
        let order = disk.boot_order;
        out.push(format!("-device {device},drive=disk{index},bootindex={order}{}", blocks.unwrap_or_default()));
    }
    let card = if hardware.net_model == "virtio" { "virtio-net-pci" } else { hardware.net_model };
    for (index, nic) in machine.nics.iter().enumerate() {
        let mac = nic.mac.as_ref().map(|mac| format!(",mac={}", value(mac))).unwrap_or_default();
        out.push(format!("-netdev user,id=net{index} -device {}", word(&format!("{card},netdev=net{index}{mac}"))));
    }
    if hardware.tpm {
        let device = if is_arm { "tpm-tis-device" } else { "tpm-crb" };
        out.push(format!("-chardev socket,id=tpm,path={name}-tpm.sock -tpmdev emulator,id=tpm0,chardev=tpm"));
        out.push(format!("-device {device},tpmdev=tpm0"));
    }
    if is_arm {
        out.push("-device qemu-xhci -device usb-kbd -device usb-tablet".to_owned());
    } else {
        out.push("-usb -device usb-tablet".to_owned());
    }
    out.push(video(machine).to_owned());
    for (device, argument) in [
        ("virtio-balloon", "-device virtio-balloon-pci"),
        ("virtio-rng", "-device virtio-rng-pci"),
        ("virtio-input", "-device virtio-keyboard-pci"),
    ] {
        if machine.has(device) {
            out.push(argument.to_owned());
        }
    }
    if machine.has("virtio-serial") {
        out.push(format!(
            "-device virtio-serial-pci -chardev socket,id=agent,path={name}-agent.sock,server=on,wait=off"
        ));
        out.push("-device virtserialport,chardev=agent,name=org.qemu.guest_agent.0".to_owned());
    }
    out
}

fn video(machine: &Machine) -> &'static str {
    match machine.arch {
        Arch::Arm64 if machine.has("virtio-gpu") => "-device virtio-gpu-pci",
        Arch::Arm64 => "-device ramfb",
        _ if machine.has("virtio-gpu") => "-vga virtio",
        _ if machine.has("qxl") => "-vga qxl",
        _ => "-vga std",
    }
}
