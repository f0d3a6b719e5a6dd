//! Images and the stage as disks, whose partitions can be read and written.

use super::{Image, Original, Stage};
use crate::error::Result;
use crate::partition::{Disk, DiskWrite};
use crate::units::ImageOffset;

impl Disk for Stage {
    fn len(&self) -> u64 {
        Self::len(self)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Self::read_at(self, offset, buf)
    }
}

impl Disk for Original {
    fn len(&self) -> u64 {
        Self::len(self)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Self::read_at(self, offset, buf)
    }
}

impl DiskWrite for Stage {
    fn write_at(&mut self, offset: ImageOffset, data: &[u8]) -> Result<()> {
        Self::write_at(self, offset, data)
    }
}

impl Disk for dyn Image + '_ {
    fn len(&self) -> u64 {
        Image::len(self)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Image::read_at(self, offset, buf)
    }
}
