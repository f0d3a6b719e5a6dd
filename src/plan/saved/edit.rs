//! The edits of a saved plan: those of [`Change`](crate::plan::Change), with what they replace.

use serde::{Deserialize, Serialize};

use super::data::Sha256Sum;
use crate::hive::RegistryData;
use crate::plan::change::{Access, GuestHive};

/// An edit and why it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SavedStep {
    /// The reason, in a few words.
    pub reason: String,
    /// What is edited.
    pub edit: SavedEdit,
}

/// A file as it is before the edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FileFact {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Sha256Sum,
}

/// One edit, as [`Change`](crate::plan::Change) has it. Paths are absolute on the Windows volume, with `/`; registry
/// keys are relative to the hive's root, with `\`.
///
/// `before` is what the guest holds when the plan is made. It is shown to the reviewer, so apply has to compare it with
/// the image: that nothing changed since ([`ReadSet`](super::ReadSet)) does not prove that it was told truly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum SavedEdit {
    /// A folder that is not there yet.
    CreateDir {
        /// Its absolute path on the volume.
        path: String,
        /// The permissions that it is created with.
        access: Access,
    },
    /// A file that is new or gets new content.
    WriteFile {
        /// Its absolute path on the volume.
        path: String,
        /// SHA-256 of the new content, which is one of [`PlanDocument::files`](super::PlanDocument::files).
        sha256: Sha256Sum,
        /// Length of the new content in bytes.
        size: u64,
        /// Permissions of a new file; a replaced one keeps its own.
        access: Access,
        /// The file that is replaced.
        before: Option<FileFact>,
    },
    /// A folder or file of ours that is there already with other permissions than ours.
    Protect {
        /// The folder or file.
        path: String,
        /// SHA-256 of its security descriptor; `null` if the volume has none for it.
        before: Option<Sha256Sum>,
    },
    /// A file, or an empty folder, that is removed.
    DeleteFile {
        /// Its absolute path on the volume.
        path: String,
        /// The file that is removed; `null` for a folder.
        before: Option<FileFact>,
    },
    /// A new file on the boot volume that is a copy of another one there.
    CopyBootFile {
        /// Its absolute path on the boot volume.
        path: String,
        /// The file that is copied.
        from: String,
        /// Length in bytes.
        size: u64,
        /// SHA-256 of the content.
        sha256: Sha256Sum,
    },
    /// A key without values of its own.
    CreateKey {
        /// The hive that is edited.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
    },
    /// A value; its key is created when missing.
    SetValue {
        /// The hive that is edited.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
        /// The value's name; empty for the default value.
        name: String,
        /// The new type and data.
        data: RegistryData,
        /// The value that is replaced.
        before: Option<RegistryData>,
    },
    /// A value that is removed.
    DeleteValue {
        /// The hive that is edited.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
        /// Name of the value; empty for the default value.
        name: String,
        /// The value that is removed; `null` if an earlier edit of the plan sets it.
        before: Option<RegistryData>,
    },
    /// A key that is removed, with everything below it.
    DeleteKey {
        /// The hive that is edited.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
        /// The key with everything below it as text of a `.reg` file: the sections, without the first line.
        before: String,
    },
}

impl SavedEdit {
    /// The hive that this edit belongs to; `None` for edits of files.
    #[must_use]
    pub fn hive(&self) -> Option<GuestHive> {
        self.key().map(|(hive, _)| hive)
    }

    /// Whether this edit concerns the boot volume.
    #[must_use]
    pub fn is_of_boot_volume(&self) -> bool {
        matches!(self, Self::CopyBootFile { .. }) || self.hive() == Some(GuestHive::Bcd)
    }

    /// The file or folder that this edit touches; `None` for edits of hives.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::CreateDir { path, .. }
            | Self::WriteFile { path, .. }
            | Self::Protect { path, .. }
            | Self::DeleteFile { path, .. }
            | Self::CopyBootFile { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The registry key that this edit touches, with its hive; `None` for edits of files.
    #[must_use]
    pub fn key(&self) -> Option<(GuestHive, &str)> {
        match self {
            Self::CreateKey { hive, key }
            | Self::SetValue { hive, key, .. }
            | Self::DeleteValue { hive, key, .. }
            | Self::DeleteKey { hive, key, .. } => Some((*hive, key)),
            _ => None,
        }
    }
}
