//! From the firmware to the boot loader: partition, boot code, boot manager, BCD, loader.

mod bcd;
mod bios;
mod boot_store;
mod disk;
mod links;
mod program;
mod uefi;
mod walk;

pub(crate) use bcd::{NO_GRAPHICS, TEST_SIGNING, default_loader, element_key};
pub(crate) use boot_store::BCD_BYTES_MAX as BOOT_STORE_BYTES_MAX;
pub use disk::{BootDisks, VmDisk};
pub(super) use walk::{BootChain, walk};

#[cfg(test)]
mod tests;
