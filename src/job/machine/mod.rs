//! The machine to create for a guest, as a description that a hypervisor's tools take: a libvirt domain, a QEMU command
//! line, a KubeVirt manifest, or Proxmox commands. All are printed from one [`Machine`].

mod describe;
mod kubevirt;
mod libvirt;
mod model;
mod proxmox;
mod qemu;

pub use model::{Machine, MachineDisk, MachineKind, Nic};
