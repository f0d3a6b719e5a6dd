//! Allocating and freeing clusters.
//!
//! What is freed is not allocated again before [`ClusterAllocator::forget_freed`]: until the result is committed, the
//! old volume must stay intact under the new one.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorCode, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::allocator::bitmap::Bitmap;
use crate::ntfs::allocator::free_space::FreeSpace;
use crate::ntfs::format::attribute::StreamSizes;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{Lcn, Vcn};
use crate::ntfs::pager::Pager;
use crate::ntfs::stream::Stream;

/// Fills a part of a file, which begins at an offset in bytes.
pub(crate) type Fill<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<()>;

/// That the volume has too few free clusters.
pub(crate) fn full() -> Error {
    Error::refused(Layer::Ntfs, "the volume has not enough free space")
        .with_code(ErrorCode::VolumeFull)
        .hint("free some space in the guest (or enlarge the volume) and try again")
}

/// Decides which clusters a stream gets, and takes them back.
#[derive(Debug)]
pub(crate) struct ClusterAllocator {
    space: FreeSpace,
    /// Where the next search begins: after the clusters that were allocated last.
    hint: u64,
    hint_before: u64,
    /// Clusters of the volume's own structures besides `$MFT`: no file may free them.
    protected: Vec<Range<u64>>,
}

impl ClusterAllocator {
    /// Of the volume whose `$Bitmap` is `bitmap`; `protected` are the clusters that must never be freed.
    pub(crate) fn new(bitmap: Arc<Stream>, protected: Vec<Range<u64>>) -> Self {
        Self { space: FreeSpace::new(bitmap), hint: u64::MAX, hint_before: u64::MAX, protected }
    }

    /// `$Bitmap`, which counts freed clusters as free.
    pub(crate) fn bitmap(&self) -> &Bitmap {
        self.space.bitmap()
    }

    /// Begins an operation that [`rollback`](Self::rollback) can undo.
    pub(crate) fn begin(&mut self) {
        self.hint_before = self.hint;
        self.space.begin();
    }

    /// Ends an operation that succeeded.
    pub(crate) fn commit(&mut self) {
        self.space.commit();
    }

    /// Ends an operation that failed: what it allocated is free, what it freed is used.
    pub(crate) fn rollback(&mut self) {
        self.hint = self.hint_before;
        self.space.rollback();
    }

    /// Lets freed clusters be allocated again.
    pub(crate) fn forget_freed(&mut self) {
        self.space.forget_freed();
    }

    /// The part of the volume that ordinary data avoids, so that `$MFT` can grow in one piece.
    fn mft_zone<D: VolumeRead>(&self, pager: &Pager<D>) -> std::ops::Range<u64> {
        let end = pager.mft().runs().and_then(|r| r.real().last()).map_or(0, |(lcn, n)| lcn.0 + n);
        end..(end + pager.geometry.cluster_count / 8).min(pager.geometry.cluster_count)
    }

    /// The ranges in which to look for clusters, best first.
    fn search_order<D: VolumeRead>(&self, pager: &Pager<D>, in_zone_first: bool) -> Vec<std::ops::Range<u64>> {
        let zone = self.mft_zone(pager);
        let total = pager.geometry.cluster_count;
        let hint = if self.hint >= total || zone.contains(&self.hint) { zone.end } else { self.hint };
        let mut order = Vec::with_capacity(4);
        if hint >= zone.end {
            order.extend([hint..total, zone.end..hint, 0..zone.start]);
        } else {
            order.extend([hint..zone.start, zone.end..total, 0..hint]);
        }
        order.insert(if in_zone_first { 0 } else { 3 }, zone);
        order.retain(|r| !r.is_empty());
        order
    }

    /// Whether at least `wanted` clusters can be had.
    pub(crate) fn has_free<D: VolumeRead>(&self, pager: &Pager<D>, wanted: u64) -> Result<bool> {
        self.space.has_free_in(pager, &self.search_order(pager, false), wanted)
    }

    /// Appends real clusters to a run list until it has `wanted` in all. Contiguous if possible, else in the largest
    /// pieces there are.
    ///
    /// # Errors
    /// Refused when there are not enough free clusters.
    pub(crate) fn extend_runs<D: VolumeWrite>(
        &mut self,
        pager: &mut Pager<D>,
        runs: &mut Runlist,
        wanted: u64,
    ) -> Result<()> {
        let mut missing = wanted.saturating_sub(runs.end());
        if missing == 0 {
            return Ok(());
        }
        if missing > pager.geometry.cluster_count {
            return Err(full());
        }
        if let Some((lcn, length)) = runs.real().last() {
            missing -= self.allocate_adjacent(pager, runs, Lcn(lcn.0 + length), missing)?;
        }
        let mut threshold = missing;
        while missing > 0 {
            for range in self.search_order(pager, false) {
                let mut range = range;
                while missing > 0 {
                    let Some((lcn, length)) = self.space.find_run(pager, &range, threshold.min(missing))? else {
                        break;
                    };
                    // the run may go on: take what is there
                    let length =
                        if length < missing { self.free_length(pager, lcn, missing, range.end)? } else { length };
                    self.allocate(pager, lcn, length)?;
                    runs.push(Some(lcn), length);
                    missing -= length;
                    range.start = lcn.0 + length;
                }
            }
            if threshold <= 1 {
                break;
            }
            threshold /= 2;
        }
        if missing > 0 { Err(full()) } else { Ok(()) }
    }

