//! Which partition holds the Windows to work on: found by content, never by size or type.

use std::fmt;

use crate::error::{Error, Kind, Layer, Result};
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{Content, Disk, Partition, PartitionTable, PartitionView};
use crate::windows::{self, Guest, Hives, Inspected};

/// A Windows installation and its partition.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The partition that it is in.
    pub partition: Partition,
    /// Product, build, folders, control sets and state, as read from its hives.
    pub guest: Guest,
}

/// Result of [`search`].
#[derive(Default)]
pub struct Installations {
    /// Windows installations, by partition number.
    pub found: Vec<Installation>,
    /// NTFS volumes that could not be read, and refused kinds of volumes, each with the reason.
    pub faults: Vec<(Partition, Error)>,
    /// NTFS volumes without Windows.
    pub others: Vec<Partition>,
    /// Hives of the only installation, as far as they were read; empty when there are several.
    pub hives: Hives,
}

impl fmt::Debug for Installations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Installations");
        out.field("found", &self.found).field("faults", &self.faults).field("others", &self.others);
        out.finish_non_exhaustive()
    }
}

/// Looks for Windows in every NTFS volume. Reads only, so that the state of a volume is no obstacle.
pub fn search<D: Disk>(disk: &D, table: &PartitionTable) -> Installations {
    let mut out = Installations::default();
    for partition in &table.partitions {
        // Every disk with UEFI has a FAT volume; it hides nothing.
        if let Some(refusal) = partition.refusal().filter(|_| partition.content != Content::Fat) {
            out.faults.push((partition.clone(), refusal));
        } else if let (Content::Unknown, Err(error)) = (partition.content, PartitionView::new(disk, partition)) {
            out.faults.push((partition.clone(), error));
        } else if partition.content == Content::Ntfs {
            match inspect_partition(disk, partition) {
                Ok(Some(Inspected { guest, hives })) => {
                    out.found.push(Installation { partition: partition.clone(), guest });
                    // Several installations are an error, which needs no hives.
                    out.hives = if out.found.len() == 1 { hives } else { Hives::new() };
                }
                Ok(None) => out.others.push(partition.clone()),
                Err(error) => out.faults.push((partition.clone(), error)),
            }
        }
    }
    out
}

/// The Windows in one partition.
///
/// # Errors
/// When the volume is damaged or unsupported, or the Windows in it is.
pub fn inspect_partition<D: Disk>(disk: &D, partition: &Partition) -> Result<Option<Inspected>> {
    let view = PartitionView::new(disk, partition)?;
    let volume = Volume::open(view, &OpenOptions::read_only()).map_err(|error| in_partition(error, partition))?;
    windows::inspect(&volume).map_err(|error| in_partition(error, partition))
}

fn in_partition(error: Error, partition: &Partition) -> Error {
    // A path in the guest says more; it wins where there is one.
    error.path(partition.label())
}

/// The one Windows to work on, and its hives as far as they were read: in the partition of the given number, or the only
/// one there is.
///
/// # Errors
/// [`Kind::Refused`] when there are several and none was chosen, or when the volume is encrypted, part of a dynamic disk
/// or of a storage pool; [`Kind::NotWindows`] when there is none; and what the volume says.
pub fn locate<D: Disk>(disk: &D, table: &PartitionTable, number: Option<u32>) -> Result<(Installation, Hives)> {
    if let Some(number) = number {
        return locate_in(disk, table.partition(number)?);
    }
    let mut installations = search(disk, table);
    match (installations.found.pop(), installations.found.is_empty()) {
        (Some(installation), true) => Ok((installation, installations.hives)),
        (Some(last), false) => {
            installations.found.push(last);
            Err(several(&installations.found))
        }
        (None, _) => Err(not_found(installations)),
    }
}

fn locate_in<D: Disk>(disk: &D, partition: &Partition) -> Result<(Installation, Hives)> {
    if let Some(refusal) = partition.refusal() {
        return Err(refusal);
    }
    if partition.content != Content::Ntfs {
        return Err(Error::unsupported(Layer::Partition, "not an NTFS volume")
            .path(partition.label())
            .at(partition.start)
            .expected_found("NTFS", partition.content)
            .hint("choose another partition, or leave out --partition: Windows is then searched for"));
    }
    match inspect_partition(disk, partition)? {
        Some(Inspected { guest, hives }) => Ok((Installation { partition: partition.clone(), guest }, hives)),
        None => Err(Error::new(Kind::NotWindows, Layer::Job, "no Windows found in this partition")
            .path(partition.label())
            .hint("choose another partition, or leave out --partition: Windows is then searched for")),
    }
}

fn several(found: &[Installation]) -> Error {
    let list: Vec<String> =
        found.iter().map(|found| format!("--partition {}: {}", found.partition.number, found.guest)).collect();
    Error::refused(Layer::Job, format!("the disk holds {} Windows installations", found.len()))
        .hint(format!("choose one:\n  {}", list.join("\n  ")))
}

/// Why no Windows was found: a volume that may hide one counts more than volumes without one.
fn not_found(installations: Installations) -> Error {
    let Installations { mut faults, others, .. } = installations;
    let refused = faults.iter().position(|(_, error)| error.kind() == Kind::Refused);
    let first = refused.or((!faults.is_empty()).then_some(0));
    match first {
        Some(index) => faults.swap_remove(index).1,
        None if others.is_empty() => {
            let error = Error::new(Kind::NotWindows, Layer::Job, "no Windows found: the disk has no NTFS volume");
            error.hint("is this the disk that the guest starts from?")
        }
        None => {
            let list: Vec<String> = others.iter().map(Partition::label).collect();
            Error::new(Kind::NotWindows, Layer::Job, "no Windows found on this disk")
                .expected_found("\\Windows\\System32\\config\\SYSTEM", format_args!("none in {}", list.join(", ")))
                .hint("is this the disk that the guest starts from?")
        }
    }
}
