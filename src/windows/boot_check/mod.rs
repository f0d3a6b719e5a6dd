//! Checks whether a guest will boot: follows the boot loader and plug and play through the bytes on disk.
//!
//! A Windows guest reaches a disk on a new controller through three gates. The *binding* gate: plug and play finds a
//! driver for the controller's ids before the system volume is mounted. The *start* gate: the driver's service is
//! started by the boot loader with the right parameters. The *loader* gate: its file is there, for the right CPU, and
//! signed. Every start needs more: firmware, partition, boot code, boot manager, BCD, loader, kernel, Windows' own boot
//! drivers and the filters on them.
//!
//! Nothing here shares code with the registration: hives are read by the independent reader, ids are those that plug and
//! play makes from a controller's registers, not those that an INF lists.

mod binding;
mod boot_chain;
mod check;
mod code;
mod context;
mod controller;
mod controller_driver;
mod gates;
mod report;
mod subject;
mod windows_drivers;

pub(super) use boot_chain::{BOOT_STORE_BYTES_MAX, NO_GRAPHICS, TEST_SIGNING, default_loader, element_key};
pub use boot_chain::{BootDisks, VmDisk};
pub use check::{KnownGuest, boot_check, boot_checks, boot_checks_of, boot_checks_of_plan};
pub use code::Code;
pub use context::CheckOptions;
pub use controller::{Bus, Controller};
pub use report::{BootCheck, Finding, Firmware, Gate, Level, Route};

#[cfg(test)]
mod tests;
