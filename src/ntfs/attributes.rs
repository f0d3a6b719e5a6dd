//! All attributes of one file, taken out of its records for an edit, and put back.
//!
//! Putting back is one algorithm for every edit: everything in the base record if it fits; else large resident values
//! go to clusters; else an attribute list is made (or kept) and attributes go to extension records, run lists that
//! are too long for one record in several extents. What need not move stays where it was.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::stream::Stream;
use super::volume::Volume;
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::format::attribute::{
    Attribute, AttributeType, FLAG_ENCRYPTED, StreamSizes, build_non_resident, build_resident,
    header as attribute_header, non_resident_overhead, resident,
};
use crate::ntfs::format::attribute_list::{self, LIST_SIZE_MAX, ListEntry};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::{NtfsName, compare_ignoring_case};
use crate::ntfs::format::record::{FLAG_IN_USE, Record, header};
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{FileId, RecordNumber, Vcn};

/// Records that one file may spread over: far above what 256 KiB of attribute list can name.
const EXTENSIONS_MAX: usize = 8192;

/// Where an attribute is stored: record and instance.
type Home = (RecordNumber, u16);

/// One attribute (or one extent of it).
#[derive(Debug, Clone)]
pub(super) struct Attr {
    pub kind: AttributeType,
    pub name: NtfsName,
    pub lowest: Vcn,
    /// The whole attribute with its header.
    pub bytes: Vec<u8>,
    /// Where it was (the first extent, when extents were joined). Empty for a new one.
    homes: Vec<Home>,
    /// The other extents that were joined: where they began, and where they were.
    cuts: Vec<(Vcn, Vec<Home>)>,
}

impl Attr {
    /// A new resident attribute.
    pub fn resident(kind: AttributeType, name: &NtfsName, value: &[u8]) -> Self {
        let bytes = build_resident(kind, name, value);
        Self { kind, name: name.clone(), lowest: Vcn(0), bytes, homes: Vec::new(), cuts: Vec::new() }
    }

    fn view(&self) -> Result<Attribute<'_>> {
        Attribute::parse(&self.bytes)
    }

    /// The value, if resident.
    pub fn value(&self) -> Option<&[u8]> {
        self.view().ok()?.value()
    }

    /// Whether it is (an extent of) what a file holds without a name.
    fn is_unnamed_data(&self) -> bool {
        self.kind == AttributeType::DATA && self.name.is_empty()
    }

    fn is_resident(&self) -> bool {
        attribute_header::NON_RESIDENT.get(&self.bytes) == 0
    }
}

/// All attributes of a file.
#[derive(Debug, Clone)]
pub(super) struct Attrs {
    pub file: FileId,
    pub list: Vec<Attr>,
    /// The attribute list itself, which is not in `list`.
    own_list: Option<Attr>,
    extensions: Vec<FileId>,
}

impl Attrs {
    /// Of a file that has none yet.
    pub fn new(file: FileId) -> Self {
        Self { file, list: Vec::new(), own_list: None, extensions: Vec::new() }
    }

    /// First attribute (extent) of a type and name.
    pub fn find(&self, kind: AttributeType, name: &str) -> Option<&Attr> {
        self.list.iter().find(|a| a.kind == kind && a.name == name)
    }

    /// The resident value of an unnamed attribute.
    pub fn value(&self, kind: AttributeType) -> Option<&[u8]> {
        self.find(kind, "")?.value()
    }

    /// Whether there is an attribute list.
    pub fn has_list(&self) -> bool {
        self.own_list.is_some()
    }

    /// Replaces a resident value (or adds the attribute).
    pub fn set_value(&mut self, kind: AttributeType, name: &str, value: &[u8]) {
        let name = NtfsName::from(name);
        let mut new = Attr::resident(kind, &name, value);
        match self.list.iter_mut().find(|a| a.kind == kind && a.name == name) {
            Some(old) => {
                new.homes = std::mem::take(&mut old.homes);
                new.name = old.name.clone();
                attribute_header::FLAGS.set(&mut new.bytes, attribute_header::FLAGS.get(&old.bytes));
                *old = new;
            }
            None => self.list.push(new),
        }
    }

    /// Removes all extents of an attribute.
    pub fn remove(&mut self, kind: AttributeType, name: &NtfsName) {
        self.list.retain(|a| a.kind != kind || a.name != *name);
    }

