//! Windows: the parts of the disk that have to be read, without holes.

use super::interrupt::Interrupt;
use crate::block::DiskSource;
use crate::block::Extent;
use crate::error::{Error, Layer, Result};
use crate::units::ImageOffset;

/// A piece of work: the data ranges inside one aligned window of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// Number of the window in the order of work, from 0.
    pub(super) number: u64,
    /// First byte of the window.
    pub(super) start: ImageOffset,
    /// Ranges of the disk that may hold data: offset and length, multiples of the unit except at the disk's end.
    pub(super) ranges: Vec<(ImageOffset, u64)>,
}

impl Window {
    /// Bytes of data in the window.
    pub(super) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|(_, length)| length).sum()
    }
}

/// Iterates over the windows of a disk in ascending order.
pub(super) struct Windows<'a, S: DiskSource + ?Sized> {
    source: &'a S,
    size: u64,
    unit: u64,
    window: u64,
    next: u64,
    number: u64,
    /// The extent that was looked up last: where it ends, and whether it is data.
    current: Option<(u64, bool)>,
    /// Looked at for each extent: a disk may have very many.
    interrupt: Interrupt<'a>,
}

impl<'a, S: DiskSource + ?Sized> Windows<'a, S> {
    /// Windows of `window` bytes (a multiple of `unit`), whose ranges are rounded out to `unit`.
    pub(super) fn new(source: &'a S, unit: u64, window: u64, interrupt: Interrupt<'a>) -> Self {
        Self { source, size: source.len(), unit, window, next: 0, number: 0, current: None, interrupt }
    }

    /// The next window that has any data; none once the copy is interrupted.
    pub(super) fn next(&mut self) -> Result<Option<Window>> {
        while self.next < self.size && !self.interrupt.is_set() {
            let start = self.skip_holes()?;
            if start >= self.size {
                break;
            }
            let start = start / self.window * self.window;
            let end = (start + self.window).min(self.size);
            let ranges = self.ranges(self.next.max(start), end)?;
            self.next = end;
            if !ranges.is_empty() {
                let number = self.number;
                self.number += 1;
                return Ok(Some(Window { number, start: ImageOffset(start), ranges }));
            }
        }
        Ok(None)
    }

    /// Where the next data begin; the disk's size when there are none.
    fn skip_holes(&mut self) -> Result<u64> {
        let mut at = self.next;
        while at < self.size {
            if self.interrupt.is_set() {
                return Ok(self.size);
            }
            let (end, is_data) = self.extent(at)?;
            if is_data {
                return Ok(at);
            }
            at = end;
            self.next = at;
        }
        Ok(at)
    }

    /// The ranges between `start` and `end` that may hold data, rounded out and joined.
    fn ranges(&mut self, start: u64, end: u64) -> Result<Vec<(ImageOffset, u64)>> {
        let mut ranges: Vec<(ImageOffset, u64)> = Vec::new();
        let mut at = start;
        while at < end {
            let (until, is_data) = self.extent(at)?;
            let until = until.min(end);
            if is_data {
                let first = at / self.unit * self.unit;
                let last = until.next_multiple_of(self.unit).min(end);
                match ranges.last_mut() {
                    Some((offset, length)) if offset.0 + *length >= first => *length = last - offset.0,
                    _ => ranges.push((ImageOffset(first), last - first)),
                }
            }
            at = until;
        }
        Ok(ranges)
    }

    /// Where the extent that holds `at` ends, and whether it may hold data.
    fn extent(&mut self, at: u64) -> Result<(u64, bool)> {
        if let Some((end, is_data)) = self.current
            && at < end
        {
            return Ok((end, is_data));
        }
        let Extent { length, kind } = self.source.extent_at(ImageOffset(at), self.size - at)?;
        let end = at.checked_add(length).filter(|end| length > 0 && *end <= self.size);
        let end = end.ok_or_else(|| Error::bug(Layer::Block, "an extent of impossible length").at(ImageOffset(at)))?;
        self.current = Some((end, !kind.is_zero()));
        Ok((end, !kind.is_zero()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::block::ExtentKind;

    /// A disk of which only the extents matter.
    struct Extents(Vec<(u64, bool)>);

    impl DiskSource for Extents {
        fn len(&self) -> u64 {
            self.0.iter().map(|(length, _)| length).sum()
        }
        fn read_at(&self, _offset: ImageOffset, _buf: &mut [u8]) -> Result<()> {
            Ok(())
        }
        fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
            let mut end = 0;
            for (length, is_data) in &self.0 {
                end += length;
                if offset.0 < end {
                    let kind = if *is_data { ExtentKind::Data } else { ExtentKind::Zero };
                    return Ok(Extent { length: (end - offset.0).min(limit), kind });
                }
            }
            panic!("beyond the end")
        }
        fn files(&self) -> Vec<PathBuf> {
            Vec::new()
        }
    }

    fn windows(extents: &[(u64, bool)]) -> Vec<Window> {
        let source = Extents(extents.to_vec());
        let mut windows = Windows::new(&source, 10, 100, Interrupt::default());
        std::iter::from_fn(|| windows.next().unwrap()).collect()
    }

    #[test]
    fn holes_are_skipped_and_ranges_rounded_out() {
        let found = windows(&[(15, false), (10, true), (20, false), (3, true), (402, false), (55, true)]);
        let window = |number, start, ranges: &[(u64, u64)]| Window {
            number,
            start: ImageOffset(start),
            ranges: ranges.iter().map(|(offset, length)| (ImageOffset(*offset), *length)).collect(),
        };
        assert_eq!(
            found,
            [window(0, 0, &[(10, 20), (40, 10)]), window(1, 400, &[(450, 50)]), window(2, 500, &[(500, 5)])]
        );
        assert_eq!(found[0].bytes(), 30);
    }

    #[test]
    fn an_interrupted_walk_ends_before_the_next_extent() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let stop = AtomicBool::new(false);
        let source = Extents(vec![(100, true), (100, true)]);
        let interrupt = Interrupt { stop: Some(&stop), cancel: None };
        let mut windows = Windows::new(&source, 10, 100, interrupt);
        assert!(windows.next().unwrap().is_some());
        stop.store(true, Ordering::Relaxed);
        assert_eq!(windows.next().unwrap(), None);
    }

    #[test]
    fn an_empty_disk_has_no_windows() {
        assert_eq!(windows(&[]), []);
        assert_eq!(windows(&[(1_000_000, false)]), []);
    }
}
