//! Opening a volume: from the boot sector to the two bitmaps, and the refusals.

use std::sync::Arc;

use super::log::{Hibernation, LogState, Overrides, State as VolumeState};
use super::stream::{Stream, pieces};
use super::volume::{OpenOptions, Parts, ShortNames, Volume};
use crate::error::{Error, Layer, Result};
use crate::field::Field;
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::attribute::StreamSizes;
use crate::ntfs::format::boot::{BOOT_SECTOR_SIZE, Geometry};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::record::Record;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{FileId, Lcn, RecordNumber, Vcn};
use crate::ntfs::format::upcase::{UPCASE_SIZE, UpcaseTable};
use crate::units::VolumeOffset;

/// Version and flags in `$VOLUME_INFORMATION`.
const MAJOR: Field<u8> = Field::at(8);
const MINOR: Field<u8> = Field::at(9);
const FLAGS: Field<u16> = Field::at(10);
/// Windows does not create 8.3 names on this volume.
const FLAG_NO_SHORT_NAMES: u16 = 0x0080;
/// Extents of `$MFT` that are followed.
const MFT_EXTENTS_MAX: usize = 4096;

impl<D: VolumeRead> Volume<D> {
    /// Opens the volume on `device`.
    ///
    /// # Errors
    /// Refused for states in which an edit would do harm; unsupported for other versions; damaged.
    pub fn open(device: D, options: &OpenOptions) -> Result<Self> {
        let mut sector = vec![0; BOOT_SECTOR_SIZE];
        if device.len() < BOOT_SECTOR_SIZE as u64 {
            return Err(Error::unsupported(Layer::Ntfs, "too small for an NTFS volume"));
        }
        device.read_at(VolumeOffset(0), &mut sector)?;
        let base = device.image_offset();
        let geometry = Geometry::parse(&sector).map_err(|e| e.inside(base))?;
        let end = geometry.total_sectors.checked_mul(u64::from(geometry.sector_size));
        if end.is_none_or(|end| end > device.len()) {
            return Err(damaged("the volume is longer than the partition that holds it: the image is truncated")
                .expected_found(geometry.total_sectors.saturating_mul(geometry.sector_size.into()), device.len())
                .at(base.saturating_add(0x28)));
        }
        let mft = first_extent_of_mft(&device, &geometry)?;
        let mut volume = Self::from_parts(Parts { device, geometry, options: options.clone(), mft });
        volume.complete_mft()?;
        volume.judge_version_and_state()?;
        volume.read_tables()?;
        volume.find_own_structures()?;
        volume.judge_hibernation()?;
        Ok(volume)
    }

    /// A system file, whatever its sequence number.
    pub(super) fn system_file(&self, number: RecordNumber) -> Result<FileId> {
        Ok(FileId { record: number, sequence: self.record(number)?.sequence() })
    }

    fn system_stream(&self, number: RecordNumber, kind: AttributeType) -> Result<Stream> {
        let stream = self.stream(self.system_file(number)?, kind, &NtfsName::default())?;
        stream.ok_or_else(|| damaged(format!("system file {number} has no {kind}")))
    }

    /// Follows the attribute list of `$MFT`, extent by extent: each record is found through the extents before.
    fn complete_mft(&mut self) -> Result<()> {
        let record = self.record(RecordNumber::MFT)?;
        let Some(list) = self.attribute_list(&record)? else { return self.check_mft() };
        let mut extents: Vec<_> = list
            .into_iter()
            .filter(|e| e.kind == AttributeType::DATA && e.name.is_empty() && e.lowest > Vcn(0))
            .collect();
        extents.sort_by_key(|e| e.lowest);
        if extents.len() > MFT_EXTENTS_MAX {
            return Err(damaged("$MFT has too many extents"));
        }
        for entry in extents {
            let extension = self.extension(self.mft_id()?, &entry)?;
            let (_, attribute) = extension
                .find_instance(AttributeType::DATA, entry.instance)
                .ok_or_else(|| damaged("an extent of $MFT is missing"))?;
            let next = attribute.runlist(self.geometry.cluster_count)?;
            let Stream::Runs { runs, sizes } = &*self.state.mft else { return self.check_mft() };
            let (mut runs, sizes) = (runs.clone(), *sizes);
            runs.append(&next)?;
            self.state.mft = Arc::new(Stream::Runs { runs, sizes });
        }
        self.check_mft()
    }

