//! One extent of a disk, whatever its kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compressed::CompressedGrains;
use super::cowd::CowdExtent;
use super::descriptor::{ExtentLine, ExtentType};
use super::header::{COWD_MAGIC, SECTOR, SPARSE_MAGIC};
use super::location::{ExtentOffset, GrainLocation};
use super::sesparse::SeSparseExtent;
use super::sparse::SparseExtent;
use crate::block::Storage;
use crate::block::formats::extent_map::{References, base_name, length, open_first, read_exact};
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::escape::escape;
use crate::units::{HostOffset, ImageOffset};

/// An open extent and the part of the disk that it makes up.
pub(super) struct Extent {
    /// Where the extent begins on the disk.
    pub(super) start: ImageOffset,
    /// Bytes of the disk that the extent makes up.
    pub(super) length: u64,
    /// The extent's file; `None` for zeros.
    storage: Option<Arc<dyn Storage>>,
    content: Content,
}

enum Content {
    Zero,
    /// The bytes as they are, from here on in the file.
    Flat(HostOffset),
    Sparse(SparseExtent),
    Cowd(CowdExtent),
    SeSparse(SeSparseExtent),
}

impl Extent {
    /// The extent that begins at `start` of the disk; `sectors` as the descriptor has it.
    fn new(
        content: Content,
        start: ImageOffset,
        sectors: Option<u64>,
        storage: Option<Arc<dyn Storage>>,
    ) -> Result<Self> {
        let capacity = match &content {
            Content::Zero | Content::Flat(_) => None,
            Content::Sparse(extent) => Some(extent.len()),
            Content::Cowd(extent) => Some(extent.len()),
            Content::SeSparse(extent) => Some(extent.len()),
        };
        let length = match sectors {
            Some(sectors) => sectors.checked_mul(SECTOR),
            None => capacity,
        };
        let length = length
            .filter(|length| start.checked_add(*length).is_some())
            .ok_or_else(|| Error::damaged(Layer::Block, "the VMDK's extents are larger than a disk can be"))?;
        if let Some(capacity) = capacity.filter(|capacity| *capacity < length) {
            return Err(Error::damaged(
                Layer::Block,
                "a sparse extent of the VMDK is smaller than the descriptor says",
            )
            .expected_found(format_args!("{length} bytes"), format_args!("{capacity} bytes")));
        }
        Ok(Self { start, length, storage, content })
    }

    /// Opens the sparse extent in `storage` that holds the whole disk and its descriptor.
    pub(super) fn open_whole(storage: Arc<dyn Storage>) -> Result<Self> {
        Self::new(Content::Sparse(SparseExtent::open(Arc::clone(&storage))?), ImageOffset(0), None, Some(storage))
    }

