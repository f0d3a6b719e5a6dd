//! Where the boot volume is, and the places on it that winject knows.

use serde::{Deserialize, Serialize};

use crate::drivers::Arch;

/// The boot manager of Windows on an EFI system partition.
pub const BOOT_MANAGER: &str = "/EFI/Microsoft/Boot/bootmgfw.efi";

/// Largest boot manager that is copied, in bytes; real ones have 1 to 3 MB.
pub const BOOT_MANAGER_BYTES_MAX: u64 = 64 << 20;

/// Where the boot configuration lies: on an EFI system partition, and on the active partition of an MBR.
pub const STORES: [&str; 2] = ["/EFI/Microsoft/Boot/BCD", "/Boot/BCD"];

/// The file that UEFI firmware starts from a disk for which its NVRAM has no entry (UEFI specification, 3.5.1.1).
#[must_use]
pub fn fallback_loader(arch: Arch) -> &'static str {
    match arch {
        Arch::X86 => "/EFI/Boot/bootia32.efi",
        Arch::Arm64 => "/EFI/Boot/bootaa64.efi",
        Arch::Amd64 => "/EFI/Boot/bootx64.efi",
    }
}

/// The partition with the boot manager and the boot configuration, on the disk of Windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BootPlace {
    /// Its number, as Linux counts.
    pub partition: u32,
    /// Offset of its first byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Path of the boot configuration on it: one of [`STORES`].
    pub store: String,
}
