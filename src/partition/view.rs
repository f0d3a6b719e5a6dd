//! One partition as a volume.

use std::sync::Arc;

use super::{Disk, DiskWrite, Partition};
use crate::bitlocker::Unlocked;
use crate::error::{DEFECT_HINT, Error, Kind, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::units::{ImageOffset, VolumeOffset};

/// The bytes of one partition of a disk, at offsets from its start. Over `&Stage` it can be read, over `&mut Stage`
/// written, too. An access beyond the partition is an error. Of a BitLocker volume that was opened it is the plain volume;
/// the disk below holds ciphertext before and after.
#[derive(Debug)]
pub struct PartitionView<D> {
    raw: RawView<D>,
    key: Option<Arc<Unlocked>>,
}

impl<D: Disk> PartitionView<D> {
    /// Makes a view of `partition`, whose offsets begin at 0.
    ///
    /// # Errors
    /// When the partition does not lie wholly on the disk: the image is truncated, or the table is damaged.
    pub fn new(disk: D, partition: &Partition) -> Result<Self> {
        let key = partition.bitlocker.as_ref().and_then(|encryption| encryption.volume.as_ref().ok().cloned());
        Ok(Self { raw: RawView::new(disk, partition)?, key })
    }

    /// Offset of the partition on the disk.
    #[must_use]
    pub fn start(&self) -> ImageOffset {
        self.raw.start
    }

    /// Gives back the disk that the view was made over.
    #[must_use]
    pub fn into_disk(self) -> D {
        self.raw.disk
    }

    /// Checks that an opened BitLocker volume has the metadata, and the physical first 8 KiB, with which it was opened. Other
    /// volumes always pass.
    ///
    /// # Errors
    /// [`Kind::Verify`] when they differ, or the disk cannot be read.
    pub(crate) fn check_metadata(&self) -> Result<()> {
        let Some(key) = &self.key else { return Ok(()) };
        key.check_untouched(&self.raw).map_err(|error| {
            Error::new(Kind::Verify, Layer::Partition, "cannot verify the BitLocker volume: its metadata were changed")
                .source_error(error)
                .hint(DEFECT_HINT)
        })
    }
}

impl<D: Disk> VolumeRead for PartitionView<D> {
    fn len(&self) -> u64 {
        self.raw.length
    }
    fn image_offset(&self) -> u64 {
        self.raw.start.0
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        match &self.key {
            Some(key) => key.read(&self.raw, offset, buf),
            None => self.raw.read_at(offset, buf),
        }
    }
}

impl<D: DiskWrite> VolumeWrite for PartitionView<D> {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        match &self.key {
            Some(key) => key.write(&mut self.raw, offset, data),
            None => self.raw.write_at(offset, data),
        }
    }
}

/// The bytes of a partition as they are on the disk, encrypted or not.
#[derive(Debug)]
pub(super) struct RawView<D> {
    disk: D,
    start: ImageOffset,
    length: u64,
}

impl<D: Disk> RawView<D> {
    pub(super) fn new(disk: D, partition: &Partition) -> Result<Self> {
        let end = partition.start.checked_add(partition.length);
        if end.is_none_or(|end| end.0 > disk.len()) {
            return Err(Error::damaged(Layer::Partition, "the partition ends beyond the disk")
                .path(partition.label())
                .at(partition.start)
                .expected_found(
                    format_args!("a disk of at least {} bytes", end.map_or(u64::MAX, |end| end.0)),
                    format_args!("{} bytes", disk.len()),
                )
                .hint("the image is truncated: copy or export it again"));
        }
        Ok(Self { disk, start: partition.start, length: partition.length })
    }

    fn place(&self, offset: VolumeOffset, length: usize) -> Result<ImageOffset> {
        let inside = offset.0.checked_add(length as u64).is_some_and(|end| end <= self.length);
        inside
            .then(|| self.start.checked_add(offset.0))
            .flatten()
            .ok_or_else(|| Error::damaged(Layer::Partition, "access beyond the end of the partition").at(offset))
    }
}

impl<D: Disk> VolumeRead for RawView<D> {
    fn len(&self) -> u64 {
        self.length
    }
    fn image_offset(&self) -> u64 {
        self.start.0
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.disk.read_at(self.place(offset, buf.len())?, buf)
    }
}

impl<D: DiskWrite> VolumeWrite for RawView<D> {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        let place = self.place(offset, data.len())?;
        self.disk.write_at(place, data)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Content, MemoryDisk, PartitionKind};
    use super::*;

    fn partition(start: u64, length: u64) -> Partition {
        Partition {
            number: 1,
            start: ImageOffset(start),
            length,
            kind: PartitionKind::Data,
            content: Content::Unknown,
            name: None,
            type_id: "0x07".into(),
            bitlocker: None,
            replay: Default::default(),
            unique_guid: None,
        }
    }

    #[test]
    fn stays_inside_the_partition() {
        let mut disk = MemoryDisk(vec![0; 4096]);
        let mut view = PartitionView::new(&mut disk, &partition(1024, 1024)).unwrap();
        view.write_at(VolumeOffset(1020), b"last").unwrap();
        assert!(view.write_at(VolumeOffset(1021), b"last").is_err());
        assert!(view.read_at(VolumeOffset(u64::MAX), &mut [0; 2]).is_err());
        assert_eq!(&disk.0[2044..2048], b"last");
    }

    #[test]
    fn a_truncated_disk_is_named() {
        let disk = MemoryDisk(vec![0; 4096]);
        let error = PartitionView::new(&disk, &partition(4096, 1)).unwrap_err();
        assert!(error.to_string().contains("ends beyond the disk"), "{error}");
        assert!(PartitionView::new(&disk, &partition(u64::MAX, 2)).is_err());
    }
}
