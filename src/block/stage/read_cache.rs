//! Parts of an image that were read lately, for images that are costly to read.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::block::Image;
use crate::block::stage::copy_within;
use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;

/// Bytes that are read and kept together: what common containers pack together.
const PART: u64 = 64 << 10;

/// The last parts that were read, up to a number of bytes.
pub(super) struct Kept {
    parts_max: usize,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    by_number: HashMap<u64, Arc<[u8]>>,
    /// The oldest first.
    order: VecDeque<u64>,
}

impl Kept {
    /// Keeps up to `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { parts_max: usize::try_from(limit / PART).unwrap_or(usize::MAX).max(1), parts: Mutex::default() }
    }

    /// As [`Image::read_at`], for a range inside the image.
    pub(super) fn read_at(&self, image: &dyn Image, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        let mut rest = buf;
        let mut at = offset.0;
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(piece(at, rest.len()));
            match self.part(image, at / PART) {
                Ok(part) => copy_within(&part, at % PART, now)?,
                // What is wrong may be beside what is wanted.
                Err(_) => image.read_at(ImageOffset(at), now)?,
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// As [`read_at`](Self::read_at), but what is not kept is read in one piece, and not kept.
    pub(super) fn look_at(&self, image: &dyn Image, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        let mut rest = buf;
        let mut at = offset.0;
        while !rest.is_empty() {
            let mut unknown = 0;
            let mut known = None;
            while unknown < rest.len() && known.is_none() {
                let here = at + unknown as u64;
                match self.known(here / PART) {
                    Some(part) => known = Some(part),
                    None => unknown += piece(here, rest.len() - unknown),
                }
            }
            let (now, later) = rest.split_at_mut(unknown);
            if !now.is_empty() {
                image.read_at(ImageOffset(at), now)?;
            }
            at += unknown as u64;
            let (now, later) = later.split_at_mut(piece(at, later.len()));
            if let Some(part) = known {
                copy_within(&part, at % PART, now)?;
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn known(&self, number: u64) -> Option<Arc<[u8]>> {
        self.lock().by_number.get(&number).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, image: &dyn Image, number: u64) -> Result<Arc<[u8]>> {
        if let Some(part) = self.known(number) {
            return Ok(part);
        }
        let start = number * PART;
        let mut part: Arc<[u8]> =
            std::iter::repeat_n(0, PART.min(image.len().saturating_sub(start)) as usize).collect();
        // Nobody else has it yet.
        let bytes = Arc::get_mut(&mut part).ok_or_else(|| Error::bug(Layer::Block, "a new part is shared"))?;
        image.read_at(ImageOffset(start), bytes)?;
        let mut parts = self.lock();
        // Another thread may have been quicker.
        if parts.by_number.insert(number, Arc::clone(&part)).is_none() {
            parts.order.push_back(number);
        }
        while parts.order.len() > self.parts_max {
            if let Some(oldest) = parts.order.pop_front() {
                parts.by_number.remove(&oldest);
            }
        }
        Ok(part)
    }
}

/// How many of the next `left` bytes are in the same part.
fn piece(at: u64, left: usize) -> usize {
    usize::try_from(PART - at % PART).unwrap_or(usize::MAX).min(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{OpenOptions, open};

    #[test]
    fn reads_what_the_image_holds_and_keeps_no_more_than_it_may() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..5 * PART as usize + 512).map(|i| (i / 512 % 251) as u8).collect();
        std::fs::write(file.path(), &content).unwrap();
        let image =
            open(file.path(), &OpenOptions { format: Some(crate::block::Format::Raw), ..OpenOptions::default() });
        let image = image.unwrap();
        let kept = Kept::new(2 * PART);
        let part = PART as usize;
        for (at, length) in [(0, 1), (part - 1, 2), (0, content.len()), (3 * part + 7, part), (5 * part, 512)] {
            let mut buf = vec![0; length];
            kept.read_at(&*image, ImageOffset(at as u64), &mut buf).unwrap();
            assert_eq!(buf, content[at..at + length], "{at}");
            let order = kept.parts.lock().unwrap().order.clone();
            for (at, length) in [(at, length), (0, content.len()), (part - 9, content.len() - part), (at, 1), (7, 0)] {
                let mut buf = vec![0; length];
                kept.look_at(&*image, ImageOffset(at as u64), &mut buf).unwrap();
                assert_eq!(buf, content[at..at + length], "{at}");
            }
            assert_eq!(kept.parts.lock().unwrap().order, order, "nothing is kept for a copy");
            let parts = kept.parts.lock().unwrap();
            assert!(parts.order.len() <= 2 && parts.by_number.len() == parts.order.len());
        }
        let before = image.bytes_read();
        kept.read_at(&*image, ImageOffset(5 * PART + 100), &mut [0; 100]).unwrap();
        assert_eq!(image.bytes_read(), before, "read again");
        assert!(kept.read_at(&*image, ImageOffset(5 * PART + 500), &mut [0; 100]).is_err(), "beyond the end");
    }
}
