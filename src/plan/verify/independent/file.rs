//! Files: a base record, its attribute list and its extension records, each read once.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::block_cache::BlockCache;
use super::bytes::{damaged, short_at, size, slice, u8_at, u16_at, u32_at, u64_at, unprotect, utf16_at};
use super::geometry::Geometry;
use super::record::{ATTRIBUTE_LIST, Attribute, DATA, DIRECTORY, Extent, Record, Value};
use super::stream::Stream;
use crate::error::Result;
use crate::io::VolumeRead;

/// Largest attribute list that Windows reads, in bytes.
const LIST_MAX: u64 = 256 << 10;
/// Files that are cached; then the cache is emptied.
const FILES: usize = 4096;
/// `$UpCase`: one unit for each of 65,536.
const UPCASE_BYTES: u64 = 128 << 10;

const MFT: u64 = 0;
const UPCASE: u64 = 10;

/// The record number of a reference.
pub(super) fn number_of(reference: u64) -> u64 {
    reference & 0xFFFF_FFFF_FFFF
}

fn sequence_of(reference: u64) -> u16 {
    u16::try_from(reference >> 48).unwrap_or_default()
}

/// All attributes of one file.
#[derive(Debug)]
pub(super) struct File {
    pub number: u64,
    pub sequence: u16,
    pub flags: u16,
    /// Whether its attributes are spread over several records, or could be.
    pub has_list: bool,
    pub attributes: Vec<Attribute>,
}

impl File {
    pub(super) fn is_directory(&self) -> bool {
        self.flags & DIRECTORY != 0
    }
}

/// An entry of an attribute list.
struct Listed {
    kind: u32,
    lowest: u64,
    record: u64,
    instance: u16,
    name: Vec<u16>,
}

fn parse_list(bytes: &[u8]) -> Result<Vec<Listed>> {
    let (mut entries, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let length = short_at(bytes, at.saturating_add(4))?;
        if length < 0x18 {
            return Err(damaged("an attribute list is malformed"));
        }
        let entry = slice(bytes, at, length)?;
        let units = usize::from(u8_at(entry, 6)?);
        let name = if units == 0 { Vec::new() } else { utf16_at(entry, usize::from(u8_at(entry, 7)?), units)? };
        entries.push(Listed {
            kind: u32_at(entry, 0)?,
            lowest: u64_at(entry, 8)?,
            record: u64_at(entry, 0x10)?,
            instance: u16_at(entry, 0x18)?,
            name,
        });
        at += length;
    }
    Ok(entries)
}

/// The file records of a volume.
pub(super) struct Files<'a> {
    pub device: BlockCache<'a>,
    pub geometry: Geometry,
    mft: Stream,
    upcase: Vec<u16>,
    cache: RefCell<HashMap<u64, Rc<File>>>,
}

impl<'a> Files<'a> {
    pub(super) fn open(volume: &'a dyn VolumeRead) -> Result<Self> {
        let device = BlockCache::new(volume);
        let mut boot = [0; 512];
        device.read(0, &mut boot)?;
        let geometry = Geometry::read(&boot, device.len())?;
        let mft = Stream::of_runs(Vec::new(), 0, 0);
        let mut this = Self { device, geometry, mft, upcase: Vec::new(), cache: RefCell::default() };
        this.map_mft()?;
        let table = this.file(UPCASE)?;
        let table = this.stream(&table, DATA, &[])?.ok_or_else(|| damaged("$UpCase has no content"))?;
        let table = this.read_all(&table, UPCASE_BYTES)?;
        this.upcase = table.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        // Files that were read before the table was loaded compared names without it.
        this.cache.borrow_mut().clear();
        Ok(this)
    }

    /// Maps `$MFT`: its first extent is in record 0, and each further one is in a record that the extents before it
    /// map.
    fn map_mft(&mut self) -> Result<()> {
        let mut block = vec![0; size(self.geometry.record)?];
        self.device.read(self.geometry.mft, &mut block)?;
        unprotect(&mut block, b"FILE")?;
        let record = Record::read(&block, self.geometry.cluster_count)?;
        let first = record.attributes.iter().find_map(|attribute| match &attribute.value {
            Value::Extent(extent) if is_mft_data(attribute) && extent.lowest == 0 => Some(extent),
            _ => None,
        });
        let first = first.ok_or_else(|| damaged("$MFT has no content"))?;
        self.mft = Stream::of_runs(first.runs.clone(), first.data_size, first.initialized.min(first.data_size));
        for (lowest, reference) in self.mft_extents(&record)? {
            if lowest != self.mft.end() {
                return Err(damaged("the extents of $MFT have a gap or overlap"));
            }
            let part = self.record(number_of(reference))?;
            let extent = part.attributes.iter().find_map(|attribute| match &attribute.value {
                Value::Extent(extent) if is_mft_data(attribute) && extent.lowest == lowest => Some(extent),
                _ => None,
            });
            let extent: &Extent = extent.ok_or_else(|| damaged("an extent of $MFT is missing"))?;
            self.mft.extend(&extent.runs);
        }
        let mapped = self.mft.end().saturating_mul(self.geometry.cluster);
        if mapped < self.mft.len || self.mft.runs.iter().any(|run| run.lcn.is_none()) {
            return Err(damaged("$MFT is longer than its runs, or has a hole"));
        }
        Ok(())
    }

