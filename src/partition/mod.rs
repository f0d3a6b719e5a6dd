//! Partition tables: MBR and GPT, the volumes they name, and what is refused by name.
//!
//! [`read`] turns the first sectors of a disk into a [`PartitionTable`], and looks at the first sector of every
//! partition, because its *content* decides what it is ([`Content`]): type numbers lie. [`PartitionView`] then makes
//! a volume of one partition.
//!
//! | scheme | what is read |
//! |---|---|
//! | GPT | checksummed primary; the backup when the primary is damaged (with a warning); sectors of 512 and 4096 bytes |
//! | hybrid | a GPT whose MBR names partitions too: the GPT counts |
//! | MBR | four entries and the chain of logical partitions, numbered as Linux does |
//! | bare | a volume without any table |
//!
//! Not read: Apple and BSD tables (named as such), the inner structure of dynamic disks and storage pools (refused).

mod bytes;
mod content;
mod disk;
mod gpt;
mod mbr;
mod view;

pub use crate::guid::Guid;
pub use content::Content;
pub use disk::{Disk, DiskWrite, MemoryDisk};
pub use view::PartitionView;

use crate::error::{Error, Kind, Layer, Result};
use crate::units::ImageOffset;
use serde::Serialize;
use std::fmt;

/// Kind of a disk's partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Scheme {
    /// GUID partition table (UEFI).
    Gpt,
    /// Master boot record (BIOS).
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
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartitionKind {
    /// Any type that may hold a file system.
    Data,
    /// EFI system partition.
    EfiSystem,
    /// Microsoft reserved partition: holds no file system.
    MicrosoftReserved,
    /// Windows recovery environment.
    Recovery,
    /// Part of a dynamic disk (Logical Disk Manager).
    Dynamic,
    /// Part of a storage pool.
    StorageSpaces,
}

/// One partition of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Number as Linux counts, from 1; 0 is a volume without a partition table.
    pub number: u32,
    /// Offset of its first byte on the disk.
    #[serde(serialize_with = "offset_as_number")]
    pub start: ImageOffset,
    /// Length in bytes.
    pub length: u64,
    /// Type by the partition table.
    pub kind: PartitionKind,
    /// Kind of volume, by the content of its first sector.
    pub content: Content,
    /// Name in the table; `None` if it has none (an MBR has no names).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Type as the table has it: a GUID for GPT, a byte such as `0x07` for MBR.
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

    /// Its name in messages: `partition 2`.
    #[must_use]
    pub fn label(&self) -> String {
        if self.number == 0 { "whole disk".to_string() } else { format!("partition {}", self.number) }
    }
}

/// The partition table of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionTable {
    /// Kind of the table.
    pub scheme: Scheme,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector: u32,
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
    /// Oddities that did not keep the table from being read, such as a damaged primary GPT.
    pub warnings: Vec<String>,
}

impl PartitionTable {
    /// The partition of this number.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the table has none.
    pub fn partition(&self, number: u32) -> Result<&Partition> {
        self.partitions.iter().find(|partition| partition.number == number).ok_or_else(|| {
            let numbers: Vec<String> = self.partitions.iter().map(|p| p.number.to_string()).collect();
            Error::new(Kind::Usage, Layer::Partition, format!("the disk has no partition {number}"))
                .hint(format!("it has: {}", if numbers.is_empty() { "none".into() } else { numbers.join(", ") }))
        })
    }
}

