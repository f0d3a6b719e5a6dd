//! Reading seSparse extents: snapshots of vSphere 5.5 and later, of disks beyond 2 TiB and of VMFS 6.

use std::mem::offset_of;
use std::sync::Arc;

use super::header::{SECTOR, SESPARSE_MAGIC, SESPARSE_VOLATILE_MAGIC, StoredSeSparseHeader, StoredSeSparseVolatile};
use super::location::{ExtentOffset, GrainLocation};
use crate::block::Storage;
use crate::block::formats::extent_map::{TableCache, length, read_struct};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// The only version seen.
const VERSION: u64 = 0x2_0000_0001;

/// Sectors of a grain, in the only kind of seSparse extents seen.
const GRAIN_SECTORS: u64 = 8;
const GRAIN_BYTES: u64 = GRAIN_SECTORS * SECTOR;

/// Sectors per grain table.
const TABLE_SECTORS: u64 = 64;
const TABLE_BYTES: u64 = TABLE_SECTORS * SECTOR;

/// Bytes of an entry of the grain directory or of a grain table.
const ENTRY_BYTES: u64 = 8;

/// Entries of a grain table.
const TABLE_ENTRIES: u64 = TABLE_BYTES / ENTRY_BYTES;

/// Bytes of the disk that one grain table covers.
const TABLE_SPAN: u64 = TABLE_ENTRIES * GRAIN_BYTES;

/// Upper half of a directory entry that is in use.
const DIRECTORY_IN_USE: u64 = 0x1000_0000;

/// An open seSparse extent.
pub(super) struct SeSparseExtent {
    table: TableCache,
    file_length: u64,
    capacity_bytes: u64,
    directory: HostOffset,
    /// Where the first grain table begins.
    tables: HostOffset,
    /// Where the first grain begins.
    grains: HostOffset,
}

impl SeSparseExtent {
    /// Opens the extent in `storage`.
    pub(super) fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let file_length = length(storage.as_ref())?;
        let stored: StoredSeSparseHeader = read_struct(storage.as_ref(), HostOffset(0))?;
        check_kind(&stored)?;
        check_volatile(storage.as_ref(), stored.volatile_header_offset.get())?;
        let bytes = |sectors: u64, field: usize| {
            sectors.checked_mul(SECTOR).filter(|b| *b <= file_length).ok_or_else(|| {
                Error::damaged(Layer::Block, "a table of the seSparse extent lies beyond the end of the file")
                    .at(field as u64)
            })
        };
        let directory = bytes(stored.grain_dir_offset.get(), offset_of!(StoredSeSparseHeader, grain_dir_offset))?;
        let tables = bytes(stored.grain_tables_offset.get(), offset_of!(StoredSeSparseHeader, grain_tables_offset))?;
        let grains = bytes(stored.grains_offset.get(), offset_of!(StoredSeSparseHeader, grains_offset))?;
        let size_field = offset_of!(StoredSeSparseHeader, grain_dir_size);
        let entries = bytes(stored.grain_dir_size.get(), size_field)? / ENTRY_BYTES;
        let capacity = stored.capacity.get().checked_mul(SECTOR).filter(|c| c.div_ceil(TABLE_SPAN) <= entries);
        let capacity = capacity.ok_or_else(|| {
            Error::damaged(Layer::Block, "the seSparse extent's grain directory does not cover its disk")
                .at(size_field as u64)
        })?;
        let [directory, tables, grains] = [directory, tables, grains].map(HostOffset);
        let table = TableCache::new(storage, file_length);
        Ok(Self { table, file_length, capacity_bytes: capacity, directory, tables, grains })
    }

    /// Bytes of the disk that the extent holds.
    pub(super) fn len(&self) -> u64 {
        self.capacity_bytes
    }

    /// Where the bytes from `offset` on are, and for how many of `limit` bytes that holds.
    pub(super) fn locate(&self, offset: ExtentOffset, limit: u64) -> Result<(GrainLocation, u64)> {
        let (grain, within) = (offset.0 / GRAIN_BYTES, offset.0 % GRAIN_BYTES);
        let at = self.directory.saturating_add(grain / TABLE_ENTRIES * ENTRY_BYTES);
        let entry = self.table.u64_le(at)?;
        if entry == 0 {
            return Ok((GrainLocation::Parent, (TABLE_SPAN - offset.0 % TABLE_SPAN).min(limit)));
        }
        if entry >> 32 != DIRECTORY_IN_USE {
            return Err(Error::damaged(Layer::Block, "invalid grain directory entry of the seSparse extent").at(at));
        }
        let table = (entry & 0xFFFF_FFFF) * TABLE_BYTES;
        let at = self.tables.saturating_add(table + grain % TABLE_ENTRIES * ENTRY_BYTES);
        let entry = self.table.u64_le(at)?;
        let rest = (GRAIN_BYTES - within).min(limit);
        // The upper four bits say what the grain is: 0 unallocated, 1 unmapped, 2 zeros, 3 stored.
        match entry >> 60 {
            0 if entry == 0 => Ok((GrainLocation::Parent, rest)),
            1 | 2 => Ok((GrainLocation::Zero, rest)),
            3 => {
                // The index's low 12 bits are bits 48 to 59 of the entry, the rest the low 48.
                let index = (entry >> 48 & 0xFFF) | (entry & 0xFFFF_FFFF_FFFF) << 12;
                let start = index.checked_mul(GRAIN_BYTES).and_then(|bytes| self.grains.checked_add(bytes));
                match start.filter(|start| start.0 < self.file_length) {
                    Some(start) => Ok((GrainLocation::Stored(start.saturating_add(within)), rest)),
                    None => Err(Error::damaged(
                        Layer::Block,
                        "a grain of the seSparse extent lies beyond the end of the file",
                    )
                    .at(at)
                    .hint("the file is truncated: copy it again")),
                }
            }
            _ => Err(Error::damaged(Layer::Block, "invalid grain table entry of the seSparse extent").at(at)),
        }
    }
}

