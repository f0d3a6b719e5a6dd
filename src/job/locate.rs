//! Which partition holds the Windows to work on: found by content, never by size or type.

use crate::error::{Error, Kind, Layer, Result};
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{Content, Disk, Partition, PartitionTable, PartitionView};
use crate::windows::{self, Guest, Hives, Inspected};
use std::fmt;

/// A Windows installation and where it is.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Its partition.
    pub partition: Partition,
    /// What inspection found.
    pub guest: Guest,
}

/// What was found on a disk.
#[derive(Default)]
pub struct Installations {
    /// Windows installations, by partition number.
    pub found: Vec<Installation>,
    /// NTFS volumes that could not be looked into, and refused kinds of volumes.
    pub faults: Vec<(Partition, Error)>,
    /// NTFS volumes that hold no Windows.
    pub others: Vec<Partition>,
    /// What was read of the hives of the only installation; empty when there are several.
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
                    // One installation is worked on; nobody asks for the hives of the second.
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
        return chosen(disk, table.partition(number)?);
    }
    let mut installations = search(disk, table);
    match (installations.found.pop(), installations.found.is_empty()) {
        (Some(installation), true) => Ok((installation, installations.hives)),
        (Some(last), false) => {
            installations.found.push(last);
            Err(several(&installations.found))
        }
        (None, _) => Err(none(installations)),
    }
}

fn chosen<D: Disk>(disk: &D, partition: &Partition) -> Result<(Installation, Hives)> {
    if let Some(refusal) = partition.refusal() {
        return Err(refusal);
    }
    if partition.content != Content::Ntfs {
        return Err(Error::unsupported(Layer::Partition, "the partition holds no NTFS volume")
            .path(partition.label())
            .at(partition.start)
            .expected_found("NTFS", partition.content)
            .hint("choose another partition, or none: the Windows partition is found by itself"));
    }
    match inspect_partition(disk, partition)? {
        Some(Inspected { guest, hives }) => Ok((Installation { partition: partition.clone(), guest }, hives)),
        None => Err(Error::new(Kind::NotWindows, Layer::Job, "there is no Windows in this partition")
            .path(partition.label())
            .hint("choose another partition, or none: the Windows partition is found by itself")),
    }
}

fn several(found: &[Installation]) -> Error {
    let list: Vec<String> =
        found.iter().map(|one| format!("--partition {}: {}", one.partition.number, one.guest)).collect();
    Error::refused(Layer::Job, format!("the disk holds {} Windows installations", found.len()))
        .hint(format!("choose one:\n  {}", list.join("\n  ")))
}

/// Why there is none: what hides a Windows counts more than volumes that simply have none.
fn none(installations: Installations) -> Error {
    let Installations { mut faults, others, .. } = installations;
    let place = |wanted: &dyn Fn(Kind) -> bool| faults.iter().position(|(_, error)| wanted(error.kind()));
    let first = place(&|kind| kind == Kind::Refused).or_else(|| place(&|_| true));
    match first {
        Some(at) => faults.swap_remove(at).1,
        None if others.is_empty() => {
            let error = Error::new(Kind::NotWindows, Layer::Job, "the disk holds no NTFS volume, and so no Windows");
            error.hint("is this the disk that the guest starts from?")
        }
        None => {
            let list: Vec<String> = others.iter().map(Partition::label).collect();
            Error::new(Kind::NotWindows, Layer::Job, "there is no Windows on this disk")
                .expected_found("\\Windows\\System32\\config\\SYSTEM", format_args!("none in {}", list.join(", ")))
                .hint("is this the disk that the guest starts from?")
        }
    }
}
