//! What a disk's partition table says.

use std::fmt;

use serde::Serialize;

use super::content::Content;
use crate::error::{Error, Kind, Layer, Result};
use crate::units::ImageOffset;

/// How the disk is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Scheme {
    /// GUID partition table, with a protective or hybrid MBR or none.
    Gpt,
    /// Master boot record, with its chain of logical partitions.
    Mbr,
    /// No table: the volume begins at the first sector.
    Bare,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
            Self::Bare => "no partition table",
        })
    }
}

/// What the table says that a partition is for, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartitionKind {
    /// Anything that may hold a file system.
    Data,
    /// EFI system partition, from which UEFI starts.
    EfiSystem,
    /// Microsoft reserved partition: holds nothing.
    MicrosoftReserved,
    /// Windows recovery environment; its files are not the system's.
    Recovery,
    /// Part of a dynamic disk (Logical Disk Manager).
    Dynamic,
    /// Part of a storage pool.
    StorageSpaces,
}

/// A partition of the table, or the whole disk where there is no table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// As Linux counts, from 1; 0 is a volume without a table.
    pub number: u32,
    /// First byte on the disk.
    #[serde(serialize_with = "offset_as_number")]
    pub start: ImageOffset,
    /// Length in bytes; may reach beyond the end of a truncated image.
    pub length: u64,
    /// What the table says.
    pub kind: PartitionKind,
    /// What is in its first sector.
    pub content: Content,
    /// The name in the table, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The type as the table has it: a GUID, or `0x07`.
    pub type_id: String,
}

fn offset_as_number<S: serde::Serializer>(offset: &ImageOffset, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(offset.0)
}

impl Partition {
    /// Why the Windows in this partition could not be edited, if the partition is of a kind that we refuse by name.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        let refused = |what: &str, hint: &str| Some(Error::refused(Layer::Partition, what).hint(hint));
        let unsupported = |what: &str, hint: &str| Some(Error::unsupported(Layer::Partition, what).hint(hint));
        let error = match (self.kind, self.content) {
            (PartitionKind::Dynamic, _) => refused(
                "this is a dynamic disk (Logical Disk Manager)",
                "convert the guest's system disk to a basic disk and export it again",
            ),
            (PartitionKind::StorageSpaces, _) => refused(
                "this partition belongs to a storage pool (Storage Spaces)",
                "move Windows to an ordinary volume and export it again",
            ),
            (_, Content::BitLocker) => refused(
                "the volume is encrypted with BitLocker",
                "decrypt it in the guest (manage-bde -off C:), wait until it is done, shut down and export again; \
                 suspending is not enough. Keep the recovery key: the new machine will ask for it",
            ),
            (_, Content::Refs) => unsupported("the volume is ReFS, not NTFS", "only NTFS volumes can be edited"),
            (_, Content::ExFat) => unsupported("the volume is exFAT, not NTFS", "only NTFS volumes can be edited"),
            (_, Content::Fat) => unsupported("the volume is FAT, not NTFS", "only NTFS volumes can be edited"),
            _ => None,
        };
        error.map(|error| error.path(self.label()).at(self.start))
    }

    /// How messages call it.
    #[must_use]
    pub fn label(&self) -> String {
        if self.number == 0 { "whole disk".to_string() } else { format!("partition {}", self.number) }
    }
}

/// What a disk's table says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionTable {
    /// Which kind of table.
    pub scheme: Scheme,
    /// Bytes per sector of the disk.
    pub sector: u32,
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
    /// What is odd but does not stop us.
    pub warnings: Vec<String>,
}

impl PartitionTable {
    /// The partition of this number.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the disk has no such partition.
    pub fn partition(&self, number: u32) -> Result<&Partition> {
        self.partitions.iter().find(|partition| partition.number == number).ok_or_else(|| {
            let numbers: Vec<String> = self.partitions.iter().map(|p| p.number.to_string()).collect();
            Error::new(Kind::Usage, Layer::Partition, format!("the disk has no partition {number}"))
                .hint(format!("it has: {}", if numbers.is_empty() { "none".into() } else { numbers.join(", ") }))
        })
    }
}
