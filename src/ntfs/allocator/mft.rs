//! Clusters and records: giving them out and taking them back.
//!
//! What is freed is not given out again before [`Volume::forget_freed`]: until the result is committed, the old volume
//! must stay intact under the new one.

use std::sync::Arc;

use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::allocator::bitmap::Bitmap;
use crate::ntfs::create::Fill;
use crate::ntfs::format::attribute::{AttributeType, StreamSizes};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::record::{FLAG_IN_USE, Record, header};
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{Lcn, RecordNumber, Vcn};
use crate::ntfs::stream::Stream;
use crate::ntfs::volume::Volume;
use crate::units::VolumeOffset;

/// `$MFT` grows by at least this much, then by as much as it has grown already: a job with few files formats few
/// records …
const MFT_STEP_MIN: u64 = 64 << 10;
/// … and by at most an eighth of it, and this: few long runs keep its run list short.
const MFT_STEP_MAX: u64 = 4 << 20;

/// Records that are formatted at once.
const FORMAT_RECORDS: u64 = 64;

fn full() -> Error {
    Error::refused(Layer::Ntfs, "the volume has not enough free space")
        .hint("free some space in the guest (or enlarge the volume) and try again")
}

impl<D: VolumeRead> Volume<D> {
    /// Records that `$MFT` has room for.
    pub(in super::super) fn record_count(&self) -> u64 {
        let written = match &*self.state.mft {
            Stream::Resident(_) => 0,
            Stream::Runs { sizes, .. } => sizes.initialized.min(sizes.data),
        };
        written / u64::from(self.geometry.record_size)
    }

    /// The part of the volume that ordinary data avoids, so that `$MFT` can grow in one piece.
    fn mft_zone(&self) -> std::ops::Range<u64> {
        let end = self.state.mft.runs().and_then(|r| r.real().last()).map_or(0, |(lcn, n)| lcn.0 + n);
        end..(end + self.geometry.cluster_count / 8).min(self.geometry.cluster_count)
    }

