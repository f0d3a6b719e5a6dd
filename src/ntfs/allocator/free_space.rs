//! What is known about the free clusters of the volume, group by group, so that a search on a full or fragmented volume
//! need not look at every bit again.
//!
//! A group's numbers are upper bounds: allocating does not update them, a search that was in vain lowers them. Clusters
//! freed in this session count as free here; the search itself leaves them out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::error::Result;
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::allocator::bitmap::{Bitmap, BitmapKind};
use crate::ntfs::format::units::Lcn;
use crate::ntfs::pager::Pager;
use crate::ntfs::stream::Stream;

/// Clusters of a group.
const GROUP: u64 = 1 << 15;

/// Free clusters of a group, as runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Group {
    /// Clusters of the longest run.
    longest: u16,
    /// Clusters of the run at the start of the group.
    head: u16,
    /// Clusters of the run at the end of the group.
    tail: u16,
}

/// What is known of the free clusters, group by group.
#[derive(Debug, Default)]
struct Summary {
    groups: Vec<Option<Group>>,
    /// Groups that the running operation has changed.
    touched: Vec<Range<u64>>,
}

impl Summary {
    fn begin(&mut self) {
        self.touched.clear();
    }

    /// Bits in this range change: nothing is known of their groups if the operation fails.
    fn changed(&mut self, clusters: Range<u64>) {
        let groups = clusters.start / GROUP..clusters.end.div_ceil(GROUP);
        if self.touched.last() != Some(&groups) {
            self.touched.push(groups);
        }
    }

    /// What the failed operation allocated is free again.
    fn rollback(&mut self) {
        for groups in std::mem::take(&mut self.touched) {
            self.forget_groups(groups);
        }
    }

    fn forget_groups(&mut self, groups: Range<u64>) {
        let known = self.groups.len();
        let clip = |n: u64| usize::try_from(n).unwrap_or(known).min(known);
        if let Some(known) = self.groups.get_mut(clip(groups.start)..clip(groups.end)) {
            known.fill(None);
        }
    }

    fn clear(&mut self) {
        self.groups.clear();
    }

    fn get(&self, number: u64) -> Option<Group> {
        usize::try_from(number).ok().and_then(|n| self.groups.get(n)).copied().flatten()
    }

    fn set(&mut self, number: u64, group: Group) {
        let Ok(number) = usize::try_from(number) else { return };
        if self.groups.len() <= number {
            self.groups.resize(number + 1, None);
        }
        self.groups[number] = Some(group);
    }
}

/// The clusters that can be had: those clear in `$Bitmap`, without those freed since the volume was opened.
#[derive(Debug)]
pub(crate) struct FreeSpace {
    bitmap: Bitmap,
    summary: RefCell<Summary>,
    /// Runs freed in this session (start, length): the old volume may still need them.
    freed: BTreeMap<u64, u64>,
    /// Their starts in the order of freeing.
    freed_log: Vec<u64>,
    /// What a failed operation must put back: the bitmap's content, and the length of `freed_log`.
    before: Option<(Arc<Stream>, usize)>,
}

impl FreeSpace {
    /// Of the volume whose `$Bitmap` is `bitmap`.
    pub(crate) fn new(bitmap: Arc<Stream>) -> Self {
        Self {
            bitmap: Bitmap::new(BitmapKind::Clusters, bitmap),
            summary: RefCell::default(),
            freed: BTreeMap::new(),
            freed_log: Vec::new(),
            before: None,
        }
    }

    /// `$Bitmap` itself, which counts freed clusters as free.
    pub(crate) fn bitmap(&self) -> &Bitmap {
        &self.bitmap
    }

    /// Begins an operation that [`rollback`](Self::rollback) can undo.
    pub(crate) fn begin(&mut self) {
        self.before = Some((Arc::clone(self.bitmap.stream()), self.freed_log.len()));
        self.summary.get_mut().begin();
    }

    /// Ends an operation that succeeded.
    pub(crate) fn commit(&mut self) {
        self.before = None;
    }

    /// Ends an operation that failed. The pages of `$Bitmap` are put back by the pager.
    pub(crate) fn rollback(&mut self) {
        self.summary.get_mut().rollback();
        let Some((stream, freed)) = self.before.take() else { return };
        self.bitmap.set_stream(stream);
        for start in self.freed_log.drain(freed..) {
            self.freed.remove(&start);
        }
    }

    /// Lets freed clusters be allocated again.
    pub(crate) fn forget_freed(&mut self) {
        self.freed.clear();
        self.freed_log.clear();
        self.summary.get_mut().clear();
    }