    /// The content of an attribute, its extents joined.
    pub fn stream(&self, kind: AttributeType, name: &NtfsName, clusters: u64) -> Result<Option<Stream>> {
        let mut extents: Vec<&Attr> = self.list.iter().filter(|a| a.kind == kind && a.name == *name).collect();
        extents.sort_by_key(|a| a.lowest);
        join(extents.iter().map(|a| a.view()), clusters)
    }

    /// Replaces the content of an attribute (or adds it). Long run lists are cut when the attributes are put back.
    pub fn set_stream(&mut self, kind: AttributeType, name: &NtfsName, stream: &Stream, cluster_size: u32) {
        let mut old: Vec<Attr> = Vec::new();
        self.list.retain(|a| {
            let is_it = a.kind == kind && a.name == *name;
            if is_it {
                old.push(a.clone());
            }
            !is_it
        });
        old.sort_by_key(|a| a.lowest);
        let bytes = match stream {
            Stream::Resident(value) => build_resident(kind, name, value),
            Stream::Runs { runs, sizes } => {
                build_non_resident(kind, name, runs, sizes, runs.real_clusters() * u64::from(cluster_size))
            }
        };
        let mut old = old.into_iter();
        let homes = old.next().map(|a| a.homes).unwrap_or_default();
        let cuts = old.map(|a| (a.lowest, a.homes)).collect();
        self.list.push(Attr { kind, name: name.clone(), lowest: Vcn(0), bytes, homes, cuts });
    }
}

/// Joins the extents of one attribute, given in ascending order.
fn join<'a>(extents: impl Iterator<Item = Result<Attribute<'a>>>, clusters: u64) -> Result<Option<Stream>> {
    let mut joined: Option<(Runlist, StreamSizes)> = None;
    let mut extents = extents.peekable();
    while let Some(extent) = extents.next() {
        let extent = extent?;
        if let Some(value) = extent.value() {
            // which of two counts depends on the reader
            if joined.is_some() || extents.peek().is_some() {
                return Err(damaged("two attributes of one type and name"));
            }
            return Ok(Some(Stream::Resident(value.to_vec())));
        }
        let runs = extent.runlist(clusters)?;
        match &mut joined {
            None if extent.lowest_vcn() != Vcn(0) => {
                return Err(damaged("the first extent of an attribute is missing"));
            }
            None => joined = Some((runs, StreamSizes::of(&extent))),
            Some((all, _)) => all.append(&runs)?,
        }
    }
    Ok(joined.map(|(runs, sizes)| Stream::Runs { runs, sizes }))
}

impl<D: VolumeRead> Volume<D> {
    /// The base record of a file, after checking that the reference is current.
    pub(super) fn base_record(&self, file: FileId) -> Result<Arc<Record>> {
        let record = self.record(file.record)?;
        if !record.is_in_use() || record.base().is_some() || record.sequence() != file.sequence {
            let error = damaged(format!("reference {file} does not lead to a file"));
            return self.in_record(file.record, Err(error.expected_found(file.sequence, record.sequence())));
        }
        Ok(record)
    }

    /// The entries of a file's attribute list; `None` when it has none.
    pub(super) fn attribute_list(&self, base: &Record) -> Result<Option<Vec<ListEntry>>> {
        let Some(list) = base.find(AttributeType::ATTRIBUTE_LIST, "") else { return Ok(None) };
        let stream = join(std::iter::once(Ok(list)), self.geometry.cluster_count)?;
        let stream = stream.unwrap_or(Stream::Resident(Vec::new()));
        stream.check(&self.geometry)?;
        stream.check_metadata("an attribute list")?;
        let bytes = self.read_small(&stream, LIST_SIZE_MAX, "attribute list")?;
        attribute_list::parse(&bytes).map(Some)
    }

    /// The record that an attribute list entry names, after checking that it belongs to the file.
    pub(super) fn extension(&self, file: FileId, entry: &ListEntry) -> Result<Arc<Record>> {
        if entry.record == file {
            return self.record(file.record);
        }
        let record = self.record(entry.record.record)?;
        if !record.is_in_use() || record.base() != Some(file) || record.sequence() != entry.record.sequence {
            return Err(damaged(format!("attribute list of {file} names record {}", entry.record))
                .expected_found("an extension of this file", "another record"));
        }
        Ok(record)
    }