    /// The ranges in which to look for clusters, best first.
    fn search_order(&self, in_zone_first: bool) -> Vec<std::ops::Range<u64>> {
        let zone = self.mft_zone();
        let total = self.geometry.cluster_count;
        let hint = if self.state.cluster_hint >= total || zone.contains(&self.state.cluster_hint) {
            zone.end
        } else {
            self.state.cluster_hint
        };
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

    /// The part of `range` before the first cluster that was freed in this session, and where to go on.
    pub(in super::super) fn without_freed(&self, start: u64, end: u64) -> (u64, u64) {
        if let Some((&at, &length)) = self.freed_clusters.range(..=start).next_back()
            && at + length > start
        {
            return (start, at + length);
        }
        match self.freed_clusters.range(start..end).next() {
            Some((&at, &length)) => (at, at + length),
            None => (end, end),
        }
    }

    /// Whether at least `wanted` clusters can be had.
    pub(in super::super) fn has_free(&self, wanted: u64) -> Result<bool> {
        self.has_free_in(&self.search_order(false), wanted)
    }
}

impl<D: VolumeWrite> Volume<D> {
    /// Appends real clusters to a run list until it has `wanted` in all. Contiguous if possible, else in the largest
    /// pieces there are.
    ///
    /// # Errors
    /// Refused when there are not enough free clusters.
    pub(in super::super) fn extend_runs(&mut self, runs: &mut Runlist, wanted: u64) -> Result<()> {
        let mut missing = wanted.saturating_sub(runs.end());
        if missing == 0 {
            return Ok(());
        }
        if missing > self.geometry.cluster_count {
            return Err(full());
        }
        if let Some((lcn, length)) = runs.real().last() {
            missing -= self.take_adjacent(runs, Lcn(lcn.0 + length), missing)?;
        }
        let mut threshold = missing;
        while missing > 0 {
            for range in self.search_order(false) {
                let mut range = range;
                while missing > 0 {
                    let Some((lcn, length)) = self.find_run(&range, threshold.min(missing))? else { break };
                    // the run may go on: take what is there
                    let length = if length < missing { self.free_length(lcn, missing, range.end)? } else { length };
                    self.take_clusters(lcn, length)?;
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
    fn free_length(&self, lcn: Lcn, limit: u64, end: u64) -> Result<u64> {
        let end = end.min(lcn.0.saturating_add(limit));
        let stop = self.find_bit(Bitmap::Clusters, lcn.0, end, true)?.unwrap_or(end);
        let (usable, _) = self.without_freed(lcn.0, stop);
        Ok(usable - lcn.0)
    }

    /// Takes free clusters that directly follow a run.
    fn take_adjacent(&mut self, runs: &mut Runlist, lcn: Lcn, limit: u64) -> Result<u64> {
        let end = self.geometry.cluster_count;
        if lcn.0 >= end || self.find_bit(Bitmap::Clusters, lcn.0, lcn.0 + 1, false)? != Some(lcn.0) {
            return Ok(0);
        }
        let length = self.free_length(lcn, limit, end)?;
        if length > 0 {
            self.take_clusters(lcn, length)?;
            runs.push(Some(lcn), length);
        }
        Ok(length)
    }

    fn take_clusters(&mut self, lcn: Lcn, length: u64) -> Result<()> {
        self.change_bits(Bitmap::Clusters, lcn.0, length, true)?;
        if !self.mft_zone().contains(&lcn.0) {
            self.state.cluster_hint = lcn.0 + length;
        }
        Ok(())
    }

    /// Checks that clusters may be written in place: marked as in use, and not the volume's own.
    pub(in super::super) fn check_owned(&self, runs: &Runlist) -> Result<()> {
        for (lcn, length) in runs.real() {
            self.check_not_own(lcn, length)?;
            if let Some(free) = self.find_bit(Bitmap::Clusters, lcn.0, lcn.0 + length, false)? {
                return Err(damaged("a file claims a cluster that is marked as free")
                    .at(self.image_offset(self.offset_of(Lcn(free))))
                    .hint("run chkdsk in the guest and export the disk again"));
            }
        }
        Ok(())
    }

    /// Checks that clusters do not hold the volume's own structures.
    fn check_not_own(&self, lcn: Lcn, length: u64) -> Result<()> {
        let end = lcn.0.saturating_add(length);
        let overlaps = |start: u64, stop: u64| start < end && lcn.0 < stop;
        let mut mft = self.state.mft.runs().into_iter().flat_map(Runlist::real);
        if self.protected.iter().any(|p| overlaps(p.start, p.end)) || mft.any(|(l, n)| overlaps(l.0, l.0 + n)) {
            return Err(damaged("a file claims clusters of the volume's own structures")
                .at(self.image_offset(self.offset_of(lcn))));
        }
        Ok(())
    }

    /// Frees clusters. Those that hold the volume's own structures cannot be freed, whatever a record claims.
    pub(in super::super) fn free_clusters(&mut self, runs: impl IntoIterator<Item = (Lcn, u64)>) -> Result<()> {
        for (lcn, length) in runs {
            self.check_not_own(lcn, length)?;
            self.change_bits(Bitmap::Clusters, lcn.0, length, false)?;
            self.freed_clusters.insert(lcn.0, length);
            self.freed_log.push(lcn.0);
        }
        Ok(())
    }

    /// A new stream in clusters with this content (written to the device), continuing behind `near` if given.
    pub(in super::super) fn new_plain_stream(&mut self, data: &[u8], near: Option<Lcn>) -> Result<Stream> {
        let mut runs = Runlist::default();
        let wanted = self.geometry.clusters_for(data.len() as u64);
        if let Some(near) = near {
            self.take_adjacent(&mut runs, near, wanted)?;
        }
        self.extend_runs(&mut runs, wanted)?;
        self.write_clusters(&runs, Vcn(0), data)?;
        let length = data.len() as u64;
        let allocated = self.geometry.bytes_in(runs.end());
        let sizes = StreamSizes { allocated, data: length, initialized: length, ..StreamSizes::default() };
        Ok(Stream::Runs { runs, sizes })
    }

    /// Like [`new_plain_stream`](Self::new_plain_stream), for `length` bytes that `fill` gives piece by piece, by their
    /// offset.
    pub(in super::super) fn new_filled_stream(&mut self, length: u64, fill: Fill<'_>) -> Result<Stream> {
        // whole clusters, of which none is larger than 2 MiB
        const PIECE: usize = 2 << 20;
        let mut runs = Runlist::default();
        self.extend_runs(&mut runs, self.geometry.clusters_for(length))?;
        let mut piece = vec![0; PIECE.max(self.geometry.cluster_size as usize)];
        let mut offset = 0;
        while offset < length {
            let size = usize::try_from(length - offset).unwrap_or(usize::MAX).min(piece.len());
            let part = piece.get_mut(..size).unwrap_or_default();
            fill(offset, part)?;
            self.write_clusters(&runs, Vcn(offset / u64::from(self.geometry.cluster_size)), part)?;
            offset += size as u64;
        }
        let allocated = self.geometry.bytes_in(runs.end());
        let sizes = StreamSizes { allocated, data: length, initialized: length, ..StreamSizes::default() };
        Ok(Stream::Runs { runs, sizes })
    }

    /// Writes data to whole clusters from `vcn` on. The rest of the last page is zeroed; what follows it in a large
    /// cluster stays as it is, as nobody can read it.
    pub(in super::super) fn write_clusters(&mut self, runs: &Runlist, vcn: Vcn, data: &[u8]) -> Result<()> {
        let cluster = self.geometry.cluster_size as usize;
        let page = self.page_size();
        let (mut at, mut rest) = (vcn, data);
        while !rest.is_empty() {
            let run = *runs.find(at).ok_or_else(|| damaged("write beyond the runs of an attribute"))?;
            let lcn = run.lcn.ok_or_else(|| damaged("write into a hole"))?;
            let inside = at.0 - run.vcn.0;
            let clusters = (run.length - inside).min(rest.len().div_ceil(cluster) as u64);
            let offset = self.offset_of(Lcn(lcn.0 + inside));
            let take = rest.len().min(clusters as usize * cluster);
            let (now, later) = rest.split_at(take);
            let whole = take / page * page;
            if whole > 0 {
                self.device.write_at(VolumeOffset(offset), &now[..whole])?;
            }
            if whole < take {
                let mut last = now[whole..].to_vec();
                last.resize(page, 0);
                self.device.write_at(VolumeOffset(offset + whole as u64), &last)?;
            }
            at.0 += clusters;
            rest = later;
        }
        Ok(())
    }

    /// Takes a free record: its number, and the sequence number for its next use.
    pub(in super::super) fn take_record(&mut self) -> Result<(RecordNumber, u16)> {
        if let Some(found) = self.find_free_record()? {
            return self.claim_record(found);
        }
        self.grow_mft()?;
        match self.find_free_record()? {
            Some(found) => self.claim_record(found),
            None => Err(Error::bug(Layer::Ntfs, "no free record after $MFT has grown")),
        }
    }

    fn find_free_record(&self) -> Result<Option<u64>> {
        let first = RecordNumber::FIRST_USER.0;
        let hint = self.state.record_hint.max(first);
        for range in [hint..u64::MAX, first..hint] {
            let mut at = range.start;
            while let Some(found) = self.find_bit(Bitmap::Records, at, range.end, false)? {
                if !self.freed_records.contains(&found) {
                    return Ok(Some(found));
                }
                at = found + 1;
            }
        }
        Ok(None)
    }

    fn claim_record(&mut self, number: u64) -> Result<(RecordNumber, u16)> {
        let sequence = if self.state.fresh_records.contains(&number) {
            self.state.fresh_records.start = number + 1;
            1
        } else {
            let raw = self.raw_record(RecordNumber(number))?;
            let is_record = raw.starts_with(b"FILE");
            if is_record && header::FLAGS.get(&raw) & FLAG_IN_USE != 0 {
                let error = damaged("a record in use is marked as free in the record bitmap");
                return self.in_record(RecordNumber(number), Err(error));
            }
            if is_record { header::SEQUENCE.get(&raw).max(1) } else { 1 }
        };
        self.change_bits(Bitmap::Records, number, 1, true)?;
        self.state.record_hint = number + 1;
        Ok((RecordNumber(number), sequence))
    }

    /// A record for an extent of `$MFT` itself: it must be found through the extents before that one.
    pub(in super::super) fn take_record_for_mft(&mut self, lowest: Vcn) -> Result<(RecordNumber, u16)> {
        // Windows keeps records 16..24 back for this
        let mut at = 16;
        while let Some(found) = self.find_bit(Bitmap::Records, at, u64::MAX, false)? {
            let end = (found + 1).saturating_mul(u64::from(self.geometry.record_size));
            if end > self.geometry.bytes_in(lowest.0) {
                break;
            }
            if !self.freed_records.contains(&found) {
                return self.claim_record(found);
            }
            at = found + 1;
        }
        Err(Error::refused(Layer::Ntfs, "$MFT is too fragmented to grow")
            .hint("free or defragment space in the guest and try again"))
    }

    /// Frees a record: not in use, next sequence number, bit cleared.
    pub(in super::super) fn free_record(&mut self, number: RecordNumber) -> Result<()> {
        let mut record = (*self.record(number)?).clone();
        let next = match record.sequence() {
            u16::MAX => 1,
            n => n + 1,
        };
        let bytes = record.bytes_mut();
        header::SEQUENCE.set(bytes, next);
        header::FLAGS.set(bytes, header::FLAGS.get(bytes) & !FLAG_IN_USE);
        header::LINKS.set(bytes, 0);
        self.put_record(number, record);
        self.change_bits(Bitmap::Records, number.0, 1, false)?;
        self.freed_records.insert(number.0);
        self.freed_records_log.push(number.0);
        Ok(())
    }

    /// Makes `$MFT` longer by a piece of free records.
    fn grow_mft(&mut self) -> Result<()> {
        let Stream::Runs { runs, sizes } = (*self.state.mft).clone() else {
            return Err(damaged("$MFT is resident"));
        };
        let record = u64::from(self.geometry.record_size);
        let cluster = u64::from(self.geometry.cluster_size);
        if sizes.initialized != sizes.data || sizes.data % record != 0 {
            return Err(Error::unsupported(Layer::Ntfs, "$MFT is not written to its end"));
        }
        let unit = record.max(cluster);
        let most = (sizes.data / 8).clamp(MFT_STEP_MIN, MFT_STEP_MAX);
        let mut step = self.state.mft_grown.clamp(MFT_STEP_MIN, most).next_multiple_of(unit);
        // room inside the allocation comes first: Windows allocates more than it uses
        let spare = (sizes.allocated.saturating_sub(sizes.data) / record * record).min(step);
        let (runs, new_data) = if spare > 0 {
            (runs, sizes.data + spare)
        } else {
            loop {
                let mut longer = runs.clone();
                if self.extend_mft_runs(&mut longer, step / cluster)? {
                    break (longer, self.geometry.bytes_in(runs.end() + step / cluster) / record * record);
                }
                if step <= unit {
                    return Err(full());
                }
                step = (step / 2).next_multiple_of(unit);
            }
        };
        self.format_records(&runs, sizes.data / record, new_data / record)?;
        self.state.fresh_records = sizes.data / record..new_data / record;
        self.state.mft_grown = self.state.mft_grown.saturating_add(new_data - sizes.data);
        let allocated = self.geometry.bytes_in(runs.end());
        let sizes = StreamSizes { allocated, data: new_data, initialized: new_data, ..sizes };
        let stream = Stream::Runs { runs, sizes };
        self.grow_record_bitmap(new_data / record)?;
        let mut attrs = self.load(self.mft_id()?)?;
        attrs.set_stream(AttributeType::DATA, &NtfsName::default(), &stream, self.geometry.cluster_size);
        self.state.mft = Arc::new(stream);
        self.store(attrs)
    }

    /// Appends `clusters` in one piece to the runs of `$MFT`; `false` when there is no such piece.
    fn extend_mft_runs(&mut self, runs: &mut Runlist, clusters: u64) -> Result<bool> {
        if let Some((lcn, length)) = runs.real().last() {
            let next = Lcn(lcn.0 + length);
            let end = (next.0 + clusters).min(self.geometry.cluster_count);
            if next.0 < end && self.find_run(&(next.0..end), clusters)?.is_some() {
                self.change_bits(Bitmap::Clusters, next.0, clusters, true)?;
                runs.push(Some(next), clusters);
                return Ok(true);
            }
        }
        for range in self.search_order(true) {
            if let Some((lcn, length)) = self.find_run(&range, clusters)? {
                self.change_bits(Bitmap::Clusters, lcn.0, length, true)?;
                runs.push(Some(lcn), length);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes free records to a new part of `$MFT`. Nothing refers to it yet, so it goes straight to the device.
    fn format_records(&mut self, runs: &Runlist, from: u64, to: u64) -> Result<()> {
        let size = self.geometry.record_size as usize;
        let mut bytes = Vec::with_capacity(FORMAT_RECORDS as usize * size);
        let mut next = from;
        while next < to {
            let end = to.min(next + FORMAT_RECORDS);
            bytes.clear();
            for number in next..end {
                Record::blank(RecordNumber(number), 1, 0, size).seal_into(&mut bytes)?;
            }
            let mut rest = &bytes[..];
            for (place, length) in crate::ntfs::stream::pieces(&self.geometry, runs, next * size as u64, bytes.len())? {
                let place = place.ok_or_else(|| damaged("$MFT has a hole"))?;
                let (now, later) = rest.split_at(rest.len().min(length));
                self.device.write_at(VolumeOffset(place), now)?;
                rest = later;
            }
            next = end;
        }
        Ok(())
    }

    /// Makes `$MFT:$BITMAP` long enough for `records`.
    fn grow_record_bitmap(&mut self, records: u64) -> Result<()> {
        let needed = records.div_ceil(8).next_multiple_of(8);
        let old = Arc::clone(&self.state.record_bitmap);
        if needed <= old.len() {
            return Ok(());
        }
        let stream = match &*old {
            Stream::Resident(value) => {
                let mut value = value.clone();
                value.resize(needed as usize, 0);
                if value.len() <= 64 { Stream::Resident(value) } else { self.new_plain_stream(&value, None)? }
            }
            Stream::Runs { runs, sizes } => {
                let mut runs = runs.clone();
                self.extend_runs(&mut runs, self.geometry.clusters_for(needed))?;
                let from = sizes.initialized.min(sizes.data);
                let allocated = self.geometry.bytes_in(runs.end());
                let to = needed.next_multiple_of(self.page_size() as u64).min(allocated);
                self.write_metadata(&runs, from, &vec![0; to.saturating_sub(from) as usize])?;
                Stream::Runs { runs, sizes: StreamSizes { allocated, data: needed, initialized: needed, ..*sizes } }
            }
        };
        let mut attrs = self.load(self.mft_id()?)?;
        attrs.set_stream(AttributeType::BITMAP, &NtfsName::default(), &stream, self.geometry.cluster_size);
        self.state.record_bitmap = Arc::new(stream);
        self.store(attrs)
    }
}
