//! Operations on a file record.

use super::{EntryChange, Step, add, copy, ensure, entry_flags, entry_length, place_in_entry, require_entry};
use crate::error::Result;
use crate::ntfs::attribute::{AttributeType, header as attribute, non_resident, resident};
use crate::ntfs::field::{Field, align8};
use crate::ntfs::fixup;
use crate::ntfs::index::{entry as entry_header, node, root};
use crate::ntfs::log::operation::Operation;
use crate::ntfs::log::refusal::{not_proven, refuse, refuse_damage};
use crate::ntfs::record::{FLAG_IN_USE, header};
use crate::ntfs::runlist::Runlist;
use crate::ntfs::units::Vcn;

/// Applies an operation to a file record without its fix-up.
///
/// # Errors
/// Refused, when the record does not have the form that the operation needs; the record may then be half changed.
pub fn apply(record: &mut [u8], operation: Operation, step: Step<'_>, lsn: u64) -> Result<()> {
    match operation {
        Operation::InitializeFileRecordSegment => initialize(record, step),
        Operation::DeallocateFileRecordSegment => deallocate(record),
        Operation::CreateAttribute => create_attribute(record, step),
        Operation::DeleteAttribute => delete_attribute(record, step),
        Operation::UpdateResidentValue if step.resizes => resize_value(record, step),
        Operation::UpdateResidentValue => update_value(record, step),
        Operation::UpdateMappingPairs => update_mapping_pairs(record, step),
        Operation::SetNewAttributeSizes => set_sizes(record, step),
        Operation::AddIndexEntryRoot => add_entry(record, step),
        Operation::DeleteIndexEntryRoot => delete_entry(record, step),
        Operation::SetIndexEntryVcnRoot => change_entry(record, step, EntryChange::Child),
        Operation::UpdateFileNameRoot => change_entry(record, step, EntryChange::FileName),
        Operation::UpdateRecordDataRoot => change_entry(record, step, EntryChange::Data),
        Operation::ZeroEndOfFileRecord => copy(record, step.record_offset, step.data, "zeros beyond a file record"),
        _ => Err(not_proven(lsn, operation)),
    }?;
    ensure(used(record) <= record.len(), "a file record is longer than its block")
}

fn initialize(record: &mut [u8], step: Step<'_>) -> Result<()> {
    let counter = fixup::counter(record);
    copy(record, step.record_offset, step.data, "a file record is written beyond its end")?;
    ensure(fixup::ARRAY_OFFSET.get(record) >= 8, "a file record is written without its header")?;
    // the block goes on counting its own writes
    fixup::set_counter(record, counter);
    Ok(())
}

/// The record is freed; one that is free already stays as it is.
fn deallocate(record: &mut [u8]) -> Result<()> {
    let flags = header::FLAGS.get(record);
    if flags & FLAG_IN_USE != 0 {
        header::FLAGS.set(record, flags & !FLAG_IN_USE);
        let next = header::SEQUENCE.get(record).checked_add(1).unwrap_or(1);
        header::SEQUENCE.set(record, next);
    }
    Ok(())
}

fn used(record: &[u8]) -> usize {
    header::USED.get(record) as usize
}

/// Checks that an attribute, or the end marker, begins at `want`.
fn require_attribute(record: &[u8], want: usize) -> Result<usize> {
    let mut at = usize::from(header::FIRST_ATTRIBUTE.get(record));
    ensure(used(record) <= record.len(), "a file record is longer than its block")?;
    ensure(at >= header::SIZE, "a file record has no attributes")?;
    while at < want {
        let here = record.get(at..).unwrap_or_default();
        let is_end = AttributeType(attribute::TYPE.get(here)) == AttributeType::END;
        let length = attribute::LENGTH.get(here) as usize;
        ensure(!is_end && length >= resident::HEADER_SIZE && length.is_multiple_of(8), NO_ATTRIBUTE)?;
        at = at.saturating_add(length);
    }
    ensure(at == want && at + 4 <= used(record), NO_ATTRIBUTE)?;
    Ok(at)
}

const NO_ATTRIBUTE: &str = "no attribute begins where the log names one";

/// The bytes of the attribute at `at`, which is not the end marker.
fn attribute_at(record: &[u8], want: usize) -> Result<&[u8]> {
    let at = require_attribute(record, want)?;
    let bytes = record.get(at..used(record)).unwrap_or_default();
    let is_end = AttributeType(attribute::TYPE.get(bytes)) == AttributeType::END;
    let bytes = bytes.get(..attribute::LENGTH.get(bytes) as usize).filter(|_| !is_end);
    let bytes = bytes.filter(|bytes| bytes.len() >= resident::HEADER_SIZE);
    bytes.ok_or_else(|| refuse(NO_ATTRIBUTE))
}

