//! Where the log lies on its volume.

use super::LogPosition;
use super::overlay::Changes;
use super::refusal::refuse;
use super::summary::Target;
use super::view::{View, locate};
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::attribute::{Attribute, AttributeType};
use crate::ntfs::boot::{BOOT_SECTOR_SIZE, Geometry};
use crate::ntfs::name::NtfsName;
use crate::ntfs::runlist::Runlist;
use crate::ntfs::units::{FileId, RecordNumber};
use crate::units::VolumeOffset;

/// `$LogFile` of a volume.
pub(super) struct LogFile<'a> {
    device: &'a dyn VolumeRead,
    pub geometry: Geometry,
    runs: Runlist,
    /// Bytes of the log.
    pub size: u64,
}

impl<'a> LogFile<'a> {
    /// Finds the log.
    ///
    /// # Errors
    /// Not an NTFS volume; refused, when `$MFT` or the log cannot be found.
    pub fn open(device: &'a dyn VolumeRead) -> Result<Self> {
        if device.len() < BOOT_SECTOR_SIZE as u64 {
            return Err(Error::unsupported(Layer::Ntfs, "too small for an NTFS volume"));
        }
        let mut boot = vec![0; BOOT_SECTOR_SIZE];
        device.read_at(VolumeOffset(0), &mut boot)?;
        let geometry = Geometry::parse(&boot)?;
        if geometry.bytes_in(geometry.cluster_count) > device.len() {
            return Err(refuse("the volume is longer than the partition that holds it"));
        }
        let changes = Changes::new(device);
        let view = View::to_find_log(&changes, &geometry)?;
        let record = view.record(RecordNumber::LOG_FILE)?.ok_or_else(|| refuse("its file record cannot be read"))?;
        let data = |a: &Attribute<'_>| a.kind() == AttributeType::DATA && a.is_named("") && !a.is_resident();
        let data = record.attributes().map(|(_, attribute)| attribute).find(data);
        let data = data.ok_or_else(|| refuse("its file record has no data"))?;
        let (runs, size) = (data.runlist(geometry.cluster_count)?, data.data_size());
        if size > geometry.bytes_in(runs.end()) {
            return Err(refuse("it is longer than its clusters"));
        }
        Ok(Self { device, geometry, runs, size })
    }

    /// Fills `buf` from an offset of the log.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut rest = buf;
        for (at, length) in locate(&self.geometry, &self.runs, offset, rest.len())? {
            let (part, tail) = rest.split_at_mut_checked(length).unwrap_or_default();
            self.device.read_at(VolumeOffset(at), part)?;
            rest = tail;
        }
        Ok(())
    }

    /// Changes bytes of the log.
    pub fn write(&self, changes: &mut Changes<'_>, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (at, length) in locate(&self.geometry, &self.runs, offset, rest.len())? {
            let (part, tail) = rest.split_at_checked(length).unwrap_or_default();
            changes.write(at, part)?;
            rest = tail;
        }
        Ok(())
    }
}

/// How far the log of the volume on `device` has come.
///
/// # Errors
/// Not an NTFS volume; refused, when `$MFT` or the log cannot be found; the volume cannot be read.
pub fn find_position<D: VolumeRead>(device: &D) -> Result<LogPosition> {
    let file = LogFile::open(device)?;
    LogPosition::read(file.size, |at, buf| file.read(at, buf))
}

/// Copies the first records of `$MFT` to `$MFTMirr`, as many as it holds.
pub(super) fn update_mirror(changes: &mut Changes<'_>, geometry: &Geometry) -> Result<()> {
    let mut copies = Vec::new();
    {
        let view = View::new(changes, geometry)?;
        let record = view.record(RecordNumber::MFT_MIRROR)?;
        let record = record.ok_or_else(|| refuse("the record of $MFTMirr cannot be read"))?;
        let file = FileId { record: RecordNumber::MFT_MIRROR, sequence: record.sequence() };
        let target = Target { file, kind: AttributeType::DATA, name: NtfsName::default() };
        let extents = view.extents(&target)?.ok_or_else(|| refuse("$MFTMirr has no data"))?;
        let (runs, size) = (extents.join()?, record.find(AttributeType::DATA, "").map_or(0, |data| data.data_size()));
        let record_size = geometry.record_size as usize;
        for number in 0..RecordNumber::FIRST_USER.0.min(size / record_size as u64) {
            let raw = view.raw_record(RecordNumber(number))?;
            let raw = raw.ok_or_else(|| refuse("$MFT is shorter than $MFTMirr"))?;
            let mut rest = raw.as_slice();
            for (at, length) in locate(geometry, &runs, number * record_size as u64, record_size)? {
                let (part, tail) = rest.split_at_checked(length).unwrap_or_default();
                copies.push((at, part.to_vec()));
                rest = tail;
            }
        }
    }
    copies.iter().try_for_each(|(at, bytes)| changes.write(*at, bytes))
}