    /// Marks free clusters as used; damaged when one of them is in use.
    pub(crate) fn allocate<D: VolumeWrite>(&mut self, pager: &mut Pager<D>, lcn: Lcn, length: u64) -> Result<()> {
        self.change(pager, lcn, length, true)
    }

    /// Marks used clusters as free; damaged when one of them is free. They are not found before
    /// [`forget_freed`](Self::forget_freed).
    pub(crate) fn free<D: VolumeWrite>(&mut self, pager: &mut Pager<D>, lcn: Lcn, length: u64) -> Result<()> {
        self.change(pager, lcn, length, false)?;
        self.freed.insert(lcn.0, length);
        self.freed_log.push(lcn.0);
        Ok(())
    }

    fn change<D: VolumeWrite>(&mut self, pager: &mut Pager<D>, lcn: Lcn, length: u64, used: bool) -> Result<()> {
        self.summary.get_mut().changed(lcn.0..lcn.0.saturating_add(length).min(pager.geometry.cluster_count));
        self.bitmap.change_bits(pager, lcn.0, length, used)
    }

    fn group<D: VolumeRead>(&self, pager: &Pager<D>, number: u64) -> Result<Group> {
        if let Some(known) = self.summary.borrow().get(number) {
            return Ok(known);
        }
        let start = number * GROUP;
        let end = (start + GROUP).min(pager.geometry.cluster_count);
        let mut group = Group::default();
        self.bitmap.free_runs(pager, start, end, u64::MAX, &mut |at, length| {
            let short = length.min(GROUP) as u16;
            group.longest = group.longest.max(short);
            if at == start {
                group.head = short;
            }
            if at + length == end {
                group.tail = short;
            }
            ControlFlow::Continue(())
        })?;
        self.summary.borrow_mut().set(number, group);
        Ok(group)
    }

    /// The first stretch of `range` in which a free run of `want` clusters may begin: within one group.
    fn promising<D: VolumeRead>(&self, pager: &Pager<D>, range: Range<u64>, want: u64) -> Result<Option<Range<u64>>> {
        let mut at = range.start;
        while at < range.end {
            let mut number = at / GROUP;
            let group_end = (number + 1) * GROUP;
            let group = self.group(pager, number)?;
            if u64::from(group.longest) >= want {
                return Ok(Some(at..group_end.min(range.end)));
            }
            // no run inside is long enough; the one at the end may go on in the groups after it
            let tail = group_end.min(pager.geometry.cluster_count) - u64::from(group.tail);
            let mut chain = u64::from(group.tail);
            let mut next = group_end;
            while chain > 0 && chain < want && next < range.end {
                number += 1;
                let group = self.group(pager, number)?;
                chain += u64::from(group.head);
                if u64::from(group.head) < GROUP {
                    break;
                }
                next += GROUP;
            }
            if chain >= want {
                return Ok(Some(at.max(tail)..group_end.min(range.end)));
            }
            at = next;
        }
        Ok(None)
    }

    /// The first free run of at least `want` clusters in `range`, cut to `want`.
    pub(crate) fn find_run<D: VolumeRead>(
        &self,
        pager: &Pager<D>,
        range: &Range<u64>,
        want: u64,
    ) -> Result<Option<(Lcn, u64)>> {
        let mut at = range.start;
        while let Some(stretch) = self.promising(pager, at..range.end, want)? {
            let mut found = None;
            // where to go on when a run that was cut to `want` has freed clusters in it
            let mut resume = None;
            self.bitmap.free_runs(pager, stretch.start, range.end, want, &mut |start, length| {
                if start >= stretch.end {
                    return ControlFlow::Break(());
                }
                let stop = start + length;
                let mut from = start;
                while from < stop {
                    let (usable, next) = self.without_freed(from, stop);
                    if usable - from >= want {
                        found = Some(Lcn(from));
                        return ControlFlow::Break(());
                    }
                    if usable == stop {
                        break;
                    }
                    from = next;
                }
                if length < want {
                    return ControlFlow::Continue(());
                }
                resume = Some(from);
                ControlFlow::Break(())
            })?;
            if let Some(lcn) = found {
                return Ok(Some((lcn, want)));
            }
            if let Some(next) = resume {
                at = next.max(at + 1);
                continue;
            }
            at = stretch.end;
            if stretch.start.is_multiple_of(GROUP) && stretch.end.is_multiple_of(GROUP) {
                self.note_absence(stretch.start / GROUP, want);
            }
        }
        Ok(None)
    }

    /// No run of `want` clusters begins in a group.
    fn note_absence(&self, number: u64, want: u64) {
        let mut free = self.summary.borrow_mut();
        if let Some(group) = free.get(number) {
            let longest = group.longest.min(u16::try_from(want - 1).unwrap_or(u16::MAX));
            free.set(number, Group { longest, ..group });
        }
    }