    /// Looks for an attribute through the list: calls `visit` with each extent in ascending order.
    fn extents(
        &self,
        file: FileId,
        kind: AttributeType,
        name: &NtfsName,
        visit: &mut dyn FnMut(RecordNumber, &Attribute<'_>) -> Result<()>,
    ) -> Result<()> {
        let base = self.base_record(file)?;
        let same = |a: &NtfsName| *a == *name || self.same_name(a, name);
        let Some(list) = self.attribute_list(&base)? else {
            for (_, attribute) in base.attributes().filter(|(_, a)| a.kind() == kind) {
                if same(&attribute.name()) {
                    visit(file.record, &attribute)?;
                }
            }
            return Ok(());
        };
        let mut entries: Vec<&ListEntry> = list.iter().filter(|e| e.kind == kind && same(&e.name)).collect();
        entries.sort_by_key(|e| e.lowest);
        for entry in entries {
            let record = self.extension(file, entry)?;
            let (_, attribute) = record.find_instance(kind, entry.instance).ok_or_else(|| missing(file, entry))?;
            visit(entry.record.record, &attribute)?;
        }
        Ok(())
    }

    /// Whether two names are the same, case ignored.
    pub(super) fn same_name(&self, a: &NtfsName, b: &NtfsName) -> bool {
        let le = |name: &NtfsName| name.units().iter().flat_map(|u| u.to_le_bytes()).collect::<Vec<u8>>();
        a.units().len() == b.units().len() && compare_ignoring_case(&le(a), &le(b), &self.upcase) == Ordering::Equal
    }

    /// The content of an attribute; `None` when the file has no such attribute.
    pub(super) fn stream(&self, file: FileId, kind: AttributeType, name: &NtfsName) -> Result<Option<Stream>> {
        self.in_record(file.record, self.join_stream(file, kind, name))
    }

    fn join_stream(&self, file: FileId, kind: AttributeType, name: &NtfsName) -> Result<Option<Stream>> {
        let mut copies: Vec<Vec<u8>> = Vec::new();
        self.extents(file, kind, name, &mut |_, attribute| {
            copies.push(attribute.bytes().to_vec());
            Ok(())
        })?;
        let stream = join(copies.iter().map(|c| Attribute::parse(c)), self.geometry.cluster_count)?;
        if let Some(stream) = &stream {
            stream.check(&self.geometry)?;
        }
        Ok(stream)
    }

    /// The record that holds the first extent of an attribute, and its instance there.
    pub(super) fn home_of(&self, file: FileId, kind: AttributeType, name: &NtfsName) -> Result<Option<Home>> {
        let mut home = None;
        let extents = self.extents(file, kind, name, &mut |record, attribute| {
            home.get_or_insert((record, attribute.instance()));
            Ok(())
        });
        self.in_record(file.record, extents)?;
        Ok(home)
    }

    /// The resident value of a file's unnamed attribute.
    pub(super) fn resident_value(&self, file: FileId, kind: AttributeType) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.base_record(file)?.find(kind, "").and_then(|a| a.value()) {
            return Ok(Some(value.to_vec()));
        }
        Ok(match self.stream(file, kind, &NtfsName::default())? {
            Some(Stream::Resident(value)) => Some(value),
            _ => None,
        })
    }

    /// Takes out all attributes of a file.
    pub(super) fn load(&self, file: FileId) -> Result<Attrs> {
        self.in_record(file.record, self.take_out(file))
    }

