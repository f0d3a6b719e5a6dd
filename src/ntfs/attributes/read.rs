//! Reading the attributes of a file from its records.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use super::owned::{Attributes, Location, OwnedAttribute, join};
use crate::error::{Error, Result};
use crate::io::VolumeRead;
use crate::ntfs::format::attribute::{Attribute, AttributeType};
use crate::ntfs::format::attribute_list::{self as list_format, LIST_SIZE_MAX, ListEntry};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::{NtfsName, compare_ignoring_case};
use crate::ntfs::format::record::Record;
use crate::ntfs::format::units::{FileId, RecordNumber};
use crate::ntfs::format::upcase::UpcaseTable;
use crate::ntfs::pager::Pager;
use crate::ntfs::stream::Stream;

/// Extension records of one file: far above what 256 KiB of attribute list can name.
const EXTENSIONS_MAX: usize = 8192;

/// A system file, whatever its sequence number.
pub(crate) fn system_file<D: VolumeRead>(pager: &Pager<D>, number: RecordNumber) -> Result<FileId> {
    Ok(FileId { record: number, sequence: pager.record(number)?.sequence() })
}

/// The base record of a file, after checking that the reference is current.
pub(crate) fn base_record<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<Arc<Record>> {
    let record = pager.record(file.record)?;
    if !record.is_in_use() || record.base().is_some() || record.sequence() != file.sequence {
        let error = damaged(format!("reference {file} does not lead to a file"));
        return pager.in_record(file.record, Err(error.expected_found(file.sequence, record.sequence())));
    }
    Ok(record)
}

/// The entries of a file's attribute list; `None` when it has none.
pub(crate) fn attribute_list<D: VolumeRead>(pager: &Pager<D>, base: &Record) -> Result<Option<Vec<ListEntry>>> {
    let Some(list) = base.find(AttributeType::ATTRIBUTE_LIST, "") else { return Ok(None) };
    let stream = join(std::iter::once(Ok(list)), pager.geometry.cluster_count)?;
    let stream = stream.unwrap_or(Stream::Resident(Vec::new()));
    stream.check(&pager.geometry)?;
    stream.check_metadata("an attribute list")?;
    let bytes = pager.read_small(&stream, LIST_SIZE_MAX, "attribute list")?;
    list_format::parse(&bytes).map(Some)
}

/// The record that an attribute list entry names, after checking that it belongs to the file.
pub(crate) fn extension_record<D: VolumeRead>(
    pager: &Pager<D>,
    file: FileId,
    entry: &ListEntry,
) -> Result<Arc<Record>> {
    if entry.record == file {
        return pager.record(file.record);
    }
    let record = pager.record(entry.record.record)?;
    if !record.is_in_use() || record.base() != Some(file) || record.sequence() != entry.record.sequence {
        return Err(damaged(format!("attribute list of {file} names record {}", entry.record))
            .expected_found("an extension of this file", "another record"));
    }
    Ok(record)
}

