//! The volume as a replay sees it: `$MFT` and the runs of attributes, changes included.

use std::collections::BTreeSet;

use super::overlay::Changes;
use super::refusal::refuse;
use super::summary::Target;
use crate::error::Result;
use crate::ntfs::attribute::{Attribute, AttributeType};
use crate::ntfs::attribute_list::{self, LIST_SIZE_MAX};
use crate::ntfs::boot::Geometry;
use crate::ntfs::fixup;
use crate::ntfs::record::{FLAG_IN_USE, Record, header};
use crate::ntfs::runlist::Runlist;
use crate::ntfs::stream::pieces;
use crate::ntfs::units::{FileId, RecordNumber, Vcn};

/// File records that are read at once.
const RECORDS_AT_ONCE: usize = 256;

/// A state of the volume.
pub(super) struct View<'a> {
    changes: &'a Changes<'a>,
    geometry: &'a Geometry,
    mft: Extents,
    /// Whether a torn system record is read from `$MFTMirr`.
    mirrored: bool,
}

/// The extents of a stream, by their first VCN.
pub(super) struct Extents(Vec<Runlist>);

impl Extents {
    /// The cluster of the volume that holds a cluster of the stream; `None` for a hole and outside.
    pub fn cluster(&self, vcn: u64) -> Option<u64> {
        let run = self.0.iter().find_map(|runs| runs.find(Vcn(vcn)))?;
        let inside = vcn.checked_sub(run.vcn.0)?;
        run.lcn.and_then(|lcn| lcn.0.checked_add(inside))
    }

    /// The clusters of the stream, holes included.
    fn end(&self) -> u64 {
        self.0.iter().map(Runlist::end).max().unwrap_or(0)
    }

    /// The extents as one list.
    ///
    /// # Errors
    /// Damaged, when they do not follow each other.
    pub fn join(&self) -> Result<Runlist> {
        let mut all = Runlist::default();
        for runs in &self.0 {
            all.append(runs)?;
        }
        Ok(all)
    }
}

impl<'a> View<'a> {
    /// The volume as it is now.
    ///
    /// # Errors
    /// Refused, when `$MFT` cannot be read.
    pub fn new(changes: &'a Changes<'a>, geometry: &'a Geometry) -> Result<Self> {
        Self::open(changes, geometry, false)
    }

    /// The volume as it is on disk, to find the log: a torn system record is read from `$MFTMirr`.
    ///
    /// # Errors
    /// Refused, when `$MFT` cannot be read.
    pub fn to_find_log(changes: &'a Changes<'a>, geometry: &'a Geometry) -> Result<Self> {
        Self::open(changes, geometry, true)
    }

    fn open(changes: &'a Changes<'a>, geometry: &'a Geometry, mirrored: bool) -> Result<Self> {
        let mut start = Runlist::default();
        let clusters = geometry.clusters_for(u64::from(geometry.record_size) * 4);
        start.push(Some(geometry.mft), clusters);
        let mut view = Self { changes, geometry, mft: Extents(vec![start]), mirrored };
        let record = view.record(RecordNumber::MFT)?.ok_or_else(|| refuse("the record of $MFT cannot be read"))?;
        let own = |attribute: &Attribute<'_>| attribute.kind() == AttributeType::DATA && attribute.is_named("");
        let first = record.attributes().map(|(_, attribute)| attribute).find(own).filter(|data| !data.is_resident());
        let first = first.ok_or_else(|| refuse("$MFT has no data"))?;
        view.mft = Extents(vec![first.runlist(geometry.cluster_count)?]);
        let file = FileId { record: RecordNumber::MFT, sequence: record.sequence() };
        let target = Target { file, kind: AttributeType::DATA, name: Default::default() };
        if let Some(all) = view.extents(&target)? {
            view.mft = all;
        }
        Ok(view)
    }

    /// A file record; `None` when it is not intact.
    pub fn record(&self, number: RecordNumber) -> Result<Option<Record>> {
        if let Some(record) = self.raw_record(number)?.and_then(|raw| Record::parse(raw).ok()) {
            return Ok(Some(record));
        }
        if !self.mirrored || number.0 > RecordNumber::VOLUME.0 {
            return Ok(None);
        }
        let mut raw = vec![0; self.geometry.record_size as usize];
        let offset = number.0.saturating_mul(self.geometry.record_size.into());
        self.changes.read(self.geometry.bytes_in(self.geometry.mirror.0).saturating_add(offset), &mut raw)?;
        Ok(Record::parse(raw).ok())
    }

    /// A file record as it is on disk; `None` outside of `$MFT`.
    pub fn raw_record(&self, number: RecordNumber) -> Result<Option<Vec<u8>>> {
        let size = self.geometry.record_size;
        let mut raw = vec![0; size as usize];
        let offset = number.0.checked_mul(size.into()).ok_or_else(|| refuse("a record number overflows"))?;
        Ok(self.read(&self.mft, offset, &mut raw)?.then_some(raw))
    }

