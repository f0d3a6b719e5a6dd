//! A page cache of fixed size for the tables of a container (grain tables, block allocation tables).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::read::read_exact;
use crate::block::Storage;
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Bytes per cached page.
const PAGE: u64 = 4096;

/// Cached pages per table: 4 MiB, which covers 1 GiB of 512-byte grains or 64 GiB of 64 KiB grains.
const PAGES_MAX: usize = 1024;

/// Reads numbers out of a file's tables, through a page cache of bounded size that evicts the least recently used.
pub(crate) struct TableCache {
    storage: Arc<dyn Storage>,
    length: u64,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// By page number: content, and the value of `clock` at its last use.
    pages: HashMap<u64, (Arc<[u8]>, u64)>,
    /// Counts the uses of the cache.
    clock: u64,
}

impl TableCache {
    /// Tables of `storage`, which is `length` bytes long.
    pub(crate) fn new(storage: Arc<dyn Storage>, length: u64) -> Self {
        Self { storage, length, cache: Mutex::default() }
    }

    /// The little-endian number of 4 bytes at `offset`.
    pub(crate) fn u32_le(&self, offset: HostOffset) -> Result<u32> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    /// The big-endian number of 4 bytes at `offset`.
    pub(crate) fn u32_be(&self, offset: HostOffset) -> Result<u32> {
        self.bytes(offset).map(u32::from_be_bytes)
    }

    /// The little-endian number of 8 bytes at `offset`.
    pub(crate) fn u64_le(&self, offset: HostOffset) -> Result<u64> {
        self.bytes(offset).map(u64::from_le_bytes)
    }

    /// The `N` bytes at `offset`. A table beyond the end of the file is damage, never zeros.
    pub(crate) fn bytes<const N: usize>(&self, offset: HostOffset) -> Result<[u8; N]> {
        let end = offset.checked_add(N as u64).filter(|end| end.0 <= self.length);
        if end.is_none() {
            return Err(Error::damaged(Layer::Block, "a table of the container lies beyond the end of its file")
                .at(offset)
                .expected_found(format_args!("inside {} bytes", self.length), format_args!("{N} bytes")));
        }
        let mut out = [0; N];
        let mut done = 0;
        while done < N {
            let at = offset.0 + done as u64;
            let page = self.page(at / PAGE)?;
            let within = (at % PAGE) as usize;
            let part = page.get(within..).unwrap_or_default();
            let take = part.len().min(N - done);
            if take == 0 {
                return Err(Error::bug(Layer::Block, "a table page is shorter than its file").at(at));
            }
            out[done..done + take].copy_from_slice(&part[..take]);
            done += take;
        }
        Ok(out)
    }

    fn page(&self, number: u64) -> Result<Arc<[u8]>> {
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.clock += 1;
            let now = cache.clock;
            if let Some((page, used)) = cache.pages.get_mut(&number) {
                *used = now;
                return Ok(Arc::clone(page));
            }
        }
        let start = number * PAGE;
        let mut page = vec![0; PAGE.min(self.length - start) as usize];
        read_exact(self.storage.as_ref(), HostOffset(start), &mut page)?;
        let page: Arc<[u8]> = page.into();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.pages.len() >= PAGES_MAX {
            cache.evict_older_half();
        }
        let now = cache.clock;
        cache.pages.insert(number, (Arc::clone(&page), now));
        Ok(page)
    }
}

impl Cache {
    /// Evicts the half that was not used for longest: at once, which shares the cost of finding it among many insertions.
    fn evict_older_half(&mut self) {
        let mut ages: Vec<u64> = self.pages.values().map(|(_, used)| *used).collect();
        let middle = ages.len() / 2;
        let (_, limit, _) = ages.select_nth_unstable(middle);
        let limit = *limit;
        self.pages.retain(|_, (_, used)| *used > limit);
    }
}
