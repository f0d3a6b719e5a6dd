//! VHDX, Hyper-V's disk: fixed, dynamic and differencing, with 512 and 4096 byte sectors. Read only.
//!
//! Terms follow [MS-VHDX]. All numbers are little endian. A log that is not empty is replayed in memory before
//! anything else is read.

mod header;
mod log;
mod metadata;
mod region;

use std::path::Path;
use std::sync::Arc;

use self::header::Header;
use self::metadata::{Metadata, ParentLocator};
use self::region::Regions;
use crate::block::formats::extent_map::{
    ExtentMap, Location, MappedImage, References, Run, TableCache, base_name, candidate_names, length, open_first,
};
use crate::block::{Format, Image, Storage, StorageExt};
use crate::error::{Error, Layer, Result};

const MIB: u64 = 1 << 20;

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
    let mut seen = std::collections::HashSet::new();
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

/// One VHDX file.
pub(crate) struct Vhdx {
    storage: Arc<dyn Storage>,
    is_part: bool,
    file_length: u64,
    header: Header,
    metadata: Metadata,
    bat: u64,
    table: TableCache,
    chunk_ratio: u64,
}

impl Vhdx {
    fn new(storage: Arc<dyn Storage>) -> Result<Self> {
        let header = Header::read(storage.as_ref(), length(storage.as_ref())?)?;
        let is_part = storage.is_part();
        let storage = log::replay(storage, &header)?;
        let file_length = length(storage.as_ref())?;
        let regions = Regions::read(storage.as_ref(), file_length, &header)?;
        let metadata = Metadata::read(storage.as_ref(), regions.metadata)?;
        // 2^23 sectors are what one bitmap block of 1 MiB covers; this divides evenly and is at least 16.
        let chunk_ratio = (metadata.sector << 23) / metadata.block_size;
        let blocks = metadata.virtual_size.div_ceil(metadata.block_size);
        let entries = match &metadata.parent {
            Some(_) => blocks.div_ceil(chunk_ratio) * (chunk_ratio + 1),
            None => blocks + blocks.saturating_sub(1) / chunk_ratio,
        };
        if entries * 8 > regions.bat.length {
            return Err(Error::damaged(Layer::Block, "the VHDX's block allocation table does not cover its disk")
                .at(regions.bat.offset)
                .expected_found(format_args!("{entries} entries"), format_args!("{} bytes", regions.bat.length)));
        }
        let table = TableCache::new(Arc::clone(&storage), file_length);
        Ok(Self { storage, is_part, file_length, header, metadata, bat: regions.bat.offset, table, chunk_ratio })
    }

    /// Byte offset of the block or bitmap that an entry points at; the whole file has to begin before it.
    fn target(&self, entry: u64, at: u64) -> Result<u64> {
        let offset = entry >> 20 << 20;
        if offset < MIB || offset >= self.file_length {
            return Err(Error::damaged(
                Layer::Block,
                "a block of the VHDX lies in its header or beyond the end of the file",
            )
            .at(at)
            .expected_found(format_args!("inside {} bytes", self.file_length), format_args!("{offset:#x}"))
            .hint("the file is truncated or damaged: copy it again"));
        }
        Ok(offset)
    }

    /// How many sectors from `sector` of payload block `block` on are in this file or not, at most `limit`.
    fn bitmap_run(&self, block: u64, sector: u64, limit: u64) -> Result<(bool, u64)> {
        let chunk = block / self.chunk_ratio;
        let at = self.bat + ((chunk + 1) * self.chunk_ratio + chunk) * 8;
        let entry = self.table.u64_le(at)?;
        if entry & 7 != 6 {
            return Err(
                Error::damaged(Layer::Block, "a block of the VHDX needs a sector bitmap that is not there").at(at)
            );
        }
        let bitmap = self.target(entry, at)?;
        let first = block % self.chunk_ratio * (self.metadata.block_size / self.metadata.sector) + sector;
        bit_run(&self.table, bitmap, first, limit)
    }
}

