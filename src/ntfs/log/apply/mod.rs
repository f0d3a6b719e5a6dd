//! The operations, as pure functions on the bytes of one block without its fix-up.
//!
//! Whatever an operation finds that it does not expect ends the replay: nothing is skipped, nothing guessed.

mod index;
mod raw;
mod record;

pub(super) use index::apply as on_index;
pub(super) use raw::{BitRange, put};
pub(super) use record::apply as on_record;

use crate::error::Result;
use crate::ntfs::field::Field;
use crate::ntfs::index::{entry as entry_header, node as node_header};
use crate::ntfs::log::refusal::refuse;

/// Where and with what an operation works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    /// In a file record the attribute's offset.
    pub record_offset: usize,
    /// From the attribute's, or the index block's, start.
    pub attribute_offset: usize,
    /// The operation's bytes.
    pub data: &'a [u8],
    /// A resident value ends after the bytes.
    pub resizes: bool,
}

/// The refusal unless `condition` holds.
fn ensure(condition: bool, why: &str) -> Result<()> {
    if condition { Ok(()) } else { Err(refuse(why)) }
}

/// Copies `data` to `at`.
fn copy(block: &mut [u8], at: usize, data: &[u8], why: &str) -> Result<()> {
    let place = block.get_mut(at..).and_then(|rest| rest.get_mut(..data.len()));
    place.ok_or_else(|| refuse(why))?.copy_from_slice(data);
    Ok(())
}

/// Adds `change` to a 32-bit field.
fn add(block: &mut [u8], at: usize, change: i64) -> Result<()> {
    let field = Field::<u32>::at(at);
    let value = i64::from(field.get(block)).checked_add(change).and_then(|value| u32::try_from(value).ok());
    field.try_set(block, value.ok_or_else(|| refuse("a length would become negative"))?);
    Ok(())
}

/// Checks that an entry of the node at `node`, which ends at `limit` at most, begins at `want`, or that its entries end
/// there.
fn require_entry(block: &[u8], node: usize, limit: usize, want: usize) -> Result<()> {
    let header = block.get(node..).unwrap_or_default();
    let mut at = node.saturating_add(node_header::ENTRIES.get(header) as usize);
    let end = node.saturating_add(node_header::USED.get(header) as usize);
    ensure(end <= limit && at >= node + node_header::SIZE, "an index node leaves its block")?;
    while at < want {
        let length = entry_length(block, at);
        ensure(length >= entry_header::KEY && length.is_multiple_of(8), "an index entry has an impossible length")?;
        at = at.saturating_add(length);
        ensure(at <= end, "an index entry leaves its node")?;
    }
    ensure(at == want, "no index entry begins where the log names one")
}

fn entry_length(block: &[u8], at: usize) -> usize {
    usize::from(entry_header::LENGTH.get(block.get(at..).unwrap_or_default()))
}

fn entry_flags(block: &[u8], at: usize) -> u16 {
    entry_header::FLAGS.get(block.get(at..).unwrap_or_default())
}

/// Where the bytes that an operation changes lie in the entry at `at`, which has to end before `end`.
fn place_in_entry(block: &[u8], at: usize, end: usize, change: EntryChange, length: usize) -> Result<usize> {
    let size = entry_length(block, at);
    ensure(size >= entry_header::KEY && at.saturating_add(size) <= end, "an index entry leaves its node")?;
    let has_child = entry_flags(block, at) & entry_header::HAS_CHILD != 0;
    let inside = match change {
        EntryChange::Child => {
            ensure(length == 8 && has_child && size >= entry_header::KEY + 8, "an index entry has no child to change")?;
            size - 8
        }
        EntryChange::FileName => {
            let fits = length == DUPLICATE_LENGTH && size >= entry_header::KEY + FILE_NAME_MIN;
            ensure(fits, "an index entry is not that of a name")?;
            entry_header::KEY + DUPLICATE_AT
        }
        EntryChange::Data => {
            let inside = usize::from(entry_header::DATA_OFFSET.get(block.get(at..).unwrap_or_default()));
            let tail = if has_child { 8 } else { 0 };
            let fits = inside >= entry_header::KEY && inside.saturating_add(length).saturating_add(tail) <= size;
            ensure(fits, "the data of an index entry leave it")?;
            inside
        }
    };
    Ok(at.saturating_add(inside))
}

/// What of an index entry an operation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryChange {
    /// The VCN of its child.
    Child,
    /// Times, sizes and attributes, which a name repeats from its file.
    FileName,
    /// The data of a view index.
    Data,
}

/// Bytes of the times, sizes and attributes that a name repeats.
const DUPLICATE_LENGTH: usize = 0x38;
/// Where they begin in the key.
const DUPLICATE_AT: usize = 0x08;
/// Bytes of the key without the name.
const FILE_NAME_MIN: usize = 0x42;