    fn take_out(&self, file: FileId) -> Result<Attrs> {
        let base = self.base_record(file)?;
        let mut attrs = Attrs::new(file);
        let take = |record: RecordNumber, attribute: &Attribute<'_>| Attr {
            kind: attribute.kind(),
            name: attribute.name(),
            lowest: attribute.lowest_vcn(),
            bytes: attribute.bytes().to_vec(),
            homes: vec![(record, attribute.instance())],
            cuts: Vec::new(),
        };
        let Some(list) = self.attribute_list(&base)? else {
            attrs.list = base.attributes().map(|(_, a)| take(file.record, &a)).collect();
            return Ok(attrs);
        };
        let mut seen = HashSet::new();
        for entry in &list {
            if entry.kind == AttributeType::ATTRIBUTE_LIST {
                continue;
            }
            let record = self.extension(file, entry)?;
            let (_, attribute) =
                record.find_instance(entry.kind, entry.instance).ok_or_else(|| missing(file, entry))?;
            if attribute.lowest_vcn() != entry.lowest
                || !self.same_name(&attribute.name(), &entry.name)
                || !seen.insert((entry.record, entry.instance))
            {
                return Err(damaged(format!("attribute list of {file} contradicts its records")));
            }
            if entry.record != file && !attrs.extensions.contains(&entry.record) {
                attrs.extensions.push(entry.record);
            }
            attrs.list.push(take(entry.record.record, &attribute));
        }
        if attrs.extensions.len() > EXTENSIONS_MAX {
            return Err(damaged("file with too many records"));
        }
        // what the list does not name would be lost when the records are written anew
        let mut there = base.attributes().filter(|(_, a)| a.kind() != AttributeType::ATTRIBUTE_LIST).count();
        for id in &attrs.extensions {
            there += self.record(id.record)?.attributes().count();
        }
        if there != attrs.list.len() {
            return Err(damaged(format!("attribute list of {file} does not name all attributes"))
                .expected_found(there, attrs.list.len()));
        }
        attrs.own_list = base.find(AttributeType::ATTRIBUTE_LIST, "").map(|a| take(file.record, &a));
        Ok(attrs)
    }
}

fn missing(file: FileId, entry: &ListEntry) -> Error {
    damaged(format!("attribute list of {file} names an attribute that is not there"))
        .expected_found(format!("{} #{} in {}", entry.kind, entry.instance, entry.record), "nothing")
}

/// Room for the attribute list in record 0: eight entries. It is always the same, so that the first extent of `$MFT` is
/// always cut at the same place.
const MFT_LIST_ROOM: usize = resident::HEADER_SIZE + 8 * 0x20;

/// Attributes that stay in the base record whatever happens.
fn must_stay(file: FileId, attr: &Attr) -> bool {
    match attr.kind {
        AttributeType::STANDARD_INFORMATION => true,
        // Vista-era systems do not mount a volume whose root's TxF data has moved (KB974729)
        AttributeType::LOGGED_UTILITY_STREAM => file == FileId::ROOT,
        _ if attr.is_unnamed_data() => file.record == RecordNumber::MFT && attr.lowest == Vcn(0),
        _ => false,
    }
}

/// Which attributes leave the base record last: smaller is later.
fn rank(attr: &Attr) -> u8 {
    match attr.kind {
        AttributeType::FILE_NAME | AttributeType::VOLUME_NAME | AttributeType::VOLUME_INFORMATION => 0,
        AttributeType::INDEX_ROOT => 1,
        _ if attr.is_resident() => 2,
        _ if attr.lowest == Vcn(0) => 3,
        _ => 4,
    }
}

/// Whether a resident attribute may be moved into clusters to make room.
fn may_leave_record(attr: &Attr) -> bool {
    attr.is_resident()
        && attribute_header::FLAGS.get(&attr.bytes) & FLAG_ENCRYPTED == 0
        && matches!(
            attr.kind,
            AttributeType::DATA
                | AttributeType::SECURITY_DESCRIPTOR
                | AttributeType::REPARSE_POINT
                | AttributeType::EA
                | AttributeType::BITMAP
        )
}

impl<D: VolumeWrite> Volume<D> {
    /// Puts all attributes of a file back, see the module's description.
    pub(super) fn store(&mut self, mut attrs: Attrs) -> Result<()> {
        let base = self.record(attrs.file.record)?;
        let capacity = base.capacity();
        self.sort(&mut attrs.list);
        let total = |list: &[Attr]| list.iter().map(|a| a.bytes.len()).sum::<usize>();
        if !attrs.has_list() {
            while total(&attrs.list) > capacity {
                if !self.move_one_to_clusters(&mut attrs)? {
                    break;
                }
            }
            if total(&attrs.list) <= capacity {
                let list = std::mem::take(&mut attrs.list);
                return self.write_record(attrs.file.record, list.iter().map(|a| (a, a.homes.first().copied())));
            }
        }
        // in an extension record a long value would leave no room for anything else
        while attrs.list.iter().any(|a| may_leave_record(a) && a.bytes.len() > capacity / 2) {
            if !self.move_one_to_clusters(&mut attrs)? {
                break;
            }
        }
        self.spread(attrs, capacity)
    }

