//! VMDK, VMware's disk: a descriptor, one or more extents, and for snapshots a chain of such disks. Read only.
//!
//! Extents: flat, hosted sparse (plain and stream-optimised), COWD (vmfsSparse) and seSparse. What an extent is, is
//! decided by its line in the descriptor; `createType` serves reports.

mod cowd;
mod descriptor;
mod grain;
mod sesparse;
mod sparse;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::cowd::CowdExtent;
use self::descriptor::{DESCRIPTOR_MAX, ExtentLine, ExtentType};
use self::sesparse::SeSparseExtent;
use self::sparse::SparseExtent;
use crate::block::formats::extent_map::{
    ExtentMap, Location, MappedImage, References, Run, base_name, candidate_names, data_run, length, open_first,
    read_exact,
};
use crate::block::{Format, Image, Storage};
use crate::error::{Error, Layer, Result};
use crate::escape::escape;

pub(crate) use self::descriptor::Descriptor;

/// Bytes per sector, whatever the disk.
const SECTOR: u64 = 512;

/// Where a byte of an extent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    /// Not in this extent.
    Below,
    /// Zeros.
    Zero,
    /// Byte offset in the extent's file.
    Stored(u64),
    /// In a compressed grain.
    Packed { offset: u64, unit: u64, skip: u64 },
}

