//! Log records: the header of the log file service, and what the client, NTFS, puts into it.

use std::borrow::Cow;

use super::operation::Operation;
use super::refusal::refuse;
use crate::error::Result;
use crate::ntfs::field::Field;

const LSN: Field<u64> = Field::at(0x00);
const UNDO_NEXT_LSN: Field<u64> = Field::at(0x10);
const LENGTH: Field<u32> = Field::at(0x18);
const CLIENT: Field<u32> = Field::at(0x1C);
const KIND: Field<u32> = Field::at(0x20);
const TRANSACTION: Field<u32> = Field::at(0x24);
const FLAGS: Field<u16> = Field::at(0x28);

/// Type of a record: an operation.
const UPDATE: u32 = 1;
/// Type of a record: a checkpoint.
const RESTART: u32 = 2;
/// Flag: the record has no redo bytes (Windows 10).
const NO_REDO: u16 = 2;
/// Flag: the record has no undo bytes (Windows 10).
const NO_UNDO: u16 = 4;

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// An operation of a transaction.
    Update,
    /// A checkpoint.
    Restart,
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogRecord {
    pub lsn: u64,
    /// The record to be undone after this one; 0: this is the first one.
    pub undo_next: u64,
    /// Bytes of the client.
    pub length: usize,
    /// Id of the transaction.
    pub transaction: u32,
    client: u32,
    kind: u32,
    flags: u16,
    /// The client's bytes.
    pub data: Vec<u8>,
}

impl LogRecord {
    /// The record whose header is at the start of `bytes`, without its data.
    pub fn parse_header(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            lsn: LSN.try_get(bytes)?,
            undo_next: UNDO_NEXT_LSN.try_get(bytes)?,
            length: LENGTH.try_get(bytes)? as usize,
            transaction: TRANSACTION.try_get(bytes)?,
            client: CLIENT.try_get(bytes)?,
            kind: KIND.try_get(bytes)?,
            flags: FLAGS.try_get(bytes)?,
            data: Vec::new(),
        })
    }

    /// The table in the record of a dump, which is `length` bytes long: a long one is not counted in the record itself.
    pub fn table(&self, length: u32) -> Option<&[u8]> {
        self.data.get(usize::from(REDO_OFFSET.get(&self.data))..)?.get(..length as usize)
    }

    /// What the record is for.
    ///
    /// # Errors
    /// Refused when it is not known, or the record is another client's.
    pub fn kind(&self) -> Result<RecordKind> {
        match (self.kind, self.client) {
            (UPDATE, 0) => Ok(RecordKind::Update),
            (RESTART, 0) => Ok(RecordKind::Restart),
            (kind, client) => Err(refuse(format!(
                "the record {:#x} is of an unknown type ({kind}) or client ({client:#x})",
                self.lsn
            ))),
        }
    }

    /// The client's part of an [update](RecordKind::Update).
    ///
    /// # Errors
    /// Refused, when an offset leaves the record, or an operation is not known.
    pub fn update(&self) -> Result<Update<'_>> {
        Update::parse(self)
    }
}

const REDO: Field<u16> = Field::at(0x00);
const UNDO: Field<u16> = Field::at(0x02);
const REDO_OFFSET: Field<u16> = Field::at(0x04);
const REDO_LENGTH: Field<u16> = Field::at(0x06);
const UNDO_OFFSET: Field<u16> = Field::at(0x08);
const UNDO_LENGTH: Field<u16> = Field::at(0x0A);
const TARGET: Field<u16> = Field::at(0x0C);
const LCN_COUNT: Field<u16> = Field::at(0x0E);
const RECORD_OFFSET: Field<u16> = Field::at(0x10);
const ATTRIBUTE_OFFSET: Field<u16> = Field::at(0x12);
const BLOCK: Field<u16> = Field::at(0x14);
/// Size of the target block in units of 512 bytes.
const BLOCK_SIZE: Field<u16> = Field::at(0x16);
const VCN: Field<u64> = Field::at(0x18);
/// Where the LCNs begin.
const LCNS_AT: usize = 0x20;
/// Clusters that one record names at most: 64 KiB of data in clusters of 512 bytes, and one more on each side.
const LCNS_MAX: usize = 130;

/// One half of an update: redo or undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Half<'a> {
    pub operation: Operation,
    /// Its bytes; zeros where the record gives only their number.
    pub data: Cow<'a, [u8]>,
}

/// An operation, and what takes it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Update<'a> {
    pub lsn: u64,
    pub redo: Half<'a>,
    pub undo: Half<'a>,
    /// The attribute in the table of open attributes.
    pub target: u16,
    /// In a file record the attribute's offset; else an offset from the block's start.
    pub record_offset: usize,
    /// From the attribute's, or the index block's, start.
    pub attribute_offset: usize,
    /// Bytes from the start of the first cluster to the block.
    pub block: usize,
    pub vcn: u64,
    /// The clusters from `vcn` on, as they were when the record was written.
    pub lcns: Vec<u64>,
    /// Whether redo and undo differ in length: a resident value is resized.
    pub resizes: bool,
}

