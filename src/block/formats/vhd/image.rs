//! Reading VHD files: the guest's size, the block allocation table, sector bitmaps, parents.

use std::path::Path;
use std::sync::Arc;

use super::footer::{DiskType, Footer};
use super::header::DynamicHeader;
use crate::block::formats::extent_map::{
    BitOrder, ExtentMap, Location, MappedImage, References, Run, SectorBitmap, TableCache, data_run, length,
    open_first, read_exact,
};
use crate::block::{Format, Image, Storage};
use crate::error::{Error, Layer, Result};
use crate::partition::{FIRST_SECTORS, partitions_end};
use crate::units::{HostOffset, ImageOffset};

const SECTOR: u64 = 512;

/// Bytes of an entry of the block allocation table.
const ENTRY_BYTES: u64 = 4;

/// A block allocation table entry that says "not here".
const ABSENT: u32 = u32::MAX;

/// Opens a VHD with its whole chain of parents.
pub(crate) fn open(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<Box<dyn Image>> {
    Ok(Box::new(open_chain(storage, path, references)?))
}

fn open_chain(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<MappedImage<Vhd>> {
    let name = path.display().to_string();
    let vhd = Vhd::new(storage).map_err(|e| e.path(&name))?;
    let parent = match &vhd.allocation {
        Allocation::Differencing(blocks) => {
            Some(open_parent(&vhd, &blocks.header, references).map_err(|e| e.path(&name))?)
        }
        _ => None,
    };
    Ok(MappedImage::new(vhd, parent, vec![path.to_owned()]))
}

/// Finds the parent by its locators and its name, and checks its identity.
fn open_parent(child: &Vhd, header: &DynamicHeader, references: &dyn References) -> Result<Box<dyn Image>> {
    let names = child.parent_names()?;
    let (storage, path) = open_first(references, "the parent of this differencing VHD", &names)?;
    let below = references.descend(storage.as_ref(), &path)?;
    let parent = open_chain(storage, &path, below.as_ref())?;
    let identity = parent.map().footer.unique_id;
    if identity != header.parent_id {
        return Err(Error::damaged(
            Layer::Block,
            "the parent of this differencing VHD is another disk than it was made on",
        )
        .expected_found(header.parent_id, identity)
        .hint(format!("put the right parent in place of {}", path.display())));
    }
    Ok(Box::new(parent))
}

/// An open VHD file, without its parent.
pub(super) struct Vhd {
    storage: Arc<dyn Storage>,
    file_length: u64,
    footer: Footer,
    /// The disk's size in bytes.
    size: u64,
    allocation: Allocation,
}

/// How the disk is stored, with what is needed to read it.
enum Allocation {
    Fixed,
    Dynamic(Blocks),
    Differencing(Blocks),
}

/// The blocks of a dynamic or differencing disk.
struct Blocks {
    header: DynamicHeader,
    table: TableCache,
}

impl Vhd {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Result<Self> {
        let footer = Footer::read(storage.as_ref())?;
        let file_length = length(storage.as_ref())?;
        let blocks = || -> Result<Blocks> {
            let header = DynamicHeader::read(storage.as_ref(), file_length, footer.data_offset)?;
            Ok(Blocks { header, table: TableCache::new(Arc::clone(&storage), file_length) })
        };
        let allocation = match footer.disk_type {
            DiskType::Fixed => Allocation::Fixed,
            DiskType::Dynamic => Allocation::Dynamic(blocks()?),
            DiskType::Differencing => Allocation::Differencing(blocks()?),
        };
        let mut vhd = Self { storage, file_length, size: footer.current_size, footer, allocation };
        let capacity = vhd.header().map_or_else(|| vhd.footer.bytes_before(file_length), DynamicHeader::capacity);
        vhd.size = vhd.guest_size(capacity)?;
        if vhd.size > capacity {
            return Err(Error::damaged(Layer::Block, "the VHD holds fewer bytes than its disk has")
                .expected_found(format_args!("{} bytes", vhd.size), format_args!("{capacity} bytes"))
                .hint("the file is truncated: copy it again"));
        }
        Ok(vhd)
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The disk's size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The dynamic disk header; `None` for a fixed disk.
    pub(super) fn header(&self) -> Option<&DynamicHeader> {
        match &self.allocation {
            Allocation::Fixed => None,
            Allocation::Dynamic(blocks) | Allocation::Differencing(blocks) => Some(&blocks.header),
        }
    }

    /// Names under which the parent of a differencing disk may be found, best first; none for other disks.
    pub(super) fn parent_names(&self) -> Result<Vec<String>> {
        match &self.allocation {
            Allocation::Differencing(blocks) => blocks.header.parent_names(self.storage.as_ref(), self.file_length),
            _ => Ok(Vec::new()),
        }
    }

    /// The disk's size. Hyper-V uses the current size, Virtual PC the geometry, and an image can be meant either way:
    /// where the creator does not tell, the geometry holds unless the partition table reaches beyond it.
    fn guest_size(&mut self, capacity: u64) -> Result<u64> {
        let (current, by_geometry) = (self.footer.current_size, self.footer.geometry_size());
        if self.footer.trusts_current_size() || by_geometry >= current || by_geometry == 0 {
            return Ok(current);
        }
        // Look at the partition table with the larger size, as far as the file holds it.
        self.size = current.min(capacity);
        if current <= capacity && self.partitions_reach()?.is_some_and(|end| end > by_geometry) {
            tracing::warn!(
                current,
                by_geometry,
                "VHD: the partitions reach beyond the size that the geometry gives; using the larger size"
            );
            return Ok(current);
        }
        Ok(by_geometry)
    }

    /// See [`partitions_end`]; `None` for a differencing disk, whose parent is not open yet.
    fn partitions_reach(&self) -> Result<Option<u64>> {
        let mut sectors = [0; FIRST_SECTORS];
        if self.size < FIRST_SECTORS as u64 || matches!(self.allocation, Allocation::Differencing(_)) {
            return Ok(None);
        }
        let (mut at, mut rest) = (0, &mut sectors[..]);
        while !rest.is_empty() {
            let run = self.run_at(ImageOffset(at), rest.len() as u64)?;
            let (part, tail) = rest.split_at_mut(run.length as usize);
            match run.location {
                Location::Stored { offset, .. } => read_exact(self.storage.as_ref(), offset, part)?,
                _ => part.fill(0),
            }
            (at, rest) = (at + run.length, tail);
        }
        Ok(partitions_end(&sectors))
    }

    /// The run at `offset` of a disk in blocks; `has_bitmaps` if the blocks' bitmaps say which sectors are the parent's.
    fn block_run(&self, blocks: &Blocks, offset: ImageOffset, limit: u64, has_bitmaps: bool) -> Result<Run> {
        let Blocks { header, table } = blocks;
        let (block, within) = (offset.0 / header.block_size, offset.0 % header.block_size);
        let length = limit.min(header.block_size - within);
        // `block` is inside the table because the guest size is at most the capacity.
        let entry = table.u32_be(header.table.saturating_add(block * ENTRY_BYTES))?;
        if entry == ABSENT {
            return Ok(Run { length, location: Location::Parent });
        }
        let bitmap = HostOffset(u64::from(entry) * SECTOR);
        let start = bitmap.saturating_add(header.bitmap_bytes() + within);
        let stored = |length: u64| match start.checked_add(length) {
            // Footer and BAT are metadata; a block inside the first 512 bytes is nonsense, but harmless to read.
            Some(end) if end.0 <= self.file_length => Ok(Location::Stored { file: 0, offset: start }),
            _ => Err(Error::damaged(Layer::Block, "a block of the VHD lies beyond the end of the file")
                .at(start)
                .hint("the file is truncated: copy it again")),
        };
        if !has_bitmaps {
            return Ok(Run { length, location: stored(length)? });
        }
        let first = within / SECTOR;
        let bitmap = SectorBitmap { table, start: bitmap, order: BitOrder::MostSignificantFirst };
        let (is_here, sectors) = bitmap.run(first, (within + length).div_ceil(SECTOR) - first)?;
        let length = length.min((first + sectors) * SECTOR - within);
        Ok(Run { length, location: if is_here { stored(length)? } else { Location::Parent } })
    }
}

impl ExtentMap for Vhd {
    fn len(&self) -> u64 {
        self.size
    }

    fn format(&self) -> Format {
        Format::Vhd
    }

    /// QEMU opens no parents; where the creator does not tell which size is meant, it uses the geometry.
    fn is_same_in_qemu(&self) -> bool {
        let trusted = self.footer.trusts_current_size();
        let size = if trusted { self.footer.current_size } else { self.footer.geometry_size() };
        !self.storage.is_part()
            && !matches!(self.allocation, Allocation::Differencing(_))
            && self.file_length.is_multiple_of(SECTOR)
            && size == self.size
    }

    fn run_at(&self, offset: ImageOffset, limit: u64) -> Result<Run> {
        match &self.allocation {
            Allocation::Fixed => {
                Ok(Run { length: limit, location: Location::Stored { file: 0, offset: HostOffset(offset.0) } })
            }
            // A dynamic disk's sector bitmaps are not read: some writers never maintain them, and sectors never written
            // are zeros in the block anyway.
            Allocation::Dynamic(blocks) => self.block_run(blocks, offset, limit, false),
            Allocation::Differencing(blocks) => self.block_run(blocks, offset, limit, true),
        }
    }

    fn read_stored(&self, _file: usize, offset: HostOffset, buf: &mut [u8]) -> Result<()> {
        read_exact(self.storage.as_ref(), offset, buf)
    }

    fn stored_is_data(&self, _file: usize, offset: HostOffset, limit: u64) -> Result<(bool, u64)> {
        match self.allocation {
            Allocation::Fixed => data_run(self.storage.as_ref(), offset, limit),
            _ => Ok((true, limit)),
        }
    }
}
