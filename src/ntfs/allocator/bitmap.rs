//! The two bitmaps of a volume: clusters (`$Bitmap`) and records (`$MFT:$BITMAP`). They are read a page at a time, and
//! only as far as needed.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{RecordNumber, Vcn};
use crate::ntfs::stream::Stream;
use crate::ntfs::volume::Volume;

/// One of the two bitmaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Bitmap {
    /// `$Bitmap`.
    Clusters,
    /// `$MFT:$BITMAP`.
    Records,
}

/// Bits in a page, as words.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    /// The first bit at or after `from` that is `wanted`, below `end`.
    fn find(&self, from: usize, end: usize, wanted: bool) -> Option<usize> {
        let flip = if wanted { 0 } else { 0xFF };
        let mut at = from;
        while at < end {
            let byte = self.0.get(at / 8)? ^ flip;
            if byte == 0 {
                at = (at / 8 + 1) * 8;
                // whole words without the bit
                while let Some(word) = self.0.get(at / 8..).and_then(|b| b.first_chunk::<8>()) {
                    if !at.is_multiple_of(64) || u64::from_ne_bytes(*word) != u64::from_ne_bytes([flip; 8]) {
                        break;
                    }
                    at += 64;
                }
                continue;
            }
            let rest = byte >> (at % 8);
            if rest == 0 {
                at = (at / 8 + 1) * 8;
                continue;
            }
            at += rest.trailing_zeros() as usize;
            return (at < end).then_some(at);
        }
        None
    }
}

/// Bytes of `$Bitmap` that are read at once to count its bits. A multiple of 8.
const COUNT_CHUNK: usize = 256 << 10;

/// How many of the first `end` bits are clear.
fn clear_bits(bytes: &[u8], end: usize) -> u64 {
    let (words, rest) = bytes.get(..end / 8).unwrap_or_default().as_chunks::<8>();
    let whole: u64 = words.iter().map(|w| u64::from(u64::from_ne_bytes(*w).count_zeros())).sum();
    let single: u64 = rest.iter().map(|b| u64::from(b.count_zeros())).sum();
    let last = bytes.get(end / 8).map_or(0, |b| (!b & ((1u16 << (end % 8)) - 1) as u8).count_ones());
    whole + single + u64::from(last)
}

/// Sets or clears bits `from..to` of `bytes`; fails with the first bit that already has the value.
fn change(bytes: &mut [u8], from: usize, to: usize, value: bool) -> Result<(), usize> {
    for bit in from..to {
        let Some(byte) = bytes.get_mut(bit / 8) else { return Err(bit) };
        let mask = 1 << (bit % 8);
        if (*byte & mask != 0) == value {
            return Err(bit);
        }
        *byte ^= mask;
    }
    Ok(())
}

impl<D: VolumeRead> Volume<D> {
    /// The bitmap's content.
    fn bitmap_stream(&self, which: Bitmap) -> &Arc<Stream> {
        match which {
            Bitmap::Clusters => &self.state.cluster_bitmap,
            Bitmap::Records => &self.state.record_bitmap,
        }
    }

    /// Bits that count.
    pub(in super::super) fn bitmap_len(&self, which: Bitmap) -> u64 {
        let bits = self.bitmap_stream(which).len().saturating_mul(8);
        match which {
            Bitmap::Clusters => bits.min(self.geometry.cluster_count),
            Bitmap::Records => bits.min(self.record_count()),
        }
    }

    /// The bytes from a page's start, and the number of the page's first bit.
    fn with_page<T>(&self, which: Bitmap, bit: u64, use_it: impl FnOnce(&[u8], u64) -> T) -> Result<T> {
        let stream = self.bitmap_stream(which);
        match &**stream {
            Stream::Resident(value) => Ok(use_it(value, 0)),
            Stream::Runs { runs, .. } => {
                let size = self.page_size() as u64;
                let start = bit / 8 / size * size;
                Ok(use_it(&self.page(self.bitmap_page(runs, start)?)?, start * 8))
            }
        }
    }