impl<'a> Update<'a> {
    fn parse(record: &'a LogRecord) -> Result<Self> {
        let (data, lsn) = (record.data.as_slice(), record.lsn);
        let bad = |why: &str| refuse(format!("the record {lsn:#x} {why}"));
        if data.len() < LCNS_AT {
            return Err(bad("is too short for an operation"));
        }
        let operation =
            |raw: u16| Operation::from_raw(raw).ok_or_else(|| bad(&format!("names the unknown operation {raw:#x}")));
        let (redo, undo) = (operation(REDO.get(data))?, operation(UNDO.get(data))?);
        let count = usize::from(LCN_COUNT.get(data));
        let lcns = data.get(LCNS_AT..LCNS_AT + 8 * count).filter(|_| count <= LCNS_MAX);
        let lcns = lcns.ok_or_else(|| bad("names more clusters than it holds"))?;
        let half = |operation: Operation, offset: Field<u16>, length: Field<u16>, flag: u16| {
            let (offset, length) = (usize::from(offset.get(data)), usize::from(length.get(data)));
            let absent = record.flags & flag != 0 || operation.needs_no_data();
            let bytes = data.get(offset..offset + length);
            let data = match bytes {
                _ if length == 0 => Cow::Borrowed(&[][..]),
                Some(bytes) if !(absent && record.flags & (NO_REDO | NO_UNDO) != 0) => Cow::Borrowed(bytes),
                // a length without bytes means that many zeros
                _ if absent => Cow::Owned(vec![0; length]),
                _ => return Err(bad("has data outside itself")),
            };
            Ok(Half { operation, data })
        };
        let changes = [redo, undo].iter().any(|operation| operation.is_update());
        if count == 0 && changes {
            return Err(bad("changes clusters, and names none"));
        }
        if count > 0 && !redo.is_update() && redo != Operation::Noop {
            return Err(bad("names clusters, and its redo changes none"));
        }
        let (redo_length, undo_length) = (REDO_LENGTH.get(data), UNDO_LENGTH.get(data));
        Ok(Self {
            lsn,
            redo: half(redo, REDO_OFFSET, REDO_LENGTH, NO_REDO)?,
            undo: half(undo, UNDO_OFFSET, UNDO_LENGTH, NO_UNDO)?,
            target: TARGET.get(data),
            record_offset: RECORD_OFFSET.get(data).into(),
            attribute_offset: ATTRIBUTE_OFFSET.get(data).into(),
            block: usize::from(BLOCK.get(data)) * 512,
            vcn: VCN.get(data),
            lcns: lcns.chunks_exact(8).map(|lcn| Field::<u64>::at(0).get(lcn)).collect(),
            resizes: redo_length != undo_length,
        })
    }

    /// Whether it changes clusters of the volume, in one direction at least.
    pub fn is_update(&self) -> bool {
        !self.lcns.is_empty() && (self.redo.operation.is_update() || self.undo.operation.is_update())
    }

    /// The clusters that it names, by their VCN.
    ///
    /// # Errors
    /// Refused, when the VCNs overflow.
    pub fn clusters(&self) -> Result<impl Iterator<Item = (u64, &u64)>> {
        if self.vcn.checked_add(self.lcns.len() as u64).is_none_or(|end| end > 1 << 54) {
            return Err(refuse(format!("the record {:#x} names an impossible cluster of its attribute", self.lsn)));
        }
        Ok((self.vcn..).zip(&self.lcns))
    }
}

/// Writes the header of a record of NTFS and its data at the start of `out`; `transaction` is 0 for a checkpoint.
pub(super) fn write_record(out: &mut [u8], lsn: u64, transaction: u32, data: &[u8]) {
    LSN.set(out, lsn);
    LENGTH.set(out, data.len() as u32);
    KIND.set(out, if transaction == 0 { RESTART } else { UPDATE });
    TRANSACTION.set(out, transaction);
    if let Some(place) = out.get_mut(super::restart::RECORD_HEADER_SIZE..).and_then(|out| out.get_mut(..data.len())) {
        place.copy_from_slice(data);
    }
}

/// The client's part of a record that ends a transaction, as Windows 10 writes it.
pub(super) fn forget_transaction() -> Vec<u8> {
    let mut data = vec![0; 0x28];
    REDO.set(&mut data, Operation::ForgetTransaction as u16);
    UNDO.set(&mut data, Operation::CompensationLogRecord as u16);
    REDO_OFFSET.set(&mut data, 0x28);
    UNDO_OFFSET.set(&mut data, 0x28);
    TARGET.set(&mut data, 0x18);
    BLOCK_SIZE.set(&mut data, 2);
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::log::testing::operation;

    #[test]
    fn a_record_names_clusters_exactly_where_it_changes_some() {
        let parse = |redo, undo, lcns: &[u64]| {
            let mut record = LogRecord::parse_header(&[0; 0x30]).unwrap();
            record.data = operation(redo, undo, lcns);
            record.update().map(|_| ())
        };
        for (redo, undo) in [(7, 7), (7, 1), (0, 3)] {
            assert!(parse(redo, undo, &[5]).is_ok());
            assert!(parse(redo, undo, &[]).is_err(), "{redo} {undo}");
        }
        // a redo that was replaced by one that does nothing
        for redo in [0x18, 0x19, 0x1A, 0x1B] {
            assert!(parse(redo, 1, &[]).is_ok());
            assert!(parse(redo, 7, &[5]).is_err(), "{redo}");
        }
    }
}
