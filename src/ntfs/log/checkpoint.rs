//! A checkpoint: the client's restart record and the tables that it names.

use super::operation::Operation;
use super::reader::Log;
use super::record::RecordKind;
use super::refusal::refuse;
use super::summary::Target;
use crate::error::Result;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::field::Field;
use crate::ntfs::name::NtfsName;
use crate::ntfs::units::FileId;

const MAJOR: Field<u32> = Field::at(0x00);
const MINOR: Field<u32> = Field::at(0x04);
const START_LSN: Field<u64> = Field::at(0x08);
/// LSN of a table's dump, and bytes of the table.
type Dump = (Field<u64>, Field<u32>, Operation);
const OPEN_ATTRIBUTES: Dump = (Field::at(0x10), Field::at(0x30), Operation::OpenAttributeTableDump);
const NAMES: Dump = (Field::at(0x18), Field::at(0x34), Operation::AttributeNamesDump);
const DIRTY_PAGES: Dump = (Field::at(0x20), Field::at(0x38), Operation::DirtyPageTableDump);
const TRANSACTIONS: Dump = (Field::at(0x28), Field::at(0x3C), Operation::TransactionTableDump);
/// Bytes of a restart record without what follows the tables.
const LENGTH_MIN: usize = 0x40;
/// Bytes of the restart record of Windows 7 to 11.
const LENGTH: usize = 0x70;

/// Bytes of the header of a table.
const TABLE_HEADER: usize = 0x18;
/// Value of an entry's first field: the entry is in use.
const ALLOCATED: u32 = 0xFFFF_FFFF;

/// An attribute that the log writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenAttribute {
    /// LSN of the record that opened it.
    pub lsn: u64,
    /// Bytes of an index block; 0 for what is not an index.
    pub index_block: u32,
    pub target: Target,
}

/// A page of an attribute that may not have reached the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DirtyPage {
    pub target: u16,
    pub vcn: u64,
    /// The oldest record whose change it may lack.
    pub oldest: u64,
    /// Its clusters; 0 for one that was freed.
    pub lcns: Vec<u64>,
}

/// How far a transaction has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    pub state: u8,
    pub first: u64,
    /// The next record to take back; 0: nothing is left to take back.
    pub undo_next: u64,
}

/// [`Transaction::state`]: it is not finished.
pub(super) const ACTIVE: u8 = 1;
/// [`Transaction::state`]: it waits for the decision of a coordinator.
pub(super) const PREPARED: u8 = 2;
/// [`Transaction::state`]: its decision is made, but its end is not written.
pub(super) const COMMITTED: u8 = 3;

/// The last checkpoint of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Analysis goes on after this record.
    pub start: u64,
    /// Bytes of the restart record that follow the tables.
    pub extra: Vec<u8>,
    pub attributes: Vec<(u16, OpenAttribute)>,
    pub pages: Vec<DirtyPage>,
    pub transactions: Vec<(u32, Transaction)>,
}

impl Checkpoint {
    /// Reads the checkpoint that the restart area names.
    ///
    /// # Errors
    /// Refused, when the record or a table cannot be read or has another form than Windows 7 to 11 write.
    pub fn read(log: &Log<'_>) -> Result<Self> {
        let lsn = log.area.restart_lsn;
        let record = log.require(lsn, "the checkpoint")?.record;
        if record.kind()? != RecordKind::Restart || record.data.len() < LENGTH_MIN {
            return Err(refuse(format!("the record {lsn:#x} is not a checkpoint")));
        }
        let head = record.data.as_slice();
        let version = (MAJOR.get(head), MINOR.get(head));
        if version != (1, 0) {
            return Err(refuse("the tables of its checkpoint have an unknown form")
                .expected_found("version 1.0", format!("version {}.{}", version.0, version.1)));
        }
        let start = match START_LSN.get(head) {
            0 => lsn,
            start if start < lsn => start,
            start => return Err(refuse(format!("its checkpoint {lsn:#x} begins after itself, at {start:#x}"))),
        };
        let dump = |(at, length, operation): Dump| match length.get(head) {
            0 => Ok(Vec::new()),
            length => read_dump(log, at.get(head), length, operation),
        };
        let mut attributes = open_attributes(&dump(OPEN_ATTRIBUTES)?)?;
        set_names(&mut attributes, &dump(NAMES)?)?;
        let pages =
            table(&dump(DIRTY_PAGES)?)?.into_iter().map(|(_, entry)| dirty_page(entry)).collect::<Result<_>>()?;
        let transactions = dump(TRANSACTIONS)?;
        let transactions = table(&transactions)?.into_iter().map(|(id, entry)| (id, transaction(entry))).collect();
        let extra = head.get(LENGTH_MIN..).unwrap_or_default().to_vec();
        Ok(Self { start, extra, attributes, pages, transactions })
    }
}