    /// Offset on the volume of the page at `start` bytes of a bitmap.
    fn bitmap_page(&self, runs: &Runlist, start: u64) -> Result<u64> {
        let cluster = u64::from(self.geometry.cluster_size);
        let run = runs.find(Vcn(start / cluster)).ok_or_else(|| damaged("access beyond the runs of an attribute"))?;
        let lcn = run.lcn.ok_or_else(|| damaged("a bitmap has a hole"))?;
        Ok(self.geometry.bytes_in(lcn.0) + (start - self.geometry.bytes_in(run.vcn.0)))
    }

    /// Calls `visit` with each run of free clusters (start, length) in `from..end`, in order, until it breaks. A run of
    /// `enough` clusters is not followed any further: it is the last one, and cut to that length.
    pub(in super::super) fn free_runs(
        &self,
        from: u64,
        end: u64,
        enough: u64,
        visit: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let end = end.min(self.bitmap_len(Bitmap::Clusters));
        let mut at = from;
        // start of a run that goes on in the next page
        let mut open = None;
        while at < end {
            let step = self.with_page(Bitmap::Clusters, at, |bytes, first| {
                let bits = bytes.len() as u64 * 8;
                let stop = (end - first).min(bits);
                let words = Words(bytes);
                let find = |from: u64, to: u64, wanted| {
                    words.find((from - first) as usize, (to - first) as usize, wanted).map(|b| first + b as u64)
                };
                let page_end = first + stop;
                while at < page_end {
                    let Some(start) = open.or_else(|| find(at, page_end, false)) else { break };
                    let limit = page_end.min(start.saturating_add(enough));
                    match find(at.max(start), limit, true) {
                        Some(taken) => {
                            open = None;
                            at = taken;
                            visit(start, taken - start)?;
                        }
                        None if limit - start >= enough => {
                            open = None;
                            let _ = visit(start, enough);
                            return ControlFlow::Break(());
                        }
                        None => {
                            open = Some(start);
                            break;
                        }
                    }
                }
                ControlFlow::Continue(first + bits)
            })?;
            match step {
                ControlFlow::Continue(next) if next > at => at = next,
                ControlFlow::Continue(_) => break,
                ControlFlow::Break(()) => return Ok(()),
            }
        }
        if let Some(start) = open {
            let _ = visit(start, end - start);
        }
        Ok(())
    }

    /// The first bit at or after `from` that is `wanted`, below `end`.
    pub(in super::super) fn find_bit(&self, which: Bitmap, from: u64, end: u64, wanted: bool) -> Result<Option<u64>> {
        let end = end.min(self.bitmap_len(which));
        let mut at = from;
        while at < end {
            let (found, next) = self.with_page(which, at, |bytes, first| {
                let bits = bytes.len() as u64 * 8;
                let stop = (end - first).min(bits) as usize;
                let found = Words(bytes).find((at - first) as usize, stop, wanted);
                (found.map(|f| first + f as u64), first + bits)
            })?;
            if found.is_some() {
                return Ok(found);
            }
            if next <= at {
                return Ok(None);
            }
            at = next;
        }
        Ok(None)
    }

    /// Number of free clusters.
    pub(in super::super) fn count_free_clusters(&self) -> Result<u64> {
        let end = self.bitmap_len(Bitmap::Clusters);
        let stream = Arc::clone(self.bitmap_stream(Bitmap::Clusters));
        // read past the cache of pages, which this would only empty
        let mut chunk = vec![0; COUNT_CHUNK];
        let (mut at, mut count) = (0, 0);
        while at < end {
            let there = self.read_stream(&stream, at / 8, &mut chunk)?;
            if there == 0 {
                break;
            }
            let stop = (end - at).min(there as u64 * 8);
            count += clear_bits(chunk.get(..there).unwrap_or_default(), stop as usize);
            at += there as u64 * 8;
        }
        Ok(count)
    }