    /// Free clusters from `lcn` on, at most `limit`.
    fn free_length<D: VolumeRead>(&self, pager: &Pager<D>, lcn: Lcn, limit: u64, end: u64) -> Result<u64> {
        let end = end.min(lcn.0.saturating_add(limit));
        let stop = self.space.bitmap().find_bit(pager, lcn.0, end, true)?.unwrap_or(end);
        let (usable, _) = self.space.without_freed(lcn.0, stop);
        Ok(usable - lcn.0)
    }

    /// Allocates free clusters that directly follow a run; returns how many there were.
    fn allocate_adjacent<D: VolumeWrite>(
        &mut self,
        pager: &mut Pager<D>,
        runs: &mut Runlist,
        lcn: Lcn,
        limit: u64,
    ) -> Result<u64> {
        let end = pager.geometry.cluster_count;
        if lcn.0 >= end || self.space.bitmap().find_bit(pager, lcn.0, lcn.0 + 1, false)? != Some(lcn.0) {
            return Ok(0);
        }
        let length = self.free_length(pager, lcn, limit, end)?;
        if length > 0 {
            self.allocate(pager, lcn, length)?;
            runs.push(Some(lcn), length);
        }
        Ok(length)
    }

    fn allocate<D: VolumeWrite>(&mut self, pager: &mut Pager<D>, lcn: Lcn, length: u64) -> Result<()> {
        self.space.allocate(pager, lcn, length)?;
        if !self.mft_zone(pager).contains(&lcn.0) {
            self.hint = lcn.0 + length;
        }
        Ok(())
    }

    /// Checks that clusters may be written in place: marked as in use, and not the volume's own.
    pub(crate) fn check_owned<D: VolumeRead>(&self, pager: &Pager<D>, runs: &Runlist) -> Result<()> {
        for (lcn, length) in runs.real() {
            self.check_not_own(pager, lcn, length)?;
            if let Some(free) = self.space.bitmap().find_bit(pager, lcn.0, lcn.0 + length, false)? {
                return Err(damaged("a file claims a cluster that is marked as free")
                    .at(pager.image_offset(pager.offset_of(Lcn(free))))
                    .hint("run chkdsk in the guest and export the disk again"));
            }
        }
        Ok(())
    }

    /// Checks that clusters do not hold the volume's own structures.
    fn check_not_own<D: VolumeRead>(&self, pager: &Pager<D>, lcn: Lcn, length: u64) -> Result<()> {
        let end = lcn.0.saturating_add(length);
        let overlaps = |start: u64, stop: u64| start < end && lcn.0 < stop;
        let mut mft = pager.mft().runs().into_iter().flat_map(Runlist::real);
        if self.protected.iter().any(|p| overlaps(p.start, p.end)) || mft.any(|(l, n)| overlaps(l.0, l.0 + n)) {
            return Err(damaged("a file claims clusters of the volume's own structures")
                .at(pager.image_offset(pager.offset_of(lcn))));
        }
        Ok(())
    }

    /// Frees clusters. Those that hold the volume's own structures cannot be freed, whatever a record claims.
    pub(crate) fn free<D: VolumeWrite>(
        &mut self,
        pager: &mut Pager<D>,
        runs: impl IntoIterator<Item = (Lcn, u64)>,
    ) -> Result<()> {
        for (lcn, length) in runs {
            self.check_not_own(pager, lcn, length)?;
            self.space.free(pager, lcn, length)?;
        }
        Ok(())
    }

    /// A new stream in clusters with this content (written to the device).
    pub(crate) fn new_plain_stream<D: VolumeWrite>(&mut self, pager: &mut Pager<D>, data: &[u8]) -> Result<Stream> {
        let (runs, sizes) = self.allocate_stream(pager, data.len() as u64)?;
        pager.write_clusters(&runs, Vcn(0), data)?;
        Ok(Stream::Runs { runs, sizes })
    }

