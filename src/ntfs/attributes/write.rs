//! Putting the attributes of a file back into its records.
//!
//! It is one algorithm for every edit: everything in the base record if it fits; else large resident values go to
//! clusters; else an attribute list is made (or kept) and attributes go to extension records, run lists that are too
//! long for one record in several extents. What need not move stays where it was.

use std::collections::{BTreeMap, HashSet};

use super::owned::{Attributes, Location, OwnedAttribute, join};
use super::placement::{MFT_LIST_ROOM, Placement, may_leave_record, must_stay, sort};
use crate::error::{Error, Layer, Result};
use crate::io::VolumeWrite;
use crate::ntfs::core::Core;
use crate::ntfs::format::attribute::{
    AttributeType, StreamSizes, build_non_resident, build_resident, header as attribute_header, non_resident_overhead,
    resident,
};
use crate::ntfs::format::attribute_list::{self, LIST_SIZE_MAX, ListEntry};
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::record::{FLAG_IN_USE, Record, header};
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{FileId, RecordNumber, Vcn};
use crate::ntfs::pager::Pager;
use crate::ntfs::stream::Stream;

/// How a file gets another record: for `$MFT` itself there are rules of its own, and growing it would be circular.
pub(super) type AllocateExtension<D> = fn(&mut Core<D>, &Attributes, &OwnedAttribute) -> Result<(RecordNumber, u16)>;

/// Puts all attributes of a file back, see the module's description.
pub(super) fn store_with<D: VolumeWrite>(
    core: &mut Core<D>,
    mut attributes: Attributes,
    allocate_extension: AllocateExtension<D>,
) -> Result<()> {
    let base = core.pager.record(attributes.file.record)?;
    let capacity = base.capacity();
    sort(&core.pager.upcase, &mut attributes.items);
    let total = |list: &[OwnedAttribute]| list.iter().map(|a| a.bytes.len()).sum::<usize>();
    if !attributes.has_list() {
        while total(&attributes.items) > capacity {
            if !move_one_to_clusters(core, &mut attributes)? {
                break;
            }
        }
        if total(&attributes.items) <= capacity {
            let list = std::mem::take(&mut attributes.items);
            return write_record(
                &mut core.pager,
                attributes.file.record,
                list.iter().map(|a| (a, a.locations.first().copied())),
            );
        }
    }
    // in an extension record a long value would leave no room for anything else
    while attributes.items.iter().any(|a| may_leave_record(a) && a.bytes.len() > capacity / 2) {
        if !move_one_to_clusters(core, &mut attributes)? {
            break;
        }
    }
    distribute(core, attributes, capacity, allocate_extension)
}

/// Moves the largest resident value that may be outside into clusters; `false` when none would save anything.
fn move_one_to_clusters<D: VolumeWrite>(core: &mut Core<D>, attributes: &mut Attributes) -> Result<bool> {
    // the volume's own bitmaps are found where they are
    if [RecordNumber::MFT, RecordNumber::BITMAP].contains(&attributes.file.record) {
        return Ok(false);
    }
    let mut best: Option<(usize, usize)> = None;
    for (index, attr) in attributes.items.iter().enumerate().filter(|(_, a)| may_leave_record(a)) {
        let after = crate::field::align8(non_resident_overhead(attr.name.units().len(), &StreamSizes::default()) + 8);
        // unnamed data goes first, whatever its size
        let weight = if attr.is_unnamed_data() { usize::MAX } else { attr.bytes.len() };
        if attr.bytes.len() > after && best.is_none_or(|(_, w)| weight > w) {
            best = Some((index, weight));
        }
    }
    let Some((index, _)) = best else { return Ok(false) };
    let attr = &attributes.items[index];
    let value = attr.value().unwrap_or_default().to_vec();
    let stream = core.clusters.new_plain_stream(&mut core.pager, &value)?;
    let Stream::Runs { runs, sizes } = &stream else { return Ok(false) };
    let (kind, name) = (attr.kind, attr.name.clone());
    attributes.items[index].bytes = build_non_resident(kind, &name, runs, sizes, 0);
    Ok(true)
}

