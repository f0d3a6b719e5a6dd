//! `$ATTRIBUTE_LIST`: in which record each attribute of a file is, once one record is too small.
//!
//! Layout: `ATTRIBUTE_LIST_ENTRY` of the public Windows documentation ("Master File Table").

use super::attribute::AttributeType;
use super::error::damaged;
use super::name::NtfsName;
use super::units::{FileId, Vcn};
use crate::error::Result;
use crate::field::{Field, align8, push_utf16};

/// Fields of an entry.
pub mod layout {
    use super::Field;
    /// Type code of the attribute.
    pub const TYPE: Field<u32> = Field::at(0x00);
    /// Bytes of the entry, a multiple of 8.
    pub const LENGTH: Field<u16> = Field::at(0x04);
    /// Units of the name.
    pub const NAME_LENGTH: Field<u8> = Field::at(0x06);
    /// Offset of the name: always 0x1A, or Windows calls the file corrupt.
    pub const NAME_OFFSET: Field<u8> = Field::at(0x07);
    /// First VCN of the extent.
    pub const LOWEST_VCN: Field<u64> = Field::at(0x08);
    /// The record that holds it.
    pub const RECORD: Field<u64> = Field::at(0x10);
    /// Instance in that record.
    pub const INSTANCE: Field<u16> = Field::at(0x18);
    /// Offset of the name.
    pub const NAME: usize = 0x1A;
}

/// Largest list that is accepted: 256 KiB, the limit of Windows.
pub const LIST_SIZE_MAX: u64 = 256 << 10;

/// One entry of a list: an attribute, or one extent of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// The type of the attribute.
    pub kind: AttributeType,
    /// The name of the attribute, empty for the unnamed one.
    pub name: NtfsName,
    /// First VCN of the extent.
    pub lowest: Vcn,
    /// The record that holds it.
    pub record: FileId,
    /// Instance in that record.
    pub instance: u16,
}

impl ListEntry {
    /// Appends the entry's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let length = align8(layout::NAME + 2 * self.name.units().len());
        out.resize(start + layout::NAME, 0);
        let entry = &mut out[start..];
        layout::TYPE.set(entry, self.kind.0);
        layout::LENGTH.set(entry, length as u16);
        layout::NAME_LENGTH.set(entry, self.name.units().len() as u8);
        layout::NAME_OFFSET.set(entry, layout::NAME as u8);
        layout::LOWEST_VCN.set(entry, self.lowest.0);
        layout::RECORD.set(entry, self.record.to_raw());
        layout::INSTANCE.set(entry, self.instance);
        push_utf16(out, self.name.units());
        out.resize(start + length, 0);
    }
}

/// Reads all entries of a list.
///
/// # Errors
/// Damaged, when an entry is cut short.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<ListEntry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(layout::LENGTH.get(bytes));
        let name_offset = usize::from(layout::NAME_OFFSET.get(bytes));
        let name_end = name_offset + 2 * usize::from(layout::NAME_LENGTH.get(bytes));
        if length < layout::NAME || length > bytes.len() || name_end > length.max(layout::NAME + 6) {
            return Err(damaged("malformed entry in an attribute list").expected_found("26..", length));
        }
        entries.push(ListEntry {
            kind: AttributeType(layout::TYPE.get(bytes)),
            name: NtfsName::from_le_bytes(bytes.get(name_offset..name_end).unwrap_or_default()),
            lowest: Vcn(layout::LOWEST_VCN.get(bytes)),
            record: FileId::from_raw(layout::RECORD.get(bytes)),
            instance: layout::INSTANCE.get(bytes),
        });
        bytes = &bytes[length..];
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unnamed_entries_have_0x20_bytes_and_name_offset_0x1a() {
        let entry = ListEntry {
            kind: AttributeType::DATA,
            name: NtfsName::default(),
            lowest: Vcn(3),
            record: FileId::ROOT,
            instance: 4,
        };
        let named = ListEntry { name: "$I30".into(), ..entry.clone() };
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!((bytes.len(), bytes[7]), (0x20, 0x1A));
        named.encode(&mut bytes);
        assert_eq!(parse(&bytes).unwrap(), [entry, named]);
        assert!(parse(&bytes[..bytes.len() - 1]).is_err());
    }
}