    /// Like [`new_plain_stream`](Self::new_plain_stream), for `length` bytes that `fill` gives in parts, by their
    /// offset.
    pub(crate) fn new_filled_stream<D: VolumeWrite>(
        &mut self,
        pager: &mut Pager<D>,
        length: u64,
        fill: Fill<'_>,
    ) -> Result<Stream> {
        // whole clusters, of which none is larger than 2 MiB
        const PIECE: usize = 2 << 20;
        let (runs, sizes) = self.allocate_stream(pager, length)?;
        let mut piece = vec![0; PIECE.max(pager.geometry.cluster_size as usize)];
        let mut offset = 0;
        while offset < length {
            let size = usize::try_from(length - offset).unwrap_or(usize::MAX).min(piece.len());
            let part = piece.get_mut(..size).unwrap_or_default();
            fill(offset, part)?;
            pager.write_clusters(&runs, Vcn(offset / u64::from(pager.geometry.cluster_size)), part)?;
            offset += size as u64;
        }
        Ok(Stream::Runs { runs, sizes })
    }

    /// The clusters and sizes of a new stream of `length` bytes, all of which the caller writes.
    fn allocate_stream<D: VolumeWrite>(&mut self, pager: &mut Pager<D>, length: u64) -> Result<(Runlist, StreamSizes)> {
        let mut runs = Runlist::default();
        self.extend_runs(pager, &mut runs, pager.geometry.clusters_for(length))?;
        let allocated = pager.geometry.bytes_in(runs.end());
        let sizes = StreamSizes { allocated, data: length, initialized: length, ..StreamSizes::default() };
        Ok((runs, sizes))
    }

    /// Appends `clusters` in one piece to the runs of `$MFT`; `false` when there is no such piece.
    pub(crate) fn extend_mft<D: VolumeWrite>(
        &mut self,
        pager: &mut Pager<D>,
        runs: &mut Runlist,
        clusters: u64,
    ) -> Result<bool> {
        if let Some((lcn, length)) = runs.real().last() {
            let next = Lcn(lcn.0 + length);
            let end = (next.0 + clusters).min(pager.geometry.cluster_count);
            if next.0 < end && self.space.find_run(pager, &(next.0..end), clusters)?.is_some() {
                self.space.allocate(pager, next, clusters)?;
                runs.push(Some(next), clusters);
                return Ok(true);
            }
        }
        for range in self.search_order(pager, true) {
            if let Some((lcn, length)) = self.space.find_run(pager, &range, clusters)? {
                self.space.allocate(pager, lcn, length)?;
                runs.push(Some(lcn), length);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::testing::{clusters, pager};

    fn allocate(
        allocator: &mut ClusterAllocator,
        pager: &mut Pager<crate::io::MemoryVolume>,
        n: u64,
    ) -> Result<Runlist> {
        let mut runs = Runlist::default();
        allocator.extend_runs(pager, &mut runs, n)?;
        assert_eq!(runs.real_clusters(), n);
        Ok(runs)
    }

    #[test]
    fn freed_clusters_are_not_allocated_before_they_are_forgotten() {
        let (mut pager, mut allocator) = (pager(), clusters());
        let free = allocator.bitmap().count_clear(&pager).unwrap();
        let first = allocate(&mut allocator, &mut pager, 100).unwrap();
        let rest = allocate(&mut allocator, &mut pager, free - 100).unwrap();
        assert!(first.real().all(|(a, n)| rest.real().all(|(b, m)| a.0 + n <= b.0 || b.0 + m <= a.0)));
        allocator.free(&mut pager, first.real()).unwrap();
        assert_eq!(allocator.bitmap().count_clear(&pager).unwrap(), 100);
        assert!(!allocator.has_free(&pager, 1).unwrap());
        assert_eq!(allocate(&mut allocator, &mut pager, 1).unwrap_err().kind(), crate::Kind::Refused);
        allocator.forget_freed();
        assert!(allocator.has_free(&pager, 100).unwrap() && !allocator.has_free(&pager, 101).unwrap());
        allocate(&mut allocator, &mut pager, 100).unwrap();
    }

    #[test]
    fn a_failed_operation_gives_everything_back() {
        let (mut pager, mut allocator) = (pager(), clusters());
        let held = allocate(&mut allocator, &mut pager, 10).unwrap();
        let free = allocator.bitmap().count_clear(&pager).unwrap();
        pager.begin();
        allocator.begin();
        let taken = allocate(&mut allocator, &mut pager, 50).unwrap();
        allocator.free(&mut pager, held.real()).unwrap();
        assert!(allocate(&mut allocator, &mut pager, free).is_err());
        allocator.rollback();
        pager.rollback();
        assert_eq!(allocator.bitmap().count_clear(&pager).unwrap(), free);
        assert_eq!(allocate(&mut allocator, &mut pager, 50).unwrap(), taken);
        allocator.free(&mut pager, held.real()).unwrap();
    }

    #[test]
    fn own_structures_cannot_be_freed() {
        let (mut pager, mut allocator) = (pager(), clusters());
        for lcn in [1, 8, 20] {
            let error = allocator.free(&mut pager, [(Lcn(lcn), 1)]).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Damaged, "{error}");
        }
    }
}