/// Distributes the attributes over base and extension records.
fn distribute<D: VolumeWrite>(
    core: &mut Core<D>,
    mut attributes: Attributes,
    capacity: usize,
    allocate_extension: AllocateExtension<D>,
) -> Result<()> {
    let file = attributes.file;
    split_long_attributes(core, &mut attributes, capacity)?;
    sort(&core.pager.upcase, &mut attributes.items);
    let list_size: usize = attributes
        .items
        .iter()
        .map(|a| crate::field::align8(attribute_list::layout::NAME + 2 * a.name.units().len()))
        .sum();
    if list_size as u64 > LIST_SIZE_MAX {
        return Err(Error::refused(Layer::Ntfs, "the file would need an attribute list of more than 256 KiB")
            .hint("the volume's free space is too fragmented: defragment it in the guest"));
    }
    let attribute_list = reserve_list(core, &attributes, list_size, capacity)?;
    let mut placement = Placement::new(file, capacity, attribute_list.bytes.len());
    placement.keep_in_base(&attributes.items)?;
    placement.keep_in_extensions(&attributes.items);
    for index in 0..attributes.items.len() {
        if placement.target[index].is_none() && !placement.put_anywhere(index, &attributes.items[index]) {
            let (number, sequence) = allocate_extension(core, &attributes, &attributes.items[index])?;
            let id = FileId { record: number, sequence };
            format_extension(&mut core.pager, file, id);
            placement.add_record(id.record);
            attributes.extensions.push(id);
            if !placement.put_anywhere(index, &attributes.items[index]) {
                return Err(Error::bug(Layer::Ntfs, "an attribute does not fit an empty record"));
            }
        }
    }
    write_records(core, attributes, &placement, attribute_list)
}

/// Makes an allocated record an empty extension of a file.
fn format_extension<D: VolumeWrite>(pager: &mut Pager<D>, file: FileId, id: FileId) {
    let size = pager.geometry.record_size as usize;
    let mut record = Record::blank(id.record, id.sequence, FLAG_IN_USE, size);
    header::BASE.set(record.bytes_mut(), file.to_raw());
    pager.put_record(id.record, record);
}