    /// Opens an extent file that the user gave instead of the disk's descriptor, if it can stand for the whole disk.
    pub(super) fn open_bare(storage: Arc<dyn Storage>, path: &Path) -> Result<Self> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match &read_magic(storage.as_ref())? {
            SPARSE_MAGIC if !is_part_name(&name) => Self::open_whole(storage),
            COWD_MAGIC => {
                let extent = CowdExtent::open(Arc::clone(&storage))?;
                if !extent.is_root() {
                    return Err(part_alone());
                }
                Self::new(Content::Cowd(extent), ImageOffset(0), None, Some(storage))
            }
            _ => Err(part_alone()),
        }
    }

    /// Opens what an extent line of a descriptor names, and says which file that is.
    pub(super) fn open_line(
        line: &ExtentLine,
        start: ImageOffset,
        references: &dyn References,
    ) -> Result<(Self, Option<PathBuf>)> {
        if line.kind == ExtentType::Zero {
            return Ok((Self::new(Content::Zero, start, Some(line.sectors), None)?, None));
        }
        // Descriptors name their extents by plain file names; if not, only the path policy can allow it.
        let what = format!("the extent {} of this VMDK", escape(base_name(&line.file)));
        let (storage, path) = open_first(references, &what, std::slice::from_ref(&line.file))?;
        let open = || {
            let content = Content::open(line, Arc::clone(&storage))?;
            Self::new(content, start, Some(line.sectors), Some(Arc::clone(&storage)))
        };
        Ok((open().map_err(|e| e.path(path.display().to_string()))?, Some(path)))
    }

    pub(super) fn kind(&self) -> ExtentType {
        match &self.content {
            Content::Zero => ExtentType::Zero,
            Content::Flat(_) => ExtentType::Flat,
            Content::Sparse(_) => ExtentType::Sparse,
            Content::Cowd(_) => ExtentType::Cowd,
            Content::SeSparse(_) => ExtentType::SeSparse,
        }
    }

    /// Where the extent ends on the disk.
    pub(super) fn end(&self) -> ImageOffset {
        self.start.saturating_add(self.length)
    }

    /// Whether a program that wrote to the extent has not closed it.
    pub(super) fn is_marked_open(&self) -> bool {
        matches!(&self.content, Content::Sparse(sparse) if sparse.is_marked_open())
    }

    /// Whether QEMU reads such an extent, and from a whole file.
    pub(super) fn is_plain(&self) -> bool {
        let is_supported = match &self.content {
            Content::Sparse(sparse) => sparse.is_plain(),
            _ => true,
        };
        is_supported && self.storage.as_ref().is_none_or(|storage| !storage.is_part())
    }

    /// The reader of compressed grains, if it has such.
    pub(super) fn compressed(&self) -> Option<&CompressedGrains> {
        match &self.content {
            Content::Sparse(extent) => extent.compressed(),
            _ => None,
        }
    }

    /// Where the bytes from `offset` on are, and for how many of `limit` bytes that holds.
    pub(super) fn locate(&self, offset: ExtentOffset, limit: u64) -> Result<(GrainLocation, u64)> {
        match &self.content {
            Content::Zero => Ok((GrainLocation::Zero, limit)),
            Content::Flat(first) => Ok((GrainLocation::Stored(first.saturating_add(offset.0)), limit)),
            Content::Sparse(extent) => extent.locate(offset, limit),
            Content::Cowd(extent) => extent.locate(offset, limit),
            Content::SeSparse(extent) => extent.locate(offset, limit),
        }
    }

    /// The extent's file; zeros have none.
    pub(super) fn storage(&self) -> Result<&dyn Storage> {
        self.storage.as_deref().ok_or_else(|| Error::bug(Layer::Block, "a read from an extent without a file"))
    }
}

impl Content {
    fn open(line: &ExtentLine, storage: Arc<dyn Storage>) -> Result<Self> {
        match line.kind {
            ExtentType::Sparse => Ok(Self::Sparse(SparseExtent::open(storage)?)),
            ExtentType::Cowd => Self::open_vmfs_sparse(storage),
            ExtentType::SeSparse => Ok(Self::SeSparse(SeSparseExtent::open(storage)?)),
            ExtentType::Flat | ExtentType::Zero => Self::open_flat(line, storage.as_ref()),
        }
    }

    /// A `VMFSSPARSE` extent is a COWD file; a few tools write hosted sparse files under that name.
    fn open_vmfs_sparse(storage: Arc<dyn Storage>) -> Result<Self> {
        if read_magic(storage.as_ref())? == *SPARSE_MAGIC {
            return Ok(Self::Sparse(SparseExtent::open(storage)?));
        }
        Ok(Self::Cowd(CowdExtent::open(storage)?))
    }

    fn open_flat(line: &ExtentLine, storage: &dyn Storage) -> Result<Self> {
        let first = line.offset.checked_mul(SECTOR);
        let end = line.sectors.checked_mul(SECTOR).zip(first).and_then(|(bytes, first)| first.checked_add(bytes));
        let file_length = length(storage)?;
        match first.filter(|_| end.is_some_and(|end| end <= file_length)) {
            Some(first) => Ok(Self::Flat(HostOffset(first))),
            None => Err(Error::damaged(Layer::Block, "the flat extent is shorter than the descriptor says")
                .expected_found(
                    format_args!("{} sectors from {}", line.sectors, line.offset),
                    format_args!("{file_length} bytes"),
                )
                .hint("the file is truncated: copy it again")),
        }
    }
}

/// The first four bytes of the file, which tell hosted sparse and COWD extents apart.
pub(super) fn read_magic(storage: &dyn Storage) -> Result<[u8; 4]> {
    let mut magic = [0; 4];
    read_exact(storage, HostOffset(0), &mut magic)?;
    Ok(magic)
}

fn part_alone() -> Error {
    Error::unsupported(Layer::Block, "this file is one extent of a VMDK, not the disk")
        .with_code(ErrorCode::VmdkExtent)
        .hint("give the small descriptor file (NAME.vmdk), with its extents and its parent in the same folder")
}

/// Whether the name is that of one part of a split disk: `NAME-s001.vmdk`.
fn is_part_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let Some((_, number)) = name.strip_suffix(".vmdk").and_then(|s| s.rsplit_once("-s")) else { return false };
    number.len() >= 3 && number.bytes().all(|b| b.is_ascii_digit())
}
