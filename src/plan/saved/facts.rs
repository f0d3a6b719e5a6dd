//! What identifies an image, and the state that it is in, as read from the disk.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::data::{Hex64, ReadRange, Sha256Sum};
use super::document::{DiskFacts, HiveFacts, LogFile, PartitionFacts, ReadSet, VolumeFacts};
use super::limits::RANGES_MAX;
use crate::block::{DiskSource, ReadLog};
use crate::error::{Error, Result};
use crate::hive::LOG_ENDINGS;
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::partition::{Disk, Partition, PartitionId, PartitionTable, read_disk_id, read_partition_id};
use crate::plan::change::GuestHive;
use crate::units::ImageOffset;

/// Bytes that are read and hashed at once.
const HASHED_AT_ONCE: u64 = 1 << 20;

/// Everything by which an image and its state are recognised, except the bytes that planning read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The guest's disk.
    pub disk: DiskFacts,
    /// The partition of Windows.
    pub partition: PartitionFacts,
    /// The volume of Windows.
    pub volume: VolumeFacts,
    /// Its hives, in the order of [`GuestHive::ALL`].
    pub hives: Vec<HiveFacts>,
    /// Where on the disk the contents lie that the hashes of the hives and their logs stand for, as (offset, length).
    pub hashed: Vec<(ImageOffset, u64)>,
}

/// Sizes and hashes of hives' files that are known because their bytes are in memory.
pub type KnownHives = BTreeMap<GuestHive, (u64, Sha256Sum)>;

impl ImageFacts {
    /// Reads the facts of a disk whose Windows is on `volume`, with its hives in the folder `config`. Those that are `known`
    /// are not read again.
    ///
    /// # Errors
    /// When the disk cannot be read, or the volume is damaged.
    pub fn read<D: Disk + ?Sized, V: VolumeRead>(
        disk: &D,
        table: &PartitionTable,
        partition: &Partition,
        volume: &Volume<V>,
        config: &str,
        known: &KnownHives,
    ) -> Result<Self> {
        let log = volume.log_position()?;
        let mut hashed = Vec::new();
        let hives = GuestHive::ALL.into_iter().map(|hive| {
            let path = format!("{config}/{}", hive.file_name());
            hive_facts(volume, &path, hive, known.get(&hive).copied(), &mut hashed)
        });
        let hives = hives.filter_map(Result::transpose).collect::<Result<_>>()?;
        let (disk, partition) = disk_and_partition_facts(disk, table, partition)?;
        Ok(Self {
            disk,
            partition,
            volume: VolumeFacts {
                serial: Hex64(volume.geometry().serial),
                log_position: log.lsn.map(Hex64),
                log_sha256: Sha256Sum(log.sha256),
            },
            hives,
            hashed,
        })
    }
}

/// The facts of a disk.
///
/// # Errors
/// When the disk cannot be read.
pub fn disk_facts<D: Disk + ?Sized>(disk: &D, table: &PartitionTable) -> Result<DiskFacts> {
    let id = read_disk_id(disk, table)?.map(|id| id.to_string());
    Ok(DiskFacts { size: disk.len(), scheme: table.scheme, sector: table.sector, id })
}

/// The facts of a disk and of one of its partitions.
///
/// # Errors
/// When the disk cannot be read.
pub fn disk_and_partition_facts<D: Disk + ?Sized>(
    disk: &D,
    table: &PartitionTable,
    partition: &Partition,
) -> Result<(DiskFacts, PartitionFacts)> {
    let id = match read_partition_id(disk, table, partition)? {
        Some(PartitionId::Gpt { partition, .. }) => Some(partition.braced()),
        Some(PartitionId::Mbr { .. }) | None => None,
    };
    Ok((
        disk_facts(disk, table)?,
        PartitionFacts { number: partition.number, start: partition.start.0, length: partition.length, id },
    ))
}

