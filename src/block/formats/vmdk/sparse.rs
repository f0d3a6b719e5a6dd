//! Reading hosted sparse extents ("KDMV"), plain and stream-optimised.

use std::collections::HashMap;
use std::sync::Arc;

use super::compressed::{CompressedGrains, Framing};
use super::header::{GD_AT_END, MARKER, SECTOR, SPARSE_MAGIC, SparseHeader, StoredMetadataMarker, StoredSparseHeader};
use super::location::{ExtentOffset, GrainLocation};
use crate::block::Storage;
use crate::block::formats::extent_map::{TableCache, length, read_struct};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Bytes of an entry of the grain directory or of a grain table.
const ENTRY_BYTES: u64 = 4;

/// How far before the end of the file a footer is looked for, in bytes.
const FOOTER_SEARCH: u64 = 64 << 10;

/// An open hosted sparse extent.
pub(super) struct SparseExtent {
    header: SparseHeader,
    table: TableCache,
    file_length: u64,
    directory: Directory,
    /// Whether the directory is where the header or the footer at the very end says.
    is_plain: bool,
    compressed: Option<CompressedGrains>,
}

/// How a grain's entry is found.
enum Directory {
    /// Through the grain directory that is stored here.
    Stored(HostOffset),
    /// Collected from the stream's markers: grain number to sector.
    Collected(HashMap<u64, u64>),
}

impl SparseExtent {
    /// Opens the extent in `storage`.
    pub(super) fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let file_length = length(storage.as_ref())?;
        let mut header = SparseHeader::read(storage.as_ref())?;
        if header.capacity == 0 {
            let field = std::mem::offset_of!(StoredSparseHeader, capacity) as u64;
            return Err(Error::damaged(Layer::Block, "the sparse VMDK extent is empty").at(field));
        }
        let mut is_plain = true;
        if header.directory == GD_AT_END
            && let Some((at, footer)) = find_footer(storage.as_ref(), file_length, &header)?
        {
            is_plain = at.saturating_add(2 * SECTOR).0 == file_length;
            header.directory = footer.directory;
            header.redundant_directory = footer.redundant_directory;
        }
        let grain_bytes = header.grain * SECTOR;
        let compressed = header.is_compressed().then(|| {
            let framing = if header.has_markers() { Framing::Marker } else { Framing::None };
            CompressedGrains::new(Arc::clone(&storage), file_length, grain_bytes, framing)
        });
        let directory = if header.directory == GD_AT_END {
            is_plain = false;
            Directory::Collected(collect_grains(storage.as_ref(), file_length, &header)?)
        } else {
            let start = header.directory_offset(file_length)?;
            is_plain &= header.directory.checked_mul(SECTOR) == Some(start.0);
            Directory::Stored(start)
        };
        let table = TableCache::new(storage, file_length);
        Ok(Self { header, table, file_length, directory, is_plain, compressed })
    }

    /// Bytes of the disk that the extent holds.
    pub(super) fn len(&self) -> u64 {
        self.header.capacity * SECTOR
    }

    /// Whether a reader such as QEMU finds the grain directory, without searching for it.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether a program that wrote to the extent has not closed it.
    pub(super) fn is_marked_open(&self) -> bool {
        self.header.is_marked_open
    }

    /// Unit of allocation in bytes.
    pub(super) fn grain_bytes(&self) -> u64 {
        self.header.grain * SECTOR
    }

    /// The reader of compressed grains; `None` when grains are stored as they are.
    pub(super) fn compressed(&self) -> Option<&CompressedGrains> {
        self.compressed.as_ref()
    }

    /// Where the bytes from `offset` on are, and for how many of `limit` bytes that holds.
    pub(super) fn locate(&self, offset: ExtentOffset, limit: u64) -> Result<(GrainLocation, u64)> {
        let grain_bytes = self.grain_bytes();
        let (grain, within) = (offset.0 / grain_bytes, offset.0 % grain_bytes);
        let rest = (grain_bytes - within).min(limit);
        let sector = match &self.directory {
            Directory::Collected(grains) => match grains.get(&grain) {
                Some(sector) => *sector,
                None => return Ok((GrainLocation::Parent, rest)),
            },
            Directory::Stored(directory) => {
                let entries = u64::from(self.header.table_entries);
                let entry = directory.saturating_add(grain / entries * ENTRY_BYTES);
                let table = u64::from(self.table.u32_le(entry)?);
                if table == 0 {
                    let span = grain_bytes * entries;
                    return Ok((GrainLocation::Parent, (span - offset.0 % span).min(limit)));
                }
                let entry = HostOffset(table * SECTOR + grain % entries * ENTRY_BYTES);
                u64::from(self.table.u32_le(entry)?)
            }
        };
        let start = HostOffset(sector * SECTOR);
        match sector {
            0 => Ok((GrainLocation::Parent, rest)),
            1 if self.header.has_zero_grains() => Ok((GrainLocation::Zero, rest)),
            _ if start.0 >= self.file_length => {
                Err(Error::damaged(Layer::Block, "a grain of the VMDK lies beyond the end of the file")
                    .at(start)
                    .hint("the file is truncated: copy it again"))
            }
            _ if self.compressed.is_some() => {
                let first = ExtentOffset(grain * grain_bytes);
                Ok((GrainLocation::Compressed { offset: start, grain: first, skip: within }, rest))
            }
            // The last grain may be cut short in the file where the disk ends inside it.
            _ => Ok((GrainLocation::Stored(start.saturating_add(within)), rest)),
        }
    }
}