    /// The order of attributes in a record and in a list: type, name in upper case, VCN.
    fn sort(&self, list: &mut [Attr]) {
        let le = |name: &NtfsName| name.units().iter().flat_map(|u| u.to_le_bytes()).collect::<Vec<u8>>();
        list.sort_by(|a, b| {
            a.kind
                .cmp(&b.kind)
                .then_with(|| {
                    if a.name == b.name {
                        Ordering::Equal
                    } else {
                        compare_ignoring_case(&le(&a.name), &le(&b.name), &self.upcase)
                    }
                })
                .then_with(|| a.name.cmp(&b.name))
                .then(a.lowest.cmp(&b.lowest))
        });
    }

    /// Moves the largest resident value that may be outside into clusters; `false` when none would save anything.
    fn move_one_to_clusters(&mut self, attrs: &mut Attrs) -> Result<bool> {
        // the volume's own bitmaps are found where they are
        if [RecordNumber::MFT, RecordNumber::BITMAP].contains(&attrs.file.record) {
            return Ok(false);
        }
        let mut best: Option<(usize, usize)> = None;
        for (index, attr) in attrs.list.iter().enumerate().filter(|(_, a)| may_leave_record(a)) {
            let after =
                crate::field::align8(non_resident_overhead(attr.name.units().len(), &StreamSizes::default()) + 8);
            // unnamed data goes first, whatever its size
            let weight = if attr.is_unnamed_data() { usize::MAX } else { attr.bytes.len() };
            if attr.bytes.len() > after && best.is_none_or(|(_, w)| weight > w) {
                best = Some((index, weight));
            }
        }
        let Some((index, _)) = best else { return Ok(false) };
        let attr = &attrs.list[index];
        let value = attr.value().unwrap_or_default().to_vec();
        let stream = self.new_plain_stream(&value, None)?;
        let Stream::Runs { runs, sizes } = &stream else { return Ok(false) };
        let (kind, name) = (attr.kind, attr.name.clone());
        attrs.list[index].bytes = build_non_resident(kind, &name, runs, sizes, 0);
        Ok(true)
    }

    /// Spreads the attributes over base and extension records.
    fn spread(&mut self, mut attrs: Attrs, capacity: usize) -> Result<()> {
        let file = attrs.file;
        self.cut_long_attributes(&mut attrs, capacity)?;
        self.sort(&mut attrs.list);
        let list_size: usize = attrs
            .list
            .iter()
            .map(|a| crate::field::align8(attribute_list::layout::NAME + 2 * a.name.units().len()))
            .sum();
        if list_size as u64 > LIST_SIZE_MAX {
            return Err(Error::refused(Layer::Ntfs, "the file would need an attribute list of more than 256 KiB")
                .hint("the volume's free space is too fragmented: defragment it in the guest"));
        }
        let own_list = self.room_for_list(&attrs, list_size, capacity)?;
        let mut plan = Plan::new(file, capacity, own_list.bytes.len());
        plan.keep_in_base(&attrs.list)?;
        plan.keep_in_extensions(&attrs.list);
        for index in 0..attrs.list.len() {
            if plan.place[index].is_none() && !plan.put_anywhere(index, &attrs.list[index]) {
                let id = self.new_extension(&attrs, &attrs.list[index])?;
                plan.open(id.record);
                attrs.extensions.push(id);
                if !plan.put_anywhere(index, &attrs.list[index]) {
                    return Err(Error::bug(Layer::Ntfs, "an attribute does not fit an empty record"));
                }
            }
        }
        self.write_spread(attrs, &plan, own_list)
    }

