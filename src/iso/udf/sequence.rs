//! The anchor and the volume descriptor sequence: what volume there is, and on which partitions.

use super::format::{
    ANCHOR, Anchor, ExtentAddress, LOGICAL_VOLUME, PARTITION, POINTER, PartitionDescriptor, SequenceHeader,
    SequencePointer, TERMINATOR, Tag,
};
use crate::error::Result;
use crate::io::VolumeRead;
use crate::iso::bytes::{read_bytes, view};

/// Sector sizes in use: discs, hard disks, and the rest.
const SECTORS: [u64; 4] = [2048, 512, 4096, 1024];
/// Most descriptors of a volume descriptor sequence.
const DESCRIPTORS_MAX: u64 = 256;
/// Most partitions and partition maps.
pub(super) const PARTITIONS_MAX: usize = 16;

/// Whether the image has an anchor of UDF.
pub(crate) fn is_present<D: VolumeRead>(device: &D) -> bool {
    find_anchor(device).is_some()
}

/// The sector size in bytes, and the extents of the main and reserve volume descriptor sequences.
pub(super) fn find_anchor<D: VolumeRead>(device: &D) -> Option<(u64, [ExtentAddress; 2])> {
    for sector in SECTORS {
        let last = device.len() / sector;
        for number in [256, last.saturating_sub(1), last.saturating_sub(257)] {
            let Some(at) = number.checked_mul(sector).filter(|at| at.saturating_add(sector) <= device.len()) else {
                continue;
            };
            let Ok(data) = read_bytes(device, at, sector) else { continue };
            if Tag::identify(&data) != Some(ANCHOR) {
                continue;
            }
            let Some(anchor) = view::<Anchor>(&data).filter(|anchor| u64::from(anchor.tag.location.get()) == number)
            else {
                continue;
            };
            return Some((sector, [anchor.main, anchor.reserve]));
        }
    }
    None
}

/// A partition that a descriptor names.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartitionArea {
    /// By which partition maps name it.
    pub id: u16,
    /// Number of the first sector.
    pub start: u64,
    /// Length in sectors.
    pub length: u64,
    /// Of several descriptors of one partition, the one with the highest number counts.
    number: u32,
}

/// The newest descriptors of a volume descriptor sequence.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The sector of the logical volume descriptor, and its number.
    logical: Option<(u32, Vec<u8>)>,
    pub partitions: Vec<PartitionArea>,
}

impl Sequence {
    pub(super) fn read<D: VolumeRead>(device: &D, sector: u64, extent: ExtentAddress) -> Result<Self> {
        let range = |extent: ExtentAddress| {
            let start = u64::from(extent.location.get()) * sector;
            (start, start.saturating_add(u64::from(extent.length.get())))
        };
        let mut found = Self::default();
        let (mut at, mut end) = range(extent);
        for _ in 0..DESCRIPTORS_MAX {
            if at >= end {
                break;
            }
            let data = read_bytes(device, at, sector)?;
            at = at.saturating_add(sector);
            match Tag::identify(&data) {
                Some(POINTER) => {
                    let Some(pointer) = view::<SequencePointer>(&data) else { break };
                    (at, end) = range(pointer.next);
                }
                Some(LOGICAL_VOLUME) => found.keep_logical_volume(data),
                Some(PARTITION) => found.keep_partition(&data),
                Some(TERMINATOR) => break,
                _ => {}
            }
        }
        Ok(found)
    }

    fn keep_logical_volume(&mut self, sector: Vec<u8>) {
        let Some(number) = view::<SequenceHeader>(&sector).map(|header| header.number.get()) else { return };
        if self.logical.as_ref().is_none_or(|(newest, _)| number >= *newest) {
            self.logical = Some((number, sector));
        }
    }

    fn keep_partition(&mut self, sector: &[u8]) {
        let Some(descriptor) = view::<PartitionDescriptor>(sector) else { return };
        let area = PartitionArea {
            id: descriptor.partition_number.get(),
            start: u64::from(descriptor.start.get()),
            length: u64::from(descriptor.length.get()),
            number: descriptor.header.number.get(),
        };
        if self.partitions.len() >= PARTITIONS_MAX {
            return;
        }
        match self.partitions.iter_mut().find(|known| known.id == area.id) {
            Some(known) if area.number >= known.number => *known = area,
            Some(_) => {}
            None => self.partitions.push(area),
        }
    }

    /// The sector of the logical volume descriptor, if the sequence has one.
    pub(super) fn logical_volume(&self) -> Option<&[u8]> {
        self.logical.as_ref().map(|(_, sector)| sector.as_slice())
    }
}
