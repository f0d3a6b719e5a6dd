//! `$FILE_NAME`: one name of a file, in its record and as key of the directory index.
//!
//! Layout: `FILE_NAME` attribute of the public Windows documentation ("Master File Table").

use super::error::damaged;
use super::name::{Namespace, NtfsName};
use super::units::FileId;
use crate::clock::FileTime;
use crate::error::Result;
use crate::field::{Field, push_utf16};

/// Fields of the structure.
pub mod layout {
    use super::Field;
    /// Reference of the directory that holds the name.
    pub const PARENT: Field<u64> = Field::at(0x00);
    /// Creation time, in 100 ns since 1601; so the next three.
    pub const CREATED: Field<u64> = Field::at(0x08);
    /// Time of the last change of the content.
    pub const MODIFIED: Field<u64> = Field::at(0x10);
    /// Time of the last change of the file record.
    pub const CHANGED: Field<u64> = Field::at(0x18);
    /// Time of the last access; Windows may not update it.
    pub const ACCESSED: Field<u64> = Field::at(0x20);
    /// Allocated bytes of the unnamed stream.
    pub const ALLOCATED: Field<u64> = Field::at(0x28);
    /// Bytes of the unnamed stream.
    pub const DATA_SIZE: Field<u64> = Field::at(0x30);
    /// DOS attributes with the two bits below.
    pub const ATTRIBUTES: Field<u32> = Field::at(0x38);
    /// Reparse tag, or packed size of the extended attributes.
    pub const TAG: Field<u32> = Field::at(0x3C);
    /// Units of the name.
    pub const NAME_LENGTH: Field<u8> = Field::at(0x40);
    /// One of the codes of [`Namespace`](crate::internals::ntfs::Namespace).
    pub const NAMESPACE: Field<u8> = Field::at(0x41);
    /// Offset of the name: bytes of the fixed part.
    pub const NAME: usize = 0x42;
}

/// Attribute bit of a directory, in `$FILE_NAME` only.
pub const DIRECTORY: u32 = 0x1000_0000;
/// Attribute bit of a file with a view index.
pub const VIEW_INDEX: u32 = 0x2000_0000;

/// The four times of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When the file was created.
    pub created: FileTime,
    /// Last change of the data.
    pub modified: FileTime,
    /// Last change of the record.
    pub changed: FileTime,
    /// When the file was last read; Windows may not update it.
    pub accessed: FileTime,
}

impl Times {
    /// All four the same.
    #[must_use]
    pub fn all(now: FileTime) -> Self {
        Self { created: now, modified: now, changed: now, accessed: now }
    }
}

/// The part of `$FILE_NAME` that directories keep up to date for listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate {
    /// Copies of the four times of `$STANDARD_INFORMATION`.
    pub times: Times,
    /// Allocated bytes of the unnamed stream.
    pub allocated: u64,
    /// Bytes of the unnamed stream.
    pub data_size: u64,
    /// DOS attributes with [`DIRECTORY`] and [`VIEW_INDEX`].
    pub attributes: u32,
    /// Reparse tag, or packed size of the extended attributes.
    pub tag: u32,
}

impl Duplicate {
    /// Writes it into a `$FILE_NAME` structure (an index key).
    pub fn store(&self, key: &mut [u8]) {
        layout::CREATED.set(key, self.times.created.0);
        layout::MODIFIED.set(key, self.times.modified.0);
        layout::CHANGED.set(key, self.times.changed.0);
        layout::ACCESSED.set(key, self.times.accessed.0);
        layout::ALLOCATED.set(key, self.allocated);
        layout::DATA_SIZE.set(key, self.data_size);
        layout::ATTRIBUTES.set(key, self.attributes);
        layout::TAG.set(key, self.tag);
    }
}

/// A name with its parent and the duplicated information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// The directory that holds the name.
    pub parent: FileId,
    /// Copies of times, sizes and attributes.
    pub duplicate: Duplicate,
    /// Which rules the name follows.
    pub namespace: Namespace,
    /// The name, case preserved, without its path.
    pub name: NtfsName,
}

/// The bytes of the name in a `$FILE_NAME` structure, if they are inside it.
#[must_use]
pub fn name_bytes(value: &[u8]) -> Option<&[u8]> {
    let length = 2 * usize::from(*value.get(layout::NAME_LENGTH.offset)?);
    value.get(layout::NAME..layout::NAME + length)
}

impl FileName {
    /// Reads the structure.
    ///
    /// # Errors
    /// Damaged, when it is cut short, has no name or an unknown namespace.
    pub fn parse(value: &[u8]) -> Result<Self> {
        let name = name_bytes(value).filter(|n| !n.is_empty()).ok_or_else(|| damaged("$FILE_NAME is cut short"))?;
        let raw = layout::NAMESPACE.get(value);
        let namespace = Namespace::from_raw(raw)
            .ok_or_else(|| damaged("unknown namespace of a name").expected_found("0..3", raw))?;
        Ok(Self {
            parent: FileId::from_raw(layout::PARENT.get(value)),
            duplicate: Duplicate {
                times: Times {
                    created: FileTime(layout::CREATED.get(value)),
                    modified: FileTime(layout::MODIFIED.get(value)),
                    changed: FileTime(layout::CHANGED.get(value)),
                    accessed: FileTime(layout::ACCESSED.get(value)),
                },
                allocated: layout::ALLOCATED.get(value),
                data_size: layout::DATA_SIZE.get(value),
                attributes: layout::ATTRIBUTES.get(value),
                tag: layout::TAG.get(value),
            },
            namespace,
            name: NtfsName::from_le_bytes(name),
        })
    }

    /// The structure as the attribute and the index key store it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(layout::NAME + 2 * self.name.units().len());
        bytes.resize(layout::NAME, 0);
        layout::PARENT.set(&mut bytes, self.parent.to_raw());
        self.duplicate.store(&mut bytes);
        layout::NAME_LENGTH.set(&mut bytes, self.name.units().len() as u8);
        layout::NAMESPACE.set(&mut bytes, self.namespace.to_raw());
        push_utf16(&mut bytes, self.name.units());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::format::units::FileId;

    #[test]
    fn round_trip() {
        let name = FileName {
            parent: FileId::ROOT,
            duplicate: Duplicate {
                times: Times::all(FileTime(5)),
                allocated: 8,
                data_size: 7,
                attributes: 0x20 | DIRECTORY,
                tag: 9,
            },
            namespace: Namespace::Win32,
            name: "Ä long name".into(),
        };
        let bytes = name.encode();
        assert_eq!(bytes.len(), 0x42 + 22);
        assert_eq!(FileName::parse(&bytes).unwrap(), name);
        assert!(FileName::parse(&bytes[..bytes.len() - 1]).is_err());
        assert!(FileName::parse(&[]).is_err());
    }
}
