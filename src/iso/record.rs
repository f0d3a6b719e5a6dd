//! Directory records of ISO 9660 (ECMA-119 section 9.1).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bytes::view;
use super::tree::Tree;

const FLAG_DIRECTORY: u8 = 0x02;
const FLAG_ASSOCIATED: u8 = 0x04;
const FLAG_MORE_EXTENTS: u8 = 0x80;

/// The fixed part of a directory record (ECMA-119 section 9.1). Numbers are stored in both byte orders.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RecordHeader {
    /// Bytes of the whole record.
    pub length: u8,
    pub attribute_blocks: u8,
    /// First logical block of the extent.
    pub extent: U32,
    pub extent_be: [u8; 4],
    /// Bytes of the data.
    pub size: U32,
    pub size_be: [u8; 4],
    pub recorded: [u8; 7],
    pub flags: u8,
    pub interleave_unit: u8,
    pub interleave_gap: u8,
    pub volume_number: U16,
    pub volume_number_be: [u8; 2],
    pub name_length: u8,
}

/// Length of a record without its name.
const RECORD_MIN: usize = size_of::<RecordHeader>();

const _: () = assert!(RECORD_MIN == 33);

/// A directory record, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    extent: u32,
    /// Bytes of the data.
    pub size: u32,
    attribute_blocks: u8,
    flags: u8,
    pub is_interleaved: bool,
    name: Vec<u8>,
    /// The system use area, for Rock Ridge.
    pub system_use: Vec<u8>,
    /// Bytes that the record takes in its directory.
    pub length: usize,
}

impl Record {
    /// Parses the record at an offset of a directory; `None` when it is cut off or too short.
    pub fn parse(data: &[u8], at: usize) -> Option<Self> {
        let header: &RecordHeader = view(data.get(at..)?)?;
        let length = usize::from(header.length);
        let record = data.get(at..at.checked_add(length)?).filter(|_| length > RECORD_MIN)?;
        let (name, rest) = record.get(RECORD_MIN..)?.split_at_checked(usize::from(header.name_length))?;
        // an even name length is padded
        let system_use = rest.get(usize::from(name.len() % 2 == 0)..).unwrap_or_default();
        Some(Self {
            extent: header.extent.get(),
            size: header.size.get(),
            attribute_blocks: header.attribute_blocks,
            flags: header.flags,
            is_interleaved: header.interleave_unit != 0 || header.interleave_gap != 0,
            name: name.to_vec(),
            system_use: system_use.to_vec(),
            length,
        })
    }

    pub fn is_directory(&self) -> bool {
        self.flags & FLAG_DIRECTORY != 0
    }

    /// Whether it is the associated file of another one.
    pub fn is_associated(&self) -> bool {
        self.flags & FLAG_ASSOCIATED != 0
    }

    /// Whether the next record continues the file.
    pub fn has_more_extents(&self) -> bool {
        self.flags & FLAG_MORE_EXTENTS != 0
    }

    /// `.` and `..` have the names 0 and 1.
    pub fn is_self_or_parent(&self) -> bool {
        matches!(self.name.as_slice(), [0 | 1])
    }

    /// Where the data lie in the image, in bytes, with logical blocks of `block` bytes.
    pub fn at(&self, block: u64) -> u64 {
        (u64::from(self.extent) + u64::from(self.attribute_blocks)) * block
    }

    /// The name by the rules of ISO 9660 or Joliet.
    pub fn name(&self, tree: Tree) -> String {
        let name = if tree == Tree::Joliet {
            let units = self.name.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        } else {
            match std::str::from_utf8(&self.name) {
                Ok(text) => text.to_owned(),
                Err(_) => self.name.iter().map(|&byte| char::from(byte)).collect(),
            }
        };
        without_version(&name, self.is_directory()).to_owned()
    }
}

/// Takes `;1` off, and the dot of a name without an ending.
fn without_version(name: &str, is_directory: bool) -> &str {
    let name = match name.rsplit_once(';') {
        Some((name, version)) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => name,
    };
    if is_directory { name } else { name.strip_suffix('.').filter(|n| !n.is_empty()).unwrap_or(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_versions() {
        for (name, directory, expected) in [
            ("VIOSTOR.SYS;1", false, "VIOSTOR.SYS"),
            ("README.;1", false, "README"),
            ("README.", false, "README"),
            ("W8.1", true, "W8.1"),
            ("a;b", false, "a;b"),
            (".", false, "."),
        ] {
            assert_eq!(without_version(name, directory), expected, "{name}");
        }
    }

    #[test]
    fn short_records_are_refused() {
        assert_eq!(Record::parse(&[], 0), None);
        assert_eq!(Record::parse(&[33; 33], 0), None, "a record has at least a name of one byte");
        let mut data = [0u8; 34];
        data[0] = 34;
        data[32] = 9;
        assert_eq!(Record::parse(&data, 0), None, "the name is longer than the record");
        data[32] = 1;
        assert!(Record::parse(&data, 0).is_some());
    }
}
