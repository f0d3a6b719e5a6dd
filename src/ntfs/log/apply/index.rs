//! Operations on an index block.

use super::{EntryChange, Step, copy, ensure, entry_flags, entry_length, place_in_entry, require_entry};
use crate::error::Result;
use crate::ntfs::index::{block as block_header, entry as entry_header, node};
use crate::ntfs::log::operation::Operation;
use crate::ntfs::log::refusal::not_proven;

/// Where the node of every index block begins.
const NODE: usize = block_header::NODE;

/// Applies an operation to an index block without its fix-up.
///
/// # Errors
/// Refused, when the block does not have the form that the operation needs; it may then be half changed.
pub fn apply(block: &mut [u8], operation: Operation, step: Step<'_>, lsn: u64) -> Result<()> {
    let header = block.get(NODE..).unwrap_or_default();
    let end = NODE.saturating_add(node::USED.get(header) as usize);
    let room = NODE.saturating_add(node::ALLOCATED.get(header) as usize);
    ensure(room <= block.len() && end <= room, "an index node leaves its block")?;
    let at = step.attribute_offset;
    require_entry(block, NODE, room, at)?;
    match operation {
        Operation::AddIndexEntryAllocation => add_entry(block, at, end, room, step.data),
        Operation::DeleteIndexEntryAllocation => delete_entry(block, at, end),
        Operation::WriteEndOfIndexBuffer => write_end(block, at, room, step.data),
        Operation::SetIndexEntryVcnAllocation => change_entry(block, at, end, EntryChange::Child, step.data),
        Operation::UpdateFileNameAllocation => change_entry(block, at, end, EntryChange::FileName, step.data),
        _ => Err(not_proven(lsn, operation)),
    }
}

fn set_end(block: &mut [u8], end: usize) {
    node::USED.set(block.get_mut(NODE..).unwrap_or_default(), end.saturating_sub(NODE) as u32);
}

fn add_entry(block: &mut [u8], at: usize, end: usize, room: usize, entry: &[u8]) -> Result<()> {
    let length = entry_length(entry, 0);
    let whole = length == entry.len() && length >= entry_header::KEY && length.is_multiple_of(8);
    ensure(whole && end + length <= room, "an index entry that is added does not fit")?;
    let tail = block.get(at..end).unwrap_or_default().to_vec();
    copy(block, at, entry, "an index entry leaves its block")?;
    copy(block, at + length, &tail, "an index entry leaves its block")?;
    set_end(block, end + length);
    Ok(())
}

fn delete_entry(block: &mut [u8], at: usize, end: usize) -> Result<()> {
    let length = entry_length(block, at);
    let is_last = entry_flags(block, at) & entry_header::LAST != 0;
    let whole = length >= entry_header::KEY && length.is_multiple_of(8) && at + length <= end;
    ensure(!is_last && whole, "no index entry is where the log deletes one")?;
    // the bytes after the new end stay
    block.copy_within(at + length..end, at);
    set_end(block, end - length);
    Ok(())
}

fn write_end(block: &mut [u8], at: usize, room: usize, data: &[u8]) -> Result<()> {
    ensure(at + data.len() <= room, "the end of an index block leaves it")?;
    copy(block, at, data, "the end of an index block leaves it")?;
    set_end(block, at + data.len());
    Ok(())
}

fn change_entry(block: &mut [u8], at: usize, end: usize, change: EntryChange, data: &[u8]) -> Result<()> {
    let place = place_in_entry(block, at, end, change, data.len())?;
    copy(block, place, data, "an index entry leaves its block")
}
