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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internals::random::Random;
    use crate::ntfs::attribute::{self, AttributeType, build_resident};
    use crate::ntfs::index::{Collation, IndexBlock, IndexEntry, empty_root};
    use crate::ntfs::log::operation::Operation;
    use crate::ntfs::name::NtfsName;
    use crate::ntfs::record::Record;
    use crate::ntfs::units::{FileId, RecordNumber, Vcn};

    fn record() -> Record {
        let mut record = Record::blank(RecordNumber(40), 3, 1, 1024);
        let name = NtfsName::default();
        let root = empty_root(0x30, Collation::FileName, 4096, 1);
        let attributes = [
            build_resident(AttributeType::STANDARD_INFORMATION, &name, &[7; 48]),
            build_resident(AttributeType::DATA, &name, &[1; 100]),
            build_resident(AttributeType::INDEX_ROOT, &name, &root),
        ];
        record.set_attributes(attributes.iter().map(Vec::as_slice)).unwrap();
        record
    }

    fn at(record: &Record, kind: AttributeType) -> usize {
        record.attributes().find(|(_, attribute)| attribute.kind() == kind).unwrap().0
    }

    /// Applies two operations that take each other back; the used bytes are as before.
    fn there_and_back(
        block: &[u8],
        used: usize,
        halves: [(Operation, &[u8]); 2],
        place: (usize, usize),
        resizes: bool,
    ) {
        let is_record = halves[0].0.subject() == crate::ntfs::log::operation::Subject::Record;
        let mut changed = block.to_vec();
        for (number, (operation, data)) in halves.into_iter().enumerate() {
            let step = Step { record_offset: place.0, attribute_offset: place.1, data, resizes };
            let apply = if is_record { on_record } else { on_index };
            apply(&mut changed, operation, step, 1).unwrap();
            assert_eq!(changed[..used] == block[..used], number == 1, "{operation} {number}");
        }
    }

    #[test]
    fn redo_then_undo_gives_the_old_bytes() {
        let mut random = Random::new(5);
        for _ in 0..200 {
            let record = record();
            let (bytes, used) = (record.bytes(), record.used());
            let lengths = [8 + 8 * random.index(9), 0x10 + 8 * random.index(12)];
            let data_at = at(&record, AttributeType::DATA);
            let root_at = at(&record, AttributeType::INDEX_ROOT);
            let mut new = build_resident(AttributeType::EA, &NtfsName::default(), &random.bytes(lengths[0]));
            attribute::header::INSTANCE.set(&mut new, 1);
            let halves = [(Operation::CreateAttribute, &new[..]), (Operation::DeleteAttribute, &[])];
            // the next free instance does not go back
            let header = crate::ntfs::record::header::NEXT_INSTANCE;
            let mut bytes = bytes.to_vec();
            header.set(&mut bytes, 9);
            there_and_back(&bytes, used, halves, (root_at, 0), false);
            let (from, length) = (random.index(100), 1 + random.index(60));
            let (grown, old) = (vec![2; length], vec![1; 100 - from]);
            let halves = [Operation::UpdateResidentValue; 2];
            let halves = [(halves[0], &grown[..]), (halves[1], &old[..])];
            there_and_back(&bytes, used, halves, (data_at, 0x18 + from), true);
            let mut entry = random.bytes(lengths[1]);
            entry_header::LENGTH.set(&mut entry, 0);
            let length = entry.len() as u16;
            entry_header::LENGTH.set(&mut entry, length);
            entry_header::FLAGS.set(&mut entry, 0);
            let halves = [(Operation::AddIndexEntryRoot, &entry[..]), (Operation::DeleteIndexEntryRoot, &[])];
            there_and_back(&bytes, used, halves, (root_at, 0x18 + 0x10 + 0x10), false);
            let mut block = IndexBlock::blank(Vcn(0), 4096);
            assert!(block.insert_at(0x28, &IndexEntry::for_name(FileId::ROOT, &[0x61; 0x44])));
            let used = 0x18 + block.used();
            let halves =
                [(Operation::AddIndexEntryAllocation, &entry[..]), (Operation::DeleteIndexEntryAllocation, &[])];
            let first = 0x18 + node_header::ENTRIES.get(&block.bytes()[0x18..]) as usize;
            there_and_back(block.bytes(), used, halves, (0, first), false);
        }
    }

    #[test]
    fn bits_that_are_set_are_the_bits_that_are_cleared_whatever_the_parts() {
        let mut random = Random::new(6);
        for _ in 0..200 {
            let (first, count) = (random.index(300) as u32, random.index(300) as u32);
            let range = BitRange::parse(&[first.to_le_bytes(), count.to_le_bytes()].concat()).unwrap();
            let (mut whole, mut parts) = (vec![0; 100], vec![0; 100]);
            range.apply(&mut whole, 0, true);
            let cut = random.index(100);
            let (left, right) = parts.split_at_mut(cut);
            range.apply(left, 0, true);
            range.apply(right, cut as u64, true);
            assert_eq!(whole, parts);
            assert_eq!(whole.iter().map(|byte: &u8| byte.count_ones()).sum::<u32>(), count);
            let bytes = range.bytes();
            assert!(whole.iter().zip(0..).all(|(&byte, at)| byte == 0 || bytes.contains(&at)));
            range.apply(&mut whole, 0, false);
            assert_eq!(whole, [0; 100]);
        }
    }

    #[test]
    fn an_operation_at_a_random_place_is_refused_or_stays_in_its_record() {
        let mut random = Random::new(7);
        let (mut done, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = record().bytes().to_vec();
            let operation = Operation::ALL[random.index(Operation::ALL.len())];
            let place = 8 * random.index(40);
            let length = [0, 8, 24, 32, 0x38, 200][random.index(6)];
            let data = random.bytes(length);
            let step = Step {
                record_offset: if random.index(2) == 0 { place } else { 0x38 },
                attribute_offset: 8 * random.index(20),
                data: &data,
                resizes: random.index(2) == 0,
            };
            match on_record(&mut bytes, operation, step, 1) {
                Ok(()) => {
                    assert!(crate::ntfs::record::header::USED.get(&bytes) <= 1024);
                    done += 1;
                }
                Err(e) => {
                    assert_eq!(e.kind(), crate::error::Kind::Refused, "{e}");
                    refused += 1;
                }
            }
        }
        assert!(done > 100 && refused > 100, "{done} {refused}");
    }
}
