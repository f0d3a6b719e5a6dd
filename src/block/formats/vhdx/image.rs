//! Reading VHDX files: the block allocation table (MS-VHDX 2.5), sector bitmaps, parents.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::header::{Header, MIB};
use super::log;
use super::metadata::{Metadata, ParentLocator};
use super::region::Regions;
use crate::block::formats::extent_map::{
    BitOrder, ExtentMap, Location, MappedImage, References, Run, SectorBitmap, TableCache, base_name, candidate_names,
    data_run, length, open_first,
};
use crate::block::{Format, Image, Storage, StorageExt};
use crate::error::{Error, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// Bytes of an entry of the block allocation table.
const ENTRY_BYTES: u64 = 8;

/// Bits 0 to 2 of an entry: the state of its block.
const STATE_MASK: u64 = 7;

/// States of payload blocks (MS-VHDX 2.5.1.1) and sector bitmap blocks (2.5.1.2).
const NOT_PRESENT: u64 = 0;
const UNDEFINED: u64 = 1;
const ZERO: u64 = 2;
const UNMAPPED: u64 = 3;
/// "Unmapped" in a draft of the specification.
const UNMAPPED_DRAFT: u64 = 5;
const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;
const BITMAP_PRESENT: u64 = 6;

/// Sectors that one bitmap block of 1 MiB covers.
const SECTORS_PER_BITMAP: u64 = 1 << 23;

/// Opens a VHDX with its whole chain of parents.
pub(crate) fn open(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<Box<dyn Image>> {
    Ok(Box::new(open_chain(storage, path, references)?))
}

fn open_chain(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<MappedImage<Vhdx>> {
    let name = path.display().to_string();
    let vhdx = Vhdx::new(storage).map_err(|e| e.path(&name))?;
    let parent = match &vhdx.metadata.parent {
        Some(locator) => Some(open_parent(locator, references).map_err(|e| e.path(&name))?),
        None => None,
    };
    Ok(MappedImage::new(vhdx, parent, vec![path.to_owned()]))
}

/// Finds the parent by its paths, and makes sure that its data are what they were when the child was made.
fn open_parent(locator: &ParentLocator, references: &dyn References) -> Result<Box<dyn Image>> {
    let mut names: Vec<String> = locator.relative.iter().flat_map(|p| candidate_names(p)).collect();
    names.extend(locator.absolute.iter().map(|p| base_name(p).to_owned()));
    let mut seen = HashSet::new();
    names.retain(|n| !n.is_empty() && seen.insert(n.clone()));
    let (storage, path) = open_first(references, "the parent of this differencing VHDX", &names)?;
    let below = references.descend(storage.as_ref(), &path)?;
    let parent = open_chain(storage, &path, below.as_ref())?;
    let found = parent.map().header.data_write;
    if !locator.linkage.contains(&found) {
        return Err(Error::damaged(
            Layer::Block,
            "the parent of this differencing VHDX was changed, or is another disk",
        )
        .expected_found(locator.linkage.first().copied().unwrap_or_default(), found)
        .hint(format!("put the right parent in place of {}", path.display())));
    }
    Ok(Box::new(parent))
}

/// An open VHDX file, without its parent.
pub(super) struct Vhdx {
    /// The file after its log was replayed.
    storage: Arc<dyn Storage>,
    is_part: bool,
    file_length: u64,
    header: Header,
    metadata: Metadata,
    /// The block allocation table.
    bat: HostOffset,
    table: TableCache,
    /// Payload blocks that share a sector bitmap: after so many entries of theirs, the table has one of the bitmap's.
    chunk_ratio: u64,
}

impl Vhdx {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Result<Self> {
        let header = Header::read(storage.as_ref(), length(storage.as_ref())?)?;
        let is_part = storage.is_part();
        let storage = log::replay(storage, &header)?;
        let file_length = length(storage.as_ref())?;
        let regions = Regions::read(storage.as_ref(), file_length, &header)?;
        let metadata = Metadata::read(storage.as_ref(), regions.metadata)?;
        // Both are powers of two, and the result is at least 16.
        let chunk_ratio = metadata.sector * SECTORS_PER_BITMAP / metadata.block_size;
        let blocks = metadata.virtual_size.div_ceil(metadata.block_size);
        let entries = match &metadata.parent {
            Some(_) => blocks.div_ceil(chunk_ratio) * (chunk_ratio + 1),
            None => blocks + blocks.saturating_sub(1) / chunk_ratio,
        };
        if entries * ENTRY_BYTES > regions.bat.length {
            return Err(Error::damaged(Layer::Block, "the VHDX's block allocation table does not cover its disk")
                .at(regions.bat.offset)
                .expected_found(format_args!("{entries} entries"), format_args!("{} bytes", regions.bat.length)));
        }
        let table = TableCache::new(Arc::clone(&storage), file_length);
        Ok(Self { storage, is_part, file_length, header, metadata, bat: regions.bat.offset, table, chunk_ratio })
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether the file's log holds changes.
    pub(super) fn has_log(&self) -> bool {
        !self.header.log_guid.is_zero()
    }

    /// Where entry `index` of the block allocation table is.
    fn entry_offset(&self, index: u64) -> HostOffset {
        self.bat.saturating_add(index * ENTRY_BYTES)
    }

    /// Where the block or bitmap lies that the entry at `at` refers to.
    fn block_offset(&self, entry: u64, at: HostOffset) -> Result<HostOffset> {
        let offset = entry / MIB * MIB;
        if offset < MIB || offset >= self.file_length {
            return Err(Error::damaged(
                Layer::Block,
                "a block of the VHDX lies in its header or beyond the end of the file",
            )
            .at(at)
            .expected_found(format_args!("inside {} bytes", self.file_length), format_args!("{offset:#x}"))
            .hint("the file is truncated or damaged: copy it again"));
        }
        Ok(HostOffset(offset))
    }

    /// Whether sector `sector` of payload block `block` is in this file, and for how many of `limit` sectors that is so.
    fn bitmap_run(&self, block: u64, sector: u64, limit: u64) -> Result<(bool, u64)> {
        let chunk = block / self.chunk_ratio;
        let at = self.entry_offset((chunk + 1) * self.chunk_ratio + chunk);
        let entry = self.table.u64_le(at)?;
        if entry & STATE_MASK != BITMAP_PRESENT {
            return Err(Error::damaged(Layer::Block, "a block of the VHDX lacks its sector bitmap").at(at));
        }
        let start = self.block_offset(entry, at)?;
        let first = block % self.chunk_ratio * (self.metadata.block_size / self.metadata.sector) + sector;
        SectorBitmap { table: &self.table, start, order: BitOrder::LeastSignificantFirst }.run(first, limit)
    }
}

impl ExtentMap for Vhdx {
    fn len(&self) -> u64 {
        self.metadata.virtual_size
    }

    fn format(&self) -> Format {
        Format::Vhdx
    }

    /// QEMU supports neither parents nor sectors of 4096 bytes; it refuses a log that is to be replayed in a file that it
    /// may not write to, and a file that ends inside a block.
    fn is_same_in_qemu(&self) -> bool {
        !self.is_part
            && self.metadata.parent.is_none()
            && self.metadata.sector == 512
            && !self.has_log()
            && self.file_length.is_multiple_of(MIB)
    }

    /// A program that writes gives the file a log, and empties it when it closes the file (MS-VHDX 2.3).
    fn in_use_mark(&self) -> Option<&'static str> {
        self.has_log()
            .then_some("has a log to replay: a VM may be using it, or did not close it; the log is replayed in memory")
    }

    fn run_at(&self, offset: ImageOffset, limit: u64) -> Result<Run> {
        let block_size = self.metadata.block_size;
        let (block, within) = (offset.0 / block_size, offset.0 % block_size);
        let length = limit.min(block_size - within);
        let at = self.entry_offset(block + block / self.chunk_ratio);
        let entry = self.table.u64_le(at)?;
        let stored = || -> Result<Location> {
            Ok(Location::Stored { file: 0, offset: self.block_offset(entry, at)?.saturating_add(within) })
        };
        let location = match entry & STATE_MASK {
            NOT_PRESENT => Location::Parent,
            UNDEFINED | ZERO | UNMAPPED | UNMAPPED_DRAFT => Location::Zero,
            FULLY_PRESENT => stored()?,
            PARTIALLY_PRESENT if self.metadata.parent.is_some() => {
                let sector = self.metadata.sector;
                let first = within / sector;
                let (is_here, sectors) = self.bitmap_run(block, first, (within + length).div_ceil(sector) - first)?;
                let length = length.min((first + sectors) * sector - within);
                return Ok(Run { length, location: if is_here { stored()? } else { Location::Parent } });
            }
            state => {
                return Err(Error::damaged(
                    Layer::Block,
                    format!("a block of the VHDX is in the invalid state {state}"),
                )
                .at(at));
            }
        };
        Ok(Run { length, location })
    }

    fn read_stored(&self, _file: usize, offset: HostOffset, buf: &mut [u8]) -> Result<()> {
        // The last block may run past a short end of the file; what is missing was never written.
        self.storage
            .read_or_zeros_at(offset.0, buf)
            .map_err(|e| Error::io(Layer::Block, "cannot read the file", e).at(offset))
    }

    fn stored_is_data(&self, _file: usize, offset: HostOffset, limit: u64) -> Result<(bool, u64)> {
        data_run(self.storage.as_ref(), offset, limit)
    }
}