/// Splits run lists that are too long for a record into extents.
fn split_long_attributes<D: VolumeWrite>(
    core: &mut Core<D>,
    attributes: &mut Attributes,
    capacity: usize,
) -> Result<()> {
    let is_mft = attributes.file.record == RecordNumber::MFT;
    let mut out = Vec::with_capacity(attributes.items.len());
    let others: usize = attributes.items.iter().filter(|a| a.kind != AttributeType::DATA).map(|a| a.bytes.len()).sum();
    for attr in std::mem::take(&mut attributes.items) {
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
        let mut rest = Some(view.runlist(core.pager.geometry.cluster_count)?);
        let total = rest.as_ref().map_or(0, Runlist::real_clusters);
        let overhead = non_resident_overhead(attr.name.units().len(), &sizes);
        let mut split_points = attr.split_points.iter();
        let mut room = limit;
        while let Some(runs) = rest {
            // the old extents stay what they were, as far as they still fit: other records are found through them
            let (whole, after) = match split_points.by_ref().find(|(cut, _)| *cut > runs.first() && cut.0 < runs.end())
            {
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
            let bytes = build_non_resident(attr.kind, &attr.name, &head, &sizes, core.pager.geometry.bytes_in(total));
            let (kind, name, lowest) = (attr.kind, attr.name.clone(), head.first());
            let locations = match attr.split_points.iter().find(|(cut, _)| *cut == lowest) {
                Some((_, locations)) => locations.clone(),
                None if lowest == attr.lowest => attr.locations.clone(),
                None => Vec::new(),
            };
            out.push(OwnedAttribute { kind, name, lowest, bytes, locations, split_points: Vec::new() });
            rest = tail;
            room = capacity;
        }
    }
    attributes.items = out;
    Ok(())
}

/// The attribute that holds the list: resident when it is short, else in clusters with room for `size` bytes.
fn reserve_list<D: VolumeWrite>(
    core: &mut Core<D>,
    attributes: &Attributes,
    size: usize,
    capacity: usize,
) -> Result<OwnedAttribute> {
    let kind = AttributeType::ATTRIBUTE_LIST;
    let name = NtfsName::default();
    let locations = attributes.attribute_list.as_ref().map(|a| a.locations.clone()).unwrap_or_default();
    let old = match &attributes.attribute_list {
        Some(attr) => join(std::iter::once(attr.view()), core.pager.geometry.cluster_count)?,
        None => None,
    };
    let musts: usize = attributes.items.iter().filter(|a| must_stay(attributes.file, a)).map(|a| a.bytes.len()).sum();
    let most =
        if attributes.file.record == RecordNumber::MFT { MFT_LIST_ROOM - resident::HEADER_SIZE } else { capacity / 3 };
    let stays_resident = matches!(old, None | Some(Stream::Resident(_))) && size <= most;
    let bytes = if stays_resident && musts + size + resident::HEADER_SIZE <= capacity {
        build_resident(kind, &name, &vec![0; size])
    } else {
        let mut runs = match old {
            Some(Stream::Runs { runs, .. }) => runs,
            _ => Runlist::default(),
        };
        let wanted = core.pager.geometry.clusters_for(size as u64);
        core.clusters.extend_runs(&mut core.pager, &mut runs, wanted)?;
        let (allocated, data) = (core.pager.geometry.bytes_in(runs.end()), size as u64);
        let sizes = StreamSizes { allocated, data, initialized: data, ..StreamSizes::default() };
        build_non_resident(kind, &name, &runs, &sizes, 0)
    };
    Ok(OwnedAttribute { kind, name, lowest: Vcn(0), bytes, locations, split_points: Vec::new() })
}

/// Writes the records of a placement, then the list; frees extensions that became empty.
fn write_records<D: VolumeWrite>(
    core: &mut Core<D>,
    mut attributes: Attributes,
    placement: &Placement,
    attribute_list: OwnedAttribute,
) -> Result<()> {
    let file = attributes.file;
    let size = core.pager.geometry.record_size as usize;
    let numbers: Vec<FileId> = std::iter::once(file).chain(attributes.extensions.iter().copied()).collect();
    for id in &numbers {
        let mut here: Vec<usize> =
            (0..attributes.items.len()).filter(|&i| placement.target[i] == Some(id.record)).collect();
        if here.is_empty() && *id != file {
            core.records.free(&mut core.pager, id.record)?;
            continue;
        }
        here.sort_unstable();
        let location = |a: &OwnedAttribute| a.locations.iter().find(|h| h.0 == id.record).copied();
        let mut items: Vec<(&OwnedAttribute, Option<Location>)> =
            here.iter().map(|&i| (&attributes.items[i], location(&attributes.items[i]))).collect();
        if *id == file {
            let at = items.iter().position(|(a, _)| a.kind > AttributeType::ATTRIBUTE_LIST).unwrap_or(items.len());
            items.insert(at, (&attribute_list, attribute_list.locations.first().copied()));
        }
        write_record(&mut core.pager, id.record, items.into_iter())?;
        // the list names the instances that the record has assigned
        let record = core.pager.record(id.record)?;
        let mut given = record.attributes().filter(|(_, a)| a.kind() != AttributeType::ATTRIBUTE_LIST);
        for &index in &here {
            let instance = given.next().map(|(_, a)| a.instance());
            attributes.items[index].locations = instance.map(|i| (id.record, i)).into_iter().collect();
        }
    }
    if file.record == RecordNumber::MFT {
        for attr in attributes.items.iter().filter(|a| a.is_unnamed_data() && a.lowest > Vcn(0)) {
            let end =
                attr.locations.first().map_or(u64::MAX, |location| (location.0.0 + 1).saturating_mul(size as u64));
            if end > core.pager.geometry.bytes_in(attr.lowest.0) {
                return Err(Error::refused(Layer::Ntfs, "$MFT is too fragmented to grow")
                    .hint("free or defragment space in the guest and try again"));
            }
        }
    }
    let sequences: BTreeMap<RecordNumber, FileId> = numbers.iter().map(|id| (id.record, *id)).collect();
    let mut bytes = Vec::new();
    for attr in &attributes.items {
        let (record, instance) =
            *attr.locations.first().ok_or_else(|| Error::bug(Layer::Ntfs, "an attribute was not placed"))?;
        let record = *sequences.get(&record).ok_or_else(|| Error::bug(Layer::Ntfs, "a record was not placed"))?;
        ListEntry { kind: attr.kind, name: attr.name.clone(), lowest: attr.lowest, record, instance }
            .encode(&mut bytes);
    }
    write_list(core, file, &bytes)
}

/// Stores the list's bytes in the place that was made for them.
fn write_list<D: VolumeWrite>(core: &mut Core<D>, file: FileId, bytes: &[u8]) -> Result<()> {
    let mut record = (*core.pager.record(file.record)?).clone();
    let stream = match record.find(AttributeType::ATTRIBUTE_LIST, "") {
        Some(attribute) => join(std::iter::once(Ok(attribute)), core.pager.geometry.cluster_count)?,
        None => None,
    };
    match stream {
        Some(Stream::Resident(_)) => {
            let value = record.value_mut(AttributeType::ATTRIBUTE_LIST).filter(|v| v.len() == bytes.len());
            value.ok_or_else(|| Error::bug(Layer::Ntfs, "no room for the attribute list"))?.copy_from_slice(bytes);
            core.pager.put_record(file.record, record);
            Ok(())
        }
        Some(Stream::Runs { runs, .. }) => {
            let mut padded = bytes.to_vec();
            padded
                .resize(core.pager.geometry.bytes_in(core.pager.geometry.clusters_for(bytes.len() as u64)) as usize, 0);
            core.pager.write_metadata(&runs, 0, &padded)
        }
        None => Err(Error::bug(Layer::Ntfs, "the attribute list is gone")),
    }
}

/// Writes one record: attributes that lived in it keep their instances, the others get new ones.
fn write_record<'a, D: VolumeWrite>(
    pager: &mut Pager<D>,
    number: RecordNumber,
    items: impl Iterator<Item = (&'a OwnedAttribute, Option<Location>)>,
) -> Result<()> {
    let old = pager.record(number)?;
    let mut record = (*old).clone();
    let mut used = HashSet::new();
    let mut parts: Vec<(Vec<u8>, Option<u16>)> = Vec::new();
    for (attr, location) in items {
        let instance = location.filter(|h| h.0 == number).map(|h| h.1).filter(|i| used.insert(*i));
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
        pager.put_record(number, record);
    }
    Ok(())
}