/// The facts of a hive and its logs; `None` if the guest has no such hive. Adds where their contents lie to `hashed`.
fn hive_facts<V: VolumeRead>(
    volume: &Volume<V>,
    path: &str,
    hive: GuestHive,
    known: Option<(u64, Sha256Sum)>,
    hashed: &mut Vec<(ImageOffset, u64)>,
) -> Result<Option<HiveFacts>> {
    let base = volume.device().image_offset();
    let mut facts = |path: &str, known: Option<(u64, Sha256Sum)>| -> Result<Option<(u64, Sha256Sum)>> {
        let Some(file) = volume.find(path)? else { return Ok(None) };
        let read = || {
            let (size, sha256) = volume.hash(file)?;
            Ok((size, Sha256Sum(sha256)))
        };
        let facts = known.map_or_else(read, Ok).map_err(|error: Error| error.path(path))?;
        let extents = volume.extents(file).map_err(|error| error.path(path))?;
        hashed.extend(extents.into_iter().map(|(at, length)| (ImageOffset(base.saturating_add(at.0)), length)));
        Ok(Some(facts))
    };
    let Some((size, sha256)) = facts(path, known)? else { return Ok(None) };
    let mut logs = Vec::new();
    for ending in LOG_ENDINGS {
        let found = facts(&format!("{path}{ending}"), None)?;
        logs.extend(found.map(|(size, sha256)| LogFile { name: ending.to_owned(), size, sha256 }));
    }
    Ok(Some(HiveFacts { hive, size, sha256, logs }))
}

impl ReadSet {
    /// What was read of `disk`, which is not changed since, except the places in `hashed`: other hashes stand for these.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn of(mut log: ReadLog, hashed: &[(ImageOffset, u64)], disk: &dyn DiskSource) -> Result<Self> {
        hashed.iter().for_each(|&(offset, length)| log.remove(offset, length));
        let ranges = at_most(log.ranges().map(|(start, length)| ReadRange { start: start.0, length }), RANGES_MAX);
        let bytes = ranges.iter().map(|range| range.length).fold(0, u64::saturating_add);
        Ok(Self { bytes, sha256: hash(&ranges, disk)?, ranges })
    }

    /// Whether these ranges of `disk` hold what they held when the plan was made.
    ///
    /// # Errors
    /// When a range does not lie on the disk, or the disk cannot be read.
    pub fn is_unchanged(&self, disk: &dyn DiskSource) -> Result<bool> {
        Ok(hash(&self.ranges, disk)? == self.sha256)
    }
}

/// SHA-256 of the contents of all ranges, one after the other.
fn hash(ranges: &[ReadRange], disk: &dyn DiskSource) -> Result<Sha256Sum> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; HASHED_AT_ONCE as usize];
    for range in ranges {
        let (mut at, mut left) = (range.start, range.length);
        while left > 0 {
            let length = left.min(HASHED_AT_ONCE);
            let part = buf.get_mut(..length as usize).unwrap_or_default();
            disk.read_at(ImageOffset(at), part)?;
            hash.update(&*part);
            at = at.saturating_add(length);
            left -= length;
        }
    }
    Ok(Sha256Sum(hash.finalize().into()))
}

/// The same ranges, or fewer ones that cover them: gaps of up to one, two, four … blocks are closed until there are at
/// most `count`.
fn at_most(ranges: impl Iterator<Item = ReadRange>, count: usize) -> Vec<ReadRange> {
    let mut ranges: Vec<ReadRange> = ranges.collect();
    let mut gap = 4096_u64;
    while ranges.len() > count.max(1) {
        let mut joined: Vec<ReadRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            let end = range.start.saturating_add(range.length);
            match joined.last_mut() {
                Some(last) if range.start.saturating_sub(last.start.saturating_add(last.length)) <= gap => {
                    last.length = end.saturating_sub(last.start);
                }
                _ => joined.push(range),
            }
        }
        ranges = joined;
        gap = gap.saturating_mul(2);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_gaps_are_closed_first() {
        let range = |start, length| ReadRange { start, length };
        let ranges = [range(0, 4096), range(8192, 4096), range(1 << 20, 4096), range(1 << 30, 4096)];
        assert_eq!(at_most(ranges.into_iter(), 4), ranges);
        assert_eq!(at_most(ranges.into_iter(), 3), [range(0, 3 * 4096), range(1 << 20, 4096), range(1 << 30, 4096)]);
        assert_eq!(at_most(ranges.into_iter(), 2), [range(0, (1 << 20) + 4096), range(1 << 30, 4096)]);
        assert_eq!(at_most(ranges.into_iter(), 1), [range(0, (1 << 30) + 4096)]);
    }
}
