//! Containers, the copy-on-write stage, and commit.
//!
//! An [`Image`] is a read-only view of the disk that the guest sees, whatever the container. [`open`] finds out by
//! content what a file is. A [`Stage`] lies over an image and takes all writes; [`commit`] makes it real: in place, as
//! a small overlay, or as a new image.
//!
//! Files of the host are reached through [`Storage`] only, so that tests can record every write and inject faults.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;
use formats::extent_map::ChainReferences;
use formats::{ova, probe, qcow2, vdi, vhd, vhdx, vmdk};

pub mod commit;
pub mod convert;
pub mod describe;
pub mod formats;
mod stage;

pub use crate::host::{
    FileIdentity, FileStorage, Fingerprint, HostFiles, HostRun, LockMode, Locking, MemoryStorage, PathPolicy, RealHost,
    Storage, StorageExt,
};
pub use formats::raw::RawImage;
pub(crate) use stage::Original;
pub use stage::{Stage, StageOptions};

/// The container formats that winject reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The disk's bytes as they are, in a file or a block device.
    Raw,
    /// QEMU's qcow2, versions 2 and 3.
    Qcow2,
    /// VMware.
    Vmdk,
    /// Virtual PC and older Hyper-V ("vpc" in qemu-img's terms).
    Vhd,
    /// Hyper-V.
    Vhdx,
    /// VirtualBox.
    Vdi,
}

impl Format {
    /// qemu-img's name of the format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vpc",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
        }
    }

    /// The format that a file's name promises, of those that winject writes.
    #[must_use]
    pub fn from_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "raw" | "img" => Some(Self::Raw),
            "qcow2" => Some(Self::Qcow2),
            _ => None,
        }
    }

    /// The format that qemu-img (or a user) calls `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "raw" => Self::Raw,
            "qcow2" => Self::Qcow2,
            "vmdk" => Self::Vmdk,
            "vpc" | "vhd" => Self::Vhd,
            "vhdx" => Self::Vhdx,
            "vdi" => Self::Vdi,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What is known about a run of bytes without reading its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Stored somewhere in the chain; has to be read.
    Data,
    /// Reads as zeros because some layer says so.
    Zero,
    /// In no layer of the chain; reads as zeros.
    Unallocated,
}

impl ExtentKind {
    /// Whether the run certainly reads as zeros.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self != Self::Data
    }
}

/// A run of bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Length in bytes, never 0.
    pub length: u64,
    /// What the run is.
    pub kind: ExtentKind,
}

/// A read-only view of the disk that the guest sees.
pub trait Image: Send + Sync {
    /// Length of the disk in bytes.
    fn len(&self) -> u64;

    /// Whether the disk has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The container's format (of the top file of a chain).
    fn format(&self) -> Format;

    /// The format as which QEMU opens the top file of the chain and finds this very disk in it; `None` when it would
    /// refuse the file or find another disk in it.
    fn format_in_qemu(&self) -> Option<Format>;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// When the range is not inside the disk, the container contradicts itself there, or the host cannot read.
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()>;

    /// The run of one kind that begins at `offset`, at most `limit` bytes long. Looks through the whole chain.
    /// `offset` must be inside the disk and `limit` not 0.
    ///
    /// # Errors
    /// When the container's tables cannot be read.
    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent>;

    /// Whether the data have to be unpacked, so that reading them twice costs more than keeping them.
    fn is_packed(&self) -> bool {
        false
    }

    /// How many bytes were read from the host so far (data and tables), for statistics.
    fn bytes_read(&self) -> u64 {
        0
    }

    /// Every file of the host that belongs to the chain, the top one first.
    fn files(&self) -> Vec<PathBuf>;

    /// The files that an edit in place would write, for a format that can be edited in place.
    fn parts(&self) -> Option<ImageParts<'_>> {
        None
    }
}

/// The files of an image that can be edited in place.
#[derive(Debug, Clone, Copy)]
pub struct ImageParts<'a> {
    /// The image itself.
    pub file: &'a Arc<dyn Storage>,
    /// The file that holds the guest's data, when it is another one.
    pub data_file: Option<(&'a Arc<dyn Storage>, &'a Path)>,
}

/// How to open an image.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The container's format if the caller knows it; otherwise it is found by content. A file whose format is given
    /// as raw is never probed.
    pub format: Option<Format>,
    /// Which files an image may name (backing files, extents, data files).
    pub path_policy: PathPolicy,
    /// How to treat other processes that have the image open.
    pub locking: Locking,
    /// Which disk of an OVA, by its file name in the OVA; the only one when not given.
    pub disk: Option<String>,
}

/// Opens the image at `path`.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io) when the file cannot be read, [`Kind::Unsupported`](crate::Kind::Unsupported) when it
/// is something else than a disk image that we know (by name), [`Kind::Damaged`](crate::Kind::Damaged) when it
/// contradicts its format, [`Kind::Refused`](crate::Kind::Refused) when it is encrypted, in use, or refers to a file
/// that the policy does not allow, [`Kind::Pending`](crate::Kind::Pending) when an interrupted run left it (or a file
/// that it refers to) half written.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn Image>> {
    Chain::new(options).open_storage(Arc::new(open_file(path, options.locking)?), path, options.format)
}

