//! An [`Image`] over the map of a container, with the parent below it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::map::{ExtentMap, Location, Run};
use crate::block::{Extent, ExtentKind, Format, Image, beyond_end, is_inside};
use crate::error::Result;
use crate::units::ImageOffset;

/// Look-ups that one call merges at most, so that no table, however it is built, makes a single call long.
const MERGE_MAX: u32 = 16_384;

/// The disk of one container: its [`ExtentMap`] and, below it, perhaps a parent.
pub(crate) struct MappedImage<M> {
    map: M,
    parent: Option<Box<dyn Image>>,
    files: Vec<PathBuf>,
    bytes_read: AtomicU64,
}

impl<M: ExtentMap> MappedImage<M> {
    /// `files` are those of the container itself; the parent adds its own.
    pub(crate) fn new(map: M, parent: Option<Box<dyn Image>>, files: Vec<PathBuf>) -> Self {
        Self { map, parent, files, bytes_read: AtomicU64::new(0) }
    }

    /// The container's own map, without the parent.
    pub(crate) fn map(&self) -> &M {
        &self.map
    }

    /// The run at `offset`, with the following look-ups merged as long as they continue it.
    fn merged(&self, offset: ImageOffset, limit: u64) -> Result<Run> {
        let mut run = self.map.run_at(offset, limit)?;
        debug_assert!(run.length > 0 && run.length <= limit);
        for _ in 1..MERGE_MAX {
            if run.length >= limit || matches!(run.location, Location::Compressed { .. }) {
                break;
            }
            let next = self.map.run_at(ImageOffset(offset.0 + run.length), limit - run.length)?;
            let continues = match (run.location, next.location) {
                (Location::Parent, Location::Parent) | (Location::Zero, Location::Zero) => true,
                (Location::Stored { file, offset }, Location::Stored { file: next_file, offset: next_offset }) => {
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

    fn read_parent(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        let Some(parent) = &self.parent else {
            buf.fill(0);
            return Ok(());
        };
        // A parent may be shorter than its child: the rest reads as zeros.
        let there = usize::try_from(parent.len().saturating_sub(offset.0)).unwrap_or(usize::MAX).min(buf.len());
        let (inside, beyond) = buf.split_at_mut(there);
        beyond.fill(0);
        if inside.is_empty() { Ok(()) } else { parent.read_at(offset, inside) }
    }

    fn extent_of_parent(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        match &self.parent {
            Some(parent) if offset.0 < parent.len() => parent.extent_at(offset, limit.min(parent.len() - offset.0)),
            _ => Ok(Extent { length: limit, kind: ExtentKind::Unallocated }),
        }
    }
}

impl<M: ExtentMap> Image for MappedImage<M> {
    fn len(&self) -> u64 {
        self.map.len()
    }

    fn format(&self) -> Format {
        self.map.format()
    }

    fn format_in_qemu(&self) -> Option<Format> {
        let is_parent_same = self.parent.as_ref().is_none_or(|parent| parent.format_in_qemu().is_some());
        (is_parent_same && self.map.is_same_in_qemu()).then(|| self.map.format())
    }

    fn is_packed(&self) -> bool {
        self.map.is_compressed() || self.parent.as_ref().is_some_and(|parent| parent.is_packed())
    }

    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        if !is_inside(offset, buf.len(), self.map.len()) {
            return Err(beyond_end(offset, buf.len(), self.map.len()));
        }
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let run = self.merged(at, rest.len() as u64)?;
            // The run is at most as long as `rest`, so this fits.
            let (part, tail) = rest.split_at_mut(run.length as usize);
            match run.location {
                Location::Parent => self.read_parent(at, part)?,
                Location::Zero => part.fill(0),
                Location::Stored { file, offset } => {
                    self.map.read_stored(file, offset, part)?;
                    self.bytes_read.fetch_add(run.length, Ordering::Relaxed);
                }
                Location::Compressed { file, offset, unit, skip } => {
                    self.map.read_compressed(file, offset, unit, skip, part)?
                }
            }
            at = ImageOffset(at.0 + run.length);
            rest = tail;
        }
        Ok(())
    }

    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        let limit = limit.min(self.map.len().saturating_sub(offset.0));
        if limit == 0 {
            return Err(beyond_end(offset, 1, self.map.len()));
        }
        let run = self.merged(offset, limit)?;
        match run.location {
            Location::Parent => self.extent_of_parent(offset, run.length),
            Location::Zero => Ok(Extent { length: run.length, kind: ExtentKind::Zero }),
            Location::Compressed { .. } => Ok(Extent { length: run.length, kind: ExtentKind::Data }),
            Location::Stored { file, offset } => {
                let (data, length) = self.map.stored_is_data(file, offset, run.length)?;
                let kind = if data { ExtentKind::Data } else { ExtentKind::Zero };
                Ok(Extent { length: length.clamp(1, run.length), kind })
            }
        }
    }

    fn in_use_marks(&self) -> Vec<String> {
        let file = self.files.first().map_or_else(String::new, |file| file.display().to_string());
        let mut marks: Vec<_> = self.map.in_use_mark().map(|mark| format!("{file} {mark}")).into_iter().collect();
        marks.extend(self.parent.iter().flat_map(|parent| parent.in_use_marks()));
        marks
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