    /// Lowest VCN and record of every further extent of `$MFT`.
    fn mft_extents(&self, record: &Record) -> Result<BTreeMap<u64, u64>> {
        let list = self.list(&record.attributes)?.unwrap_or_default();
        let entries = list.iter().filter(|entry| entry.kind == DATA && entry.name.is_empty() && entry.lowest > 0);
        Ok(entries.map(|entry| (entry.lowest, entry.record)).collect())
    }

    /// The attribute list that a base record has.
    fn list(&self, attributes: &[Attribute]) -> Result<Option<Vec<Listed>>> {
        let Some(list) = attributes.iter().find(|attribute| attribute.kind == ATTRIBUTE_LIST) else { return Ok(None) };
        let bytes = self.read_all(&Stream::join(&[list], &self.geometry)?, LIST_MAX)?;
        parse_list(&bytes).map(Some)
    }

    fn record(&self, number: u64) -> Result<Record> {
        let read = || {
            let mut block = vec![0; size(self.geometry.record)?];
            let at = number.checked_mul(self.geometry.record);
            let at = at.ok_or_else(|| damaged("a reference is beyond $MFT"))?;
            self.mft.read(&self.device, &self.geometry, at, &mut block)?;
            unprotect(&mut block, b"FILE")?;
            Record::read(&block, self.geometry.cluster_count)
        };
        read().map_err(|e| e.path(format!("file record {number}")))
    }

    /// The file of a base record.
    pub(super) fn file(&self, number: u64) -> Result<Rc<File>> {
        if let Some(file) = self.cache.borrow().get(&number) {
            return Ok(Rc::clone(file));
        }
        let file = Rc::new(self.load(number).map_err(|e| e.path(format!("file record {number}")))?);
        let mut cache = self.cache.borrow_mut();
        if cache.len() >= FILES {
            cache.clear();
        }
        cache.insert(number, Rc::clone(&file));
        Ok(file)
    }

    /// The file of a reference, which must not be stale.
    pub(super) fn referenced(&self, reference: u64) -> Result<Rc<File>> {
        let file = self.file(number_of(reference))?;
        if sequence_of(reference) != file.sequence {
            return Err(damaged("a directory entry refers to a file that is gone"));
        }
        Ok(file)
    }

    fn load(&self, number: u64) -> Result<File> {
        let base = self.record(number)?;
        if base.base != 0 {
            return Err(damaged("an extension record is referred to as a file"));
        }
        let Record { sequence, flags, .. } = base;
        let Some(list) = self.list(&base.attributes)? else {
            return Ok(File { number, sequence, flags, has_list: false, attributes: base.attributes });
        };
        let mut records = BTreeMap::from([(number, base)]);
        let mut attributes = Vec::new();
        for entry in &list {
            let holder = number_of(entry.record);
            if let Entry::Vacant(place) = records.entry(holder) {
                let record = self.record(holder)?;
                if number_of(record.base) != number || sequence_of(record.base) != sequence {
                    return Err(damaged("an attribute list names a record of another file"));
                }
                place.insert(record);
            }
            let record = records.get(&holder).filter(|record| record.sequence == sequence_of(entry.record));
            let found = record.and_then(|record| {
                record.attributes.iter().find(|attribute| {
                    let is_kind = attribute.kind == entry.kind && attribute.instance == entry.instance;
                    is_kind && attribute.lowest() == entry.lowest && attribute.name == entry.name
                })
            });
            attributes.push(found.ok_or_else(|| damaged("an attribute that is listed is missing"))?.clone());
        }
        Ok(File { number, sequence, flags, has_list: true, attributes })
    }

    /// The attribute of a kind and name, its extents joined.
    pub(super) fn stream(&self, file: &File, kind: u32, name: &[u16]) -> Result<Option<Stream>> {
        let mut parts: Vec<_> = file.attributes.iter().filter(|attribute| attribute.kind == kind).collect();
        parts.retain(|attribute| self.compare(&attribute.name, name) == Ordering::Equal);
        parts.sort_by_key(|attribute| attribute.lowest());
        if parts.is_empty() {
            return Ok(None);
        }
        Stream::join(&parts, &self.geometry).map(Some).map_err(|e| e.path(format!("file record {}", file.number)))
    }

    pub(super) fn read(&self, stream: &Stream, at: u64, buf: &mut [u8]) -> Result<()> {
        stream.read(&self.device, &self.geometry, at, buf)
    }

    pub(super) fn read_all(&self, stream: &Stream, limit: u64) -> Result<Vec<u8>> {
        stream.read_all(&self.device, &self.geometry, limit)
    }

    /// Whether `$MFT` needs an attribute list.
    pub(super) fn has_listed_mft(&self) -> Result<bool> {
        Ok(self.file(MFT)?.has_list)
    }

    fn fold(&self, unit: u16) -> u16 {
        self.upcase.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// The order of names in this volume: code units under its `$UpCase`, a prefix first.
    pub(super) fn compare(&self, a: &[u16], b: &[u16]) -> Ordering {
        a.iter().map(|unit| self.fold(*unit)).cmp(b.iter().map(|unit| self.fold(*unit)))
    }
}

fn is_mft_data(attribute: &Attribute) -> bool {
    attribute.kind == DATA && attribute.name.is_empty()
}
