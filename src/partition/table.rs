//! What a disk's partition table says.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::encryption::Encryption;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::guid::Guid;
use crate::ntfs::{Replay, SharedReplay};
use crate::units::ImageOffset;

/// Kind of a disk's partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
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

/// Type of a partition by the table, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartitionKind {
    /// Any type that may hold a file system.
    Data,
    /// EFI system partition, from which UEFI starts.
    EfiSystem,
    /// Microsoft reserved partition: holds no file system.
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
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Partition {
    /// Number as Linux counts, from 1; 0 is a volume without a partition table.
    pub number: u32,
    /// Offset of its first byte on the disk.
    #[serde(serialize_with = "offset_as_number")]
    #[cfg_attr(feature = "cli", schemars(with = "u64"))]
    pub start: ImageOffset,
    /// Length in bytes; may reach beyond the end of a truncated image.
    pub length: u64,
    /// Type by the partition table.
    pub kind: PartitionKind,
    /// Kind of volume, by the content of its first sector; of an opened BitLocker volume, by that of the plain one.
    pub content: Content,
    /// Name in the table; `None` if it has none (an MBR has no names).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Type as the table has it: a GUID for GPT, a byte such as `0x07` for MBR.
    pub type_id: String,
    /// What is known of it as a BitLocker volume; `None` for other volumes, and until it is tried to open it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitlocker: Option<Encryption>,
    /// Whether the log of its NTFS volume is replayed, and the replay: one for all who open the volume.
    #[serde(skip)]
    pub(crate) replay: SharedReplay,
    /// Unique GUID of a GPT's entry; `None` in other tables.
    #[serde(skip)]
    pub(crate) unique_guid: Option<Guid>,
}

fn offset_as_number<S: serde::Serializer>(offset: &ImageOffset, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(offset.0)
}

impl Partition {
    /// Why the Windows in this partition could not be edited, if the partition is of a kind that we refuse by name.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        let refused =
            |what: &str, code, hint: &str| Some(Error::refused(Layer::Partition, what).with_code(code).hint(hint));
        let not_ntfs = |what: &str, hint: &str| {
            Some(Error::unsupported(Layer::Partition, what).with_code(ErrorCode::NotNtfs).hint(hint))
        };
        let error = match (self.kind, self.content) {
            (PartitionKind::Dynamic, _) => refused(
                "this is a dynamic disk (Logical Disk Manager)",
                ErrorCode::DynamicDisk,
                "convert the guest's system disk to a basic disk and export it again",
            ),
            (PartitionKind::StorageSpaces, _) => refused(
                "this partition belongs to a storage pool (Storage Spaces)",
                ErrorCode::StorageSpaces,
                "move Windows to an ordinary volume and export it again",
            ),
            (_, Content::BitLocker) => match &self.bitlocker {
                Some(encryption) => encryption.refusal(),
                None => refused(
                    "the volume is encrypted with BitLocker",
                    ErrorCode::BitLockerLocked,
                    "winject inspect IMAGE shows which keys open it; suspended in the guest, it needs none \
                     (manage-bde -protectors -disable C: -RebootCount 0)",
                ),
            },
            (_, Content::Refs) => not_ntfs("the volume is ReFS, not NTFS", "only NTFS volumes can be edited"),
            (_, Content::ExFat) => not_ntfs("the volume is exFAT, not NTFS", "only NTFS volumes can be edited"),
            (_, Content::Fat) => not_ntfs("the volume is FAT, not NTFS", "only NTFS volumes can be edited"),
            _ => None,
        };
        error.map(|error| error.path(self.label()).at(self.start))
    }

    /// Why the volume must not be written although it may be readable: the state of its encryption. `None` if it may.
    #[must_use]
    pub fn write_refusal(&self) -> Option<Error> {
        let error = self.bitlocker.as_ref()?.write_refusal()?;
        Some(error.path(self.label()).at(self.start))
    }

    /// Whether the bytes on the disk are encrypted, so that firmware cannot read the volume.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.content == Content::BitLocker || self.bitlocker.is_some()
    }

    /// Its name in messages: `partition 2`.
    #[must_use]
    pub fn label(&self) -> String {
        if self.number == 0 { "whole disk".to_string() } else { format!("partition {}", self.number) }
    }
}

/// The partition table of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct PartitionTable {
    /// Kind of the table.
    pub scheme: Scheme,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector: u32,
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
    /// Oddities that did not keep the table from being read, such as a damaged primary GPT.
    pub warnings: Vec<String>,
    /// Disk GUID of a GPT's header; `None` in other tables.
    #[serde(skip)]
    pub(crate) disk_guid: Option<Guid>,
}

impl PartitionTable {
    /// The table of a disk with nothing on it.
    pub(crate) const fn empty() -> Self {
        Self { scheme: Scheme::Bare, sector: 512, partitions: Vec::new(), warnings: Vec::new(), disk_guid: None }
    }

    /// The table, with this choice for the logs of the disk's NTFS volumes. Each log is replayed once for all who open the
    /// volume through a partition of this table.
    #[must_use]
    pub fn with_replay(mut self, choice: Replay) -> Self {
        self.partitions.iter_mut().for_each(|partition| partition.replay = choice.into());
        self
    }

    /// The partition of this number.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the disk has no such partition.
    pub fn partition(&self, number: u32) -> Result<&Partition> {
        self.partitions.iter().find(|partition| partition.number == number).ok_or_else(|| {
            let numbers: Vec<String> = self.partitions.iter().map(|p| p.number.to_string()).collect();
            Error::new(Kind::Usage, Layer::Partition, format!("the disk has no partition {number}"))
                .with_code(ErrorCode::NoSuchPartition)
                .hint(format!("it has: {}", if numbers.is_empty() { "none".into() } else { numbers.join(", ") }))
        })
    }
}
