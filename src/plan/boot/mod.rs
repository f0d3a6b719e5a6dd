//! Edits of the boot volume: the partition with the boot manager and the boot configuration (BCD). It is the EFI system
//! partition, or the active partition of an MBR, which may be the Windows volume itself.
//!
//! What an edit makes of its files is computed first ([`boot_files`]), so that a plan can be judged without being applied;
//! [`apply_boot`] writes it to the stage after the Windows volume.

mod apply;
mod content;
mod place;

pub use apply::apply_boot;
pub use content::{BootFiles, boot_files, read_boot_volume};
pub use place::{BOOT_MANAGER, BOOT_MANAGER_BYTES_MAX, BootPlace, STORES, fallback_loader};
