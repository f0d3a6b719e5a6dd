//! Which partition holds the Windows to work on: found by content, never by size or type.
//!
//! Every job finds it here, so that all of them choose, refuse and report alike.

use crate::clock::FileTime;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{Content, Disk, Partition, PartitionTable, PartitionView};
use crate::windows::{self, Guest, Hives, Inspected};

/// The hint for a disk without Windows.
const OTHER_DISK: &str =
    "is this the disk that Windows is installed on? of a machine with several disks, name all of them";

/// A Windows installation and its partition.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The partition that it is in.
    pub partition: Partition,
    /// Product, build, folders, control sets and state, as read from its hives.
    pub guest: Guest,
}

/// Outcome of a search in all NTFS volumes of a disk.
#[derive(Debug)]
pub struct Search<T> {
    /// Volumes with Windows, in the order of the partition table, each with what was read of it.
    pub found: Vec<T>,
    /// Volumes that could not be read, and those that are refused by their content, each with the reason.
    pub faults: Vec<(Partition, Error)>,
    /// NTFS volumes without Windows.
    pub others: Vec<Partition>,
}

/// Reads every NTFS volume by `probe`, which returns `None` for one without Windows. Reads only, so that the state of a
/// volume is no obstacle.
pub(super) fn search<D: Disk, T>(
    disk: &D,
    table: &PartitionTable,
    mut probe: impl FnMut(&Partition, &Volume<PartitionView<&D>>) -> Result<Option<T>>,
) -> Search<T> {
    let mut out = Search { found: Vec::new(), faults: Vec::new(), others: Vec::new() };
    for partition in &table.partitions {
        // Every disk with UEFI has a FAT volume; it hides nothing.
        if let Some(refusal) = partition.refusal().filter(|_| partition.content != Content::Fat) {
            out.faults.push((partition.clone(), refusal));
        } else if let (Content::Unknown, Err(error)) = (partition.content, PartitionView::new(disk, partition)) {
            out.faults.push((partition.clone(), error));
        } else if partition.content == Content::Ntfs {
            match probe_partition(disk, partition, &mut probe) {
                Ok(Some(found)) => out.found.push(found),
                Ok(None) => out.others.push(partition.clone()),
                Err(error) => out.faults.push((partition.clone(), error)),
            }
        }
    }
    out
}

fn probe_partition<'a, D: Disk, T>(
    disk: &'a D,
    partition: &Partition,
    probe: &mut impl FnMut(&Partition, &Volume<PartitionView<&'a D>>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let view = PartitionView::new(disk, partition)?;
    let found = Volume::open_shared(view, &partition.replay, &OpenOptions::read_only())
        .and_then(|volume| probe(partition, &volume));
    // A path in the guest says more; it wins where there is one.
    found.map_err(|error| error.path(partition.label()))
}

/// Inspects the Windows installations of all NTFS volumes.
pub fn search_installations<D: Disk>(disk: &D, table: &PartitionTable) -> Search<Installation> {
    search(disk, table, |partition, volume| Ok(inspect(partition, volume)?.map(|(installation, _)| installation)))
}

/// Finds the Windows folders of all NTFS volumes, however damaged the hives in them; each with its partition.
pub(super) fn search_folders<D: Disk>(disk: &D, table: &PartitionTable) -> Search<(Partition, Vec<String>)> {
    search(disk, table, |partition, volume| {
        let folders = windows::windows_folders(volume)?;
        Ok((!folders.is_empty()).then(|| (partition.clone(), folders)))
    })
}

/// The Windows of an open volume, and its hives; `None` without a Windows.
pub(super) fn inspect<D: Disk>(
    partition: &Partition,
    volume: &Volume<PartitionView<D>>,
) -> Result<Option<(Installation, Hives)>> {
    let inspected = windows::inspect(volume)?;
    Ok(inspected.map(|Inspected { guest, hives }| (Installation { partition: partition.clone(), guest }, hives)))
}

/// The one Windows to work on, and its hives as far as they were read: in the partition of the given number, or the only
/// one there is.
///
/// # Errors
/// [`Kind::Refused`] when there are several and none was chosen, or when the volume is encrypted, part of a dynamic disk
/// or of a storage pool; [`Kind::NotWindows`] when there is none; and what the volume says.
pub fn locate<D: Disk>(disk: &D, table: &PartitionTable, number: Option<u32>) -> Result<(Installation, Hives)> {
    if let Some(number) = number {
        let partition = ntfs_partition(table, number)?;
        let found = probe_partition(disk, partition, &mut |partition, volume| inspect(partition, volume))?;
        return found.ok_or_else(|| {
            Error::new(Kind::NotWindows, Layer::Job, "no Windows found in this partition")
                .path(partition.label())
                .hint("choose another partition, or leave out --partition: Windows is then searched for")
        });
    }
    // Several installations are an error, which needs no hives: those of one are held in memory at a time.
    let mut only: Option<Hives> = None;
    let mut count = 0;
    let installations = search(disk, table, |partition, volume| {
        let Some((installation, hives)) = inspect(partition, volume)? else { return Ok(None) };
        count += 1;
        only = (count == 1).then_some(hives);
        Ok(Some(installation))
    });
    let installation =
        the_only(installations, |found| format!("--partition {}: {}", found.partition.number, found.guest))?;
    Ok((installation, only.unwrap_or_default()))
}

