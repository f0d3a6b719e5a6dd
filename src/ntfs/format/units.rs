//! Address types of an NTFS volume, so that one number cannot be taken for another.

use std::fmt;

use crate::error::Place;

/// Cluster number on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lcn(pub u64);

/// Cluster number inside one attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vcn(pub u64);

/// Index of a record in the master file table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RecordNumber(pub u64);

impl RecordNumber {
    /// `$MFT`, the table of all records, itself.
    pub const MFT: Self = Self(0);
    /// `$MFTMirr`, the copy of the first records.
    pub const MFT_MIRROR: Self = Self(1);
    /// `$LogFile`, the journal of metadata.
    pub const LOG_FILE: Self = Self(2);
    /// `$Volume`: label, version and flags.
    pub const VOLUME: Self = Self(3);
    /// The root directory (`.`).
    pub const ROOT: Self = Self(5);
    /// `$Bitmap`: which clusters are in use.
    pub const BITMAP: Self = Self(6);
    /// `$Boot`, the boot sector as a file.
    pub const BOOT: Self = Self(7);
    /// `$BadClus`, which owns the bad clusters.
    pub const BAD_CLUSTERS: Self = Self(8);
    /// `$Secure`, the security descriptors of all files.
    pub const SECURE: Self = Self(9);
    /// `$UpCase`, the table of upper-case letters.
    pub const UPCASE: Self = Self(10);
    /// `$Extend`, the directory of the later system files.
    pub const EXTEND: Self = Self(11);
    /// The first record that an ordinary file may have.
    pub const FIRST_USER: Self = Self(24);
}

/// A record number with the sequence number of its present use: what directory entries and attribute lists store
/// (`FILE_REFERENCE`: 48 bits of record number, 16 bits of sequence).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The base record of the file.
    pub record: RecordNumber,
    /// Which use of that record; incremented whenever the record is freed.
    pub sequence: u16,
}

impl FileId {
    /// The root directory of every volume.
    pub const ROOT: Self = Self { record: RecordNumber::ROOT, sequence: 5 };

    /// From the 64-bit form on disk.
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self { record: RecordNumber(raw & 0xFFFF_FFFF_FFFF), sequence: (raw >> 48) as u16 }
    }

    /// The 64-bit form on disk.
    #[must_use]
    pub fn to_raw(self) -> u64 {
        (self.record.0 & 0xFFFF_FFFF_FFFF) | (u64::from(self.sequence) << 48)
    }
}

macro_rules! display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}
display!(Lcn, Vcn, RecordNumber);

impl From<Lcn> for Place {
    fn from(cluster: Lcn) -> Self {
        Self::Cluster(cluster.0)
    }
}

impl From<Vcn> for Place {
    fn from(cluster: Vcn) -> Self {
        Self::Vcn(cluster.0)
    }
}

impl From<RecordNumber> for Place {
    fn from(number: RecordNumber) -> Self {
        Self::Record(number.0)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.record.0, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_id_packs_48_and_16_bits() {
        let id = FileId { record: RecordNumber(0x1234_5678_9ABC), sequence: 0xDEF0 };
        assert_eq!(id.to_raw(), 0xDEF0_1234_5678_9ABC);
        assert_eq!(FileId::from_raw(id.to_raw()), id);
    }
}