    /// Fills `buf` from a stream; whether it has so many bytes, and no hole there.
    fn read(&self, stream: &Extents, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let cluster = u64::from(self.geometry.cluster_size);
        let mut done = 0usize;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            let Some(lcn) = stream.cluster(at / cluster) else { return Ok(false) };
            let inside = at % cluster;
            let left = usize::try_from(cluster - inside).unwrap_or(usize::MAX);
            let end = buf.len().min(done.saturating_add(left));
            let part = buf.get_mut(done..end).unwrap_or_default();
            self.changes.read(self.geometry.bytes_in(lcn).saturating_add(inside), part)?;
            done = end;
        }
        Ok(true)
    }

    /// The extents of a non-resident attribute; `None` when the file, or the attribute, does not exist (any more).
    pub fn extents(&self, target: &Target) -> Result<Option<Extents>> {
        let Some(base) = self.record(target.file.record)? else { return Ok(None) };
        if !base.is_in_use() || base.sequence() != target.file.sequence || base.base().is_some() {
            return Ok(None);
        }
        let mut found = Vec::new();
        let mut add = |attribute: &Attribute<'_>| {
            let wanted = attribute.kind() == target.kind && attribute.name() == target.name && !attribute.is_resident();
            if wanted {
                found.push(attribute.runlist(self.geometry.cluster_count)?);
            }
            Ok::<_, crate::error::Error>(())
        };
        for (_, attribute) in base.attributes() {
            add(&attribute)?;
        }
        let list =
            base.attributes().map(|(_, attribute)| attribute).find(|a| a.kind() == AttributeType::ATTRIBUTE_LIST);
        if let Some(list) = list {
            let mut entries = attribute_list::parse(&self.list_bytes(&list)?)?;
            entries.retain(|e| e.kind == target.kind && e.name == target.name && e.record.record != target.file.record);
            for entry in entries {
                let Some(record) = self.record(entry.record.record)? else { return Ok(None) };
                if record.base().is_none_or(|base| base.record != target.file.record) {
                    return Ok(None);
                }
                if let Some((_, attribute)) = record.find_instance(entry.kind, entry.instance) {
                    add(&attribute)?;
                }
            }
        }
        found.sort_by_key(Runlist::first);
        Ok(Some(Extents(found)).filter(|extents| !extents.0.is_empty()))
    }

    fn list_bytes(&self, list: &Attribute<'_>) -> Result<Vec<u8>> {
        if let Some(value) = list.value() {
            return Ok(value.to_vec());
        }
        let size = usize::try_from(list.data_size()).ok().filter(|&size| size as u64 <= LIST_SIZE_MAX);
        let mut bytes = vec![0; size.ok_or_else(|| refuse("an attribute list is too long"))?];
        let runs = Extents(vec![list.runlist(self.geometry.cluster_count)?]);
        if !self.read(&runs, 0, &mut bytes)? {
            return Err(refuse("an attribute list has a hole"));
        }
        Ok(bytes)
    }

    /// A cluster out of `lcns` that the runs of a file in use hold, and the file. Reads all of `$MFT`.
    pub fn owner_of_any(&self, lcns: &BTreeSet<u64>) -> Result<Option<(u64, FileId)>> {
        if lcns.is_empty() {
            return Ok(None);
        }
        let size = self.geometry.record_size as usize;
        let bytes = self.geometry.bytes_in(self.mft.end().min(self.geometry.cluster_count));
        let mut chunk = vec![0; size.saturating_mul(RECORDS_AT_ONCE)];
        let mut offset = 0u64;
        while offset < bytes {
            let left = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(chunk.len());
            let records = chunk.get_mut(..left).unwrap_or_default();
            if !self.read(&self.mft, offset, records)? {
                return Err(refuse("$MFT has a hole"));
            }
            let numbers = offset / u64::from(self.geometry.record_size)..;
            for (number, raw) in numbers.zip(records.chunks_exact(size)) {
                if let Some(found) = self.owned_by(RecordNumber(number), raw, lcns)? {
                    return Ok(Some(found));
                }
            }
            offset = offset.saturating_add(left as u64);
        }
        Ok(None)
    }

    /// A cluster out of `lcns` that the runs in a file record hold, and the file.
    fn owned_by(&self, number: RecordNumber, raw: &[u8], lcns: &BTreeSet<u64>) -> Result<Option<(u64, FileId)>> {
        if !raw.starts_with(&fixup::FILE) || header::FLAGS.get(raw) & FLAG_IN_USE == 0 {
            return Ok(None);
        }
        let record = Record::parse(raw.to_vec())?;
        for (_, attribute) in record.attributes().filter(|(_, attribute)| !attribute.is_resident()) {
            for (lcn, length) in attribute.runlist(self.geometry.cluster_count)?.real() {
                if let Some(&owned) = lcns.range(lcn.0..lcn.0.saturating_add(length)).next() {
                    let itself = FileId { record: number, sequence: record.sequence() };
                    return Ok(Some((owned, record.base().unwrap_or(itself))));
                }
            }
        }
        Ok(None)
    }

    /// Whether a cluster is free by `$Bitmap`.
    pub fn is_free(&self, bitmap: &Extents, lcn: u64) -> Result<bool> {
        let mut byte = [0];
        Ok(self.read(bitmap, lcn / 8, &mut byte)? && byte.first().is_some_and(|byte| byte >> (lcn % 8) & 1 == 0))
    }
}

/// Where the bytes of a stream without holes lie on the volume.
pub(super) fn locate(geometry: &Geometry, runs: &Runlist, offset: u64, length: usize) -> Result<Vec<(u64, usize)>> {
    let pieces = pieces(geometry, runs, offset, length)?.into_iter();
    pieces.map(|(at, length)| Ok((at.ok_or_else(|| refuse("it has a hole in its clusters"))?, length))).collect()
}
