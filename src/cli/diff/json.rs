//! The differences as JSON, printed as they are found.

use serde::Serialize;

use crate::cli::Ui;
use crate::cli::output::JsonList;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::job::diff::{Change, Compared, Difference, FileDifference, NotCompared, VolumeDifference};

/// The answer while it is being written.
pub(super) struct Json<'u>(JsonList<'u>);

/// The document has no fields before its list: whether the disks are the same, shows at the end.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct Head {}

/// A difference, with what it is one of.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Item<'a> {
    /// A partition.
    Volume(&'a VolumeDifference),
    /// A file.
    File(&'a FileDifference),
    /// A key of the registry.
    Key {
        /// What became of it.
        change: Change,
        /// Its full path.
        key: String,
    },
    /// A value of a key.
    Value {
        /// What became of it.
        change: Change,
        /// The full path of its key.
        key: String,
        /// Empty for the default value.
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        old: Option<&'a RegistryData>,
        #[serde(skip_serializing_if = "Option::is_none")]
        new: Option<&'a RegistryData>,
    },
}

/// What stands after the list.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Summary<'a> {
    /// Whether nothing differs, and nothing was left out.
    same: bool,
    /// Numbers of the partitions whose files were compared.
    partitions: &'a [u32],
    /// Numbers of the partitions whose Windows had its registry compared.
    registries: &'a [u32],
    /// Partitions whose content cannot be compared.
    not_compared: &'a [NotCompared],
    /// Files that could not be read, and were not compared.
    unread_files: u64,
}

impl<'u> Json<'u> {
    pub(super) fn begin(ui: &'u Ui) -> Result<Self> {
        JsonList::begin(ui, "diff", &Head {}, "differences").map(Self)
    }

    pub(super) fn add(&mut self, difference: &Difference<'_>) -> Result<()> {
        self.0.push(&match difference {
            Difference::Volume(volume) => Item::Volume(volume),
            Difference::File(file) => Item::File(file),
            Difference::Key { change, key } => Item::Key { change: *change, key: key.to_string() },
            Difference::Value { key, name, old, new } => {
                let change = match (old, new) {
                    (None, _) => Change::Added,
                    (_, None) => Change::Removed,
                    _ => Change::Changed,
                };
                Item::Value { change, key: key.to_string(), name: name.to_string(), old: *old, new: *new }
            }
        })
    }

    pub(super) fn finish(self, compared: &Compared) -> Result<()> {
        self.0.end_with(&Summary {
            same: compared.is_same() && compared.unread.is_none(),
            partitions: &compared.partitions,
            registries: &compared.registries,
            not_compared: &compared.not_compared,
            unread_files: compared.unread.as_ref().map_or(0, |unread| unread.count),
        })
    }
}