/// The footer and where it is: two sectors before the end of the stream, which some writers pad.
fn find_footer(
    storage: &dyn Storage,
    file_length: u64,
    header: &SparseHeader,
) -> Result<Option<(HostOffset, SparseHeader)>> {
    let last = file_length / SECTOR * SECTOR;
    let mut at = HostOffset(last.saturating_sub(2 * SECTOR));
    while at.0 > 0 && last - at.0 <= FOOTER_SEARCH {
        let stored: StoredSparseHeader = read_struct(storage, at)?;
        if stored.magic_number == *SPARSE_MAGIC
            && let Ok(footer) = SparseHeader::parse(&stored, at)
            && footer.directory != GD_AT_END
            && (footer.capacity, footer.grain, footer.table_entries)
                == (header.capacity, header.grain, header.table_entries)
        {
            return Ok(Some((at, footer)));
        }
        at = HostOffset(at.0.saturating_sub(SECTOR));
    }
    Ok(None)
}

/// Collects the grains of a stream without footer, from marker to marker: grain number to sector.
fn collect_grains(storage: &dyn Storage, file_length: u64, header: &SparseHeader) -> Result<HashMap<u64, u64>> {
    let truncated = |at: HostOffset| {
        Error::damaged(Layer::Block, "the stream-optimised VMDK ends in the middle of its stream")
            .at(at)
            .hint("the file is truncated: copy or download it again")
    };
    if !header.has_markers() || !header.is_compressed() {
        let field = std::mem::offset_of!(StoredSparseHeader, gd_offset) as u64;
        return Err(Error::damaged(Layer::Block, "the VMDK refers to a footer that it does not have").at(field));
    }
    let (first, size) = header.descriptor;
    let descriptor_end = first.saturating_add(size);
    let mut sector = header.overhead.max(descriptor_end).max(1);
    let mut grains = HashMap::new();
    loop {
        let at = sector
            .checked_mul(SECTOR)
            .filter(|at| at.checked_add(size_of::<StoredMetadataMarker>() as u64).is_some_and(|end| end <= file_length))
            .map(HostOffset)
            .ok_or_else(|| truncated(HostOffset(file_length)))?;
        let stored: StoredMetadataMarker = read_struct(storage, at)?;
        let (value, size) = (stored.marker.value.get(), u64::from(stored.marker.size.get()));
        // Every step advances by a sector at least.
        let advance = if size > 0 {
            if value % header.grain != 0 || value >= header.capacity || size > header.grain * SECTOR * 2 {
                return Err(Error::damaged(Layer::Block, "invalid grain marker of the VMDK").at(at));
            }
            grains.insert(value / header.grain, sector);
            (MARKER + size).div_ceil(SECTOR)
        } else {
            match stored.kind.get() {
                // All grains come before the directory.
                StoredMetadataMarker::GRAIN_DIRECTORY | StoredMetadataMarker::FOOTER => return Ok(grains),
                // Without a directory before it: zeros in place of what was never copied.
                StoredMetadataMarker::END_OF_STREAM => return Err(truncated(at)),
                _ => value.checked_add(1).ok_or_else(|| truncated(at))?,
            }
        };
        sector = sector.checked_add(advance).ok_or_else(|| truncated(at))?;
    }
}