/// Replaces `old` bytes at `at` by `new`; what follows moves, and the used size with it.
fn splice(record: &mut [u8], at: usize, old: usize, new: &[u8]) -> Result<()> {
    let used = used(record);
    let tail = at.checked_add(old).and_then(|from| record.get(from..used));
    let tail = tail.ok_or_else(|| refuse("an attribute leaves its file record"))?.to_vec();
    let end = at.saturating_add(new.len()).saturating_add(tail.len());
    ensure(end <= record.len(), "a file record has no room for what the log adds to it")?;
    copy(record, at, new, NO_ATTRIBUTE)?;
    copy(record, at + new.len(), &tail, NO_ATTRIBUTE)?;
    header::USED.set(record, end as u32);
    Ok(())
}

fn is_indexed(attribute: &[u8]) -> bool {
    attribute::NON_RESIDENT.get(attribute) == 0 && resident::INDEXED.get(attribute) & 1 != 0
}

fn create_attribute(record: &mut [u8], step: Step<'_>) -> Result<()> {
    let at = require_attribute(record, step.record_offset)?;
    let new = step.data;
    let length = attribute::LENGTH.get(new) as usize;
    let whole = length == new.len() && length >= resident::HEADER_SIZE && length.is_multiple_of(8);
    ensure(whole, "an attribute that is created has an impossible length")?;
    splice(record, at, 0, new)?;
    let next = attribute::INSTANCE.get(new).saturating_add(1);
    header::NEXT_INSTANCE.set(record, header::NEXT_INSTANCE.get(record).max(next));
    if is_indexed(new) {
        header::LINKS.set(record, header::LINKS.get(record).wrapping_add(1));
    }
    Ok(())
}

fn delete_attribute(record: &mut [u8], step: Step<'_>) -> Result<()> {
    let old = attribute_at(record, step.record_offset)?;
    let (length, indexed) = (old.len(), is_indexed(old));
    if indexed {
        let links = header::LINKS.get(record).checked_sub(1);
        header::LINKS.set(record, links.ok_or_else(|| refuse("a file record has no name to delete"))?);
    }
    splice(record, step.record_offset, length, &[])
}

fn update_value(record: &mut [u8], step: Step<'_>) -> Result<()> {
    let old = attribute_at(record, step.record_offset)?;
    ensure(attribute::NON_RESIDENT.get(old) == 0, "the attribute is not resident")?;
    let end = step.attribute_offset.saturating_add(step.data.len());
    let start = usize::from(resident::VALUE_OFFSET.get(old));
    ensure(end <= old.len() && step.attribute_offset >= start.min(old.len()), "a value leaves its attribute")?;
    copy(record, step.record_offset + step.attribute_offset, step.data, "a value leaves its attribute")
}

/// The attribute's bytes before the changed ones, the changed ones, and padding: it ends after them.
fn with_new_end(old: &[u8], step: Step<'_>) -> Vec<u8> {
    let mut new = old.get(..step.attribute_offset).unwrap_or_default().to_vec();
    new.extend_from_slice(step.data);
    new.resize(align8(new.len()), 0);
    let length = new.len() as u32;
    attribute::LENGTH.set(&mut new, length);
    new
}

fn resize_value(record: &mut [u8], step: Step<'_>) -> Result<()> {
    let old = attribute_at(record, step.record_offset)?;
    let start = usize::from(resident::VALUE_OFFSET.get(old));
    let inside = (start.max(resident::HEADER_SIZE)..=old.len()).contains(&step.attribute_offset);
    ensure(attribute::NON_RESIDENT.get(old) == 0 && inside, "a resized value leaves its attribute")?;
    let (length, mut new) = (old.len(), with_new_end(old, step));
    let value = step.attribute_offset + step.data.len() - start;
    resident::VALUE_LENGTH.set(&mut new, value as u32);
    splice(record, step.record_offset, length, &new)
}

