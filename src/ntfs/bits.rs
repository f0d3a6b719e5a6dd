//! The two bitmaps of a volume: clusters (`$Bitmap`) and records (`$MFT:$BITMAP`). They are read a page at a time, and
//! only as far as needed.

use std::sync::Arc;

use super::attribute::AttributeType;
use super::damaged;
use super::stream::{Stream, pieces};
use super::units::RecordNumber;
use super::volume::Volume;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;

/// One of the two bitmaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bitmap {
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
    pub(super) fn bitmap_len(&self, which: Bitmap) -> u64 {
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
                match pieces(&self.geometry, runs, start, 1)?.first() {
                    Some((Some(at), _)) => Ok(use_it(&self.page(*at)?, start * 8)),
                    _ => Err(damaged("a bitmap has a hole")),
                }
            }
        }
    }

    /// The first bit at or after `from` that is `wanted`, below `end`.
    pub(super) fn find_bit(&self, which: Bitmap, from: u64, end: u64, wanted: bool) -> Result<Option<u64>> {
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

    /// Number of clear bits.
    pub(super) fn count_clear(&self, which: Bitmap) -> Result<u64> {
        let end = self.bitmap_len(which);
        let (mut at, mut count) = (0, 0u64);
        while at < end {
            at = self.with_page(which, at, |bytes, first| {
                let stop = (end - first).min(bytes.len() as u64 * 8);
                for bit in 0..stop.div_ceil(8) {
                    let byte = bytes.get(bit as usize).copied().unwrap_or(0xFF);
                    let valid = (stop - bit * 8).min(8);
                    let mask = ((1u16 << valid) - 1) as u8;
                    count += u64::from((!byte & mask).count_ones());
                }
                first + bytes.len() as u64 * 8
            })?;
        }
        Ok(count)
    }

    /// Sets or clears bits `from..from + count`; each must have the other value before.
    pub(super) fn change_bits(&mut self, which: Bitmap, from: u64, count: u64, value: bool) -> Result<()> {
        let end = from.checked_add(count).filter(|&e| e <= self.bitmap_len(which));
        let end = end.ok_or_else(|| damaged("bit beyond the end of a bitmap").at(from))?;
        let stream = Arc::clone(self.bitmap_stream(which));
        let wrong = |bit: u64| {
            damaged(match (which, value) {
                (Bitmap::Clusters, true) => "a cluster to allocate is in use",
                (Bitmap::Clusters, false) => "a cluster to free is marked as free",
                (Bitmap::Records, true) => "a record to allocate is in use",
                (Bitmap::Records, false) => "a record to free is marked as free",
            })
            .at(bit)
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
                    let Some((Some(place), _)) = pieces(&self.geometry, runs, first / 8, 1)?.first().copied() else {
                        return Err(damaged("a bitmap has a hole"));
                    };
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

    #[test]
    fn a_bit_changes_only_once() {
        let mut bytes = [0u8; 2];
        assert_eq!(change(&mut bytes, 3, 12, true), Ok(()));
        assert_eq!(bytes, [0xF8, 0x0F]);
        assert_eq!(change(&mut bytes, 11, 12, true), Err(11));
        assert_eq!(change(&mut bytes, 15, 17, true), Err(16));
    }
}
