//! A file with changes over it that are in memory only: what the log's replay results in.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::block::{HostRun, Storage, StorageExt};
use crate::units::HostOffset;

/// The unit of the log, and of the changes in it.
pub(super) const SECTOR: u64 = 4096;
pub(super) const SECTOR_BYTES: usize = SECTOR as usize;

/// The content of one unit.
pub(super) type Page = Box<[u8; SECTOR_BYTES]>;

/// A file as it is once the log's changes are made, which are in memory only.
pub(super) struct Replayed {
    storage: Arc<dyn Storage>,
    length: u64,
    /// Replaced pages; they lie over `zeros`.
    pages: BTreeMap<u64, Page>,
    /// Zeroed ranges, start to end, none touching another.
    zeros: BTreeMap<u64, u64>,
}

impl fmt::Debug for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayed")
            .field("storage", &self.storage)
            .field("pages", &self.pages.len())
            .finish_non_exhaustive()
    }
}

impl Replayed {
    /// The file in `storage`, with a new length in bytes.
    pub(super) fn new(storage: Arc<dyn Storage>, length: u64) -> Self {
        Self { storage, length, pages: BTreeMap::new(), zeros: BTreeMap::new() }
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Replaces the page at `offset`, a multiple of [`SECTOR`].
    pub(super) fn replace_page(&mut self, offset: HostOffset, page: Page) {
        self.pages.insert(offset.0, page);
    }

    /// Zeroes `start..end` of the file.
    pub(super) fn zero(&mut self, HostOffset(start): HostOffset, HostOffset(end): HostOffset) {
        if start >= end {
            return;
        }
        let gone: Vec<u64> = self.pages.range(start..end).map(|(at, _)| *at).collect();
        for at in gone {
            self.pages.remove(&at);
        }
        let (mut start, mut end) = (start, end);
        while let Some((&before, &until)) = self.zeros.range(..=end).next_back()
            && until >= start
        {
            self.zeros.remove(&before);
            (start, end) = (start.min(before), end.max(until));
        }
        self.zeros.insert(start, end);
    }
}

/// Which of the `length` bytes from `offset` on `start..end` covers.
fn overlap(offset: u64, length: usize, start: u64, end: u64) -> Range<usize> {
    let from = start.saturating_sub(offset).min(length as u64);
    let to = end.saturating_sub(offset).min(length as u64);
    // Both are at most `length`.
    from as usize..to.max(from) as usize
}

impl Storage for Replayed {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..count).filter(|b| !b.is_empty()) else { return Ok(0) };
        self.storage.read_or_zeros_at(offset, buf)?;
        let end = offset + count as u64;
        let before = self.zeros.range(..offset).next_back();
        for (&start, &until) in before.into_iter().chain(self.zeros.range(offset..end)) {
            if let Some(part) = buf.get_mut(overlap(offset, count, start, until)) {
                part.fill(0);
            }
        }
        for (&at, page) in self.pages.range(offset / SECTOR * SECTOR..end) {
            let here = overlap(offset, count, at, at + SECTOR);
            let skip = offset.saturating_sub(at) as usize;
            let source = page.get(skip..).and_then(|p| p.get(..here.len()));
            if let (Some(to), Some(from)) = (buf.get_mut(here), source) {
                to.copy_from_slice(from);
            }
        }
        Ok(count)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        Ok(HostRun { length: self.length.saturating_sub(offset), is_data: true })
    }

    fn bytes_read(&self) -> u64 {
        self.storage.bytes_read()
    }
}
