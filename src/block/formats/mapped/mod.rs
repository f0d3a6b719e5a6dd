//! What the read-only containers have in common: a map from guest ranges to places in files, over an optional parent.
//!
//! VMDK, VHD, VHDX and VDI differ in how a guest offset is looked up, and in nothing else. A container implements
//! [`Layer`] (one look-up for one allocation unit); [`Mapped`] turns that into an [`Image`]: it merges neighbouring
//! units into large reads, asks the parent where the layer has nothing, and bounds everything by the guest size.

mod host;
mod references;
mod table;
mod window;

pub(crate) use host::{data_run, length, read_exact};
pub(crate) use references::{ChainReferences, NoReferences, References, base_name, candidates, open_first};
pub(crate) use table::Table;
pub(crate) use window::Window;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::block::{Extent, ExtentKind, Format, Image, beyond_end, is_inside};
use crate::error::{Error, Layer as In, Result};
use crate::units::ImageOffset;

/// Look-ups that one call merges at most, so that no table, however it is built, makes a single call long.
const MERGE_MAX: u32 = 16_384;

/// Where the bytes of a guest range are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not in this layer: the parent's bytes, zeros without one.
    Below,
    /// Zeros, whatever the parent says.
    Zero,
    /// As they are, from `offset` of the layer's file `file`.
    Stored {
        /// Which of the layer's files.
        file: usize,
        /// Byte offset in it.
        offset: u64,
    },
    /// In a compressed unit of file `file` whose stream is found at `offset`.
    Packed {
        /// Which of the layer's files.
        file: usize,
        /// Byte offset of the unit in it.
        offset: u64,
        /// Guest offset (within that file's share of the disk) at which the unit begins.
        unit: u64,
        /// First wanted byte within the unpacked unit.
        skip: u64,
    },
}

/// A guest range that lies in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Length in bytes, never 0.
    pub(crate) length: u64,
    /// Where it is.
    pub(crate) place: Place,
}

/// One container's way of finding guest bytes.
pub(crate) trait Layer: Send + Sync {
    /// Guest size in bytes.
    fn len(&self) -> u64;

    /// Which container this is.
    fn format(&self) -> Format;

    /// Whether QEMU opens this container and finds the same bytes where this layer does, the parent left aside.
    fn is_same_in_qemu(&self) -> bool;

    /// Whether data are packed in it.
    fn is_packed(&self) -> bool {
        false
    }

    /// The run at `offset` (inside the guest size): at least one byte, at most `limit`.
    fn run_at(&self, offset: u64, limit: u64) -> Result<Run>;

    /// Reads stored bytes; `buf` lies inside one run.
    fn read_stored(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Reads out of a compressed unit; `buf` lies inside one run.
    fn read_packed(&self, _file: usize, offset: u64, _unit: u64, _skip: u64, _buf: &mut [u8]) -> Result<()> {
        Err(Error::bug(In::Block, "this container has no compressed units").at(offset))
    }

    /// How many of `limit` stored bytes from `offset` on are of one kind: `true` for data, `false` for a hole of the
    /// host's file. Containers whose data areas are dense just say "data".
    fn stored_is_data(&self, _file: usize, _offset: u64, limit: u64) -> Result<(bool, u64)> {
        Ok((true, limit))
    }
}

/// An [`Image`] made of one [`Layer`] and, below it, perhaps a parent.
pub(crate) struct Mapped<L> {
    layer: L,
    parent: Option<Box<dyn Image>>,
    files: Vec<PathBuf>,
    bytes_read: AtomicU64,
}

impl<L: Layer> Mapped<L> {
    /// `files` are those of this layer; the parent adds its own.
    pub(crate) fn new(layer: L, parent: Option<Box<dyn Image>>, files: Vec<PathBuf>) -> Self {
        Self { layer, parent, files, bytes_read: AtomicU64::new(0) }
    }

    /// The layer itself.
    pub(crate) fn layer(&self) -> &L {
        &self.layer
    }

