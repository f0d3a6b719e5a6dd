//! A read-only FAT reader: the EFI system partition, and system partitions of old machines.
//!
//! FAT12, FAT16 and FAT32 with long names, after Microsoft's "FAT: General Overview of On-Disk Format" 1.03. Every
//! number comes from an image that may be hostile: chains and folders have bounds, and nothing is read outside the
//! volume.

mod boot_sector;
mod entry;
mod error;
mod volume;

pub(crate) use boot_sector::BootSector;
pub use volume::FatVolume;