/// The partition with Windows, however damaged its hives: the one of the given number (Windows or not), or the only one
/// that has a Windows folder.
///
/// # Errors
/// Those of [`locate`], except what concerns the hives.
pub(super) fn locate_partition<D: Disk>(disk: &D, table: &PartitionTable, number: Option<u32>) -> Result<Partition> {
    if let Some(number) = number {
        return ntfs_partition(table, number).cloned();
    }
    let found = search_folders(disk, table);
    let describe = |(partition, folders): &(Partition, Vec<String>)| {
        format!("--partition {}: {}", partition.number, folders.join(", "))
    };
    the_only(found, describe).map(|(partition, _)| partition)
}

/// The NTFS volume of this number.
fn ntfs_partition(table: &PartitionTable, number: u32) -> Result<&Partition> {
    let partition = table.partition(number)?;
    if let Some(refusal) = partition.refusal() {
        return Err(refusal);
    }
    if partition.content != Content::Ntfs {
        return Err(Error::unsupported(Layer::Partition, "not an NTFS volume")
            .with_code(ErrorCode::NotNtfs)
            .path(partition.label())
            .at(partition.start)
            .expected_found("NTFS", partition.content)
            .hint("choose another partition, or leave out --partition: Windows is then searched for"));
    }
    Ok(partition)
}

/// Why the volume would not be edited as it is now; `None` if it would.
pub(super) fn edit_refusal<D: Disk>(disk: D, partition: &Partition) -> Option<Error> {
    partition.write_refusal().or_else(|| {
        let view = PartitionView::new(disk, partition);
        view.and_then(|view| Volume::open_shared(view, &partition.replay, &OpenOptions::new(FileTime(1)))).err()
    })
}

fn the_only<T>(mut search: Search<T>, describe: impl Fn(&T) -> String) -> Result<T> {
    match (search.found.pop(), search.found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            search.found.push(last);
            let list: Vec<String> = search.found.iter().map(describe).collect();
            Err(Error::refused(Layer::Job, format!("the disk holds {} Windows installations", list.len()))
                .with_code(ErrorCode::SeveralWindows)
                .hint(format!("choose one: {}", list.join("; "))))
        }
        (None, _) => Err(no_windows(search)),
    }
}

/// Why no Windows was found: a volume that may hide one counts more than volumes without one.
pub(super) fn no_windows<T>(search: Search<T>) -> Error {
    let Search { faults, others, .. } = search;
    let errors: Vec<Error> = faults.into_iter().map(|(_, error)| error).collect();
    match most_telling(&errors).or(errors.first()) {
        Some(error) => error.clone(),
        None if others.is_empty() => {
            let error = Error::new(Kind::NotWindows, Layer::Job, "no Windows found: the disk has no NTFS volume");
            error.hint(OTHER_DISK)
        }
        None => {
            let list: Vec<String> = others.iter().map(Partition::label).collect();
            Error::new(Kind::NotWindows, Layer::Job, "no Windows found on this disk")
                .expected_found("\\Windows\\System32\\config\\SYSTEM", format_args!("none in {}", list.join(", ")))
                .hint(OTHER_DISK)
        }
    }
}

/// The error to tell of several, if any counts more than the others: refusals come first, because the user can act on them;
/// then damage. Either may hide a Windows.
pub(super) fn most_telling(errors: &[Error]) -> Option<&Error> {
    let of_kind = |kind| errors.iter().find(|error| error.kind() == kind);
    of_kind(Kind::Refused).or_else(|| of_kind(Kind::Damaged))
}

/// Why none of these partitions is an NTFS volume that can be read: one that is refused counts more than one of another kind.
#[must_use]
pub fn no_ntfs_volume(partitions: &[&Partition]) -> Error {
    let hiding = partitions.iter().filter(|partition| partition.content != Content::Fat);
    let errors: Vec<Error> = hiding.filter_map(|partition| partition.refusal()).collect();
    most_telling(&errors).or(errors.first()).cloned().unwrap_or_else(|| {
        Error::unsupported(Layer::Job, "no NTFS volume found")
            .with_code(ErrorCode::NotNtfs)
            .hint("winject inspect IMAGE shows what the image holds")
    })
}