/// Opens a VMDK with its extents and its whole chain of parents.
pub(crate) fn open(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<Box<dyn Image>> {
    Ok(Box::new(open_chain(storage, path, references)?))
}

fn open_chain(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<MappedImage<Vmdk>> {
    let name = path.display().to_string();
    let (mut vmdk, files) = Vmdk::new(storage, path, references).map_err(|e| e.path(&name))?;
    let parent = match vmdk.descriptor.parent_cid {
        Some(cid) => {
            let (parent, is_named) = open_parent(&vmdk.descriptor, cid, references).map_err(|e| e.path(&name))?;
            vmdk.is_same_in_qemu &= is_named;
            Some(parent)
        }
        None => None,
    };
    Ok(MappedImage::new(vmdk, parent, files))
}

/// Opens the parent by its hint, and makes sure that it is what it was when the snapshot was taken. Whether the hint
/// itself leads there: QEMU tries no other name.
fn open_parent(child: &Descriptor, cid: u32, references: &dyn References) -> Result<(Box<dyn Image>, bool)> {
    let hint = child.parent_hint.as_deref().unwrap_or_default();
    let is_named = !hint.contains(['\\', ':']) && references.open(hint).is_ok();
    let (storage, path) = open_first(references, "the parent of this VMDK snapshot", &candidate_names(hint))?;
    let below = references.descend(storage.as_ref(), &path)?;
    let parent = open_chain(storage, &path, below.as_ref())?;
    let found = parent.map().descriptor.cid;
    if found != cid {
        return Err(Error::damaged(
            Layer::Block,
            "the parent of this VMDK snapshot was changed after the snapshot, or is another disk",
        )
        .expected_found(format_args!("CID {cid:08x}"), format_args!("CID {found:08x}"))
        .hint(format!("put the right parent in place of {}", path.display())));
    }
    Ok((Box::new(parent), is_named))
}

/// The descriptor of the file, its own text or the one inside a sparse extent; `None` for an extent without one.
pub(crate) fn read_descriptor(storage: &dyn Storage) -> Result<Option<Descriptor>> {
    let file_length = length(storage)?;
    let mut magic = [0; 8];
    if file_length >= SECTOR {
        read_exact(storage, 0, &mut magic)?;
    }
    let [a, b, c, d, ..] = magic;
    let (start, size) = match u32::from_le_bytes([a, b, c, d]) {
        sparse::MAGIC => {
            let mut raw = [0; sparse::HEADER];
            read_exact(storage, 0, &mut raw)?;
            let (first, count) = sparse::Header::parse(&raw, 0)?.descriptor;
            if first == 0 || count == 0 {
                return Ok(None);
            }
            (first.saturating_mul(SECTOR), count.saturating_mul(SECTOR))
        }
        cowd::MAGIC => return Ok(None),
        _ if u64::from_le_bytes(magic) == sesparse::MAGIC => return Ok(None),
        _ => (0, file_length),
    };
    if size > DESCRIPTOR_MAX || start.checked_add(size).is_none_or(|end| end > file_length) {
        return Err(Error::damaged(Layer::Block, "the VMDK's descriptor does not fit into the file")
            .at(start)
            .expected_found(
                format_args!("at most {DESCRIPTOR_MAX} bytes inside {file_length}"),
                format_args!("{size} bytes"),
            ));
    }
    // Bounded by DESCRIPTOR_MAX.
    let mut raw = vec![0; size as usize];
    read_exact(storage, start, &mut raw)?;
    let descriptor = Descriptor::parse(&raw)?;
    // Extents of a split disk have room for a descriptor, and none in it.
    let is_empty = start > 0 && descriptor.extents.is_empty() && descriptor.create_type.is_empty();
    Ok(Some(descriptor).filter(|_| !is_empty))
}

/// One VMDK disk of a chain: all its extents.
pub(crate) struct Vmdk {
    descriptor: Descriptor,
    size: u64,
    extents: Vec<Extent>,
    is_same_in_qemu: bool,
}

/// One extent and the part of the disk that it makes up.
struct Extent {
    start: u64,
    length: u64,
    storage: Option<Arc<dyn Storage>>,
    kind: Kind,
}

enum Kind {
    Zero,
    /// Bytes as they are, from this byte of the file on.
    Flat(u64),
    Sparse(SparseExtent),
    Cowd(CowdExtent),
    SeSparse(SeSparseExtent),
}

impl Vmdk {
    fn new(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<(Self, Vec<PathBuf>)> {
        let mut files = vec![path.to_owned()];
        let (descriptor, extents, source) = match read_descriptor(storage.as_ref())? {
            Some(descriptor) if is_whole(storage.as_ref())? => {
                let kind = Kind::Sparse(SparseExtent::open(Arc::clone(&storage))?);
                (descriptor, vec![Extent::new(kind, 0, None, Some(storage))?], DescriptorSource::Extent)
            }
            Some(descriptor) => {
                let mut extents: Vec<Extent> = Vec::with_capacity(descriptor.extents.len());
                for line in &descriptor.extents {
                    let start = extents.last().map_or(0, |e| e.start + e.length);
                    let (extent, file) = open_extent(line, start, references)?;
                    extents.push(extent);
                    files.extend(file);
                }
                (descriptor, extents, DescriptorSource::File)
            }
            None => {
                let extent = open_bare(storage, path)?;
                let line = ExtentLine {
                    sectors: extent.length / SECTOR,
                    kind: extent.kind.name(),
                    file: String::new(),
                    offset: 0,
                };
                let create_type = String::from("custom");
                {
                    let descriptor = Descriptor { create_type, extents: vec![line], ..Descriptor::default() };
                    (descriptor, vec![extent], DescriptorSource::None)
                }
            }
        };
        let size = extents.last().map_or(0, |e| e.start + e.length);
        if size == 0 {
            return Err(Error::damaged(Layer::Block, "the VMDK's descriptor names no extents")
                .hint("is this the disk's descriptor?"));
        }
        let is_same_in_qemu = is_known_to_qemu(&descriptor, source) && extents.iter().all(Extent::is_plain);
        Ok((Self { descriptor, size, extents, is_same_in_qemu }, files))
    }
}

/// Where a descriptor was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DescriptorSource {
    /// A text file that names the extents.
    File,
    /// In the only extent.
    Extent,
    /// There is none.
    None,
}

/// Whether QEMU opens a disk with this descriptor, and finds the same disk. Of a descriptor inside an extent it reads
/// the ids and the parent's name only; a sparse file without one it knows by its header.
fn is_known_to_qemu(descriptor: &Descriptor, source: DescriptorSource) -> bool {
    const TYPES: [&str; 6] =
        ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse", "vmfs", "vmfsSparse", "seSparse"];
    match source {
        DescriptorSource::None => true,
        DescriptorSource::Extent => descriptor.in_qemu.is_same_head,
        DescriptorSource::File => {
            descriptor.in_qemu.is_same_head
                && descriptor.in_qemu.is_same_disk
                && TYPES.contains(&descriptor.create_type.as_str())
        }
    }
}

/// Whether the file is a sparse extent that holds data itself, not just a descriptor.
fn is_whole(storage: &dyn Storage) -> Result<bool> {
    let mut raw = [0; sparse::HEADER];
    if length(storage)? < SECTOR {
        return Ok(false);
    }
    read_exact(storage, 0, &mut raw)?;
    Ok(raw.starts_with(&sparse::MAGIC.to_le_bytes()) && sparse::Header::parse(&raw, 0)?.capacity != 0)
}

/// Opens an extent file that the user gave instead of the disk's descriptor, if it can stand for the whole disk.
fn open_bare(storage: Arc<dyn Storage>, path: &Path) -> Result<Extent> {
    let mut magic = [0; 4];
    read_exact(storage.as_ref(), 0, &mut magic)?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let kind = match u32::from_le_bytes(magic) {
        sparse::MAGIC if !is_part_name(&name) => Kind::Sparse(SparseExtent::open(Arc::clone(&storage))?),
        cowd::MAGIC => {
            let extent = CowdExtent::open(Arc::clone(&storage))?;
            if !extent.is_root() {
                return Err(part_alone());
            }
            Kind::Cowd(extent)
        }
        _ => return Err(part_alone()),
    };
    Extent::new(kind, 0, None, Some(storage))
}

fn part_alone() -> Error {
    Error::unsupported(Layer::Block, "this file is one extent of a VMDK, not the disk")
        .hint("give the small descriptor file (NAME.vmdk), with its extents and its parent beside it")
}

/// Whether the name is that of one part of a split disk: `NAME-s001.vmdk`.
fn is_part_name(name: &str) -> bool {
    let stem = name.to_ascii_lowercase();
    let Some((_, part)) = stem.strip_suffix(".vmdk").and_then(|s| s.rsplit_once("-s")) else { return false };
    part.len() >= 3 && part.bytes().all(|b| b.is_ascii_digit())
}

/// Opens what an extent line of a descriptor names.
fn open_extent(line: &ExtentLine, start: u64, references: &dyn References) -> Result<(Extent, Option<PathBuf>)> {
    if line.kind == ExtentType::Zero {
        return Ok((Extent::new(Kind::Zero, start, Some(line.sectors), None)?, None));
    }
    // Descriptors name their extents by plain file names; if not, only the path policy can allow it.
    let what = format!("the extent {} of this VMDK", escape(base_name(&line.file)));
    let (storage, path) = open_first(references, &what, std::slice::from_ref(&line.file))?;
    let open = || -> Result<Extent> {
        let kind = match line.kind {
            ExtentType::Sparse => Kind::Sparse(SparseExtent::open(Arc::clone(&storage))?),
            ExtentType::Cowd => open_vmfs_sparse(Arc::clone(&storage))?,
            ExtentType::SeSparse => Kind::SeSparse(SeSparseExtent::open(Arc::clone(&storage))?),
            _ => {
                let first = line.offset.checked_mul(SECTOR);
                let end =
                    line.sectors.checked_mul(SECTOR).zip(first).and_then(|(bytes, first)| first.checked_add(bytes));
                let file_length = length(storage.as_ref())?;
                match first.filter(|_| end.is_some_and(|end| end <= file_length)) {
                    Some(first) => Kind::Flat(first),
                    None => {
                        return Err(Error::damaged(
                            Layer::Block,
                            "the flat extent is shorter than the descriptor says",
                        )
                        .expected_found(
                            format_args!("{} sectors from {}", line.sectors, line.offset),
                            format_args!("{file_length} bytes"),
                        )
                        .hint("the file is truncated: copy it again"));
                    }
                }
            }
        };
        Extent::new(kind, start, Some(line.sectors), Some(Arc::clone(&storage)))
    };
    Ok((open().map_err(|e| e.path(path.display().to_string()))?, Some(path)))
}

/// A `VMFSSPARSE` extent is a COWD file; a few tools write hosted sparse files under that name.
fn open_vmfs_sparse(storage: Arc<dyn Storage>) -> Result<Kind> {
    let mut magic = [0; 4];
    read_exact(storage.as_ref(), 0, &mut magic)?;
    if u32::from_le_bytes(magic) == sparse::MAGIC {
        return Ok(Kind::Sparse(SparseExtent::open(storage)?));
    }
    Ok(Kind::Cowd(CowdExtent::open(storage)?))
}

impl Kind {
    fn name(&self) -> ExtentType {
        match self {
            Self::Zero => ExtentType::Zero,
            Self::Flat(_) => ExtentType::Flat,
            Self::Sparse(_) => ExtentType::Sparse,
            Self::Cowd(_) => ExtentType::Cowd,
            Self::SeSparse(_) => ExtentType::SeSparse,
        }
    }
}

impl Extent {
    /// The extent at byte `start` of the disk; `sectors` as the descriptor has it.
    fn new(kind: Kind, start: u64, sectors: Option<u64>, storage: Option<Arc<dyn Storage>>) -> Result<Self> {
        let held = match &kind {
            Kind::Zero | Kind::Flat(_) => None,
            Kind::Sparse(extent) => Some(extent.len()),
            Kind::Cowd(extent) => Some(extent.len()),
            Kind::SeSparse(extent) => Some(extent.len()),
        };
        let length = match sectors {
            Some(sectors) => sectors.checked_mul(SECTOR),
            None => held,
        };
        let length = length.filter(|l| start.checked_add(*l).is_some());
        let length =
            length.ok_or_else(|| Error::damaged(Layer::Block, "the VMDK's extents are larger than a disk can be"))?;
        if held.is_some_and(|held| held < length) {
            return Err(Error::damaged(
                Layer::Block,
                "a sparse extent of the VMDK is smaller than the descriptor says",
            )
            .expected_found(format_args!("{length} bytes"), format_args!("{} bytes", held.unwrap_or(0))));
        }
        Ok(Self { start, length, storage, kind })
    }

    /// Whether QEMU reads such an extent, and from a whole file.
    fn is_plain(&self) -> bool {
        let is_known = match &self.kind {
            Kind::Sparse(sparse) => sparse.is_plain(),
            _ => true,
        };
        is_known && self.storage.as_ref().is_none_or(|storage| !storage.is_part())
    }

    fn spot(&self, offset: u64, limit: u64) -> Result<(Spot, u64)> {
        match &self.kind {
            Kind::Zero => Ok((Spot::Zero, limit)),
            Kind::Flat(first) => Ok((Spot::Stored(first + offset), limit)),
            Kind::Sparse(extent) => extent.spot(offset, limit),
            Kind::Cowd(extent) => extent.spot(offset, limit),
            Kind::SeSparse(extent) => extent.spot(offset, limit),
        }
    }
}

impl ExtentMap for Vmdk {
    fn len(&self) -> u64 {
        self.size
    }

    fn format(&self) -> Format {
        Format::Vmdk
    }

    fn is_compressed(&self) -> bool {
        self.extents.iter().any(|extent| matches!(&extent.kind, Kind::Sparse(sparse) if sparse.grains().is_some()))
    }

    fn is_same_in_qemu(&self) -> bool {
        self.is_same_in_qemu
    }

    fn run_at(&self, offset: u64, limit: u64) -> Result<Run> {
        // Extents of no length cannot be hit: the last extent that begins at or before `offset` holds it.
        let file = self.extents.partition_point(|e| e.start <= offset).saturating_sub(1);
        let extent =
            self.extents.get(file).ok_or_else(|| Error::bug(Layer::Block, "a VMDK without extents").at(offset))?;
        let within = offset - extent.start;
        let (spot, length) = extent.spot(within, limit.min(extent.length - within))?;
        let location = match spot {
            Spot::Below => Location::Parent,
            Spot::Zero => Location::Zero,
            Spot::Stored(offset) => Location::Stored { file, offset },
            Spot::Packed { offset, unit, skip } => Location::Compressed { file, offset, unit, skip },
        };
        Ok(Run { length, location })
    }

    fn read_stored(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        read_exact(self.storage(file)?, offset, buf)
    }

    fn read_compressed(&self, file: usize, offset: u64, unit: u64, skip: u64, buf: &mut [u8]) -> Result<()> {
        match self.extents.get(file).map(|e| &e.kind) {
            Some(Kind::Sparse(extent)) if extent.grains().is_some() => {
                extent.grains().map_or(Ok(()), |grains| grains.read(offset, unit, skip, buf))
            }
            _ => Err(Error::bug(Layer::Block, "a compressed grain in an extent without any").at(offset)),
        }
    }

    fn stored_is_data(&self, file: usize, offset: u64, limit: u64) -> Result<(bool, u64)> {
        match self.extents.get(file).map(|e| &e.kind) {
            Some(Kind::Flat(_)) => data_run(self.storage(file)?, offset, limit),
            _ => Ok((true, limit)),
        }
    }
}

impl Vmdk {
    fn storage(&self, file: usize) -> Result<&dyn Storage> {
        self.extents
            .get(file)
            .and_then(|e| e.storage.as_deref())
            .ok_or_else(|| Error::bug(Layer::Block, "a read from an extent without a file"))
    }
}

/// What a sparse extent that holds the disk itself says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnExtent {
    /// Bytes of the disk.
    pub(crate) bytes: u64,
    /// Bytes per grain.
    pub(crate) grain_bytes: u64,
    /// Whether grains are compressed.
    pub(crate) is_packed: bool,
}

/// The descriptor of the file and its own extent, as far as it has them; nothing else is opened.
pub(crate) fn facts(storage: &Arc<dyn Storage>) -> Result<(Option<Descriptor>, Option<OwnExtent>)> {
    let descriptor = read_descriptor(storage.as_ref())?;
    let mut magic = [0; 4];
    read_exact(storage.as_ref(), 0, &mut magic)?;
    let own = match u32::from_le_bytes(magic) {
        sparse::MAGIC if is_whole(storage.as_ref())? => {
            let extent = SparseExtent::open(Arc::clone(storage))?;
            let is_packed = extent.grains().is_some();
            Some(OwnExtent { bytes: extent.len(), grain_bytes: extent.grain_bytes(), is_packed })
        }
        cowd::MAGIC => {
            let extent = CowdExtent::open(Arc::clone(storage))?;
            Some(OwnExtent { bytes: extent.len(), grain_bytes: extent.grain_bytes(), is_packed: false })
        }
        _ => None,
    };
    Ok((descriptor, own))
}
