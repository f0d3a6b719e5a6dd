//! `$STANDARD_INFORMATION`: times, DOS attributes and the security id of a file.
//!
//! Layout: `STANDARD_INFORMATION` of the public Windows documentation; 0x30 bytes in NTFS 1.x, 0x48 since 3.0.

use super::error::damaged;
use super::file_name::Times;
use crate::clock::FileTime;
use crate::error::Result;
use crate::field::Field;

/// Fields of the structure.
pub mod layout {
    use super::Field;
    /// Creation time, in 100 ns since 1601; so the next three.
    pub const CREATED: Field<u64> = Field::at(0x00);
    /// Time of the last change of the content.
    pub const MODIFIED: Field<u64> = Field::at(0x08);
    /// Time of the last change of the file record.
    pub const CHANGED: Field<u64> = Field::at(0x10);
    /// Time of the last access; Windows may not update it.
    pub const ACCESSED: Field<u64> = Field::at(0x18);
    /// DOS attributes: bits of [`attribute`](super::attribute).
    pub const ATTRIBUTES: Field<u32> = Field::at(0x20);
    /// Version; 1 on a directory marks it case-sensitive.
    pub const VERSION: Field<u32> = Field::at(0x28);
    /// Owner id in `$Quota`; 0 without quotas. Only in the long form, as what follows.
    pub const OWNER: Field<u32> = Field::at(0x30);
    /// Id of the security descriptor in `$Secure`.
    pub const SECURITY: Field<u32> = Field::at(0x34);
    /// Update sequence number of the change journal.
    pub const USN: Field<u64> = Field::at(0x40);
    /// Bytes of the NTFS 1.x form.
    pub const SIZE_1X: usize = 0x30;
    /// Bytes of the NTFS 3.x form.
    pub const SIZE_3X: usize = 0x48;
}

/// DOS attribute bits (`FILE_ATTRIBUTE_…`, MS-FSCC 2.6).
pub mod attribute {
    /// `FILE_ATTRIBUTE_READONLY`: must not be written.
    pub const READ_ONLY: u32 = 0x1;
    /// `FILE_ATTRIBUTE_HIDDEN`: not shown in ordinary listings.
    pub const HIDDEN: u32 = 0x2;
    /// `FILE_ATTRIBUTE_SYSTEM`: belongs to the operating system.
    pub const SYSTEM: u32 = 0x4;
    /// To be archived: what new files get.
    pub const ARCHIVE: u32 = 0x20;
    /// The unnamed stream may have holes.
    pub const SPARSE: u32 = 0x200;
    /// Has a reparse point.
    pub const REPARSE: u32 = 0x400;
    /// The unnamed stream is compressed, or new files in the directory will be.
    pub const COMPRESSED: u32 = 0x800;
    /// The same for EFS.
    pub const ENCRYPTED: u32 = 0x4000;
    /// The bits that a caller may set.
    pub const SETTABLE: u32 = 0x1 | 0x2 | 0x4 | 0x20 | 0x80 | 0x100 | 0x1000 | 0x2000 | 0x2_0000;
}

/// The part of the structure that a writer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandardInformation {
    /// The four times, in 100 ns since 1601.
    pub times: Times,
    /// Bits of [`attribute`], unknown ones included.
    pub attributes: u32,
    /// 1 on a directory marks it as case-sensitive; else 0.
    pub version: u32,
    /// Security id; `None` in the short form.
    pub security: Option<u32>,
}

impl StandardInformation {
    /// Reads the structure.
    ///
    /// # Errors
    /// Damaged, when it is cut short.
    pub fn parse(value: &[u8]) -> Result<Self> {
        if value.len() < layout::SIZE_1X {
            return Err(damaged("$STANDARD_INFORMATION is cut short").expected_found("48 or 72 bytes", value.len()));
        }
        Ok(Self {
            times: Times {
                created: FileTime(layout::CREATED.get(value)),
                modified: FileTime(layout::MODIFIED.get(value)),
                changed: FileTime(layout::CHANGED.get(value)),
                accessed: FileTime(layout::ACCESSED.get(value)),
            },
            attributes: layout::ATTRIBUTES.get(value),
            version: layout::VERSION.get(value),
            security: (value.len() >= layout::SIZE_3X).then(|| layout::SECURITY.get(value)),
        })
    }

    /// Writes times, attributes and (in the long form) the security id into `value`; everything else stays.
    pub fn store(&self, value: &mut [u8]) {
        layout::CREATED.set(value, self.times.created.0);
        layout::MODIFIED.set(value, self.times.modified.0);
        layout::CHANGED.set(value, self.times.changed.0);
        layout::ACCESSED.set(value, self.times.accessed.0);
        layout::ATTRIBUTES.set(value, self.attributes);
        if let Some(id) = self.security.filter(|_| value.len() >= layout::SIZE_3X) {
            layout::SECURITY.set(value, id);
        }
    }

    /// The long form for a new file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; layout::SIZE_3X];
        self.store(&mut bytes);
        bytes
    }
}