    /// Cuts run lists that fit no record into extents.
    fn cut_long_attributes(&mut self, attrs: &mut Attrs, capacity: usize) -> Result<()> {
        let is_mft = attrs.file.record == RecordNumber::MFT;
        let mut out = Vec::with_capacity(attrs.list.len());
        let others: usize = attrs.list.iter().filter(|a| a.kind != AttributeType::DATA).map(|a| a.bytes.len()).sum();
        for attr in std::mem::take(&mut attrs.list) {
            // the first extent of $MFT shares record 0 with everything else and the list
            let pinned = is_mft && attr.is_unnamed_data() && attr.lowest == Vcn(0);
            let limit = if pinned { capacity.saturating_sub(others + MFT_LIST_ROOM) } else { capacity };
            if attr.bytes.len() <= limit {
                out.push(attr);
                continue;
            }
            if attr.is_resident() {
                return Err(Error::refused(Layer::Ntfs, format!("{} is too long for a record", attr.kind))
                    .hint("the file has too much in its record; nothing was changed"));
            }
            let view = attr.view()?;
            let sizes = StreamSizes::of(&view);
            let mut rest = Some(view.runlist(self.geometry.cluster_count)?);
            let total = rest.as_ref().map_or(0, Runlist::real_clusters);
            let overhead = non_resident_overhead(attr.name.units().len(), &sizes);
            let mut cuts = attr.cuts.iter();
            let mut room = limit;
            while let Some(runs) = rest {
                // the old extents stay what they were, as far as they still fit: other records are found through them
                let (whole, after) = match cuts.by_ref().find(|(cut, _)| *cut > runs.first() && cut.0 < runs.end()) {
                    Some((cut, _)) => runs.split_at(*cut),
                    None => (runs, Runlist::default()),
                };
                let (head, mut tail) = whole.split_to_fit(room.saturating_sub(overhead).saturating_sub(7));
                if !after.is_empty() {
                    match &mut tail {
                        Some(tail) => tail.append(&after)?,
                        None => tail = Some(after),
                    }
                }
                let bytes = build_non_resident(attr.kind, &attr.name, &head, &sizes, self.geometry.bytes_in(total));
                let (kind, name, lowest) = (attr.kind, attr.name.clone(), head.first());
                let homes = match attr.cuts.iter().find(|(cut, _)| *cut == lowest) {
                    Some((_, homes)) => homes.clone(),
                    None if lowest == attr.lowest => attr.homes.clone(),
                    None => Vec::new(),
                };
                out.push(Attr { kind, name, lowest, bytes, homes, cuts: Vec::new() });
                rest = tail;
                room = capacity;
            }
        }
        attrs.list = out;
        Ok(())
    }

    /// The attribute that holds the list: resident when it is short, else in clusters with room for `size` bytes.
    fn room_for_list(&mut self, attrs: &Attrs, size: usize, capacity: usize) -> Result<Attr> {
        let kind = AttributeType::ATTRIBUTE_LIST;
        let name = NtfsName::default();
        let homes = attrs.own_list.as_ref().map(|a| a.homes.clone()).unwrap_or_default();
        let old = match &attrs.own_list {
            Some(attr) => join(std::iter::once(attr.view()), self.geometry.cluster_count)?,
            None => None,
        };
        let musts: usize = attrs.list.iter().filter(|a| must_stay(attrs.file, a)).map(|a| a.bytes.len()).sum();
        let most =
            if attrs.file.record == RecordNumber::MFT { MFT_LIST_ROOM - resident::HEADER_SIZE } else { capacity / 3 };
        let stays_resident = matches!(old, None | Some(Stream::Resident(_))) && size <= most;
        let bytes = if stays_resident && musts + size + resident::HEADER_SIZE <= capacity {
            build_resident(kind, &name, &vec![0; size])
        } else {
            let mut runs = match old {
                Some(Stream::Runs { runs, .. }) => runs,
                _ => Runlist::default(),
            };
            let wanted = self.geometry.clusters_for(size as u64);
            self.extend_runs(&mut runs, wanted)?;
            let (allocated, data) = (self.geometry.bytes_in(runs.end()), size as u64);
            let sizes = StreamSizes { allocated, data, initialized: data, ..StreamSizes::default() };
            build_non_resident(kind, &name, &runs, &sizes, 0)
        };
        Ok(Attr { kind, name, lowest: Vcn(0), bytes, homes, cuts: Vec::new() })
    }