/// Finds an attribute, through the attribute list if there is one: calls `visit` with each extent in ascending order.
fn visit_extents<D: VolumeRead>(
    pager: &Pager<D>,
    file: FileId,
    kind: AttributeType,
    name: &NtfsName,
    visit: &mut dyn FnMut(RecordNumber, &Attribute<'_>) -> Result<()>,
) -> Result<()> {
    let base = base_record(pager, file)?;
    let same = |a: &NtfsName| *a == *name || same_name(&pager.upcase, a, name);
    let Some(list) = attribute_list(pager, &base)? else {
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
        let record = extension_record(pager, file, entry)?;
        let (_, attribute) = record.find_instance(kind, entry.instance).ok_or_else(|| missing(file, entry))?;
        visit(entry.record.record, &attribute)?;
    }
    Ok(())
}

/// Whether two names are the same, case ignored.
pub(crate) fn same_name(upcase: &UpcaseTable, a: &NtfsName, b: &NtfsName) -> bool {
    let le = |name: &NtfsName| name.units().iter().flat_map(|u| u.to_le_bytes()).collect::<Vec<u8>>();
    a.units().len() == b.units().len() && compare_ignoring_case(&le(a), &le(b), upcase) == Ordering::Equal
}

/// The content of an attribute; `None` when the file has no such attribute.
pub(crate) fn stream_of<D: VolumeRead>(
    pager: &Pager<D>,
    file: FileId,
    kind: AttributeType,
    name: &NtfsName,
) -> Result<Option<Stream>> {
    pager.in_record(file.record, join_stream(pager, file, kind, name))
}

fn join_stream<D: VolumeRead>(
    pager: &Pager<D>,
    file: FileId,
    kind: AttributeType,
    name: &NtfsName,
) -> Result<Option<Stream>> {
    let mut copies: Vec<Vec<u8>> = Vec::new();
    visit_extents(pager, file, kind, name, &mut |_, attribute| {
        copies.push(attribute.bytes().to_vec());
        Ok(())
    })?;
    let stream = join(copies.iter().map(|c| Attribute::parse(c)), pager.geometry.cluster_count)?;
    if let Some(stream) = &stream {
        stream.check(&pager.geometry)?;
    }
    Ok(stream)
}

/// The record that holds the first extent of an attribute, and its instance there.
pub(crate) fn location_of<D: VolumeRead>(
    pager: &Pager<D>,
    file: FileId,
    kind: AttributeType,
    name: &NtfsName,
) -> Result<Option<Location>> {
    let mut location = None;
    let extents = visit_extents(pager, file, kind, name, &mut |record, attribute| {
        location.get_or_insert((record, attribute.instance()));
        Ok(())
    });
    pager.in_record(file.record, extents)?;
    Ok(location)
}

/// The resident value of a file's unnamed attribute.
pub(crate) fn resident_value<D: VolumeRead>(
    pager: &Pager<D>,
    file: FileId,
    kind: AttributeType,
) -> Result<Option<Vec<u8>>> {
    if let Some(value) = base_record(pager, file)?.find(kind, "").and_then(|a| a.value()) {
        return Ok(Some(value.to_vec()));
    }
    Ok(match stream_of(pager, file, kind, &NtfsName::default())? {
        Some(Stream::Resident(value)) => Some(value),
        _ => None,
    })
}

/// All attributes of a file, copied out of its records.
pub(crate) fn load<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<Attributes> {
    pager.in_record(file.record, load_unchecked(pager, file))
}

fn load_unchecked<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<Attributes> {
    let base = base_record(pager, file)?;
    let mut attributes = Attributes::new(file);
    let copy = |record: RecordNumber, attribute: &Attribute<'_>| OwnedAttribute {
        kind: attribute.kind(),
        name: attribute.name(),
        lowest: attribute.lowest_vcn(),
        bytes: attribute.bytes().to_vec(),
        locations: vec![(record, attribute.instance())],
        split_points: Vec::new(),
    };
    let Some(list) = attribute_list(pager, &base)? else {
        attributes.items = base.attributes().map(|(_, a)| copy(file.record, &a)).collect();
        return Ok(attributes);
    };
    let mut seen = HashSet::new();
    for entry in &list {
        if entry.kind == AttributeType::ATTRIBUTE_LIST {
            continue;
        }
        let record = extension_record(pager, file, entry)?;
        let (_, attribute) = record.find_instance(entry.kind, entry.instance).ok_or_else(|| missing(file, entry))?;
        if attribute.lowest_vcn() != entry.lowest
            || !same_name(&pager.upcase, &attribute.name(), &entry.name)
            || !seen.insert((entry.record, entry.instance))
        {
            return Err(damaged(format!("attribute list of {file} contradicts its records")));
        }
        if entry.record != file && !attributes.extensions.contains(&entry.record) {
            attributes.extensions.push(entry.record);
        }
        attributes.items.push(copy(entry.record.record, &attribute));
    }
    if attributes.extensions.len() > EXTENSIONS_MAX {
        return Err(damaged("file with too many records"));
    }
    // what the list does not name would be lost when the records are written anew
    let mut there = base.attributes().filter(|(_, a)| a.kind() != AttributeType::ATTRIBUTE_LIST).count();
    for id in &attributes.extensions {
        there += pager.record(id.record)?.attributes().count();
    }
    if there != attributes.items.len() {
        return Err(damaged(format!("attribute list of {file} does not name all attributes"))
            .expected_found(there, attributes.items.len()));
    }
    attributes.attribute_list = base.find(AttributeType::ATTRIBUTE_LIST, "").map(|a| copy(file.record, &a));
    Ok(attributes)
}

fn missing(file: FileId, entry: &ListEntry) -> Error {
    damaged(format!("attribute list of {file} names an attribute that is not there"))
        .expected_found(format!("{} #{} in {}", entry.kind, entry.instance, entry.record), "nothing")
}