/// How many bits from number `first` on are equal, and what they are; at most `limit`. Least significant bit first.
fn bit_run(table: &TableCache, bitmap: u64, first: u64, limit: u64) -> Result<(bool, u64)> {
    let mut value = None;
    let mut bit = first;
    while bit < first + limit {
        let byte = table.bytes::<1>(bitmap + bit / 8)?[0];
        let wanted = value.unwrap_or(byte >> (bit % 8) & 1 != 0);
        value = Some(wanted);
        let differing = if wanted { !byte } else { byte } & (0xFF << (bit % 8));
        if differing != 0 {
            let end = bit / 8 * 8 + u64::from(differing.trailing_zeros());
            return Ok((wanted, (end - first).clamp(1, limit)));
        }
        bit = (bit / 8 + 1) * 8;
    }
    Ok((value.unwrap_or(false), limit))
}

impl ExtentMap for Vhdx {
    fn len(&self) -> u64 {
        self.metadata.virtual_size
    }

    fn format(&self) -> Format {
        Format::Vhdx
    }

    /// QEMU knows no parents and no sectors of 4096 bytes; it refuses a log that is to be replayed in a file that it may
    /// not write to, and a file that ends inside a block.
    fn is_same_in_qemu(&self) -> bool {
        !self.is_part
            && self.metadata.parent.is_none()
            && self.metadata.sector == 512
            && self.header.log_guid.is_zero()
            && self.file_length.is_multiple_of(MIB)
    }

    fn run_at(&self, offset: u64, limit: u64) -> Result<Run> {
        let block_size = self.metadata.block_size;
        let (block, within) = (offset / block_size, offset % block_size);
        let length = limit.min(block_size - within);
        let at = self.bat + (block + block / self.chunk_ratio) * 8;
        let entry = self.table.u64_le(at)?;
        // Payload states of MS-VHDX 2.5.1.1; 5 is "unmapped" of a draft. Undefined and unmapped read as zeros.
        let location = match entry & 7 {
            0 => Location::Parent,
            1 | 2 | 3 | 5 => Location::Zero,
            6 => Location::Stored { file: 0, offset: self.target(entry, at)? + within },
            7 if self.metadata.parent.is_some() => {
                let sector = self.metadata.sector;
                let first = within / sector;
                let (here, sectors) = self.bitmap_run(block, first, (within + length).div_ceil(sector) - first)?;
                let length = length.min((first + sectors) * sector - within);
                let location = if here {
                    Location::Stored { file: 0, offset: self.target(entry, at)? + within }
                } else {
                    Location::Parent
                };
                return Ok(Run { length, location });
            }
            state => {
                return Err(Error::damaged(
                    Layer::Block,
                    format!("a block of the VHDX is in the impossible state {state}"),
                )
                .at(at));
            }
        };
        Ok(Run { length, location })
    }

    fn read_stored(&self, _file: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        // The last block may run past a short end of the file; what is missing was never written.
        self.storage.read_or_zeros_at(offset, buf).map_err(|e| Error::io(Layer::Block, "cannot be read", e).at(offset))
    }

    fn stored_is_data(&self, _file: usize, offset: u64, limit: u64) -> Result<(bool, u64)> {
        crate::block::formats::extent_map::data_run(self.storage.as_ref(), offset, limit)
    }
}

fn le16(raw: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([raw[at], raw[at + 1]])
}

fn le32(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
}

fn le64(raw: &[u8], at: usize) -> u64 {
    u64::from(le32(raw, at)) | u64::from(le32(raw, at + 4)) << 32
}

/// What `image info` tells about a VHDX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Guest size.
    pub(crate) size: u64,
    /// Bytes per block.
    pub(crate) block_size: u64,
    /// Bytes per sector.
    pub(crate) sector: u64,
    /// Kind of disk.
    pub(crate) kind: &'static str,
    /// Whether the log is to be replayed.
    pub(crate) has_log: bool,
    /// Path of the parent.
    pub(crate) parent: Option<String>,
}

/// The facts of a VHDX; its parent is not opened.
pub(crate) fn facts(storage: Arc<dyn Storage>) -> Result<Facts> {
    let vhdx = Vhdx::new(storage)?;
    let metadata = &vhdx.metadata;
    let parent = metadata.parent.as_ref();
    let kind = match (parent.is_some(), metadata.is_fixed) {
        (true, _) => "differencing",
        (false, true) => "fixed",
        (false, false) => "dynamic",
    };
    Ok(Facts {
        size: metadata.virtual_size,
        block_size: metadata.block_size,
        sector: metadata.sector,
        kind,
        has_log: !vhdx.header.log_guid.is_zero(),
        parent: parent.and_then(|p| p.relative.clone().or_else(|| p.absolute.first().cloned())),
    })
}