    /// Whether at least `wanted` clusters can be had in these ranges.
    pub(crate) fn has_free_in<D: VolumeRead>(
        &self,
        pager: &Pager<D>,
        ranges: &[Range<u64>],
        wanted: u64,
    ) -> Result<bool> {
        let mut sum = 0;
        for range in ranges {
            let mut at = range.start;
            while sum < wanted
                && let Some(stretch) = self.promising(pager, at..range.end, 1)?
            {
                self.bitmap.free_runs(pager, stretch.start, stretch.end, u64::MAX, &mut |start, length| {
                    let stop = start + length;
                    let mut from = start;
                    while from < stop && sum < wanted {
                        let (usable, next) = self.without_freed(from, stop);
                        sum += usable - from;
                        from = if usable == stop { stop } else { next };
                    }
                    if sum < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })?;
                at = stretch.end;
            }
        }
        Ok(sum >= wanted)
    }

    /// The end of the part of `start..end` before the first cluster that was freed in this session, and where to go on.
    pub(crate) fn without_freed(&self, start: u64, end: u64) -> (u64, u64) {
        if let Some((&at, &length)) = self.freed.range(..=start).next_back()
            && at + length > start
        {
            return (start, at + length);
        }
        match self.freed.range(start..end).next() {
            Some((&at, &length)) => (at, at + length),
            None => (end, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::io::MemoryVolume;
    use crate::ntfs::format::boot::Geometry;
    /// A volume with nothing but the bitmap of its clusters: runs of these lengths, free and taken in turns.
    fn volume(lengths: &[u64]) -> (Pager<MemoryVolume>, FreeSpace, Vec<bool>) {
        let mut free: Vec<bool> = Vec::new();
        for (n, &length) in lengths.iter().enumerate() {
            free.extend(std::iter::repeat_n(n % 2 == 0, length as usize));
        }
        let mut bytes = vec![0u8; free.len().div_ceil(8)];
        for (n, _) in free.iter().enumerate().filter(|(_, f)| !**f) {
            bytes[n / 8] |= 1 << (n % 8);
        }
        let geometry = Geometry {
            sector_size: 512,
            cluster_size: 4096,
            total_sectors: free.len() as u64 * 8,
            cluster_count: free.len() as u64,
            mft: Lcn(0),
            mirror: Lcn(0),
            record_size: 1024,
            index_block_size: 4096,
            serial: 0,
        };
        let pager = Pager::new(MemoryVolume(Vec::new()), geometry, Stream::Resident(Vec::new()));
        (pager, FreeSpace::new(Arc::new(Stream::Resident(bytes))), free)
    }

    fn lengths() -> impl Strategy<Value = Vec<u64>> {
        let length = prop_oneof![4 => 1u64..9, 2 => 1u64..400, 1 => 1u64..70_000, 1 => Just(GROUP)];
        proptest::collection::vec(length, 1..60)
    }

    /// The first place at which `want` clusters in a row can be had.
    fn naive(free: &[bool], range: Range<u64>, want: u64) -> Option<u64> {
        let mut run = 0;
        for at in range {
            run = if free[at as usize] { run + 1 } else { 0 };
            if run == want {
                return Some(at + 1 - want);
            }
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn searches_agree_with_looking_at_each_cluster(
            lengths in lengths(),
            freed in proptest::collection::vec((any::<prop::sample::Index>(), 1u64..50), 0..8),
            searches in proptest::collection::vec(
                (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop_oneof![1u64..20, 1u64..100_000]), 1..12,
            ),
        ) {
            let (pager, mut space, mut free) = volume(&lengths);
            let total = free.len() as u64;
            for (start, length) in freed {
                let start = start.index(free.len()) as u64;
                let end = (start + length).min(total);
                // what was freed in this session is clear in the bitmap, and not available
                if (start..end).all(|c| free[c as usize]) {
                    space.freed.insert(start, end - start);
                    free[start as usize..end as usize].fill(false);
                }
            }
            for (a, b, want) in searches {
                let (a, b) = (a.index(free.len()) as u64, b.index(free.len()) as u64 + 1);
                let range = a.min(b)..a.max(b);
                let found = space.find_run(&pager, &range, want).unwrap();
                prop_assert_eq!(found, naive(&free, range.clone(), want).map(|at| (Lcn(at), want)));
                let count = range.clone().filter(|&c| free[c as usize]).count() as u64;
                prop_assert!(space.has_free_in(&pager, std::slice::from_ref(&range), count).unwrap());
                prop_assert!(!space.has_free_in(&pager, &[range], count + 1).unwrap());
            }
        }
    }
}