    /// A fresh extension record for `attr`.
    fn new_extension(&mut self, attrs: &Attrs, attr: &Attr) -> Result<FileId> {
        let file = attrs.file;
        let (number, sequence) = if file.record == RecordNumber::MFT {
            // what is no extent of the data may lie anywhere in the part that record 0 itself maps
            let data = attrs.list.iter().filter(|a| a.is_unnamed_data());
            let second = data.map(|a| a.lowest).filter(|&vcn| vcn > Vcn(0)).min();
            let before = if attr.is_unnamed_data() { attr.lowest } else { second.unwrap_or(Vcn(u64::MAX)) };
            self.take_record_for_mft(before)?
        } else {
            self.take_record()?
        };
        let mut record = Record::blank(number, sequence, FLAG_IN_USE, self.geometry.record_size as usize);
        header::BASE.set(record.bytes_mut(), file.to_raw());
        self.put_record(number, record);
        Ok(FileId { record: number, sequence })
    }

    /// Writes the records of a plan, then the list; frees extensions that became empty.
    fn write_spread(&mut self, mut attrs: Attrs, plan: &Plan, own_list: Attr) -> Result<()> {
        let file = attrs.file;
        let size = self.geometry.record_size as usize;
        let numbers: Vec<FileId> = std::iter::once(file).chain(attrs.extensions.iter().copied()).collect();
        for id in &numbers {
            let mut here: Vec<usize> = (0..attrs.list.len()).filter(|&i| plan.place[i] == Some(id.record)).collect();
            if here.is_empty() && *id != file {
                self.free_record(id.record)?;
                continue;
            }
            here.sort_unstable();
            let home = |a: &Attr| a.homes.iter().find(|h| h.0 == id.record).copied();
            let mut items: Vec<(&Attr, Option<Home>)> =
                here.iter().map(|&i| (&attrs.list[i], home(&attrs.list[i]))).collect();
            if *id == file {
                let at = items.iter().position(|(a, _)| a.kind > AttributeType::ATTRIBUTE_LIST).unwrap_or(items.len());
                items.insert(at, (&own_list, own_list.homes.first().copied()));
            }
            self.write_record(id.record, items.into_iter())?;
            // the record has given out instances: remember them for the list
            let record = self.record(id.record)?;
            let mut given = record.attributes().filter(|(_, a)| a.kind() != AttributeType::ATTRIBUTE_LIST);
            for &index in &here {
                let instance = given.next().map(|(_, a)| a.instance());
                attrs.list[index].homes = instance.map(|i| (id.record, i)).into_iter().collect();
            }
        }
        if file.record == RecordNumber::MFT {
            for attr in attrs.list.iter().filter(|a| a.is_unnamed_data() && a.lowest > Vcn(0)) {
                let end = attr.homes.first().map_or(u64::MAX, |home| (home.0.0 + 1).saturating_mul(size as u64));
                if end > self.geometry.bytes_in(attr.lowest.0) {
                    return Err(Error::refused(Layer::Ntfs, "$MFT is too fragmented to grow")
                        .hint("free or defragment space in the guest and try again"));
                }
            }
        }
        let sequences: BTreeMap<RecordNumber, FileId> = numbers.iter().map(|id| (id.record, *id)).collect();
        let mut bytes = Vec::new();
        for attr in &attrs.list {
            let (record, instance) =
                *attr.homes.first().ok_or_else(|| Error::bug(Layer::Ntfs, "an attribute was not placed"))?;
            let record = *sequences.get(&record).ok_or_else(|| Error::bug(Layer::Ntfs, "a record was not planned"))?;
            ListEntry { kind: attr.kind, name: attr.name.clone(), lowest: attr.lowest, record, instance }
                .encode(&mut bytes);
        }
        self.write_list(file, &bytes)
    }

    /// Stores the list's bytes in the place that was made for them.
    fn write_list(&mut self, file: FileId, bytes: &[u8]) -> Result<()> {
        let mut record = (*self.record(file.record)?).clone();
        let stream = match record.find(AttributeType::ATTRIBUTE_LIST, "") {
            Some(attribute) => join(std::iter::once(Ok(attribute)), self.geometry.cluster_count)?,
            None => None,
        };
        match stream {
            Some(Stream::Resident(_)) => {
                let value = record.value_mut(AttributeType::ATTRIBUTE_LIST).filter(|v| v.len() == bytes.len());
                value.ok_or_else(|| Error::bug(Layer::Ntfs, "no room for the attribute list"))?.copy_from_slice(bytes);
                self.put_record(file.record, record);
                Ok(())
            }
            Some(Stream::Runs { runs, .. }) => {
                let mut padded = bytes.to_vec();
                padded.resize(self.geometry.bytes_in(self.geometry.clusters_for(bytes.len() as u64)) as usize, 0);
                self.write_metadata(&runs, 0, &padded)
            }
            None => Err(Error::bug(Layer::Ntfs, "the attribute list is gone")),
        }
    }