    fn check_mft(&self) -> Result<()> {
        let Stream::Runs { runs, .. } = &*self.state.mft else { return Err(damaged("$MFT is resident")) };
        if runs.runs().iter().any(|r| r.lcn.is_none()) {
            return Err(damaged("$MFT has a hole"));
        }
        self.state.mft.check(&self.geometry)
    }

    fn judge_version_and_state(&mut self) -> Result<()> {
        let information =
            self.resident_value(self.system_file(RecordNumber::VOLUME)?, AttributeType::VOLUME_INFORMATION)?;
        let information = information.filter(|v| v.len() >= 12);
        let information = information.ok_or_else(|| damaged("$Volume has no $VOLUME_INFORMATION"))?;
        let version = (MAJOR.get(&information), MINOR.get(&information));
        if version != (3, 1) && !(self.options.read_only && version.0 <= 3) {
            return Err(Error::unsupported(Layer::Ntfs, format!("NTFS version {}.{}", version.0, version.1))
                .hint("only NTFS 3.1 (Windows XP and later) can be edited"));
        }
        let flags = FLAGS.get(&information);
        self.short_names = flags & FLAG_NO_SHORT_NAMES == 0 && self.options.short_names == ShortNames::AsVolume;
        Ok(())
    }

    /// `$UpCase`, `$Bitmap` and `$MFT:$BITMAP`.
    fn read_tables(&mut self) -> Result<()> {
        let upcase = self.system_stream(RecordNumber::UPCASE, AttributeType::DATA)?;
        let table = UpcaseTable::parse(&self.read_small(&upcase, UPCASE_SIZE as u64, "$UpCase")?)?;
        if !self.options.read_only && !table.is_sane() {
            // what is sorted by it would be found by nobody else
            return Err(damaged("$UpCase is no table of upper-case letters")
                .path("$UpCase")
                .hint("run chkdsk in the guest and export the disk again"));
        }
        self.upcase = Arc::new(table);
        let clusters = self.system_stream(RecordNumber::BITMAP, AttributeType::DATA)?;
        if clusters.len() < self.geometry.cluster_count.div_ceil(8) {
            return Err(
                damaged("$Bitmap is too short").expected_found(self.geometry.cluster_count.div_ceil(8), clusters.len())
            );
        }
        let records = self.system_stream(RecordNumber::MFT, AttributeType::BITMAP)?;
        for (bitmap, name) in [(&clusters, "$Bitmap"), (&records, "$MFT's bitmap")] {
            bitmap.check_metadata(name)?;
            if !self.options.read_only && bitmap.initialized() != bitmap.len() {
                return Err(Error::unsupported(Layer::Ntfs, format!("{name} is not written to its end"))
                    .expected_found(bitmap.len(), bitmap.initialized())
                    .hint("run chkdsk in the guest and export the disk again"));
            }
        }
        self.state.cluster_bitmap = Arc::new(clusters);
        self.state.record_bitmap = Arc::new(records);
        self.state.cluster_hint = self.geometry.cluster_count;
        Ok(())
    }

    /// Clusters that no file may free, and the mirror.
    fn find_own_structures(&mut self) -> Result<()> {
        let mirror = self.system_stream(RecordNumber::MFT_MIRROR, AttributeType::DATA)?;
        let log = self.system_stream(RecordNumber::LOG_FILE, AttributeType::DATA)?;
        let boot = self.system_stream(RecordNumber::BOOT, AttributeType::DATA)?;
        let upcase = self.system_stream(RecordNumber::UPCASE, AttributeType::DATA)?;
        let streams = [&mirror, &log, &boot, &upcase, &*self.state.cluster_bitmap];
        let runs: Vec<_> = streams.iter().filter_map(|s| s.runs()).flat_map(Runlist::real).collect();
        self.protected = runs.into_iter().map(|(Lcn(start), n)| start..start + n).collect();
        self.mirror = Arc::new(mirror);
        Ok(())
    }

