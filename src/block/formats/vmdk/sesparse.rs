//! The seSparse extent: snapshots of vSphere 5.5 and later, of disks beyond 2 TiB and of VMFS 6.
//!
//! No specification was published; the layout is the one that QEMU reads. All numbers are 64 bits, little endian;
//! positions are sectors.

use std::sync::Arc;

use super::{SECTOR, Spot};
use crate::block::Storage;
use crate::block::formats::extent_map::{TableCache, length, read_exact};
use crate::error::{Error, Layer, Result};

/// First number of the constant header.
pub(crate) const MAGIC: u64 = 0xCAFE_BABE;

/// First number of the volatile header.
pub(crate) const VOLATILE_MAGIC: u64 = 0xCAFE_CAFE;

/// The only version seen.
pub(crate) const VERSION: u64 = 0x2_0000_0001;

/// Sectors per grain.
const GRAIN_SECTORS: u64 = 8;
const GRAIN_BYTES: u64 = GRAIN_SECTORS * SECTOR;

/// Sectors per grain table.
const TABLE_SECTORS: u64 = 64;

/// Entries of a grain table.
const TABLE_ENTRIES: u64 = TABLE_SECTORS * SECTOR / 8;

/// Bytes of the disk that one grain table covers.
const TABLE_SPAN: u64 = TABLE_ENTRIES * GRAIN_BYTES;

/// Top half of a directory entry that is in use.
const DIRECTORY_IN_USE: u64 = 0x1000_0000;

/// One seSparse extent.
pub(crate) struct SeSparseExtent {
    table: TableCache,
    file_length: u64,
    capacity: u64,
    directory: u64,
    tables: u64,
    grains: u64,
}

impl SeSparseExtent {
    /// Opens the extent in `storage`.
    pub(crate) fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let file_length = length(storage.as_ref())?;
        let mut raw = [0; 512];
        read_exact(storage.as_ref(), 0, &mut raw)?;
        let mut words = raw.chunks_exact(8).map(|c| c.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b)));
        let mut next = || words.next().unwrap_or(0);
        let (magic, version, capacity) = (next(), next(), next());
        let (grain, table_size, flags) = (next(), next(), next());
        if magic != MAGIC {
            return Err(Error::damaged(Layer::Block, "no seSparse header")
                .expected_found(format_args!("{MAGIC:#x}"), format_args!("{magic:#x}")));
        }
        if version != VERSION || flags != 0 || grain != GRAIN_SECTORS || table_size != TABLE_SECTORS {
            return Err(Error::unsupported(Layer::Block, "this kind of seSparse extent")
                .expected_found(
                    "version 0x200000001, grains of 8 sectors, tables of 64",
                    format_args!("version {version:#x}, {grain}, {table_size}, flags {flags:#x}"),
                )
                .hint("let vSphere consolidate the snapshot, and export again"));
        }
        let _reserved: [u64; 4] = std::array::from_fn(|_| next());
        let (volatile, _, _journal_header, _, _journal, _) = (next(), next(), next(), next(), next(), next());
        let (directory, directory_size, tables, _tables_size) = (next(), next(), next(), next());
        let (_free, _, _backmap, _, grains, _) = (next(), next(), next(), next(), next(), next());
        check_volatile(storage.as_ref(), volatile)?;
        let bytes = |sectors: u64, field: u64| {
            sectors.checked_mul(SECTOR).filter(|b| *b <= file_length).ok_or_else(|| {
                Error::damaged(Layer::Block, "a table of the seSparse extent lies beyond the end of the file").at(field)
            })
        };
        let (directory, tables, grains) = (bytes(directory, 128)?, bytes(tables, 144)?, bytes(grains, 192)?);
        let entries = bytes(directory_size, 136)? / 8;
        let capacity = capacity.checked_mul(SECTOR).filter(|c| c.div_ceil(TABLE_SPAN) <= entries).ok_or_else(|| {
            Error::damaged(Layer::Block, "the seSparse extent's grain directory does not cover its disk").at(136u64)
        })?;
        let table = TableCache::new(storage, file_length);
        Ok(Self { table, file_length, capacity, directory, tables, grains })
    }

    /// Bytes of the disk that the extent holds.
    pub(crate) fn len(&self) -> u64 {
        self.capacity
    }

    /// Where the byte `offset` of the extent is.
    pub(crate) fn spot(&self, offset: u64, limit: u64) -> Result<(Spot, u64)> {
        let (grain, within) = (offset / GRAIN_BYTES, offset % GRAIN_BYTES);
        let at = self.directory + grain / TABLE_ENTRIES * 8;
        let entry = self.table.u64_le(at)?;
        if entry == 0 {
            return Ok((Spot::Below, (TABLE_SPAN - offset % TABLE_SPAN).min(limit)));
        }
        if entry >> 32 != DIRECTORY_IN_USE {
            return Err(Error::damaged(Layer::Block, "a directory entry of the seSparse extent makes no sense").at(at));
        }
        let at = self.tables + (entry & 0xFFFF_FFFF) * TABLE_SECTORS * SECTOR + grain % TABLE_ENTRIES * 8;
        let entry = self.table.u64_le(at)?;
        let rest = (GRAIN_BYTES - within).min(limit);
        match entry >> 60 {
            0 if entry == 0 => Ok((Spot::Below, rest)),
            1 | 2 => Ok((Spot::Zero, rest)),
            3 => {
                // The index's low 12 bits are bits 48 to 59 of the entry, the rest the low 48.
                let index = (entry >> 48 & 0xFFF) | (entry & 0xFFFF_FFFF_FFFF) << 12;
                let start = index.checked_mul(GRAIN_BYTES).and_then(|b| b.checked_add(self.grains));
                match start.filter(|start| *start < self.file_length) {
                    Some(start) => Ok((Spot::Stored(start + within), rest)),
                    None => Err(Error::damaged(
                        Layer::Block,
                        "a grain of the seSparse extent lies beyond the end of the file",
                    )
                    .at(at)
                    .hint("the file is truncated: copy it again")),
                }
            }
            _ => Err(Error::damaged(Layer::Block, "a grain table entry of the seSparse extent makes no sense").at(at)),
        }
    }
}

/// The volatile header tells whether the journal has to be replayed, which nobody has documented.
fn check_volatile(storage: &dyn Storage, sector: u64) -> Result<()> {
    let at = sector.saturating_mul(SECTOR);
    let mut raw = [0; 32];
    read_exact(storage, at, &mut raw)?;
    let word = |i: usize| raw[8 * i..8 * i + 8].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    if word(0) != VOLATILE_MAGIC {
        return Err(Error::damaged(Layer::Block, "the seSparse extent's volatile header is damaged").at(at));
    }
    if word(3) != 0 {
        return Err(Error::refused(
            Layer::Block,
            "the seSparse extent was not closed cleanly: its journal is not empty",
        )
        .at(at + 24)
        .hint("power the VM on and off once in vSphere, or consolidate the snapshot, and export again"));
    }
    Ok(())
}