    /// Writes one record: attributes that lived in it keep their instances, the others get new ones.
    fn write_record<'a>(
        &mut self,
        number: RecordNumber,
        items: impl Iterator<Item = (&'a Attr, Option<Home>)>,
    ) -> Result<()> {
        let old = self.record(number)?;
        let mut record = (*old).clone();
        let mut used = HashSet::new();
        let mut parts: Vec<(Vec<u8>, Option<u16>)> = Vec::new();
        for (attr, home) in items {
            let instance = home.filter(|h| h.0 == number).map(|h| h.1).filter(|i| used.insert(*i));
            parts.push((attr.bytes.clone(), instance));
        }
        let next = header::NEXT_INSTANCE.get(record.bytes());
        let renumber = usize::from(next) + parts.len() >= usize::from(u16::MAX);
        if renumber {
            // the numbers are used up: start again (a list is rewritten after its records)
            header::NEXT_INSTANCE.set(record.bytes_mut(), 0);
        } else if let Some(top) = used.iter().max().filter(|&&top| top >= next) {
            header::NEXT_INSTANCE.set(record.bytes_mut(), top + 1);
        }
        for (bytes, instance) in &mut parts {
            let instance = match *instance {
                Some(kept) if !renumber => kept,
                _ => record.next_instance().ok_or_else(|| Error::bug(Layer::Ntfs, "instance numbers are used up"))?,
            };
            attribute_header::INSTANCE.set(bytes, instance);
        }
        record.set_attributes(parts.iter().map(|(b, _)| b.as_slice()))?;
        if *old != record {
            self.put_record(number, record);
        }
        Ok(())
    }
}

/// Which attribute goes to which record.
struct Plan {
    file: FileId,
    capacity: usize,
    base_used: usize,
    used: BTreeMap<RecordNumber, usize>,
    place: Vec<Option<RecordNumber>>,
}

impl Plan {
    fn new(file: FileId, capacity: usize, list: usize) -> Self {
        Self { file, capacity, base_used: list, used: BTreeMap::new(), place: Vec::new() }
    }

    /// Chooses what is in the base record: what must, what was there, and what is new, as far as it fits.
    fn keep_in_base(&mut self, list: &[Attr]) -> Result<()> {
        self.place = vec![None; list.len()];
        let mut order: Vec<usize> = (0..list.len()).collect();
        order.sort_by_key(|&i| (!must_stay(self.file, &list[i]), rank(&list[i]), list[i].bytes.len()));
        for index in order {
            let attr = &list[index];
            let must = must_stay(self.file, attr);
            let was_here = attr.homes.first().is_none_or(|h| h.0 == self.file.record);
            if (must || was_here) && self.base_used + attr.bytes.len() <= self.capacity {
                self.base_used += attr.bytes.len();
                self.place[index] = Some(self.file.record);
            } else if must {
                return Err(Error::refused(Layer::Ntfs, "the base record of a file cannot hold what it must")
                    .hint("the file has too much in its record; nothing was changed"));
            }
        }
        Ok(())
    }

    /// Leaves attributes in the extension records in which they are, as far as they still fit.
    fn keep_in_extensions(&mut self, list: &[Attr]) {
        for (index, attr) in list.iter().enumerate() {
            if let (None, Some(&(home, _))) = (self.place[index], attr.homes.first())
                && home != self.file.record
            {
                let used = self.used.entry(home).or_default();
                if *used + attr.bytes.len() <= self.capacity {
                    *used += attr.bytes.len();
                    self.place[index] = Some(home);
                }
            }
        }
    }

    /// A new extension record.
    fn open(&mut self, record: RecordNumber) {
        self.used.insert(record, 0);
    }

    /// Puts an attribute into the first extension with room.
    fn put_anywhere(&mut self, index: usize, attr: &Attr) -> bool {
        let capacity = self.capacity;
        for (&record, used) in &mut self.used {
            if *used + attr.bytes.len() <= capacity {
                *used += attr.bytes.len();
                self.place[index] = Some(record);
                return true;
            }
        }
        false
    }
}
