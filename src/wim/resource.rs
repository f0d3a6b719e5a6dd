//! A resource: bytes of the file, compressed in chunks or as they are.

use super::error::{damaged, solid, split, undecodable};
use super::format::{RESOURCE_COMPRESSED, RESOURCE_SOLID, RESOURCE_SPANNED, StoredResource};
use super::header::Wim;
use crate::error::Result;
use crate::io::VolumeRead;
use crate::ntfs::compress::chunks::Chunked;
use crate::units::VolumeOffset;

/// Bytes of a plain resource that are read at once.
const WINDOW: usize = 32 << 10;

/// Reads the content of a resource at any offset. Holds one chunk of it.
#[derive(Debug)]
pub(super) struct ResourceReader<'w, R> {
    source: &'w R,
    /// Where it begins in the file.
    offset: u64,
    /// Bytes of its content.
    size: u64,
    chunked: Option<Chunked>,
    /// Bytes of content that are read at once: those of a chunk.
    window: usize,
    /// Where in the content the bytes that it holds begin.
    held_at: u64,
    held: Vec<u8>,
}

impl<'w, R: VolumeRead> ResourceReader<'w, R> {
    /// Opens a resource of the file.
    pub(super) fn new(wim: &'w Wim<R>, resource: &StoredResource) -> Result<Self> {
        if resource.has(RESOURCE_SOLID) {
            return Err(solid());
        }
        if resource.has(RESOURCE_SPANNED) {
            return Err(split());
        }
        let (offset, size, stored) = (resource.offset.get(), resource.size.get(), resource.stored());
        if offset.checked_add(stored).is_none_or(|end| end > wim.source.len()) {
            return Err(damaged(format_args!("a resource of {stored} bytes at {offset} reaches beyond its end")));
        }
        let (chunked, window) = match wim.codec {
            Some((codec, chunk)) if resource.has(RESOURCE_COMPRESSED) => {
                (Some(Chunked::new(codec, chunk, size, stored).map_err(undecodable)?), chunk)
            }
            None if resource.has(RESOURCE_COMPRESSED) => {
                return Err(damaged("a resource is compressed, and its header names no compression"));
            }
            _ if size != stored => {
                return Err(damaged(format_args!("a plain resource of {size} bytes takes {stored} bytes")));
            }
            _ => (None, WINDOW),
        };
        Ok(Self { source: &wim.source, offset, size, chunked, window, held_at: 0, held: Vec::new() })
    }

    /// Bytes of its content.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buf` from byte `at` of the content; returns whether there were enough.
    pub(super) fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<bool> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(from) = at.checked_add(done as u64).filter(|&from| from < self.size) else { return Ok(false) };
            self.hold(from)?;
            let inside = usize::try_from(from - self.held_at).unwrap_or(usize::MAX);
            let found = self.held.get(inside..).unwrap_or_default();
            let count = found.len().min(rest.len());
            if count == 0 {
                return Err(damaged("a resource is shorter than its header says"));
            }
            rest[..count].copy_from_slice(&found[..count]);
            done += count;
        }
        Ok(true)
    }

    /// Makes the window of the content that has this byte the one that it holds.
    fn hold(&mut self, at: u64) -> Result<()> {
        let window = self.window as u64;
        let start = at - at % window;
        if start == self.held_at && !self.held.is_empty() {
            return Ok(());
        }
        let length = usize::try_from((self.size - start).min(window)).unwrap_or(self.window);
        self.held.resize(length, 0);
        let read = |at: u64, buf: &mut [u8]| {
            let place = self.offset.checked_add(at).ok_or_else(|| damaged("an offset is beyond all bounds"))?;
            self.source.read_at(VolumeOffset(place), buf)
        };
        let outcome = match &self.chunked {
            Some(chunked) => chunked.read_at(start, &mut self.held, read).map(|_| ()).map_err(undecodable),
            None => read(start, &mut self.held),
        };
        if outcome.is_err() {
            self.held.clear();
        }
        self.held_at = start;
        outcome
    }
}