fn update_mapping_pairs(record: &mut [u8], step: Step<'_>) -> Result<()> {
    let old = attribute_at(record, step.record_offset)?;
    let pairs = usize::from(non_resident::PAIRS_OFFSET.get(old));
    let inside = (pairs..=old.len()).contains(&step.attribute_offset) && pairs >= non_resident::HEADER_SIZE;
    ensure(attribute::NON_RESIDENT.get(old) == 1 && inside, "mapping pairs leave their attribute")?;
    let (length, mut new) = (old.len(), with_new_end(old, step));
    let lowest = Vcn(non_resident::LOWEST_VCN.get(&new));
    ensure(lowest.0 < 1 << 54, "an attribute begins at an impossible cluster")?;
    let runs = Runlist::decode(new.get(pairs..).unwrap_or_default(), lowest, u64::MAX).map_err(refuse_damage)?;
    non_resident::HIGHEST_VCN.set(&mut new, runs.end().wrapping_sub(1));
    splice(record, step.record_offset, length, &new)
}

fn set_sizes(record: &mut [u8], step: Step<'_>) -> Result<()> {
    let old = attribute_at(record, step.record_offset)?;
    let with_total = step.data.len() == 32;
    let room = if with_total { non_resident::HEADER_SIZE_WITH_TOTAL } else { non_resident::HEADER_SIZE };
    let fits = usize::from(non_resident::PAIRS_OFFSET.get(old)) >= room && old.len() >= room;
    let is_known = with_total || step.data.len() == 24;
    ensure(attribute::NON_RESIDENT.get(old) == 1 && is_known && fits, "an attribute has no place for its sizes")?;
    // the log has the initialized size before the size of the data
    let size = |at| Field::<u64>::at(at).get(step.data);
    let attribute = record.get_mut(step.record_offset..).unwrap_or_default();
    non_resident::ALLOCATED.set(attribute, size(0));
    non_resident::INITIALIZED.set(attribute, size(8));
    non_resident::DATA_SIZE.set(attribute, size(16));
    if with_total {
        non_resident::TOTAL_ALLOCATED.set(attribute, size(24));
    }
    Ok(())
}

/// Where an index root's node begins and ends, and the entry that the step names.
fn root_entry(record: &[u8], step: Step<'_>) -> Result<(usize, usize, usize)> {
    let old = attribute_at(record, step.record_offset)?;
    let is_root = AttributeType(attribute::TYPE.get(old)) == AttributeType::INDEX_ROOT;
    ensure(is_root && attribute::NON_RESIDENT.get(old) == 0, "no index root is where the log names one")?;
    let node = step.record_offset + usize::from(resident::VALUE_OFFSET.get(old)) + root::NODE;
    let limit = step.record_offset + old.len();
    let entry = step.record_offset.saturating_add(step.attribute_offset);
    require_entry(record, node, limit, entry)?;
    let end = node + node::USED.get(record.get(node..).unwrap_or_default()) as usize;
    Ok((node, end, entry))
}

/// The attribute, its value and its node become longer by `change` bytes.
fn resize_root(record: &mut [u8], at: usize, node: usize, change: i64) -> Result<()> {
    let fields = [
        at + attribute::LENGTH.offset,
        at + resident::VALUE_LENGTH.offset,
        node + node::USED.offset,
        node + node::ALLOCATED.offset,
    ];
    fields.into_iter().try_for_each(|field| add(record, field, change))
}

fn add_entry(record: &mut [u8], step: Step<'_>) -> Result<()> {
    let (node, _, entry) = root_entry(record, step)?;
    let length = entry_length(step.data, 0);
    let whole = length == step.data.len() && length >= entry_header::KEY && length.is_multiple_of(8);
    ensure(whole, "an index entry that is added has an impossible length")?;
    splice(record, entry, 0, step.data)?;
    resize_root(record, step.record_offset, node, length as i64)
}

fn delete_entry(record: &mut [u8], step: Step<'_>) -> Result<()> {
    let (node, end, entry) = root_entry(record, step)?;
    let length = entry_length(record, entry);
    let is_last = entry_flags(record, entry) & entry_header::LAST != 0;
    let whole = length >= entry_header::KEY && length.is_multiple_of(8) && entry + length <= end;
    ensure(!is_last && whole, "no index entry is where the log deletes one")?;
    splice(record, entry, length, &[])?;
    resize_root(record, step.record_offset, node, -(length as i64))
}

fn change_entry(record: &mut [u8], step: Step<'_>, change: EntryChange) -> Result<()> {
    let (_, end, entry) = root_entry(record, step)?;
    let at = place_in_entry(record, entry, end, change, step.data.len())?;
    copy(record, at, step.data, "an index entry leaves its file record")
}
