//! What the edits of a plan replace in a guest: read for the document when the plan is made, and compared with it when it
//! is applied.

use super::boot_volume::BootVolume;
use super::guest_files::GuestFiles;
use super::inspect::installation::Hives;
use super::registry;
use crate::error::Result;
use crate::hive::Hive;
use crate::plan::GuestHive;
use crate::plan::saved::{FileFact, Sha256Sum};

/// A guest as it is before a plan.
pub(super) struct Replaced<'a> {
    /// Its files.
    pub(super) files: &'a dyn GuestFiles,
    /// The hives that inspection read, and those that were read for the plan.
    pub(super) hives: [&'a Hives; 2],
    /// Its boot volume.
    pub(super) boot: Option<&'a BootVolume>,
}

impl Replaced<'_> {
    /// Size and hash of a file; `None` if it does not exist.
    pub(super) fn file(&self, path: &str) -> Result<Option<FileFact>> {
        let facts = self.files.size(path)?.zip(self.files.sha256(path)?);
        Ok(facts.map(|(size, sha256)| FileFact { size, sha256: Sha256Sum(sha256) }))
    }

    /// Hash of the security descriptor of a file or folder, if it has one.
    pub(super) fn protection(&self, path: &str) -> Result<Option<Sha256Sum>> {
        let descriptor = self.files.protection(path)?.and_then(|found| found.descriptor);
        Ok(descriptor.map(|bytes| Sha256Sum::of(&bytes)))
    }

    /// A hive, if the guest has it.
    pub(super) fn hive(&self, file: GuestHive) -> Option<&Hive> {
        self.hives.iter().find_map(|hives| hives.get(&file))
    }

    /// A key with everything below it as text; empty if it does not exist.
    pub(super) fn subtree(hive: &Hive, file: GuestHive, key: &str) -> Result<String> {
        Ok(registry::subtree_text(hive, file, key)?.unwrap_or_default())
    }
}