fn read_dump(log: &Log<'_>, lsn: u64, length: u32, operation: Operation) -> Result<Vec<u8>> {
    let record = log.require(lsn, operation.name())?.record;
    let found = record.update()?.redo.operation;
    if found != operation {
        return Err(refuse(format!("a table of its checkpoint is not where it should be, at {lsn:#x}"))
            .expected_found(operation.name(), found.name()));
    }
    let table = record.table(length).ok_or_else(|| refuse(format!("the table at {lsn:#x} is cut short")))?;
    Ok(table.to_vec())
}

/// The entries in use of a table, by their offset in it; none for an empty one.
fn table(bytes: &[u8]) -> Result<Vec<(u32, &[u8])>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let field = |at| usize::from(Field::<u16>::at(at).get(bytes));
    let (size, count, used) = (field(0), field(2), field(4));
    let entries = bytes.get(TABLE_HEADER..).and_then(|rest| rest.get(..size * count));
    let entries = entries.filter(|_| size >= 8 && used <= count);
    let entries = entries.ok_or_else(|| refuse("a table of its checkpoint has an impossible header"))?;
    let offsets = (0u32..).map(|number| TABLE_HEADER as u32 + number * size as u32);
    let entries = offsets.zip(entries.chunks_exact(size));
    Ok(entries.filter(|(_, entry)| Field::<u32>::at(0).get(entry) == ALLOCATED).collect())
}

fn open_attributes(bytes: &[u8]) -> Result<Vec<(u16, OpenAttribute)>> {
    let mut out = Vec::new();
    for (offset, entry) in table(bytes)? {
        let index = u16::try_from(offset).map_err(|_| refuse("its table of open attributes is too long"))?;
        out.push((index, open_attribute(entry, NtfsName::default())?));
    }
    Ok(out)
}

/// An entry of the table of open attributes, or what a record that opens an attribute holds of it.
pub(super) fn open_attribute(entry: &[u8], name: NtfsName) -> Result<OpenAttribute> {
    if entry.len() < 0x28 {
        return Err(refuse("an open attribute has an unknown form").expected_found("0x28 bytes", entry.len()));
    }
    Ok(OpenAttribute {
        lsn: Field::<u64>::at(0x18).get(entry),
        index_block: Field::<u32>::at(0x04).get(entry),
        target: Target {
            file: FileId::from_raw(Field::<u64>::at(0x10).get(entry)),
            kind: AttributeType(Field::<u32>::at(0x08).get(entry)),
            name,
        },
    })
}

fn set_names(attributes: &mut [(u16, OpenAttribute)], mut names: &[u8]) -> Result<()> {
    while names.len() >= 4 {
        let index = Field::<u16>::at(0).get(names);
        let length = usize::from(Field::<u16>::at(2).get(names));
        if index == 0 {
            break;
        }
        let name = names.get(4..4 + length).ok_or_else(|| refuse("the names of open attributes are cut short"))?;
        if let Some((_, attribute)) = attributes.iter_mut().find(|(at, _)| *at == index) {
            attribute.target.name = NtfsName::from_le_bytes(name);
        }
        names = names.get(4 + length + 2..).unwrap_or_default();
    }
    Ok(())
}

fn dirty_page(entry: &[u8]) -> Result<DirtyPage> {
    let count = Field::<u32>::at(0x0C).get(entry) as usize;
    let target = u16::try_from(Field::<u32>::at(0x04).get(entry)).ok();
    let lcns = count.checked_mul(8).and_then(|bytes| entry.get(0x20..)?.get(..bytes));
    let (Some(lcns), Some(target)) = (lcns, target) else {
        return Err(refuse("an entry of its table of dirty pages names more clusters than it holds"));
    };
    Ok(DirtyPage {
        target,
        vcn: Field::<u64>::at(0x10).get(entry),
        oldest: Field::<u64>::at(0x18).get(entry),
        lcns: lcns.chunks_exact(8).map(|lcn| Field::<u64>::at(0).get(lcn)).collect(),
    })
}

fn transaction(entry: &[u8]) -> Transaction {
    Transaction {
        state: Field::<u8>::at(0x04).get(entry),
        first: Field::<u64>::at(0x08).get(entry),
        undo_next: Field::<u64>::at(0x18).get(entry),
    }
}

/// The restart record of a checkpoint without tables, which begins at `start`; `extra` are the last bytes of the one
/// before it.
pub(super) fn empty_checkpoint(start: u64, extra: &[u8]) -> Vec<u8> {
    let mut data = vec![0; LENGTH];
    MAJOR.set(&mut data, 1);
    START_LSN.set(&mut data, start);
    for (byte, old) in data.iter_mut().skip(LENGTH_MIN).zip(extra) {
        *byte = *old;
    }
    // the oldest record that is needed
    Field::<u64>::at(LENGTH - 8).set(&mut data, start);
    data
}