    /// Hears the three witnesses: log, flags, hibernation image.
    fn judge_hibernation(&mut self) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        let log = self.system_stream(RecordNumber::LOG_FILE, AttributeType::DATA)?;
        let log = LogState::judge(log.len(), |offset, buf| {
            if self.read_stream(&log, offset, buf)? != buf.len() {
                return Err(damaged("$LogFile is cut short"));
            }
            Ok(())
        })?;
        let information =
            self.resident_value(self.system_file(RecordNumber::VOLUME)?, AttributeType::VOLUME_INFORMATION)?;
        let flags = FLAGS.get(&information.unwrap_or_default());
        let hibernation = match self.find("/hiberfil.sys")? {
            None => Hibernation::None,
            Some(file) => {
                let stream = self.stream(file, AttributeType::DATA, &NtfsName::default())?;
                let stream = stream.unwrap_or(Stream::Resident(Vec::new()));
                let mut header = vec![0; Hibernation::HEADER];
                let there = self.read_stream(&stream, 0, &mut header)?;
                Hibernation::judge(header.get(..there).unwrap_or_default(), stream.len())
            }
        };
        let overrides = Overrides {
            allow_dirty: self.options.allow_dirty,
            discard_log: self.options.discard_log,
            discard_hibernation: self.options.discard_hibernation,
        };
        self.admission = VolumeState { log, flags, hibernation }.admit(&overrides)?;
        Ok(())
    }
}

impl<D: VolumeWrite> Volume<D> {
    /// Does what an overridden refusal asks for, before the first edit.
    pub(super) fn admit(&mut self) -> Result<()> {
        let admission = self.admission;
        if admission.is_nothing() {
            return Ok(());
        }
        if admission.clear_hibernation
            && let Some(file) = self.find("/hiberfil.sys")?
        {
            self.fill_stream(file, 0, Hibernation::HEADER as u64)?;
        }
        if admission.empty_log {
            let log = self.system_file(RecordNumber::LOG_FILE)?;
            self.fill_stream(log, 0xFF, u64::MAX)?;
        }
        if admission.set_dirty {
            self.set_dirty_flag()?;
        }
        self.admission = super::log::Admission::default();
        Ok(())
    }

    /// Overwrites the beginning of a file's content with one byte.
    fn fill_stream(&mut self, file: FileId, byte: u8, limit: u64) -> Result<()> {
        let stream = self.stream(file, AttributeType::DATA, &NtfsName::default())?;
        if let Some(stream) = &stream {
            // a hole takes no bytes, and may be endless
            stream.check_metadata("what is to be erased")?;
        }
        let Some(Stream::Runs { runs, sizes }) = stream else {
            let Some(Stream::Resident(value)) = stream else { return Ok(()) };
            let mut attrs = self.load(file)?;
            attrs.set_value(AttributeType::DATA, "", &vec![byte; value.len()]);
            return self.store(attrs);
        };
        let chunk = vec![byte; 1 << 16];
        let end = sizes.data.min(limit);
        let mut at = 0;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
            for (place, n) in pieces(&self.geometry, &runs, at, length)? {
                if let Some(place) = place {
                    self.device.write_at(VolumeOffset(place), &chunk[..n])?;
                }
            }
            at += length as u64;
        }
        Ok(())
    }

    /// Marks the volume to be checked by Windows.
    fn set_dirty_flag(&mut self) -> Result<()> {
        let mut record = (*self.record(RecordNumber::VOLUME)?).clone();
        let value = record.value_mut(AttributeType::VOLUME_INFORMATION).filter(|v| v.len() >= 12);
        let value = value.ok_or_else(|| damaged("$Volume has no $VOLUME_INFORMATION"))?;
        FLAGS.set(value, FLAGS.get(value) | super::log::volume_flags::DIRTY);
        self.patch_record(RecordNumber::VOLUME, record);
        Ok(())
    }
}

/// The first extent of `$MFT`, from its record 0 at the place that the boot sector names.
fn first_extent_of_mft<D: VolumeRead>(device: &D, geometry: &Geometry) -> Result<Stream> {
    let mut block = vec![0; geometry.record_size as usize];
    let offset = geometry.bytes_in(geometry.mft.0);
    device.read_at(VolumeOffset(offset), &mut block)?;
    let offset = device.image_offset().saturating_add(offset);
    let record = Record::parse(block).map_err(|e| e.inside(offset).path("$MFT"))?;
    let data = record.find(AttributeType::DATA, "").filter(|a| !a.is_resident());
    let data = data.ok_or_else(|| damaged("$MFT has no data").at(offset))?;
    let runs = data.runlist(geometry.cluster_count).map_err(|e| e.inside(offset).path("$MFT"))?;
    if !record.is_in_use() || runs.find(Vcn(0)).and_then(|r| r.lcn) != Some(geometry.mft) {
        return Err(damaged("$MFT does not begin where the boot sector says").at(offset));
    }
    Ok(Stream::Runs { runs, sizes: StreamSizes::of(&data) })
}
