//! What is known about an image file.

use serde::Serialize;

use crate::block::Format;

/// Facts about an image file. Field names are qemu-img's where it has them. Names come from the image: escape them
/// before printing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    /// Path of the file as the caller gave it.
    pub filename: String,
    /// Name of the container's format as qemu-img has it; `ova` for an archive whose disk was not chosen.
    pub format: String,
    /// The disk's size in bytes.
    pub virtual_size: u64,
    /// Bytes that the file takes on the host's disk; left out for an NBD export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_size: Option<u64>,
    /// Unit of allocation in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// Whether the data are encrypted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// Whether the data are compressed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compressed: bool,
    /// Whether the last writer did not close the image.
    pub dirty_flag: bool,
    /// Name of the parent, as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename: Option<String>,
    /// Format of the parent, as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename_format: Option<String>,
    /// Internal snapshots, in the order of their table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotInfo>,
    /// Disks in an OVA, by their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<String>,
    /// What only this format has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format_specific: Option<Specific>,
}

/// A snapshot that is stored in the image itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotInfo {
    /// The number that QEMU gave it.
    pub id: String,
    /// The name that the user gave it.
    pub name: String,
    /// Bytes of saved machine state.
    pub vm_state_size: u64,
    /// When it was taken, seconds since 1970.
    pub date_sec: u32,
    /// Nanoseconds of that time, after the full seconds.
    pub date_nsec: u32,
    /// Seconds that the guest had run.
    pub vm_clock_sec: u64,
    /// Nanoseconds of that time, after the full seconds.
    pub vm_clock_nsec: u64,
}

/// What only one format has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Specific {
    /// The format, by qemu-img's name.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its facts, named as qemu-img names them where it knows them.
    pub data: serde_json::Value,
}

/// An info with the fields that every format has.
pub(super) fn plain(format: Format, virtual_size: u64) -> ImageInfo {
    ImageInfo {
        filename: String::new(),
        format: format.name().to_owned(),
        virtual_size,
        actual_size: None,
        cluster_size: None,
        encrypted: false,
        compressed: false,
        dirty_flag: false,
        backing_filename: None,
        backing_filename_format: None,
        snapshots: Vec::new(),
        disks: Vec::new(),
        format_specific: None,
    }
}
