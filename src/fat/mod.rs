//! FAT: the EFI system partition, and system partitions of old machines.
//!
//! FAT12, FAT16 and FAT32 with long names, after Microsoft's "FAT: General Overview of On-Disk Format" 1.03. Every
//! number comes from an image that may be hostile: chains and folders have bounds, and nothing is read outside the
//! volume.
//!
//! `volume` finds and reads small files, `listing` lists folders and reads files of any size. `editor` writes the little that a system partition needs: a new file in an existing or a new
//! folder, and new content of a file. It edits only a volume on which `survey` found every cluster to belong to one file at
//! most, changes all copies of the table (`table`) alike, and leaves every other entry as it is.

mod boot_sector;
mod chain;
mod editor;
mod entry;
mod error;
mod listing;
mod new_entry;
mod survey;
mod table;
mod volume;

pub(crate) use boot_sector::BootSector;
pub use editor::FatEditor;
pub use listing::{FatEntry, FatFile};
pub use survey::{FatSpace, survey_fat};
pub use volume::FatVolume;
