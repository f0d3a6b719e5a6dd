//! MFT records: header, iteration over the attributes, and edits that keep the record well-formed.
//!
//! Layout: `FILE_RECORD_SEGMENT_HEADER` of the public Windows documentation ("Master File Table").

use super::attribute::{Attribute, AttributeType, header as attribute_header};
use super::error::damaged;
use super::units::{FileId, RecordNumber};
use crate::error::{Error, Layer, Place, Result};
use crate::field::{Field, align8};
use crate::ntfs::format::fixup;

/// Header fields of a record.
pub mod header {
    use super::Field;
    /// Last `$LogFile` record that touched this one; never invented, never changed.
    pub const LSN: Field<u64> = Field::at(0x08);
    /// Counts the uses of the record: the upper 16 bits of a valid reference to it.
    pub const SEQUENCE: Field<u16> = Field::at(0x10);
    /// Number of `$FILE_NAME` attributes.
    pub const LINKS: Field<u16> = Field::at(0x12);
    /// Offset of the first attribute.
    pub const FIRST_ATTRIBUTE: Field<u16> = Field::at(0x14);
    /// [`FLAG_IN_USE`](super::FLAG_IN_USE) and the other `FLAG_…` of this module.
    pub const FLAGS: Field<u16> = Field::at(0x16);
    /// Bytes used: offset of the end marker + 8.
    pub const USED: Field<u32> = Field::at(0x18);
    /// Bytes of the record.
    pub const ALLOCATED: Field<u32> = Field::at(0x1C);
    /// Base record, for extension records.
    pub const BASE: Field<u64> = Field::at(0x20);
    /// Instance for the next attribute.
    pub const NEXT_INSTANCE: Field<u16> = Field::at(0x28);
    /// The record's own number (since NTFS 3.1).
    pub const NUMBER: Field<u32> = Field::at(0x2C);
    /// Bytes of the header without the update sequence array.
    pub const SIZE: usize = 0x30;
}

/// The record is in use.
pub const FLAG_IN_USE: u16 = 0x01;
/// It has an `$I30` index.
pub const FLAG_DIRECTORY: u16 = 0x02;
/// It lies below `$Extend`.
pub const FLAG_IN_EXTEND: u16 = 0x04;
/// It has an index that is not `$I30`.
pub const FLAG_VIEW_INDEX: u16 = 0x08;

/// An MFT record, its fix-ups undone and its attributes' bounds checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
}

/// Iterates over the attributes in `bytes` (a record without fix-ups), from offset `first`, until the end marker; each
/// item is the attribute's offset and the attribute. Ends after the first error. Used by [`Record`] and by the checker.
#[must_use]
pub fn attributes_in(bytes: &[u8], first: usize) -> AttributeIter<'_> {
    AttributeIter { bytes, offset: first, done: false }
}

/// The iterator that [`attributes_in`] returns.
#[derive(Debug, Clone)]
pub struct AttributeIter<'a> {
    bytes: &'a [u8],
    offset: usize,
    done: bool,
}

impl AttributeIter<'_> {
    /// Offset of what comes next: after the iteration has ended well, of the end marker.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = Result<(usize, Attribute<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = match self.bytes.get(self.offset..) {
            Some(rest) if rest.len() >= 4 && !self.done => rest,
            _ if self.done => return None,
            _ => {
                self.done = true;
                return Some(Err(damaged("record without an end marker").at(Place::Inner(self.offset as u64))));
            }
        };
        if AttributeType(attribute_header::TYPE.get(rest)) == AttributeType::END {
            self.done = true;
            return None;
        }
        let offset = self.offset;
        match Attribute::parse(rest) {
            Ok(attribute) => {
                self.offset += attribute.bytes().len();
                Some(Ok((offset, attribute)))
            }
            Err(e) => {
                self.done = true;
                Some(Err(e.inside(Place::Inner(offset as u64))))
            }
        }
    }
}

