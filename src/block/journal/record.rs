//! The undo journal: the bytes that a commit in place overwrites, written and flushed before the first write.
//!
//! Layout, little endian. Header: magic (zeros until the journal is complete), version, flags, number of files, the
//! process that writes (version 2), and for each file its length before, the length that it may reach, which file it is
//! (version 3), and (for a data file) the name that the image gives it, so that the journal stays valid when both
//! files are moved to another folder. Then records: the
//! old content of a range of at most 1 MiB (or that it was a hole), and the checksums that its sectors will have after
//! each phase of the run. Then an end mark with the number of records and a checksum over everything.
//!
//! The checksums of the new content tell an interrupted run from a file that another program changed in the meantime:
//! every sector must be what it was or what the run made of it.

use crate::host::{FileIdentity, Storage, StorageExt};

pub(super) const MAGIC: &[u8; 8] = b"WINJUNDO";
pub(super) const VERSION: u32 = 3;
pub(super) const FLAG_SWITCH: u32 = 1;
pub(super) const TAG_RECORD: u32 = u32::from_le_bytes(*b"RECO");
pub(super) const TAG_END: u32 = u32::from_le_bytes(*b"ENDJ");
pub(super) const KIND_HOLE: u32 = 1;
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

/// A file that the run changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalFile {
    pub old_length: u64,
    pub new_length: u64,
    /// Which file it is; `None` only where files have no identity (in tests).
    pub identity: Option<FileIdentity>,
    /// Name of the data file as the image records it; empty for the image itself.
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

/// The checksums of a range's sectors.
pub(crate) fn sector_sums(content: &[u8]) -> Vec<u32> {
    content.chunks(SECTOR).map(crc32fast::hash).collect()
}

/// Whether a journal was never completed, so that its image is unchanged.
pub(crate) fn is_unused(journal: &dyn Storage) -> std::io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    journal.read_or_zeros_at(0, &mut magic)?;
    Ok(magic == [0; MAGIC.len()])
}