/// Refuses other kinds of extents than those seen.
fn check_kind(stored: &StoredSeSparseHeader) -> Result<()> {
    let (magic, version, flags) = (stored.magic.get(), stored.version.get(), stored.flags.get());
    let (grain, table_size) = (stored.grain_size.get(), stored.grain_table_size.get());
    if magic != SESPARSE_MAGIC {
        return Err(Error::damaged(Layer::Block, "not a seSparse extent")
            .expected_found(format_args!("{SESPARSE_MAGIC:#x}"), format_args!("{magic:#x}")));
    }
    if version != VERSION || flags != 0 || grain != GRAIN_SECTORS || table_size != TABLE_SECTORS {
        return Err(Error::unsupported(Layer::Block, "this kind of seSparse extent")
            .expected_found(
                "version 0x200000001, grains of 8 sectors, tables of 64",
                format_args!("version {version:#x}, {grain}, {table_size}, flags {flags:#x}"),
            )
            .hint("let vSphere consolidate the snapshot, and export again"));
    }
    Ok(())
}

/// Refuses an extent whose journal has to be replayed: how to do that is not documented.
fn check_volatile(storage: &dyn Storage, sector: u64) -> Result<()> {
    let at = HostOffset(sector.saturating_mul(SECTOR));
    let stored: StoredSeSparseVolatile = read_struct(storage, at)?;
    if stored.magic != SESPARSE_VOLATILE_MAGIC {
        return Err(Error::damaged(Layer::Block, "the seSparse extent's volatile header is damaged").at(at));
    }
    if stored.replay_journal != 0 {
        return Err(Error::refused(
            Layer::Block,
            "the seSparse extent was not closed cleanly: its journal is not empty",
        )
        .at(at.saturating_add(offset_of!(StoredSeSparseVolatile, replay_journal) as u64))
        .hint("power the VM on and off once in vSphere, or consolidate the snapshot, and export again"));
    }
    Ok(())
}