    /// Sets or clears bits `from..from + count`; each must have the other value before.
    pub(in super::super) fn change_bits(&mut self, which: Bitmap, from: u64, count: u64, value: bool) -> Result<()> {
        let end = from.checked_add(count).filter(|&e| e <= self.bitmap_len(which));
        let end = end.ok_or_else(|| damaged(format!("bit {from} is beyond the end of a bitmap")))?;
        if which == Bitmap::Clusters {
            self.free.get_mut().changed(from..end);
        }
        let stream = Arc::clone(self.bitmap_stream(which));
        let wrong = |bit: u64| {
            damaged(match (which, value) {
                (Bitmap::Clusters, true) => format!("cluster {bit} to allocate is in use"),
                (Bitmap::Clusters, false) => format!("cluster {bit} to free is marked as free"),
                (Bitmap::Records, true) => format!("record {bit} to allocate is in use"),
                (Bitmap::Records, false) => format!("record {bit} to free is marked as free"),
            })
        };
        match &*stream {
            Stream::Resident(old) => {
                let mut bytes = old.clone();
                change(&mut bytes, from as usize, end as usize, value).map_err(|b| wrong(b as u64))?;
                self.store_resident_bitmap(which, bytes)
            }
            Stream::Runs { runs, .. } => {
                let size = self.page_size() as u64;
                let mut at = from;
                while at < end {
                    let first = at / 8 / size * size * 8;
                    let stop = end.min(first + size * 8);
                    let place = self.bitmap_page(runs, first / 8)?;
                    let mut page = (*self.page(place)?).clone();
                    change(&mut page, (at - first) as usize, (stop - first) as usize, value)
                        .map_err(|b| wrong(first + b as u64))?;
                    self.cache.borrow_mut().pages.put(place, Arc::new(page));
                    at = stop;
                }
                Ok(())
            }
        }
    }

    /// Stores a bitmap that lives in its record.
    fn store_resident_bitmap(&mut self, which: Bitmap, bytes: Vec<u8>) -> Result<()> {
        let (number, kind) = match which {
            Bitmap::Clusters => (RecordNumber::BITMAP, AttributeType::DATA),
            Bitmap::Records => (RecordNumber::MFT, AttributeType::BITMAP),
        };
        let mut record = (*self.record(number)?).clone();
        let value = record.value_mut(kind).filter(|v| v.len() == bytes.len());
        let value =
            value.ok_or_else(|| Error::unsupported(Layer::Ntfs, "a resident bitmap outside its base record"))?;
        value.copy_from_slice(&bytes);
        self.put_record(number, record);
        let stream = Arc::new(Stream::Resident(bytes));
        match which {
            Bitmap::Clusters => self.state.cluster_bitmap = stream,
            Bitmap::Records => self.state.record_bitmap = stream,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finding_bits_agrees_with_looking_at_each(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xFF), any::<u8>()], 0..64),
            from in 0usize..520, end in 0usize..520, wanted: bool,
        ) {
            let end = end.min(bytes.len() * 8);
            let naive = (from..end).find(|&b| (bytes[b / 8] >> (b % 8) & 1 == 1) == wanted);
            prop_assert_eq!(Words(&bytes).find(from, end, wanted), naive);
        }
    }

    proptest! {
        #[test]
        fn counting_bits_agrees_with_looking_at_each(
            bytes in proptest::collection::vec(any::<u8>(), 0..40), end in 0usize..330,
        ) {
            let end = end.min(bytes.len() * 8);
            let naive = (0..end).filter(|&b| bytes[b / 8] >> (b % 8) & 1 == 0).count() as u64;
            prop_assert_eq!(clear_bits(&bytes, end), naive);
        }
    }

    #[test]
    fn a_bit_changes_only_once() {
        let mut bytes = [0u8; 2];
        assert_eq!(change(&mut bytes, 3, 12, true), Ok(()));
        assert_eq!(bytes, [0xF8, 0x0F]);
        assert_eq!(change(&mut bytes, 11, 12, true), Err(11));
        assert_eq!(change(&mut bytes, 15, 17, true), Err(16));
    }
}
