//! The COWD extent: ESX's vmfsSparse snapshots, and old hosted disks.
//!
//! Source: VMware, "Virtual Disk Format 5.0", chapter "ESX Server Sparse Extents". All numbers are 32 bits, little
//! endian; positions are sectors.

use std::sync::Arc;

use super::{SECTOR, Spot};
use crate::block::Storage;
use crate::block::formats::extent_map::{TableCache, length, read_exact};
use crate::error::{Error, Layer, Result};

/// "COWD" in the file.
pub(crate) const MAGIC: u32 = 0x4457_4F43;

/// Entries of a grain table.
const TABLE_ENTRIES: u64 = 4096;

/// Flag: this is the root of a chain, it has no parent.
const FLAG_ROOT: u32 = 1;

/// Largest grain; ESX writes one sector.
const GRAIN_SECTORS_MAX: u32 = 1 << 21;

/// One COWD extent.
pub(crate) struct CowdExtent {
    table: TableCache,
    file_length: u64,
    flags: u32,
    capacity: u64,
    grain_bytes: u64,
    directory: u64,
}

impl CowdExtent {
    /// Opens the extent in `storage`.
    pub(crate) fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let file_length = length(storage.as_ref())?;
        let mut raw = [0; 32];
        read_exact(storage.as_ref(), 0, &mut raw)?;
        let u32_at = |o: usize| u32::from_le_bytes([raw[o], raw[o + 1], raw[o + 2], raw[o + 3]]);
        if u32_at(0) != MAGIC {
            return Err(Error::damaged(Layer::Block, "no COWD header")
                .expected_found("COWD", format_args!("{:#010x}", u32_at(0))));
        }
        if u32_at(4) != 1 {
            return Err(Error::unsupported(Layer::Block, format!("COWD version {}", u32_at(4))));
        }
        let (capacity, grain, directory, entries) =
            (u64::from(u32_at(12)), u32_at(16), u64::from(u32_at(20)), u64::from(u32_at(24)));
        if grain == 0 || grain > GRAIN_SECTORS_MAX {
            return Err(Error::damaged(Layer::Block, "the COWD extent's grain size is impossible")
                .at(16u64)
                .expected_found(1, grain));
        }
        let span = u64::from(grain) * TABLE_ENTRIES;
        if entries.saturating_mul(span) < capacity {
            return Err(Error::damaged(Layer::Block, "the COWD extent's grain directory does not cover its disk")
                .at(24u64)
                .expected_found(capacity.div_ceil(span), entries));
        }
        if directory == 0 || directory * SECTOR + capacity.div_ceil(span) * 4 > file_length {
            return Err(Error::damaged(
                Layer::Block,
                "the COWD extent's grain directory lies beyond the end of the file",
            )
            .at(directory * SECTOR)
            .hint("the file is truncated: copy it again"));
        }
        let grain_bytes = u64::from(grain) * SECTOR;
        let table = TableCache::new(storage, file_length);
        Ok(Self { table, file_length, flags: u32_at(8), capacity, grain_bytes, directory: directory * SECTOR })
    }

    /// Bytes of the disk that the extent holds.
    pub(crate) fn len(&self) -> u64 {
        self.capacity * SECTOR
    }

    /// Whether the extent says that it has no parent.
    pub(crate) fn is_root(&self) -> bool {
        self.flags & FLAG_ROOT != 0
    }

    /// Bytes per grain.
    pub(crate) fn grain_bytes(&self) -> u64 {
        self.grain_bytes
    }

    /// Where the byte `offset` of the extent is.
    pub(crate) fn spot(&self, offset: u64, limit: u64) -> Result<(Spot, u64)> {
        let (grain, within) = (offset / self.grain_bytes, offset % self.grain_bytes);
        let table = u64::from(self.table.u32_le(self.directory + grain / TABLE_ENTRIES * 4)?);
        if table == 0 {
            let span = self.grain_bytes * TABLE_ENTRIES;
            return Ok((Spot::Below, (span - offset % span).min(limit)));
        }
        let sector = u64::from(self.table.u32_le(table * SECTOR + grain % TABLE_ENTRIES * 4)?);
        let rest = (self.grain_bytes - within).min(limit);
        match sector {
            0 => Ok((Spot::Below, rest)),
            // Later versions of ESX say "zeros" with 1, which as a sector would be inside the header.
            1 => Ok((Spot::Zero, rest)),
            _ if sector * SECTOR >= self.file_length => {
                Err(Error::damaged(Layer::Block, "a grain of the COWD extent lies beyond the end of the file")
                    .at(sector * SECTOR)
                    .hint("the file is truncated: copy it again"))
            }
            _ => Ok((Spot::Stored(sector * SECTOR + within), rest)),
        }
    }
}
