//! From the firmware to the boot loader: partition, boot code, boot manager, BCD, loader.

mod bcd;
mod bios;
mod boot_store;
mod disk;
mod links;
mod program;
mod uefi;
mod walk;

pub use disk::{BootDisks, VmDisk};
pub(super) use walk::{BootChain, walk};

#[cfg(test)]
mod tests;
