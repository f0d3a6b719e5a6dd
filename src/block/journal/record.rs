//! The undo journal: the bytes that a commit in place overwrites, written and flushed before the first write. When the
//! commit counts, the journal may be kept as the undo record of the image.
//!
//! Layout, little endian. Header: magic, version, flags, number of files, the process that writes (version 2), and for
//! each file its length before, the length that it may reach, which file it is (version 3), and (for a data file) the
//! name that the image gives it, so that the journal stays valid when both files are moved to another folder. Then
//! records, each of a range of at most 1 MiB: its old content (or that it was a hole) with the checksums that its
//! sectors will have after each phase of the run, or what an undo needs besides (version 4, see [`Entry`]). Then an end
//! mark with the number of records and a checksum over everything.
//!
//! The magic is zeros until the journal is complete; it says in which direction an interrupted run is dealt with, and
//! turns round when an undo begins. Magic and process count as zeros in the checksum (the process since version 4), so
//! that one write of the first sector turns a journal round.
//!
//! The checksums of the new content tell an interrupted run from a file that another program changed in the meantime:
//! every sector must be what it was or what the run made of it. They are CRC-32, of every single sector: they guard
//! against accident. Who could forge them can write to the image anyway.

use crate::host::{FileIdentity, Storage, StorageExt};

/// Magic of a journal whose run writes new content.
pub(super) const MAGIC: &[u8; 8] = b"WINJUNDO";
/// Magic of a journal from which the old content is being put back.
pub(super) const MAGIC_BACK: &[u8; 8] = b"WINJBACK";
pub(super) const VERSION: u32 = 4;
/// The oldest version that is read. It cannot be kept as an undo record.
pub(super) const VERSION_OLDEST: u32 = 3;
pub(super) const FLAG_SWITCH: u32 = 1;
/// The journal becomes the undo record.
pub(super) const FLAG_KEEP: u32 = 2;
/// Where the process that writes stands in the header.
pub(super) const OWNER_AT: usize = 20;
pub(super) const TAG_RECORD: u32 = u32::from_le_bytes(*b"RECO");
pub(super) const TAG_END: u32 = u32::from_le_bytes(*b"ENDJ");
pub(super) const KIND_OLD: u32 = 0;
pub(super) const KIND_HOLE: u32 = 1;
pub(super) const KIND_WITNESS: u32 = 2;
pub(super) const KIND_BETWEEN: u32 = 3;
/// Old content is recorded in pieces of at most this size.
pub(crate) const PIECE_MAX: u64 = 1 << 20;
pub(super) const VARIANTS_MAX: u32 = 8;
pub(super) const FILES_MAX: u32 = 2;
pub(super) const PATH_BYTES_MAX: u32 = 4096;
/// Codes of the kinds of files: unknown, regular file, block device.
pub(super) const IDENTITIES: [u32; 3] = [0, 1, 2];
/// Unit in bytes for which old and new content are told apart.
pub(crate) const SECTOR: usize = 512;
/// Journals are read and written in pieces of this size, in bytes.
pub(super) const BUFFER_BYTES: usize = 1 << 20;

/// What a journal says of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purpose {
    /// Whether the run switches by the header of the image.
    pub is_switch: bool,
    /// Whether the journal is kept as the undo record when the run counts.
    pub is_kept: bool,
}

/// A file that the run changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalFile {
    pub old_length: u64,
    pub new_length: u64,
    /// Which file it is; `None` only where files have no identity (in tests).
    pub identity: Option<FileIdentity>,
    /// Name of the data file as the image records it; for the image itself empty, or the mark of an export's content.
    pub name: String,
}

/// The old content of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Index of the file.
    pub file: usize,
    pub offset: u64,
    pub length: u64,
    /// `None`: it was a hole.
    pub old: Option<Vec<u8>>,
    /// For each phase that writes the range, the checksums of its sectors afterwards.
    pub variants: Vec<Vec<u32>>,
}

/// A record of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// What the run overwrites.
    Overwritten(Record),
    /// A range that an undo needs as the run leaves it: it held old tables and data that nothing uses any more, or it is
    /// new, beyond the old end of the file.
    Witness {
        file: usize,
        offset: u64,
        length: u64,
        /// The checksums of its sectors.
        sums: Vec<u32>,
    },
    /// What a refcount block has to hold while both the old and the new tables may be the ones that count.
    Between { offset: u64, bytes: Vec<u8> },
}

impl Entry {
    /// Length of the range of the image that it is about, in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Overwritten(record) => record.length,
            Self::Witness { length, .. } => *length,
            Self::Between { bytes, .. } => bytes.len() as u64,
        }
    }
}

/// The checksums of a range's sectors.
pub(crate) fn sector_sums(content: &[u8]) -> Vec<u32> {
    content.chunks(SECTOR).map(crc32fast::hash).collect()
}

/// Whether a file begins as a complete journal or undo record does.
pub(super) fn has_magic(file: &dyn Storage) -> std::io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    file.read_or_zeros_at(0, &mut magic)?;
    Ok([MAGIC, MAGIC_BACK].contains(&&magic))
}

/// Whether a journal was never completed, so that its image is unchanged.
pub(crate) fn is_unused(journal: &dyn Storage) -> std::io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    journal.read_or_zeros_at(0, &mut magic)?;
    Ok(magic == [0; MAGIC.len()])
}
