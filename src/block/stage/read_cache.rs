//! A read cache for images that are costly to read, because their data are compressed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frames::copy_within;
use crate::block::Image;
use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;

/// Unit of caching in bytes: common formats compress clusters of this size.
const LINE: u64 = 64 << 10;

/// The lines that were read last, up to a number of bytes.
pub(super) struct ReadCache {
    lines_max: usize,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    by_number: HashMap<u64, Arc<[u8]>>,
    /// Numbers of the lines, in the order in which they came; the first one is evicted first.
    order: VecDeque<u64>,
}

impl ReadCache {
    /// An empty cache for up to `limit` bytes, at least one line.
    pub(super) fn new(limit: u64) -> Self {
        Self { lines_max: usize::try_from(limit / LINE).unwrap_or(usize::MAX).max(1), lines: Mutex::default() }
    }

    /// Fills `buf` from `offset`, through the cache. The range must be inside the image.
    pub(super) fn read_at(&self, image: &dyn Image, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        let mut rest = buf;
        let mut at = offset.0;
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(bytes_in_line(at, rest.len()));
            match self.line(image, at / LINE) {
                Ok(line) => copy_within(&line, at % LINE, now)?,
                // The damage may be in a part of the line that is not wanted.
                Err(_) => image.read_at(ImageOffset(at), now)?,
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Fills `buf` from `offset`. What is not in the cache is read in as few requests as possible, and not added to it.
    pub(super) fn read_uncached(&self, image: &dyn Image, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        let mut rest = buf;
        let mut at = offset.0;
        while !rest.is_empty() {
            let mut uncached = 0;
            let mut hit = None;
            while uncached < rest.len() && hit.is_none() {
                let here = at + uncached as u64;
                match self.get(here / LINE) {
                    Some(line) => hit = Some(line),
                    None => uncached += bytes_in_line(here, rest.len() - uncached),
                }
            }
            let (now, later) = rest.split_at_mut(uncached);
            if !now.is_empty() {
                image.read_at(ImageOffset(at), now)?;
            }
            at += uncached as u64;
            let (now, later) = later.split_at_mut(bytes_in_line(at, later.len()));
            if let Some(line) = hit {
                copy_within(&line, at % LINE, now)?;
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn get(&self, number: u64) -> Option<Arc<[u8]>> {
        self.lock().by_number.get(&number).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, image: &dyn Image, number: u64) -> Result<Arc<[u8]>> {
        if let Some(line) = self.get(number) {
            return Ok(line);
        }
        let start = number * LINE;
        let mut line: Arc<[u8]> =
            std::iter::repeat_n(0, LINE.min(image.len().saturating_sub(start)) as usize).collect();
        // No other thread has it yet.
        let bytes = Arc::get_mut(&mut line).ok_or_else(|| Error::bug(Layer::Block, "a new cache line is shared"))?;
        image.read_at(ImageOffset(start), bytes)?;
        let mut lines = self.lock();
        // Another thread may have read the same line meanwhile.
        if lines.by_number.insert(number, Arc::clone(&line)).is_none() {
            lines.order.push_back(number);
        }
        while lines.order.len() > self.lines_max {
            if let Some(oldest) = lines.order.pop_front() {
                lines.by_number.remove(&oldest);
            }
        }
        Ok(line)
    }
}

/// How many of the next `left` bytes are in the line of byte `at`.
fn bytes_in_line(at: u64, left: usize) -> usize {
    usize::try_from(LINE - at % LINE).unwrap_or(usize::MAX).min(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{OpenOptions, open};

    #[test]
    fn reads_what_the_image_holds_and_stays_within_its_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..5 * LINE as usize + 512).map(|i| (i / 512 % 251) as u8).collect();
        std::fs::write(file.path(), &content).unwrap();
        let image =
            open(file.path(), &OpenOptions { format: Some(crate::block::Format::Raw), ..OpenOptions::default() });
        let image = image.unwrap();
        let cache = ReadCache::new(2 * LINE);
        let line = LINE as usize;
        for (at, length) in [(0, 1), (line - 1, 2), (0, content.len()), (3 * line + 7, line), (5 * line, 512)] {
            let mut buf = vec![0; length];
            cache.read_at(&*image, ImageOffset(at as u64), &mut buf).unwrap();
            assert_eq!(buf, content[at..at + length], "{at}");
            let order = cache.lines.lock().unwrap().order.clone();
            for (at, length) in [(at, length), (0, content.len()), (line - 9, content.len() - line), (at, 1), (7, 0)] {
                let mut buf = vec![0; length];
                cache.read_uncached(&*image, ImageOffset(at as u64), &mut buf).unwrap();
                assert_eq!(buf, content[at..at + length], "{at}");
            }
            assert_eq!(cache.lines.lock().unwrap().order, order, "an uncached read adds nothing");
            let lines = cache.lines.lock().unwrap();
            assert!(lines.order.len() <= 2 && lines.by_number.len() == lines.order.len());
        }
        let before = image.bytes_read();
        cache.read_at(&*image, ImageOffset(5 * LINE + 100), &mut [0; 100]).unwrap();
        assert_eq!(image.bytes_read(), before, "read again");
        assert!(cache.read_at(&*image, ImageOffset(5 * LINE + 500), &mut [0; 100]).is_err(), "beyond the end");
    }
}
