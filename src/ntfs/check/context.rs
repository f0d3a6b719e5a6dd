//! What every part of the check needs: the device, the geometry, where `$MFT` is, and the report.

use std::cell::{Cell, RefCell};

use super::code::Code;
use super::options::CheckOptions;
use super::report::{CheckReport, Fault};
use crate::error::Result;
use crate::io::VolumeRead;
use crate::ntfs::attribute::{AttributeType, non_resident};
use crate::ntfs::attribute_list;
use crate::ntfs::boot::{BOOT_SECTOR_SIZE, Geometry};
use crate::ntfs::file_name::{self, FileName};
use crate::ntfs::name::Namespace;
use crate::ntfs::record::Record;
use crate::ntfs::runlist::Runlist;
use crate::ntfs::units::{Lcn, RecordNumber, Vcn};
use crate::ntfs::upcase::UpcaseTable;
use crate::units::VolumeOffset;

/// How often each record may be read as part of a file with an attribute list: sound volumes need about five.
const RECORDS_READ: u64 = 16;
const RECORDS_READ_LEAST: u64 = 1 << 16;

/// Directories above a file that are named in a report.
const PATH_DEPTH: usize = 64;

/// The volume under check.
pub(super) struct Context<'a> {
    device: &'a dyn VolumeRead,
    pub geometry: Geometry,
    pub options: CheckOptions,
    /// Where `$MFT`'s content is.
    pub mft: Runlist,
    pub record_count: u64,
    pub upcase: UpcaseTable,
    report: RefCell<CheckReport>,
    /// While set, faults are dropped: the same bytes are read a second time.
    muted: Cell<bool>,
    /// Extension records that may still be read, see [`spend`](Self::spend).
    budget: Cell<u64>,
}

impl<'a> Context<'a> {
    /// Reads the boot sector and maps `$MFT`; `Err` holds the report when that cannot be done.
    pub(super) fn open(
        device: &'a dyn VolumeRead,
        options: CheckOptions,
    ) -> Result<std::result::Result<Self, CheckReport>> {
        let mut report = CheckReport::default();
        let mut give_up = |fault: Fault| {
            report.add(fault, options.per_code);
            Ok(Err(std::mem::take(&mut report)))
        };
        if device.len() < BOOT_SECTOR_SIZE as u64 {
            return give_up(Fault::new(Code::BootSector, "the volume is smaller than a boot sector").at(0));
        }
        let mut boot = vec![0; BOOT_SECTOR_SIZE];
        device.read_at(VolumeOffset(0), &mut boot)?;
        let mut geometry = match Geometry::parse(&boot) {
            Ok(geometry) => geometry,
            Err(error) => return give_up(Fault::new(Code::BootSector, error.to_string()).at(error.offset())),
        };
        // what the device does not hold is reported once, as A1, and not looked for again
        let there = device.len() / u64::from(geometry.cluster_size);
        geometry.cluster_count = geometry.cluster_count.min(there);
        let mut this = Self {
            device,
            options,
            mft: Runlist::default(),
            record_count: 0,
            upcase: UpcaseTable::ascii(),
            report: RefCell::default(),
            muted: Cell::new(false),
            budget: Cell::new(0),
            geometry,
        };
        this.report.borrow_mut().stats.clusters = this.geometry.cluster_count;
        if let Err(fault) = this.map_mft()? {
            this.fault(fault);
            return Ok(Err(this.into_report()));
        }
        Ok(Ok(this))
    }

    pub(super) fn into_report(self) -> CheckReport {
        self.report.into_inner()
    }

