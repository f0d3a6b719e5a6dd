//! The two bitmaps of a volume: clusters (`$Bitmap`) and records (`$MFT:$BITMAP`). They are read a page at a time, and
//! only as far as needed.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::boot::Geometry;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{RecordNumber, Vcn};
use crate::ntfs::pager::Pager;
use crate::ntfs::stream::Stream;

/// What the bits of a bitmap stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BitmapKind {
    /// Clusters of the volume: `$Bitmap`.
    Clusters,
    /// Records of `$MFT`: its attribute `$BITMAP`.
    Records,
}

/// One of the two bitmaps: a set bit is in use.
#[derive(Debug, Clone)]
pub(crate) struct Bitmap {
    kind: BitmapKind,
    stream: Arc<Stream>,
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

impl Bitmap {
    /// The bitmap of clusters or records in `stream`.
    pub(crate) fn new(kind: BitmapKind, stream: Arc<Stream>) -> Self {
        Self { kind, stream }
    }

    /// The bitmap's content, whose pages the pager caches.
    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Replaces the content, as when the bitmap has grown or is put back to what it was.
    pub(crate) fn set_stream(&mut self, stream: Arc<Stream>) {
        self.stream = stream;
    }

    /// Clusters or records for which there is a bit; the last byte may have more bits.
    fn len<D: VolumeRead>(&self, pager: &Pager<D>) -> u64 {
        let bits = self.stream.len().saturating_mul(8);
        match self.kind {
            BitmapKind::Clusters => bits.min(pager.geometry.cluster_count),
            BitmapKind::Records => bits.min(pager.record_count()),
        }
    }

    /// The bytes from a page's start, and the number of the page's first bit.
    fn with_page<D: VolumeRead, T>(
        &self,
        pager: &Pager<D>,
        bit: u64,
        use_it: impl FnOnce(&[u8], u64) -> T,
    ) -> Result<T> {
        match &*self.stream {
            Stream::Resident(value) => Ok(use_it(value, 0)),
            Stream::Runs { runs, .. } => {
                let size = pager.page_size() as u64;
                let start = bit / 8 / size * size;
                Ok(use_it(&pager.page(page_offset(&pager.geometry, runs, start)?)?, start * 8))
            }
        }
    }

    /// Calls `visit` with each run of free clusters (start, length) in `from..end`, in order, until it breaks. A run of
    /// `enough` clusters is not followed any further: it is the last one, and cut to that length.
    pub(crate) fn free_runs<D: VolumeRead>(
        &self,
        pager: &Pager<D>,
        from: u64,
        end: u64,
        enough: u64,
        visit: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let end = end.min(self.len(pager));
        let mut at = from;
        // start of a run that goes on in the next page
        let mut open = None;
        while at < end {
            let step = self.with_page(pager, at, |bytes, first| {
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
    pub(crate) fn find_bit<D: VolumeRead>(
        &self,
        pager: &Pager<D>,
        from: u64,
        end: u64,
        wanted: bool,
    ) -> Result<Option<u64>> {
        let end = end.min(self.len(pager));
        let mut at = from;
        while at < end {
            let (found, next) = self.with_page(pager, at, |bytes, first| {
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

    /// How many bits are clear.
    pub(crate) fn count_clear<D: VolumeRead>(&self, pager: &Pager<D>) -> Result<u64> {
        let end = self.len(pager);
        // read past the cache of pages, which this would only empty
        let mut chunk = vec![0; COUNT_CHUNK];
        let (mut at, mut count) = (0, 0);
        while at < end {
            let there = pager.read_stream(&self.stream, at / 8, &mut chunk)?;
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
    pub(crate) fn change_bits<D: VolumeWrite>(
        &mut self,
        pager: &mut Pager<D>,
        from: u64,
        count: u64,
        value: bool,
    ) -> Result<()> {
        let end = from.checked_add(count).filter(|&e| e <= self.len(pager));
        let end = end.ok_or_else(|| damaged(format!("bit {from} is beyond the end of a bitmap")))?;
        let kind = self.kind;
        let wrong = |bit: u64| {
            damaged(match (kind, value) {
                (BitmapKind::Clusters, true) => format!("cluster {bit} to allocate is in use"),
                (BitmapKind::Clusters, false) => format!("cluster {bit} to free is marked as free"),
                (BitmapKind::Records, true) => format!("record {bit} to allocate is in use"),
                (BitmapKind::Records, false) => format!("record {bit} to free is marked as free"),
            })
        };
        match &*Arc::clone(&self.stream) {
            Stream::Resident(old) => {
                let mut bytes = old.clone();
                change(&mut bytes, from as usize, end as usize, value).map_err(|b| wrong(b as u64))?;
                self.store_resident(pager, bytes)
            }
            Stream::Runs { runs, .. } => {
                let size = pager.page_size() as u64;
                let mut at = from;
                while at < end {
                    let first = at / 8 / size * size * 8;
                    let stop = end.min(first + size * 8);
                    let place = page_offset(&pager.geometry, runs, first / 8)?;
                    let mut page = (*pager.page(place)?).clone();
                    change(&mut page, (at - first) as usize, (stop - first) as usize, value)
                        .map_err(|b| wrong(first + b as u64))?;
                    pager.put_page(place, page);
                    at = stop;
                }
                Ok(())
            }
        }
    }

    /// Stores a bitmap that lives in its record.
    fn store_resident<D: VolumeWrite>(&mut self, pager: &mut Pager<D>, bytes: Vec<u8>) -> Result<()> {
        let (number, kind) = match self.kind {
            BitmapKind::Clusters => (RecordNumber::BITMAP, AttributeType::DATA),
            BitmapKind::Records => (RecordNumber::MFT, AttributeType::BITMAP),
        };
        let mut record = (*pager.record(number)?).clone();
        let value = record.value_mut(kind).filter(|v| v.len() == bytes.len());
        let value =
            value.ok_or_else(|| Error::unsupported(Layer::Ntfs, "a resident bitmap outside its base record"))?;
        value.copy_from_slice(&bytes);
        pager.put_record(number, record);
        self.stream = Arc::new(Stream::Resident(bytes));
        Ok(())
    }
}

/// Offset on the volume of the page at `start` bytes of a bitmap.
fn page_offset(geometry: &Geometry, runs: &Runlist, start: u64) -> Result<u64> {
    let cluster = u64::from(geometry.cluster_size);
    let run = runs.find(Vcn(start / cluster)).ok_or_else(|| damaged("access beyond the runs of an attribute"))?;
    let lcn = run.lcn.ok_or_else(|| damaged("a bitmap has a hole"))?;
    Ok(geometry.bytes_in(lcn.0) + (start - geometry.bytes_in(run.vcn.0)))
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