    /// The run at `offset`, with the following look-ups merged as long as they continue it.
    fn merged(&self, offset: u64, limit: u64) -> Result<Run> {
        let mut run = self.layer.run_at(offset, limit)?;
        debug_assert!(run.length > 0 && run.length <= limit);
        for _ in 1..MERGE_MAX {
            if run.length >= limit || matches!(run.place, Place::Packed { .. }) {
                break;
            }
            let next = self.layer.run_at(offset + run.length, limit - run.length)?;
            let continues = match (run.place, next.place) {
                (Place::Below, Place::Below) | (Place::Zero, Place::Zero) => true,
                (Place::Stored { file, offset }, Place::Stored { file: next_file, offset: next_offset }) => {
                    file == next_file && offset.checked_add(run.length) == Some(next_offset)
                }
                _ => false,
            };
            if !continues {
                break;
            }
            run.length += next.length;
        }
        Ok(run)
    }

    fn read_below(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Some(parent) = &self.parent else {
            buf.fill(0);
            return Ok(());
        };
        // A parent may be shorter than its child: the rest reads as zeros.
        let there = usize::try_from(parent.len().saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let (inside, beyond) = buf.split_at_mut(there);
        beyond.fill(0);
        if inside.is_empty() { Ok(()) } else { parent.read_at(ImageOffset(offset), inside) }
    }

    fn extent_below(&self, offset: u64, limit: u64) -> Result<Extent> {
        match &self.parent {
            Some(parent) if offset < parent.len() => {
                parent.extent_at(ImageOffset(offset), limit.min(parent.len() - offset))
            }
            _ => Ok(Extent { length: limit, kind: ExtentKind::Unallocated }),
        }
    }
}

impl<L: Layer> Image for Mapped<L> {
    fn len(&self) -> u64 {
        self.layer.len()
    }

    fn format(&self) -> Format {
        self.layer.format()
    }

    fn format_in_qemu(&self) -> Option<Format> {
        let is_parent_same = self.parent.as_ref().is_none_or(|parent| parent.format_in_qemu().is_some());
        (is_parent_same && self.layer.is_same_in_qemu()).then(|| self.layer.format())
    }

    fn is_packed(&self) -> bool {
        self.layer.is_packed() || self.parent.as_ref().is_some_and(|parent| parent.is_packed())
    }

    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        if !is_inside(offset, buf.len(), self.layer.len()) {
            return Err(beyond_end(offset, buf.len(), self.layer.len()));
        }
        let (mut at, mut rest) = (offset.0, buf);
        while !rest.is_empty() {
            let run = self.merged(at, rest.len() as u64)?;
            // The run is at most as long as `rest`, so this fits.
            let (part, tail) = rest.split_at_mut(run.length as usize);
            match run.place {
                Place::Below => self.read_below(at, part)?,
                Place::Zero => part.fill(0),
                Place::Stored { file, offset } => {
                    self.layer.read_stored(file, offset, part)?;
                    self.bytes_read.fetch_add(run.length, Ordering::Relaxed);
                }
                Place::Packed { file, offset, unit, skip } => self.layer.read_packed(file, offset, unit, skip, part)?,
            }
            at += run.length;
            rest = tail;
        }
        Ok(())
    }

    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        let limit = limit.min(self.layer.len().saturating_sub(offset.0));
        if limit == 0 {
            return Err(beyond_end(offset, 1, self.layer.len()));
        }
        let run = self.merged(offset.0, limit)?;
        match run.place {
            Place::Below => self.extent_below(offset.0, run.length),
            Place::Zero => Ok(Extent { length: run.length, kind: ExtentKind::Zero }),
            Place::Packed { .. } => Ok(Extent { length: run.length, kind: ExtentKind::Data }),
            Place::Stored { file, offset } => {
                let (data, length) = self.layer.stored_is_data(file, offset, run.length)?;
                let kind = if data { ExtentKind::Data } else { ExtentKind::Zero };
                Ok(Extent { length: length.clamp(1, run.length), kind })
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed) + self.parent.as_ref().map_or(0, |p| p.bytes_read())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.files.clone();
        if let Some(parent) = &self.parent {
            files.extend(parent.files());
        }
        files
    }
}