    pub(super) fn report(&self) -> std::cell::RefMut<'_, CheckReport> {
        self.report.borrow_mut()
    }

    /// Reports a fault; its path is looked up only when it is kept.
    pub(super) fn fault(&self, mut fault: Fault) {
        if self.muted.get() {
            return;
        }
        if self.is_shown(fault.code)
            && let (None, Some(record)) = (&fault.path, fault.record)
        {
            fault.path = self.path_of(record);
        }
        self.report.borrow_mut().add(fault, self.options.per_code);
    }

    /// Whether another fault of this code would be reported in full.
    pub(super) fn is_shown(&self, code: Code) -> bool {
        self.report.borrow().counts.get(&code).copied().unwrap_or(0) < self.options.per_code
    }

    /// Runs `work` with all faults dropped.
    pub(super) fn muted<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.muted.replace(true);
        let result = work();
        self.muted.set(before);
        result
    }

    /// Takes `count` extension records from what may be read in all. Lists that name the same records over and over
    /// would otherwise cost the square of the volume; when nothing is left, files are seen without their extensions.
    pub(super) fn spend(&self, count: usize) -> bool {
        let left = self.budget.get().checked_sub(count as u64);
        self.budget.set(left.unwrap_or(0));
        left.is_some()
    }

    /// An offset of the volume as an offset of the image that holds it.
    pub(super) fn image_offset(&self, offset: u64) -> u64 {
        self.device.image_offset().saturating_add(offset)
    }

    pub(super) fn device_len(&self) -> u64 {
        self.device.len()
    }

    pub(super) fn cluster_size(&self) -> u64 {
        u64::from(self.geometry.cluster_size)
    }

    pub(super) fn record_size(&self) -> u64 {
        u64::from(self.geometry.record_size)
    }

    /// Reads from the volume; what lies beyond the device reads as zeros (the boot sector's fault is reported once).
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let there = usize::try_from(self.device.len().saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let (inside, beyond) = buf.split_at_mut(there);
        beyond.fill(0);
        if inside.is_empty() { Ok(()) } else { self.device.read_at(VolumeOffset(offset), inside) }
    }

    /// Where byte `offset` of a stream is on the volume, and how many bytes follow it there without a break.
    pub(super) fn locate(&self, runs: &Runlist, offset: u64) -> Option<(Option<u64>, u64)> {
        let cluster = self.cluster_size();
        let run = runs.find(Vcn(offset / cluster))?;
        let inside = offset - run.vcn.0.checked_mul(cluster)?;
        let start = match run.lcn {
            Some(Lcn(lcn)) => Some(lcn.checked_mul(cluster)?.checked_add(inside)?),
            None => None,
        };
        Some((start, run.length.checked_mul(cluster)?.checked_sub(inside)?))
    }

    /// Fills `buf` from byte `offset` of a stream; holes and what no run maps read as zeros. Returns whether all of it
    /// was in real clusters.
    pub(super) fn read_stream(&self, runs: &Runlist, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let (mut done, mut mapped) = (0, true);
        while done < buf.len() {
            let Some((start, length)) = offset.checked_add(done as u64).and_then(|at| self.locate(runs, at)) else {
                buf[done..].fill(0);
                return Ok(false);
            };
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(buf.len() - done);
            match start {
                Some(start) => self.read(start, &mut buf[done..done + count])?,
                None => {
                    buf[done..done + count].fill(0);
                    mapped = false;
                }
            }
            done += count;
        }
        Ok(mapped)
    }

    /// Volume offset of a record.
    pub(super) fn record_offset(&self, record: u64) -> Option<u64> {
        let offset = record.checked_mul(self.record_size())?;
        self.locate(&self.mft, offset).and_then(|(start, _)| start)
    }

    /// A record as it lies on disk.
    pub(super) fn raw_record(&self, record: u64) -> Result<Vec<u8>> {
        let mut raw = vec![0; self.geometry.record_size as usize];
        self.read_stream(&self.mft, record.saturating_mul(self.record_size()), &mut raw)?;
        Ok(raw)
    }

    /// Finds all extents of `$MFT:$DATA`; each extension record lies in the part that is mapped before it is needed.
    fn map_mft(&mut self) -> Result<std::result::Result<(), Fault>> {
        let start = self.geometry.mft.0.saturating_mul(self.cluster_size());
        let mut raw = vec![0; self.geometry.record_size as usize];
        self.read(start, &mut raw)?;
        let bad = |why: &dyn std::fmt::Display| {
            Fault::new(Code::MftLocation, format!("the master file table cannot be read: {why}")).record(0).at(start)
        };
        let record = match Record::parse(raw) {
            Ok(record) => record,
            Err(error) => return Ok(Err(bad(&error))),
        };
        let Some(data) = record.find(AttributeType::DATA, "").filter(|a| !a.is_resident()) else {
            return Ok(Err(bad(&"record 0 has no non-resident $DATA")));
        };
        self.mft = match data.runlist(self.geometry.cluster_count) {
            Ok(runs) => runs,
            Err(error) => return Ok(Err(bad(&error))),
        };
        if let Some(list) = record.find(AttributeType::ATTRIBUTE_LIST, "") {
            let bytes = match list.value() {
                Some(value) => value.to_vec(),
                None => self.muted_list(&list)?,
            };
            let Ok(entries) = attribute_list::parse(&bytes) else {
                return Ok(Err(bad(&"its attribute list is malformed")));
            };
            for entry in entries.iter().filter(|e| e.kind == AttributeType::DATA && e.name.is_empty() && e.lowest.0 > 0)
            {
                let extension = Record::parse(self.raw_record(entry.record.record.0)?);
                let runs = extension.as_ref().ok().and_then(|r| {
                    r.attributes()
                        .map(|(_, a)| a)
                        .find(|a| a.kind() == AttributeType::DATA && a.lowest_vcn() == entry.lowest && !a.is_resident())
                        .and_then(|a| a.runlist(self.geometry.cluster_count).ok())
                });
                if runs.is_none_or(|runs| self.mft.append(&runs).is_err()) {
                    return Ok(Err(bad(&format!("its extent in record {} is missing", entry.record.record))));
                }
            }
        }
        if self.mft.runs().iter().any(|run| run.lcn.is_none()) {
            return Ok(Err(bad(&"it has a hole")));
        }
        let mapped = self.mft.end().saturating_mul(self.cluster_size());
        let size = non_resident::DATA_SIZE.get(data.bytes());
        if size > mapped {
            self.fault(bad(&"it is longer than its runs").values(mapped, size));
        }
        // record numbers are 32 bits on disk, and runs that overlap must not make $MFT larger than the volume
        let most = (self.device_len() / self.record_size()).min(u64::from(u32::MAX));
        self.record_count = (size.min(mapped) / self.record_size()).min(most);
        self.budget.set(self.record_count * RECORDS_READ + RECORDS_READ_LEAST);
        if self.mft.runs().first().and_then(|run| run.lcn) != Some(self.geometry.mft) {
            self.fault(
                Fault::new(Code::MftLocation, "$MFT does not begin where the boot sector says").record(0).at(0x30),
            );
        }
        Ok(Ok(()))
    }

    /// The content of a non-resident attribute list; empty when it makes no sense.
    pub(super) fn muted_list(&self, list: &crate::ntfs::attribute::Attribute<'_>) -> Result<Vec<u8>> {
        let size = list.data_size();
        let Ok(runs) = list.runlist(self.geometry.cluster_count) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; usize::try_from(size.min(attribute_list::LIST_SIZE_MAX)).unwrap_or(0)];
        self.read_stream(&runs, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The path of a record by its first long name and those of its directories; best effort.
    pub(super) fn path_of(&self, record: u64) -> Option<String> {
        let (mut names, mut at) = (Vec::new(), record);
        for _ in 0..PATH_DEPTH {
            if at == RecordNumber::ROOT.0 {
                names.reverse();
                return Some(format!("/{}", names.join("/")));
            }
            let (name, parent) = self.long_name(at)?;
            names.push(name);
            at = parent;
        }
        None
    }

    fn long_name(&self, record: u64) -> Option<(String, u64)> {
        if record >= self.record_count {
            return None;
        }
        let record = Record::parse(self.raw_record(record).ok()?).ok()?;
        let names = record.attributes().filter(|(_, a)| a.kind() == AttributeType::FILE_NAME);
        let mut names: Vec<FileName> =
            names.filter_map(|(_, a)| a.value().and_then(|v| file_name::FileName::parse(v).ok())).collect();
        names.sort_by_key(|name| name.namespace == Namespace::Dos);
        names.first().map(|name| (name.name.to_string(), name.parent.record.0))
    }
}
