//! VHD, the disk of Virtual PC and Hyper-V's first generation: fixed, dynamic and differencing. Read only.
//!
//! Terms follow Microsoft's "Virtual Hard Disk Image Format Specification" (2006). All numbers are big endian.

mod footer;
mod header;

use std::path::Path;
use std::sync::Arc;

use crate::block::formats::extent_map::{
    ExtentMap, Location, MappedImage, References, Run, TableCache, data_run, length, open_first, read_exact,
};
use crate::block::{Format, Image, Storage};
use crate::error::{Error, Layer, Result};

pub(crate) use footer::{DiskType, Footer};
pub(crate) use header::DynamicHeader;

const SECTOR: u64 = 512;

/// A block allocation table entry that says "not here".
const ABSENT: u32 = u32::MAX;

/// Opens a VHD with its whole chain of parents.
pub(crate) fn open(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<Box<dyn Image>> {
    Ok(Box::new(open_chain(storage, path, references)?))
}

fn open_chain(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<MappedImage<Vhd>> {
    let name = path.display().to_string();
    let footer = Footer::read(storage.as_ref())
        .and_then(|f| f.ok_or_else(|| Error::damaged(Layer::Block, "this VHD has no valid footer")))
        .map_err(|e| e.path(&name))?;
    let vhd = Vhd::new(storage, footer).map_err(|e| e.path(&name))?;
    let parent = match &vhd.kind {
        VhdKind::Differencing { header, .. } => Some(open_parent(&vhd, header, references).map_err(|e| e.path(&name))?),
        _ => None,
    };
    Ok(MappedImage::new(vhd, parent, vec![path.to_owned()]))
}

/// Finds the parent by its locators and its name, and makes sure that it is the very one.
fn open_parent(child: &Vhd, header: &DynamicHeader, references: &dyn References) -> Result<Box<dyn Image>> {
    let names = header.parent_names(child.storage.as_ref(), child.file_length)?;
    let (storage, path) = open_first(references, "the parent of this differencing VHD", &names)?;
    let below = references.descend(storage.as_ref(), &path)?;
    let parent = open_chain(storage, &path, below.as_ref())?;
    let identity = parent.map().footer.unique_id;
    if identity != header.parent_id {
        return Err(Error::damaged(
            Layer::Block,
            "the parent of this differencing VHD is another disk than it was made on",
        )
        .expected_found(hex(&header.parent_id), hex(&identity))
        .hint(format!("put the right parent in place of {}", path.display())));
    }
    Ok(Box::new(parent))
}

/// One VHD file.
pub(crate) struct Vhd {
    storage: Arc<dyn Storage>,
    file_length: u64,
    footer: Footer,
    size: u64,
    kind: VhdKind,
}

enum VhdKind {
    Fixed,
    Dynamic { header: DynamicHeader, table: TableCache },
    Differencing { header: DynamicHeader, table: TableCache },
}

impl Vhd {
    fn new(storage: Arc<dyn Storage>, footer: Footer) -> Result<Self> {
        let file_length = length(storage.as_ref())?;
        let kind = match footer.disk_type {
            DiskType::Fixed => VhdKind::Fixed,
            kind => {
                let header = DynamicHeader::read(storage.as_ref(), file_length, footer.data_offset)?;
                let table = TableCache::new(Arc::clone(&storage), file_length);
                match kind {
                    DiskType::Dynamic => VhdKind::Dynamic { header, table },
                    _ => VhdKind::Differencing { header, table },
                }
            }
        };
        let held = match &kind {
            VhdKind::Fixed => footer.end_of_data(file_length),
            VhdKind::Dynamic { header, .. } | VhdKind::Differencing { header, .. } => header.capacity(),
        };
        let mut vhd = Self { storage, file_length, size: footer.current_size, footer, kind };
        vhd.size = vhd.guest_size(held)?;
        if vhd.size > held {
            return Err(Error::damaged(Layer::Block, "the VHD holds fewer bytes than its disk has")
                .expected_found(format_args!("{} bytes", vhd.size), format_args!("{held} bytes"))
                .hint("the file is truncated: copy it again"));
        }
        Ok(vhd)
    }

    /// The guest size. Hyper-V goes by the current size, Virtual PC by the geometry, and an image can be meant either
    /// way: where the creator does not tell, the geometry holds unless the partition table reaches beyond it.
    fn guest_size(&mut self, held: u64) -> Result<u64> {
        let (current, by_geometry) = (self.footer.current_size, self.footer.geometry_size());
        if self.footer.trusts_current_size() || by_geometry >= current || by_geometry == 0 {
            return Ok(current);
        }
        // Look at the partition table with the larger size, as far as the file holds it.
        self.size = current.min(held);
        if current <= held && self.partitions_reach()?.is_some_and(|end| end > by_geometry) {
            tracing::warn!(
                current,
                by_geometry,
                "VHD: the partitions reach beyond the size that the geometry gives; using the larger size"
            );
            return Ok(current);
        }
        Ok(by_geometry)
    }

    /// Where the last partition (or the backup GPT) ends, if the first sectors show a partition table.
    fn partitions_reach(&self) -> Result<Option<u64>> {
        let mut sectors = [0; 1024];
        if self.size < sectors.len() as u64 || matches!(self.kind, VhdKind::Differencing { .. }) {
            return Ok(None);
        }
        let mut at = 0;
        while at < sectors.len() {
            let run = self.run_at(at as u64, (sectors.len() - at) as u64)?;
            let end = at + run.length as usize;
            match run.location {
                Location::Stored { offset, .. } => read_exact(self.storage.as_ref(), offset, &mut sectors[at..end])?,
                _ => sectors[at..end].fill(0),
            }
            at = end;
        }
        if sectors[510..512] != [0x55, 0xAA] {
            return Ok(None);
        }
        let le32 =
            |at: usize| u64::from(u32::from_le_bytes([sectors[at], sectors[at + 1], sectors[at + 2], sectors[at + 3]]));
        if &sectors[512..520] == b"EFI PART" {
            let backup = le32(512 + 32) | le32(512 + 36) << 32;
            return Ok(backup.checked_add(1).and_then(|s| s.checked_mul(SECTOR)));
        }
        let ends = (0..4).map(|i| 446 + 16 * i).filter(|at| sectors[at + 4] != 0);
        Ok(ends.map(|at| (le32(at + 8) + le32(at + 12)) * SECTOR).max())
    }

    /// What the allocation table says about the block of `offset`.
    fn block_run(
        &self,
        header: &DynamicHeader,
        table: &TableCache,
        offset: u64,
        limit: u64,
        bitmap: bool,
    ) -> Result<Run> {
        let (block, within) = (offset / header.block_size, offset % header.block_size);
        let length = limit.min(header.block_size - within);
        // `block` is below max_entries because the guest size is at most the capacity.
        let entry = table.u32_be(header.table_offset + block * 4)?;
        if entry == ABSENT {
            return Ok(Run { length, location: Location::Parent });
        }
        let start = u64::from(entry) * SECTOR;
        let data = start + header.bitmap_bytes();
        let stored = |offset: u64, length: u64| match (data + offset).checked_add(length) {
            // Footer and BAT are metadata; a block inside the first 512 bytes is nonsense, but harmless to read.
            Some(end) if end <= self.file_length => Ok(Location::Stored { file: 0, offset: data + offset }),
            _ => Err(Error::damaged(Layer::Block, "a block of the VHD lies beyond the end of the file")
                .at(data + offset)
                .hint("the file is truncated: copy it again")),
        };
        if !bitmap {
            return Ok(Run { length, location: stored(within, length)? });
        }
        let first = within / SECTOR;
        let (present, sectors) = bit_run(table, start, first, (within + length).div_ceil(SECTOR) - first)?;
        let length = length.min((first + sectors) * SECTOR - within);
        Ok(Run { length, location: if present { stored(within, length)? } else { Location::Parent } })
    }
}

/// How many bits from number `first` on are equal, and what they are; at most `limit`. Most significant bit first.
fn bit_run(table: &TableCache, bitmap: u64, first: u64, limit: u64) -> Result<(bool, u64)> {
    let mut value = None;
    let mut bit = first;
    while bit < first + limit {
        let byte = table.bytes::<1>(bitmap + bit / 8)?[0];
        let wanted = value.map_or(byte & (0x80 >> (bit % 8)) != 0, |v| v);
        value = Some(wanted);
        let differing = if wanted { !byte } else { byte } & (0xFF >> (bit % 8));
        if differing != 0 {
            let end = bit / 8 * 8 + u64::from(differing.leading_zeros());
            return Ok((wanted, (end - first).clamp(1, limit)));
        }
        bit = (bit / 8 + 1) * 8;
    }
    Ok((value.unwrap_or(false), limit))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl ExtentMap for Vhd {
    fn len(&self) -> u64 {
        self.size
    }

    fn format(&self) -> Format {
        Format::Vhd
    }

    /// QEMU opens no parents; where the creator does not tell how the size is meant, it goes by the geometry.
    fn is_same_in_qemu(&self) -> bool {
        let trusted = self.footer.trusts_current_size();
        let size = if trusted { self.footer.current_size } else { self.footer.geometry_size() };
        !self.storage.is_part()
            && !matches!(self.kind, VhdKind::Differencing { .. })
            && self.file_length.is_multiple_of(SECTOR)
            && size == self.size
    }

    fn run_at(&self, offset: u64, limit: u64) -> Result<Run> {
        match &self.kind {
            VhdKind::Fixed => Ok(Run { length: limit, location: Location::Stored { file: 0, offset } }),
            // A dynamic disk's sector bitmaps are not asked: some writers never maintain them, and sectors never
            // written are zeros in the block anyway.
            VhdKind::Dynamic { header, table } => self.block_run(header, table, offset, limit, false),
            VhdKind::Differencing { header, table } => self.block_run(header, table, offset, limit, true),
        }
    }

    fn read_stored(&self, _file: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        read_exact(self.storage.as_ref(), offset, buf)
    }

    fn stored_is_data(&self, _file: usize, offset: u64, limit: u64) -> Result<(bool, u64)> {
        match self.kind {
            VhdKind::Fixed => data_run(self.storage.as_ref(), offset, limit),
            _ => Ok((true, limit)),
        }
    }
}

/// What `image info` tells about a VHD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Guest size.
    pub(crate) size: u64,
    /// Bytes per block, unless fixed.
    pub(crate) block_size: Option<u64>,
    /// Kind of disk.
    pub(crate) kind: &'static str,
    /// Program that made it.
    pub(crate) creator: String,
    /// Identity.
    pub(crate) unique_id: String,
    /// First name under which the parent is looked for.
    pub(crate) parent: Option<String>,
}

/// The facts of a VHD; its parent is not opened.
pub(crate) fn facts(storage: &Arc<dyn Storage>) -> Result<Facts> {
    let footer =
        Footer::read(storage.as_ref())?.ok_or_else(|| Error::damaged(Layer::Block, "this VHD has no valid footer"))?;
    let vhd = Vhd::new(Arc::clone(storage), footer)?;
    let (kind, header) = match &vhd.kind {
        VhdKind::Fixed => ("fixed", None),
        VhdKind::Dynamic { header, .. } => ("dynamic", Some(header)),
        VhdKind::Differencing { header, .. } => ("differencing", Some(header)),
    };
    let parent = match &vhd.kind {
        VhdKind::Differencing { header, .. } => {
            header.parent_names(storage.as_ref(), vhd.file_length)?.into_iter().next()
        }
        _ => None,
    };
    Ok(Facts {
        size: vhd.size,
        block_size: header.map(|h| h.block_size),
        kind,
        creator: String::from_utf8_lossy(&vhd.footer.creator).trim_end_matches(['\0', ' ']).to_owned(),
        unique_id: hex(&vhd.footer.unique_id),
        parent,
    })
}
