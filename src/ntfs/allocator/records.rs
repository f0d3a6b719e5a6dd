//! Allocating and freeing file records.
//!
//! As with clusters, what is freed is not allocated again before [`RecordAllocator::forget_freed`].

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::allocator::bitmap::{Bitmap, BitmapKind};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::record::{FLAG_IN_USE, header};
use crate::ntfs::format::units::{RecordNumber, Vcn};
use crate::ntfs::pager::Pager;
use crate::ntfs::stream::Stream;

/// What a failed operation must put back.
#[derive(Debug, Clone)]
struct Before {
    bitmap: Arc<Stream>,
    hint: u64,
    fresh: Range<u64>,
    mft_growth: u64,
    freed: usize,
}

/// Decides which record of `$MFT` a file gets, and takes it back.
#[derive(Debug)]
pub(crate) struct RecordAllocator {
    bitmap: Bitmap,
    /// Where the next search begins.
    hint: u64,
    /// Records that this session has appended to `$MFT` and not allocated yet.
    fresh: Range<u64>,
    /// Bytes by which `$MFT` has grown since the volume was opened.
    mft_growth: u64,
    /// Records freed in this session.
    freed: HashSet<u64>,
    /// The same in the order of freeing.
    freed_log: Vec<u64>,
    before: Option<Before>,
}

impl RecordAllocator {
    /// Of the `$MFT` whose `$BITMAP` is `bitmap`.
    pub(crate) fn new(bitmap: Arc<Stream>) -> Self {
        Self {
            bitmap: Bitmap::new(BitmapKind::Records, bitmap),
            hint: RecordNumber::FIRST_USER.0,
            fresh: 0..0,
            mft_growth: 0,
            freed: HashSet::new(),
            freed_log: Vec::new(),
            before: None,
        }
    }

    /// Begins an operation that [`rollback`](Self::rollback) can undo.
    pub(crate) fn begin(&mut self) {
        self.before = Some(Before {
            bitmap: Arc::clone(self.bitmap.stream()),
            hint: self.hint,
            fresh: self.fresh.clone(),
            mft_growth: self.mft_growth,
            freed: self.freed_log.len(),
        });
    }

    /// Ends an operation that succeeded.
    pub(crate) fn commit(&mut self) {
        self.before = None;
    }

    /// Ends an operation that failed: what it allocated is free, what it freed is used.
    pub(crate) fn rollback(&mut self) {
        let Some(before) = self.before.take() else { return };
        self.bitmap.set_stream(before.bitmap);
        (self.hint, self.fresh, self.mft_growth) = (before.hint, before.fresh, before.mft_growth);
        for record in self.freed_log.drain(before.freed..) {
            self.freed.remove(&record);
        }
    }

    /// Lets freed records be allocated again.
    pub(crate) fn forget_freed(&mut self) {
        self.freed.clear();
        self.freed_log.clear();
    }

    /// The content of `$MFT`'s attribute `$BITMAP`.
    pub(crate) fn bitmap_stream(&self) -> &Arc<Stream> {
        self.bitmap.stream()
    }

    /// Replaces `$BITMAP` of `$MFT` by a longer one.
    pub(crate) fn set_bitmap_stream(&mut self, stream: Arc<Stream>) {
        self.bitmap.set_stream(stream);
    }

    /// Bytes by which `$MFT` has grown since the volume was opened.
    pub(crate) fn mft_growth(&self) -> u64 {
        self.mft_growth
    }

    /// Notes that `$MFT` has grown by the records `fresh`, in `bytes`.
    pub(crate) fn add_fresh(&mut self, fresh: Range<u64>, bytes: u64) {
        self.fresh = fresh;
        self.mft_growth = self.mft_growth.saturating_add(bytes);
    }

    /// Allocates a free record: its number, and the sequence number for its next use. `None` when `$MFT` must grow.
    pub(crate) fn allocate<D: VolumeWrite>(&mut self, pager: &mut Pager<D>) -> Result<Option<(RecordNumber, u16)>> {
        self.find_free(pager)?.map(|found| self.claim(pager, found)).transpose()
    }

