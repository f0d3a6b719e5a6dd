//! Reading COWD extents: ESX's vmfsSparse snapshots, and old hosted disks.

use std::mem::offset_of;
use std::sync::Arc;

use super::header::{COWD_MAGIC, SECTOR, StoredCowdHeader};
use super::location::{ExtentOffset, GrainLocation};
use crate::block::Storage;
use crate::block::formats::extent_map::{TableCache, length, read_struct};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Entries of a grain table.
const TABLE_ENTRIES: u64 = 4096;

/// Bytes of an entry of the grain directory or of a grain table.
const ENTRY_BYTES: u64 = 4;

/// Flag: this is the root of a chain, it has no parent.
const FLAG_ROOT: u32 = 1;

/// Largest grain; ESX writes one sector.
const GRAIN_SECTORS_MAX: u32 = 1 << 21;

/// An open COWD extent.
pub(super) struct CowdExtent {
    table: TableCache,
    file_length: u64,
    is_root: bool,
    capacity_sectors: u64,
    grain_bytes: u64,
    directory: HostOffset,
}

impl CowdExtent {
    /// Opens the extent in `storage`.
    pub(super) fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let file_length = length(storage.as_ref())?;
        let stored: StoredCowdHeader = read_struct(storage.as_ref(), HostOffset(0))?;
        if stored.magic_number != *COWD_MAGIC {
            return Err(Error::damaged(Layer::Block, "not a COWD extent")
                .expected_found("COWD", format_args!("{:#010x}", u32::from_le_bytes(stored.magic_number))));
        }
        if stored.version != 1 {
            return Err(Error::unsupported(Layer::Block, format!("COWD version {}", stored.version)));
        }
        let (capacity, grain) = (u64::from(stored.num_sectors.get()), stored.grain_size.get());
        let (directory, entries) = (u64::from(stored.gd_offset.get()), u64::from(stored.num_gd_entries.get()));
        if grain == 0 || grain > GRAIN_SECTORS_MAX {
            return Err(Error::damaged(Layer::Block, "the COWD extent's grain size is invalid")
                .at(offset_of!(StoredCowdHeader, grain_size) as u64)
                .expected_found(1, grain));
        }
        let span = u64::from(grain) * TABLE_ENTRIES;
        if entries.saturating_mul(span) < capacity {
            return Err(Error::damaged(Layer::Block, "the COWD extent's grain directory does not cover its disk")
                .at(offset_of!(StoredCowdHeader, num_gd_entries) as u64)
                .expected_found(capacity.div_ceil(span), entries));
        }
        if directory == 0 || directory * SECTOR + capacity.div_ceil(span) * ENTRY_BYTES > file_length {
            return Err(Error::damaged(
                Layer::Block,
                "the COWD extent's grain directory lies beyond the end of the file",
            )
            .at(HostOffset(directory * SECTOR))
            .hint("the file is truncated: copy it again"));
        }
        Ok(Self {
            table: TableCache::new(storage, file_length),
            file_length,
            is_root: stored.flags.get() & FLAG_ROOT != 0,
            capacity_sectors: capacity,
            grain_bytes: u64::from(grain) * SECTOR,
            directory: HostOffset(directory * SECTOR),
        })
    }

    /// Bytes of the disk that the extent holds.
    pub(super) fn len(&self) -> u64 {
        self.capacity_sectors * SECTOR
    }

    /// Whether the extent says that it has no parent.
    pub(super) fn is_root(&self) -> bool {
        self.is_root
    }

    /// Unit of allocation in bytes.
    pub(super) fn grain_bytes(&self) -> u64 {
        self.grain_bytes
    }

    /// Where the bytes from `offset` on are, and for how many of `limit` bytes that holds.
    pub(super) fn locate(&self, offset: ExtentOffset, limit: u64) -> Result<(GrainLocation, u64)> {
        let (grain, within) = (offset.0 / self.grain_bytes, offset.0 % self.grain_bytes);
        let entry = self.directory.saturating_add(grain / TABLE_ENTRIES * ENTRY_BYTES);
        let table = u64::from(self.table.u32_le(entry)?);
        if table == 0 {
            let span = self.grain_bytes * TABLE_ENTRIES;
            return Ok((GrainLocation::Parent, (span - offset.0 % span).min(limit)));
        }
        let entry = HostOffset(table * SECTOR + grain % TABLE_ENTRIES * ENTRY_BYTES);
        let sector = u64::from(self.table.u32_le(entry)?);
        let rest = (self.grain_bytes - within).min(limit);
        match sector {
            0 => Ok((GrainLocation::Parent, rest)),
            // Later versions of ESX say "zeros" with 1, which as a sector would be inside the header.
            1 => Ok((GrainLocation::Zero, rest)),
            _ if sector * SECTOR >= self.file_length => {
                Err(Error::damaged(Layer::Block, "a grain of the COWD extent lies beyond the end of the file")
                    .at(HostOffset(sector * SECTOR))
                    .hint("the file is truncated: copy it again"))
            }
            _ => Ok((GrainLocation::Stored(HostOffset(sector * SECTOR + within)), rest)),
        }
    }
}
