//! Opening an image of any format.

use std::path::Path;
use std::sync::Arc;

use super::Locking;
use super::chain::{Chain, OpenOptions};
use super::format::Format;
use super::formats::extent_map::ChainReferences;
use super::formats::raw::RawImage;
use super::formats::{ova, probe, qcow2, vdi, vhd, vhdx, vmdk};
use super::image::Image;
use super::name::{ImageName, open_file};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host::Storage;
use crate::nbd::is_incomplete;
use crate::units::ImageOffset;

/// Opens the image at `path`, or the NBD export of that URI, for reading, with all files that it refers to. The guest's disk is read through the result;
/// a [`Stage`](super::Stage) over it takes changes.
///
/// ```no_run
/// # fn main() -> winject::Result<()> {
/// let image = winject::open_image("guest.vmdk".as_ref(), &winject::ImageOptions::default())?;
/// let mut sector = [0; 512];
/// image.read_at(winject::ImageOffset(0), &mut sector)?;
/// println!("{}, {} bytes", image.format(), image.len());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io) when the file cannot be read, [`Kind::Unsupported`](crate::Kind::Unsupported) when it
/// is not a disk image in a format that winject reads, [`Kind::Damaged`](crate::Kind::Damaged) when it
/// contradicts its format, [`Kind::Refused`](crate::Kind::Refused) when it is encrypted, in use, or refers to a file
/// that the policy does not allow, [`Kind::Pending`](crate::Kind::Pending) when an interrupted run left it (or a file
/// that it refers to) half written, [`Kind::Usage`](crate::Kind::Usage) when a disk of it is chosen and it is not an OVA.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn Image>> {
    open_storage(ImageName::of(path).open(options.locking, &options.nbd)?, path, options.format, options)
}

/// Opens an image whose file is open already. `path` is where the file is, so that names in it can be resolved.
///
/// # Errors
/// See [`open`].
pub fn open_storage(
    storage: Arc<dyn Storage>,
    path: &Path,
    format: Option<Format>,
    options: &OpenOptions,
) -> Result<Box<dyn Image>> {
    let is_choice_meant = options.disk.is_none() || (format.is_none() && ova::is_ova(&*storage));
    // Whatever stands at its end, from before: a footer of a VHD, say.
    let mut head = [0; 512];
    if storage.read_at(0, &mut head).is_ok() {
        refuse_incomplete(&head, path)?;
    }
    let image = new_chain(options).open_storage(storage, path, format)?;
    // A server may keep the disk in another format.
    let head = head.get_mut(..image.len().min(512) as usize).unwrap_or_default();
    if image.format() != Format::Raw && image.read_at(ImageOffset(0), head).is_ok() {
        refuse_incomplete(head, path)?;
    }
    if is_choice_meant { Ok(image) } else { Err(no_disk_to_choose(path)) }
}

/// The error for a choice among the disks of a file that is not opened as an OVA.
pub(super) fn no_disk_to_choose(path: &Path) -> Error {
    let message = "the choice of a disk (--disk) has no effect: the file is not read as an OVA, and holds one disk";
    Error::new(Kind::Usage, Layer::Block, message).path(path.display().to_string()).hint("leave --disk out")
}

/// Whether the file at `path` is an OVA; `false` for one that cannot be read, and for an NBD export.
pub(crate) fn is_ova(path: &Path) -> bool {
    matches!(ImageName::of(path), ImageName::File(path) if open_file(path, Locking::default()).is_ok_and(|file| ova::is_ova(&file)))
}

/// Refuses a copy of a disk that was interrupted, by its beginning. What cannot be read is reported when it is needed.
fn refuse_incomplete(head: &[u8], path: &Path) -> Result<()> {
    if !is_incomplete(head) {
        return Ok(());
    }
    Err(Error::damaged(Layer::Block, "an incomplete copy of a disk: the command that wrote it was interrupted")
        .with_code(ErrorCode::NbdIncomplete)
        .path(path.display().to_string())
        .hint("run the command again that wrote it"))
}

/// A chain with no file in it yet.
pub(super) fn new_chain(options: &OpenOptions) -> Chain<'_> {
    Chain::new(options, open_link)
}

/// Opens the last file of `chain`; a format that is not given is found by content.
fn open_link(
    chain: &Chain<'_>,
    storage: Arc<dyn Storage>,
    path: &Path,
    format: Option<Format>,
) -> Result<Box<dyn Image>> {
    let format = match format {
        Some(format) => format,
        None if ova::is_ova(&*storage) => return ova::open(storage, path, chain, chain.options().disk.as_deref()),
        None => probe::probe(&*storage, path)?,
    };
    tracing::debug!(path = %path.display(), %format, "opening an image");
    match format {
        Format::Raw => Ok(Box::new(RawImage::open(storage, path)?)),
        Format::Qcow2 => Ok(Box::new(qcow2::Qcow2Image::open(storage, path, chain)?)),
        Format::Vmdk => vmdk::open(storage, path, &ChainReferences::new(chain, path)),
        Format::Vhd => vhd::open(storage, path, &ChainReferences::new(chain, path)),
        Format::Vdi => vdi::open(storage, path),
        Format::Vhdx => vhdx::open(storage, path, &ChainReferences::new(chain, path)),
    }
}