/// Opens a file for reading, as every reader of an image must: locked against writers, and not when an interrupted run
/// may have left it half written.
pub(crate) fn open_file(path: &Path, locking: Locking) -> Result<FileStorage> {
    let storage = FileStorage::open(path, false)?;
    storage.lock(LockMode::Read, locking)?;
    commit::refuse_pending(path, &storage)?;
    Ok(storage)
}

/// The way from the image that the user named to the files that it names: the policy, how deep we are, and what was
/// opened so far. Containers use it to open their parents.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    options: &'a OpenOptions,
    seen: Vec<(u64, u64)>,
}

/// The longest chain of images that we follow. VMware allows 32; QEMU has no limit of its own.
const CHAIN_DEPTH_MAX: usize = 32;

impl<'a> Chain<'a> {
    /// The beginning of a chain.
    #[must_use]
    pub fn new(options: &'a OpenOptions) -> Self {
        Self { options, seen: Vec::new() }
    }

    /// The options with which the user opened the first image.
    #[must_use]
    pub fn options(&self) -> &OpenOptions {
        self.options
    }

    /// The chain with one more file in it.
    ///
    /// # Errors
    /// When the file is already part of the chain (a loop), or the chain is too long.
    pub fn push(&self, storage: &dyn Storage, path: &Path) -> Result<Self> {
        let mut chain = self.clone();
        if let Some(print) = storage.fingerprint() {
            let id = (print.device, print.inode);
            if chain.seen.contains(&id) {
                return Err(Error::damaged(Layer::Block, "the chain of images refers back to itself")
                    .path(path.display().to_string())
                    .hint("correct the backing file's name with qemu-img rebase -u"));
            }
            chain.seen.push(id);
        } else {
            chain.seen.push((u64::MAX, chain.seen.len() as u64));
        }
        if chain.seen.len() > CHAIN_DEPTH_MAX {
            return Err(Error::unsupported(Layer::Block, format!("a chain of more than {CHAIN_DEPTH_MAX} images"))
                .path(path.display().to_string())
                .hint("merge snapshots first, for instance with qemu-img convert"));
        }
        Ok(chain)
    }

    /// Opens a file that an image names, under the path policy, read-only and locked as a reader.
    ///
    /// # Errors
    /// When the policy does not allow the name, or the file is missing or in use.
    pub fn open_named(&self, image: &Path, name: &str) -> Result<(Arc<dyn Storage>, PathBuf)> {
        let (storage, path) = self.options.path_policy.open(image, name)?;
        storage.lock(LockMode::Read, self.options.locking)?;
        commit::refuse_pending(&path, &storage)?;
        Ok((Arc::new(storage), path))
    }

    /// Paths that the user allowed.
    pub(crate) fn allowed(&self) -> &[PathBuf] {
        self.options.path_policy.allowed()
    }

    /// Opens a parent (backing file) that the image at `child` names. `format` is what the child says about it.
    ///
    /// # Errors
    /// As [`open`]; besides when the child does not say which format the parent has and it does not look like a
    /// container (a raw parent is never taken on trust: its guest could have written a container's header).
    pub fn open_parent(&self, child: &Path, name: &str, format: Option<Format>) -> Result<Box<dyn Image>> {
        let (storage, path) = self.open_named(child, name)?;
        self.open_storage(storage, &path, format)
    }

    /// Opens a file that is already at hand.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open_storage(
        &self,
        storage: Arc<dyn Storage>,
        path: &Path,
        format: Option<Format>,
    ) -> Result<Box<dyn Image>> {
        let chain = self.push(&*storage, path)?;
        let format = match format {
            Some(format) => format,
            None if ova::is_ova(&*storage) => return ova::open(storage, path, &chain, self.options.disk.as_deref()),
            None => probe::probe(&*storage, path)?,
        };
        tracing::debug!(path = %path.display(), %format, "opening an image");
        match format {
            Format::Raw => Ok(Box::new(RawImage::open(storage, path)?)),
            Format::Qcow2 => Ok(Box::new(qcow2::Qcow2Image::open(storage, path, &chain)?)),
            Format::Vmdk => vmdk::open(storage, path, &ChainReferences::new(&chain, path)),
            Format::Vhd => vhd::open(storage, path, &ChainReferences::new(&chain, path)),
            Format::Vdi => vdi::open(storage, path),
            Format::Vhdx => vhdx::open(storage, path, &ChainReferences::new(&chain, path)),
        }
    }
}

/// The error for an access that is not inside the disk.
pub(crate) fn beyond_end(offset: ImageOffset, length: usize, size: u64) -> Error {
    Error::damaged(Layer::Block, "access beyond the end of the disk")
        .at(offset)
        .expected_found(format!("at most {size} bytes"), format!("{length} bytes more"))
}

/// Whether `offset..offset + length` is inside a disk of `size` bytes.
pub(crate) fn is_inside(offset: ImageOffset, length: usize, size: u64) -> bool {
    offset.0.checked_add(length as u64).is_some_and(|end| end <= size)
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    // Wide comparisons against a constant block let the compiler use vector instructions.
    const ZEROS: [u8; 4096] = [0; 4096];
    data.chunks(ZEROS.len()).all(|chunk| ZEROS.get(..chunk.len()) == Some(chunk))
}
