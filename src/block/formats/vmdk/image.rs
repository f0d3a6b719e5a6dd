//! Reading VMDK disks: the descriptor, the extents, the chain of parents.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::descriptor::{DESCRIPTOR_MAX, Descriptor, ExtentType};
use super::extent::{Extent, read_magic};
use super::header::{COWD_MAGIC, SECTOR, SESPARSE_MAGIC, SPARSE_MAGIC, SparseHeader};
use super::location::{ExtentOffset, GrainLocation};
use crate::block::formats::extent_map::{
    ExtentMap, Location, MappedImage, References, Run, candidate_names, data_run, length, open_first, read_exact,
};
use crate::block::{Format, Image, Storage};
use crate::error::{Error, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

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

/// Opens the parent by its hint, and checks that it is what it was when the snapshot was taken. Returns also whether the
/// hint itself leads there: QEMU tries no other name.
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
pub(super) fn read_descriptor(storage: &dyn Storage) -> Result<Option<Descriptor>> {
    let file_length = length(storage)?;
    let mut magic = [0; 8];
    if file_length >= SECTOR {
        read_exact(storage, HostOffset(0), &mut magic)?;
    }
    let (start, size) = if magic.starts_with(SPARSE_MAGIC) {
        let (first, count) = SparseHeader::read(storage)?.descriptor;
        if first == 0 || count == 0 {
            return Ok(None);
        }
        (first.saturating_mul(SECTOR), count.saturating_mul(SECTOR))
    } else if magic.starts_with(COWD_MAGIC) || u64::from_le_bytes(magic) == SESPARSE_MAGIC {
        return Ok(None);
    } else {
        (0, file_length)
    };
    let start = HostOffset(start);
    if size > DESCRIPTOR_MAX || start.checked_add(size).is_none_or(|end| end.0 > file_length) {
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
    // The extents of a split disk have room for a descriptor, but it is empty.
    let is_empty = start.0 > 0 && descriptor.extents.is_empty() && descriptor.create_type.is_empty();
    Ok(Some(descriptor).filter(|_| !is_empty))
}

/// One open VMDK disk of a chain: all its extents.
pub(super) struct Vmdk {
    descriptor: Descriptor,
    /// The disk's size in bytes.
    size: u64,
    extents: Vec<Extent>,
    is_same_in_qemu: bool,
}

impl Vmdk {
    fn new(storage: Arc<dyn Storage>, path: &Path, references: &dyn References) -> Result<(Self, Vec<PathBuf>)> {
        let mut files = vec![path.to_owned()];
        let (descriptor, extents, source) = match read_descriptor(storage.as_ref())? {
            Some(descriptor) if has_whole_disk(storage.as_ref())? => {
                (descriptor, vec![Extent::open_whole(storage)?], DescriptorSource::Extent)
            }
            Some(descriptor) => {
                let mut extents: Vec<Extent> = Vec::with_capacity(descriptor.extents.len());
                for line in &descriptor.extents {
                    let start = extents.last().map_or(ImageOffset(0), Extent::end);
                    let (extent, file) = Extent::open_line(line, start, references)?;
                    extents.push(extent);
                    files.extend(file);
                }
                (descriptor, extents, DescriptorSource::File)
            }
            None => {
                let extent = Extent::open_bare(storage, path)?;
                (Descriptor::of_extent(extent.kind(), extent.length / SECTOR), vec![extent], DescriptorSource::None)
            }
        };
        let size = extents.last().map_or(0, |extent| extent.end().0);
        if size == 0 {
            return Err(Error::damaged(Layer::Block, "the VMDK's descriptor names no extents")
                .hint("is this the disk's descriptor?"));
        }
        let is_same_in_qemu = is_supported_by_qemu(&descriptor, source) && extents.iter().all(Extent::is_plain);
        Ok((Self { descriptor, size, extents, is_same_in_qemu }, files))
    }
}

/// Where a disk's descriptor was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DescriptorSource {
    /// A text file that names the extents.
    File,
    /// In the only extent.
    Extent,
    /// Nowhere: the file is an extent without one.
    None,
}

/// Whether QEMU opens a disk with this descriptor, and reads the same disk. Of a descriptor inside an extent it reads
/// the ids and the parent's name only; a sparse file without one it recognises by its header.
fn is_supported_by_qemu(descriptor: &Descriptor, source: DescriptorSource) -> bool {
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
pub(super) fn has_whole_disk(storage: &dyn Storage) -> Result<bool> {
    if length(storage)? < SECTOR {
        return Ok(false);
    }
    Ok(read_magic(storage)? == *SPARSE_MAGIC && SparseHeader::read(storage)?.capacity != 0)
}

impl ExtentMap for Vmdk {
    fn len(&self) -> u64 {
        self.size
    }

    fn format(&self) -> Format {
        Format::Vmdk
    }

    fn is_compressed(&self) -> bool {
        self.extents.iter().any(|extent| extent.compressed().is_some())
    }

    fn is_same_in_qemu(&self) -> bool {
        self.is_same_in_qemu
    }

    fn in_use_mark(&self) -> Option<&'static str> {
        let is_open = self.extents.iter().any(Extent::is_marked_open);
        is_open.then_some("is marked as open: a VM may be using it, or did not close it (uncleanShutdown)")
    }

    fn run_at(&self, offset: ImageOffset, limit: u64) -> Result<Run> {
        // No offset is inside an extent of length 0: the last extent that begins at or before `offset` holds it.
        let file = self.extents.partition_point(|e| e.start <= offset).saturating_sub(1);
        let extent = self.extent(file)?;
        let within = offset.0 - extent.start.0;
        let (location, length) = extent.locate(ExtentOffset(within), limit.min(extent.length - within))?;
        let location = match location {
            GrainLocation::Parent => Location::Parent,
            GrainLocation::Zero => Location::Zero,
            GrainLocation::Stored(offset) => Location::Stored { file, offset },
            GrainLocation::Compressed { offset, grain, skip } => {
                Location::Compressed { file, offset, unit: extent.start.saturating_add(grain.0), skip }
            }
        };
        Ok(Run { length, location })
    }

    fn read_stored(&self, file: usize, offset: HostOffset, buf: &mut [u8]) -> Result<()> {
        read_exact(self.extent(file)?.storage()?, offset, buf)
    }

    fn read_compressed(
        &self,
        file: usize,
        offset: HostOffset,
        unit: ImageOffset,
        skip: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let extent = self.extent(file)?;
        let Some(grains) = extent.compressed() else {
            return Err(Error::bug(Layer::Block, "a compressed grain in an extent without any").at(offset));
        };
        grains.read(offset, ExtentOffset(unit.0.saturating_sub(extent.start.0)), skip, buf)
    }

    fn stored_is_data(&self, file: usize, offset: HostOffset, limit: u64) -> Result<(bool, u64)> {
        let extent = self.extent(file)?;
        match extent.kind() {
            ExtentType::Flat => data_run(extent.storage()?, offset, limit),
            _ => Ok((true, limit)),
        }
    }
}

impl Vmdk {
    fn extent(&self, file: usize) -> Result<&Extent> {
        self.extents.get(file).ok_or_else(|| Error::bug(Layer::Block, "a VMDK extent that does not exist"))
    }
}