impl Record {
    /// Undoes the fix-ups of a block as read from disk and checks the record's structure.
    ///
    /// # Errors
    /// Damaged, when the block is torn or not a record, or an attribute leaves it.
    pub fn parse(mut block: Vec<u8>) -> Result<Self> {
        fixup::unseal(&mut block, fixup::FILE)?;
        let record = Self { bytes: block };
        let used = header::USED.get(&record.bytes) as usize;
        let first = usize::from(header::FIRST_ATTRIBUTE.get(&record.bytes));
        if used > record.bytes.len() || !used.is_multiple_of(8) || first + 8 > used || first < 0x28 || first % 8 != 0 {
            return Err(damaged("impossible sizes in the header of an MFT record")
                .expected_found(format!("used 8-aligned, up to {}", record.bytes.len()), used));
        }
        let array = usize::from(fixup::ARRAY_OFFSET.get(&record.bytes));
        let array_end = array + 2 * usize::from(fixup::ARRAY_COUNT.get(&record.bytes));
        if array_end > first {
            return Err(damaged("the update sequence array of an MFT record reaches into its attributes")
                .expected_found(format!("up to {first}"), array_end));
        }
        let mut attributes = attributes_in(&record.bytes[..used], first);
        for attribute in attributes.by_ref() {
            attribute?;
        }
        if attributes.offset() + 8 > used {
            return Err(damaged("MFT record ends inside its end marker"));
        }
        Ok(record)
    }

    /// A fresh record in use, with nothing in it but the end marker.
    #[must_use]
    pub fn blank(number: RecordNumber, sequence: u16, flags: u16, size: usize) -> Self {
        let mut bytes = vec![0u8; size];
        fixup::format(&mut bytes, fixup::FILE, header::SIZE as u16);
        let first = align8(header::SIZE + 2 * (size / fixup::STRIDE + 1));
        header::SEQUENCE.set(&mut bytes, sequence);
        header::FIRST_ATTRIBUTE.set(&mut bytes, first as u16);
        header::FLAGS.set(&mut bytes, flags);
        header::USED.set(&mut bytes, first as u32 + 8);
        header::ALLOCATED.set(&mut bytes, size as u32);
        header::NUMBER.set(&mut bytes, number.0 as u32);
        attribute_header::TYPE.set(&mut bytes[first..], AttributeType::END.0);
        Self { bytes }
    }

    /// The bytes, without fix-ups.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes for changing a field in place; the caller keeps all lengths and offsets.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// What goes to disk; the update sequence number advances here, too.
    ///
    /// # Errors
    /// Damaged, when the header has no valid update sequence array.
    pub fn seal(&mut self) -> Result<Vec<u8>> {
        let mut sealed = Vec::new();
        self.seal_into(&mut sealed)?;
        Ok(sealed)
    }

    /// [`seal`](Self::seal), appended to a buffer.
    ///
    /// # Errors
    /// See [`seal`](Self::seal).
    pub fn seal_into(&mut self, sealed: &mut Vec<u8>) -> Result<()> {
        fixup::seal_copy(&mut self.bytes, sealed)
    }