    fn find_free<D: VolumeRead>(&self, pager: &Pager<D>) -> Result<Option<u64>> {
        let first = RecordNumber::FIRST_USER.0;
        let hint = self.hint.max(first);
        for range in [hint..u64::MAX, first..hint] {
            let mut at = range.start;
            while let Some(found) = self.bitmap.find_bit(pager, at, range.end, false)? {
                if !self.freed.contains(&found) {
                    return Ok(Some(found));
                }
                at = found + 1;
            }
        }
        Ok(None)
    }

    fn claim<D: VolumeWrite>(&mut self, pager: &mut Pager<D>, number: u64) -> Result<(RecordNumber, u16)> {
        let sequence = if self.fresh.contains(&number) {
            self.fresh.start = number + 1;
            1
        } else {
            let raw = pager.raw_record(RecordNumber(number))?;
            let is_record = raw.starts_with(b"FILE");
            if is_record && header::FLAGS.get(&raw) & FLAG_IN_USE != 0 {
                let error = damaged("a record in use is marked as free in the record bitmap");
                return pager.in_record(RecordNumber(number), Err(error));
            }
            if is_record { header::SEQUENCE.get(&raw).max(1) } else { 1 }
        };
        self.bitmap.change_bits(pager, number, 1, true)?;
        self.hint = number + 1;
        Ok((RecordNumber(number), sequence))
    }

    /// A record for an extent of `$MFT` itself: it must be found through the extents before that one.
    pub(crate) fn allocate_for_mft<D: VolumeWrite>(
        &mut self,
        pager: &mut Pager<D>,
        lowest: Vcn,
    ) -> Result<(RecordNumber, u16)> {
        // Windows keeps records 16..24 back for this
        let mut at = 16;
        while let Some(found) = self.bitmap.find_bit(pager, at, u64::MAX, false)? {
            let end = (found + 1).saturating_mul(u64::from(pager.geometry.record_size));
            if end > pager.geometry.bytes_in(lowest.0) {
                break;
            }
            if !self.freed.contains(&found) {
                return self.claim(pager, found);
            }
            at = found + 1;
        }
        Err(Error::refused(Layer::Ntfs, "$MFT is too fragmented to grow")
            .hint("free or defragment space in the guest and try again"))
    }

    /// Frees a record: not in use, next sequence number, bit cleared.
    pub(crate) fn free<D: VolumeWrite>(&mut self, pager: &mut Pager<D>, number: RecordNumber) -> Result<()> {
        let mut record = (*pager.record(number)?).clone();
        let next = match record.sequence() {
            u16::MAX => 1,
            n => n + 1,
        };
        let bytes = record.bytes_mut();
        header::SEQUENCE.set(bytes, next);
        header::FLAGS.set(bytes, header::FLAGS.get(bytes) & !FLAG_IN_USE);
        header::LINKS.set(bytes, 0);
        pager.put_record(number, record);
        self.bitmap.change_bits(pager, number.0, 1, false)?;
        self.freed.insert(number.0);
        self.freed_log.push(number.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::ntfs::format::units::RecordNumber;
    use crate::ntfs::testing::{RECORDS, pager, records};

    #[test]
    fn every_free_record_is_allocated_once() {
        let (mut pager, mut allocator) = (pager(), records());
        for number in RecordNumber::FIRST_USER.0..RECORDS {
            assert_eq!(allocator.allocate(&mut pager).unwrap(), Some((RecordNumber(number), 1)));
        }
        assert_eq!(allocator.allocate(&mut pager).unwrap(), None);
        pager.begin();
        allocator.begin();
        allocator.free(&mut pager, RecordNumber(30)).unwrap();
        allocator.rollback();
        pager.rollback();
        allocator.free(&mut pager, RecordNumber(28)).unwrap();
        assert_eq!(allocator.allocate(&mut pager).unwrap(), None);
        allocator.forget_freed();
        // the next use has another sequence number
        assert_eq!(allocator.allocate(&mut pager).unwrap(), Some((RecordNumber(28), 2)));
        assert_eq!(allocator.allocate(&mut pager).unwrap(), None);
    }
}
