//! What differs between two disks.

use serde::Serialize;

use crate::error::{Error, Kind};
use crate::hive::reg_file::KeyPath;
use crate::hive::{Name, RegistryData};
use crate::job::look::Details;
use crate::partition::Content;

/// What became of a file or a key from the old disk to the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the new disk has it.
    Added,
    /// Only the old disk has it.
    Removed,
    /// Both have it, and it differs.
    Changed,
}

/// By what a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    /// File, folder or link.
    Kind,
    /// Upper and lower case of its name.
    Name,
    /// Bytes of content.
    Size,
    /// The content.
    Content,
    /// Alternate data streams: their names, or the content of one.
    Streams,
    /// Where a link leads to.
    Target,
    /// Data of a reparse point, other than the target of a link.
    Reparse,
    /// Extended attributes (`$EA`).
    #[serde(rename = "extended_attributes")]
    ExtendedAttributes,
    /// The object id.
    #[serde(rename = "object_id")]
    ObjectId,
    /// DOS attributes.
    Attributes,
    /// Time of the last change of the content.
    Modified,
}

/// A partition that only one of the disks has, or that holds a volume of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct VolumeDifference {
    /// Number of the partition.
    pub partition: u32,
    /// Its content on the old disk; `None` if that disk lacks the partition.
    pub old: Option<Content>,
    /// Its content on the new disk; `None` if that disk lacks the partition.
    pub new: Option<Content>,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct FileDifference {
    /// Number of the partition.
    pub partition: u32,
    /// Its path on the volume, as on the new disk if it is there.
    pub path: String,
    /// What became of it.
    pub change: Change,
    /// By what a changed file differs; empty for others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Aspect>,
    /// The file on the old disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Details>,
    /// The file on the new disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Details>,
}

/// One difference.
#[derive(Debug)]
pub enum Difference<'a> {
    /// A volume; its files are not compared.
    Volume(VolumeDifference),
    /// A file.
    File(FileDifference),
    /// A key that was added, before its values, or removed with everything below it.
    Key {
        /// Added or removed.
        change: Change,
        /// Its full path, such as `HKEY_LOCAL_MACHINE\SYSTEM\Select`.
        key: &'a KeyPath,
    },
    /// A value of a key that both have, or that was added.
    Value {
        /// The full path of its key.
        key: &'a KeyPath,
        /// Its name; empty for the default value.
        name: &'a Name,
        /// Its data before; `None` if it was added.
        old: Option<&'a RegistryData>,
        /// Its data now; `None` if it was removed.
        new: Option<&'a RegistryData>,
    },
}

/// Receives the differences: first the volumes, then the files by partition, then the registry.
pub type See<'s> = dyn FnMut(&Difference<'_>) -> crate::Result<()> + 's;

/// A partition whose content cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct NotCompared {
    /// Number of the partition.
    pub partition: u32,
    /// What both disks hold there.
    pub content: Content,
}

/// Files that cannot be read on one of the disks.
#[derive(Debug, Clone)]
pub struct UnreadFiles {
    /// How many.
    pub count: u64,
    /// Why the first one could not be read, with its path.
    pub first: Error,
}

/// What was compared, and how much differs.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// Numbers of the partitions whose files were compared.
    pub partitions: Vec<u32>,
    /// Numbers of the partitions whose Windows had its registry compared.
    pub registries: Vec<u32>,
    /// Partitions that were not compared.
    pub not_compared: Vec<NotCompared>,
    /// Volumes that differ as a whole.
    pub volumes: u64,
    /// Files and folders that differ.
    pub files: u64,
    /// Keys that were added or removed.
    pub keys: u64,
    /// Values that differ.
    pub values: u64,
    /// Files that could not be read; `None` if there was none.
    pub unread: Option<UnreadFiles>,
    /// What else the user should know.
    pub warnings: Vec<String>,
}

impl Compared {
    /// Whether no difference was found.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.volumes == 0 && self.files == 0 && self.keys == 0 && self.values == 0
    }

    /// Counts a difference.
    pub(super) fn count(&mut self, difference: &Difference<'_>) {
        let counter = match difference {
            Difference::Volume(_) => &mut self.volumes,
            Difference::File(_) => &mut self.files,
            Difference::Key { .. } => &mut self.keys,
            Difference::Value { .. } => &mut self.values,
        };
        *counter = counter.saturating_add(1);
    }

    /// Notes a file that cannot be read.
    ///
    /// # Errors
    /// Passes on an error that is not the file's own: of the host, of the user, of ours.
    pub(super) fn tolerate(&mut self, error: Error) -> crate::Result<()> {
        if matches!(error.kind(), Kind::Io | Kind::Cancelled | Kind::Bug | Kind::Usage) {
            return Err(error);
        }
        let unread = self.unread.get_or_insert(UnreadFiles { count: 0, first: error });
        unread.count = unread.count.saturating_add(1);
        Ok(())
    }
}