    /// The record's own number, its low 32 bits; NTFS 3.0 did not write it.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        let has_number = usize::from(fixup::ARRAY_OFFSET.get(&self.bytes)) >= header::SIZE;
        has_number.then(|| header::NUMBER.get(&self.bytes).into())
    }

    /// The sequence number, which a reference must repeat.
    #[must_use]
    pub fn sequence(&self) -> u16 {
        header::SEQUENCE.get(&self.bytes)
    }

    /// Number of `$FILE_NAME` attributes, DOS names included.
    #[must_use]
    pub fn links(&self) -> u16 {
        header::LINKS.get(&self.bytes)
    }

    /// `FLAG_…` bits of the header.
    #[must_use]
    pub fn flags(&self) -> u16 {
        header::FLAGS.get(&self.bytes)
    }

    /// Whether it is in use.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.flags() & FLAG_IN_USE != 0
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.flags() & FLAG_DIRECTORY != 0
    }

    /// The base record, for an extension record.
    #[must_use]
    pub fn base(&self) -> Option<FileId> {
        match header::BASE.get(&self.bytes) {
            0 => None,
            raw => Some(FileId::from_raw(raw)),
        }
    }

    /// Bytes from the start of the record to the end of the end marker.
    #[must_use]
    pub fn used(&self) -> usize {
        header::USED.get(&self.bytes) as usize
    }

    /// Bytes that attributes may still take.
    #[must_use]
    pub fn free(&self) -> usize {
        self.bytes.len().saturating_sub(self.used())
    }

    /// Bytes for attributes in an empty record of this geometry.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.len().saturating_sub(usize::from(header::FIRST_ATTRIBUTE.get(&self.bytes)) + 8)
    }

    /// The attributes with their offsets, in the order of the record.
    pub fn attributes(&self) -> impl Iterator<Item = (usize, Attribute<'_>)> {
        let first = usize::from(header::FIRST_ATTRIBUTE.get(&self.bytes));
        let used = self.used().min(self.bytes.len());
        attributes_in(&self.bytes[..used], first).filter_map(Result::ok)
    }

    /// The first attribute of a type with exactly this ASCII name (`""`: unnamed), if this record holds it.
    #[must_use]
    pub fn find(&self, kind: AttributeType, name: &str) -> Option<Attribute<'_>> {
        self.attributes().map(|(_, a)| a).find(|a| a.kind() == kind && a.is_named(name))
    }

    /// The attribute with an instance number.
    #[must_use]
    pub fn find_instance(&self, kind: AttributeType, instance: u16) -> Option<(usize, Attribute<'_>)> {
        self.attributes().find(|(_, a)| a.kind() == kind && a.instance() == instance)
    }

    /// The resident value of an unnamed attribute, for changing it in place.
    pub fn value_mut(&mut self, kind: AttributeType) -> Option<&mut [u8]> {
        let (offset, attribute) = self.attributes().find(|(_, a)| a.kind() == kind && a.is_named(""))?;
        let length = attribute.value()?.len();
        let start = offset + usize::from(super::attribute::resident::VALUE_OFFSET.get(attribute.bytes()));
        self.bytes.get_mut(start..start + length)
    }

    /// Replaces all attributes by `attributes`, which are complete, in order and carry their instance numbers.
    ///
    /// # Errors
    /// A bug of the caller, when they do not fit.
    pub fn set_attributes<'a>(&mut self, attributes: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        let first = usize::from(header::FIRST_ATTRIBUTE.get(&self.bytes));
        let mut bytes = Vec::with_capacity(self.bytes.len());
        bytes.extend_from_slice(&self.bytes[..first]);
        for attribute in attributes {
            bytes.extend_from_slice(attribute);
        }
        let used = bytes.len() + 8;
        if used > self.bytes.len() {
            return Err(
                Error::bug(Layer::Ntfs, "attributes do not fit the MFT record").expected_found(self.bytes.len(), used)
            );
        }
        bytes.extend_from_slice(&AttributeType::END.0.to_le_bytes());
        bytes.resize(self.bytes.len(), 0);
        header::USED.set(&mut bytes, used as u32);
        self.bytes = bytes;
        Ok(())
    }

    /// Gives out the next instance number; `None` when the numbers are used up and the record must be renumbered.
    pub fn next_instance(&mut self) -> Option<u16> {
        let instance = header::NEXT_INSTANCE.get(&self.bytes);
        header::NEXT_INSTANCE.set(&mut self.bytes, instance.checked_add(1)?);
        Some(instance)
    }
}

#[cfg(test)]
mod tests {
    use super::super::attribute::build_resident;
    use super::*;
    use crate::ntfs::format::name::NtfsName;

    fn sample() -> Record {
        let mut record = Record::blank(RecordNumber(40), 3, FLAG_IN_USE, 1024);
        let attributes = [
            build_resident(AttributeType::STANDARD_INFORMATION, &NtfsName::default(), &[7; 0x48]),
            build_resident(AttributeType::DATA, &"x".into(), b"data"),
        ];
        record.set_attributes(attributes.iter().map(Vec::as_slice)).unwrap();
        record
    }

    #[test]
    fn a_blank_record_has_the_sizes_that_windows_writes() {
        let record = Record::blank(RecordNumber(40), 3, FLAG_IN_USE, 1024);
        assert_eq!((header::FIRST_ATTRIBUTE.get(record.bytes()), record.used()), (0x38, 0x40));
        let record = Record::blank(RecordNumber(40), 3, FLAG_IN_USE, 4096);
        assert_eq!(header::FIRST_ATTRIBUTE.get(record.bytes()), 0x48);
    }

    #[test]
    fn sealed_records_read_back() {
        let mut record = sample();
        let block = record.seal().unwrap();
        assert_eq!(Record::parse(block).unwrap(), record);
        assert_eq!(record.find(AttributeType::DATA, "x").and_then(|a| a.value()), Some(&b"data"[..]));
        assert!(record.find(AttributeType::DATA, "").is_none());
    }

    #[test]
    fn mutated_records_never_panic() {
        let block = sample().seal().unwrap();
        for at in 0..0x120 {
            for value in [0, 1, 2, 7, 8, 0x40, 0x7F, 0x80, 0xFF] {
                let mut bad = block.clone();
                bad[at] = value;
                if let Ok(r) = Record::parse(bad) {
                    let _ = (r.attributes().count(), r.free(), r.capacity(), r.base());
                }
            }
        }
    }
}
