//! A disk as the guest sees it, independent of the container that holds it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::Format;
use crate::error::{Error, Layer, Result};
use crate::host::{Storage, lock_notes};
use crate::nbd::network_notes;
use crate::units::ImageOffset;

/// Kind of a run of bytes, as far as the tables tell without reading the data.
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
    /// What the container's tables say about the run.
    pub kind: ExtentKind,
}

/// A read-only view of the disk that the guest sees, whatever the container. Made by [`open`](super::open()).
pub trait Image: Send + Sync {
    /// Length of the guest's disk in bytes.
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

    /// Whether the data is stored compressed, so that a cache pays.
    fn is_packed(&self) -> bool {
        false
    }

    /// Bytes read from the image's files so far (data and tables), for statistics.
    fn bytes_read(&self) -> u64 {
        0
    }

    /// Paths of all files of the host that belong to the chain, the top one first.
    fn files(&self) -> Vec<PathBuf>;

    /// What the containers of the chain say of programs that may be using them. Not a refusal: exports of running machines
    /// carry such marks, too.
    fn in_use_marks(&self) -> Vec<String> {
        Vec::new()
    }

    /// The files that an edit in place would write, for a format that can be edited in place.
    fn parts(&self) -> Option<ImageParts<'_>> {
        None
    }
}

/// What a user should know about whether something else is using the image: marks in its containers, and files that lie
/// where locks of other machines cannot be seen.
#[must_use]
pub fn use_notes(image: &dyn Image) -> Vec<String> {
    let mut notes = image.in_use_marks();
    notes.extend(lock_notes(&image.files()));
    notes.extend(network_notes(&image.files()));
    notes
}

/// The files of an image that can be edited in place.
#[derive(Debug, Clone, Copy)]
pub struct ImageParts<'a> {
    /// The file that was opened as the image.
    pub file: &'a Arc<dyn Storage>,
    /// The file that holds the guest's data, when it is another one.
    pub data_file: Option<(&'a Arc<dyn Storage>, &'a Path)>,
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