/// Reads the partition table, and the first sector of each partition.
///
/// ```no_run
/// # fn main() -> winject::Result<()> {
/// let image = winject::open_image("guest.vmdk".as_ref(), &winject::ImageOptions::default())?;
/// for partition in winject::read_partitions(image.as_ref())?.partitions {
///     println!("{}: {}, {} bytes", partition.number, partition.content, partition.length);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// - [`Kind::Unsupported`]: neither a table nor a known volume: not a disk image.
/// - [`Kind::Damaged`]: both copies of a GPT are damaged.
/// - Any error of reading the disk.
pub fn read<D: Disk + ?Sized>(disk: &D) -> Result<PartitionTable> {
    let mut first = [0u8; 512];
    if disk.len() < first.len() as u64 {
        return Err(not_a_disk("the image is shorter than one sector"));
    }
    disk.read_at(ImageOffset(0), &mut first)?;
    // A volume's boot sector ends with the same signature as an MBR, so its own marks come first.
    let bare = Content::of_sector(&first);
    if bare.is_volume() {
        return Ok(bare_volume(disk, bare));
    }
    let mbr = mbr::Mbr::parse(&first);
    let protective = mbr.as_ref().is_some_and(mbr::Mbr::is_protective);
    let empty = mbr.as_ref().is_none_or(mbr::Mbr::is_empty);
    // As Linux: a GPT counts only behind a protective MBR, because partitioning tools for MBRs leave old GPTs behind.
    // One exception: where the MBR says nothing at all, a sound GPT is better than nothing.
    if protective || empty {
        match gpt::read(disk) {
            Ok(Some(mut table)) => {
                if !protective {
                    table.warnings.push("the disk has a GPT, but no protective MBR in its first sector".to_string());
                }
                if mbr.as_ref().is_some_and(mbr::Mbr::is_hybrid) {
                    table.warnings.push("hybrid MBR: its partitions are left alone, the GPT counts".to_string());
                }
                return finish(disk, table);
            }
            Ok(None) if protective => {
                return Err(Error::damaged(Layer::Partition, "the protective MBR announces a GPT, but there is none")
                    .at(ImageOffset(512))
                    .hint("the image may be truncated: compare its size with the original's"));
            }
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    match mbr {
        Some(mbr) if !empty => finish(disk, mbr::read(disk, &mbr)?),
        Some(_) => Err(not_a_disk("the disk has an empty partition table")),
        None => Err(not_a_disk("there is neither a partition table nor a known volume")),
    }
}

fn not_a_disk(what: &str) -> Error {
    Error::unsupported(Layer::Partition, what)
        .at(ImageOffset(0))
        .hint("is this the image of a Windows disk? A container that was not recognised is read as raw")
}

fn bare_volume<D: Disk + ?Sized>(disk: &D, content: Content) -> PartitionTable {
    let partition = Partition {
        number: 0,
        start: ImageOffset(0),
        length: disk.len(),
        kind: PartitionKind::Data,
        content,
        name: None,
        type_id: "none".to_string(),
    };
    PartitionTable { scheme: Scheme::Bare, sector: 512, partitions: vec![partition], warnings: Vec::new() }
}

/// Looks at the content of every partition, and at what does not fit together.
fn finish<D: Disk + ?Sized>(disk: &D, mut table: PartitionTable) -> Result<PartitionTable> {
    for partition in &mut table.partitions {
        let mut sector = [0u8; 512];
        let inside = partition.start.0.checked_add(512).is_some_and(|end| end <= disk.len());
        if inside && partition.length >= 512 {
            disk.read_at(partition.start, &mut sector)?;
            partition.content = Content::of_sector(&sector);
        }
        let end = partition.start.0.checked_add(partition.length);
        if end.is_none_or(|end| end > disk.len()) {
            table.warnings.push(format!("{} ends beyond the disk: the image may be truncated", partition.label()));
        }
    }
    table.partitions.sort_by_key(|partition| partition.number);
    warn_about_overlaps(&mut table);
    Ok(table)
}

fn warn_about_overlaps(table: &mut PartitionTable) {
    let mut by_start: Vec<&Partition> = table.partitions.iter().collect();
    by_start.sort_by_key(|partition| partition.start);
    let overlaps = by_start.windows(2).filter_map(|pair| match pair {
        [a, b] if a.start.0.saturating_add(a.length) > b.start.0 => {
            Some(format!("{} and {} overlap", a.label(), b.label()))
        }
        _ => None,
    });
    let overlaps: Vec<String> = overlaps.take(8).collect();
    table.warnings.extend(overlaps);
}
