//! The file allocation table of a volume that is edited, whole in memory.

use super::boot_sector::{Geometry, Width};
use super::error::{damaged, too_large};
use crate::error::Result;
use crate::io::{VolumeRead, VolumeWrite};
use crate::units::VolumeOffset;

/// Largest table that is edited, in bytes. A system partition of 1 GiB has less than 1 MiB.
const TABLE_BYTES_MAX: u64 = 64 << 20;

/// What the table says of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Free,
    /// The next cluster of the chain; any number.
    Next(u32),
    End,
    Bad,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// As it is on the volume.
    original: Vec<u8>,
    width: Width,
    clusters: u32,
}

impl Table {
    /// Reads the table.
    ///
    /// # Errors
    /// [`Kind::Damaged`](crate::error::Kind::Damaged) when it does not cover all clusters, or its copies differ.
    pub(super) fn read<D: VolumeRead>(volume: &D, geometry: &Geometry) -> Result<Self> {
        let end = u64::from(geometry.clusters) + 2;
        let used = match geometry.width {
            Width::Fat12 => (end * 3).div_ceil(2),
            Width::Fat16 => end * 2,
            Width::Fat32 => end * 4,
        };
        if used > geometry.fat_bytes {
            return Err(damaged("the file allocation table is too short"));
        }
        if geometry.fat_bytes > TABLE_BYTES_MAX {
            return Err(too_large());
        }
        let length = usize::try_from(geometry.fat_bytes).unwrap_or(0);
        let read = |copy: u64| -> Result<Vec<u8>> {
            let mut bytes = vec![0; length];
            volume.read_at(VolumeOffset(geometry.fat_start + copy * geometry.fat_bytes), &mut bytes)?;
            Ok(bytes)
        };
        let bytes = read(0)?;
        let used = usize::try_from(used).unwrap_or(0);
        for copy in 1..geometry.fats {
            if read(copy)?.get(..used) != bytes.get(..used) {
                return Err(damaged("the copies of the file allocation table differ"));
            }
        }
        Ok(Self { original: bytes.clone(), bytes, width: geometry.width, clusters: geometry.clusters })
    }

    /// The numbers of all clusters.
    pub(super) fn clusters(&self) -> std::ops::Range<u32> {
        2..self.clusters.saturating_add(2)
    }

    /// Offset of the entry of a cluster, and its bits as they are stored.
    fn raw(&self, cluster: u32) -> Option<(usize, u32)> {
        let (at, width) = self.width.entry(cluster);
        let at = usize::try_from(at).ok()?;
        let mut bytes = [0; 4];
        bytes.get_mut(..width)?.copy_from_slice(self.bytes.get(at..at.checked_add(width)?)?);
        Some((at, u32::from_le_bytes(bytes)))
    }

    /// What the table says of a cluster of the volume.
    pub(super) fn link(&self, cluster: u32) -> Result<Link> {
        let raw = self.raw(cluster).filter(|_| self.clusters().contains(&cluster));
        let (_, raw) = raw.ok_or_else(|| damaged("a chain leaves the volume"))?;
        let (value, bad) = self.width.value(cluster, raw);
        Ok(match value {
            0 => Link::Free,
            value if value == bad => Link::Bad,
            value if value > bad => Link::End,
            value => Link::Next(value),
        })
    }

    /// Whether the table's own mark says that the volume was unmounted; FAT12 has none.
    pub(super) fn is_marked_clean(&self) -> bool {
        let second = self.raw(1).map_or(0, |(_, raw)| raw);
        match self.width {
            Width::Fat12 => true,
            Width::Fat16 => second & 0x8000 != 0,
            Width::Fat32 => second & 0x0800_0000 != 0,
        }
    }

    /// How many clusters are free.
    pub(super) fn count_free(&self) -> Result<u32> {
        let mut count = 0;
        for cluster in self.clusters() {
            count += u32::from(self.link(cluster)? == Link::Free);
        }
        Ok(count)
    }

    /// Changes what the table says of a cluster; the four bits that FAT32 reserves stay.
    pub(super) fn set(&mut self, cluster: u32, link: Link) -> Result<()> {
        let value = match link {
            Link::Free => 0,
            Link::Next(next) => next,
            Link::End => 0x0FFF_FFFF,
            Link::Bad => 0x0FFF_FFF7,
        };
        let raw = self.raw(cluster).filter(|_| self.clusters().contains(&cluster));
        let (at, old) = raw.ok_or_else(|| damaged("a chain leaves the volume"))?;
        let (new, width) = match self.width {
            Width::Fat12 if cluster.is_multiple_of(2) => (old & 0xF000 | value & 0xFFF, 2),
            Width::Fat12 => (old & 0x000F | (value & 0xFFF) << 4, 2),
            Width::Fat16 => (value & 0xFFFF, 2),
            Width::Fat32 => (old & 0xF000_0000 | value & 0x0FFF_FFFF, 4),
        };
        if let (Some(entry), Some(bytes)) = (self.bytes.get_mut(at..at + width), new.to_le_bytes().get(..width)) {
            entry.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Writes the sectors that have changed, to all copies.
    pub(super) fn write<D: VolumeWrite>(&self, volume: &mut D, geometry: &Geometry) -> Result<()> {
        let sector = usize::try_from(geometry.sector_bytes).unwrap_or(512);
        let pairs = self.bytes.chunks(sector).zip(self.original.chunks(sector)).enumerate();
        for (index, (new, _)) in pairs.filter(|(_, (new, old))| new != old) {
            for copy in 0..geometry.fats {
                let start = geometry.fat_start + copy * geometry.fat_bytes;
                volume.write_at(VolumeOffset(start + index as u64 * geometry.sector_bytes), new)?;
            }
        }
        Ok(())
    }
}
