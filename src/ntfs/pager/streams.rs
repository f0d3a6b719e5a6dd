//! Reading streams through the pager, and changing metadata streams in it page by page.

use std::sync::Arc;

use super::cache::{PAGE_CACHE_BYTES, Pager};
use crate::error::Result;
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{Lcn, Vcn};
use crate::ntfs::stream::{Stream, pieces};
use crate::units::VolumeOffset;

impl<D: VolumeRead> Pager<D> {
    /// Reads from the device, and sees metadata pages that are changed but not yet written.
    pub(crate) fn read_device(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.device.read_at(VolumeOffset(offset), buf)?;
        let page_size = self.page_size() as u64;
        let end = offset.saturating_add(buf.len() as u64);
        let cache = self.cache.borrow();
        for (start, page) in cache.pages.dirty_in(offset.saturating_sub(page_size - 1)..end) {
            let from = start.max(offset);
            let to = (start + page_size).min(end);
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(())
    }

    /// Reads raw bytes of a run list; holes are zeros.
    pub(crate) fn read_runs(&self, runs: &Runlist, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        for (place, length) in pieces(&self.geometry, runs, offset, buf.len())? {
            let part = &mut buf[done..done + length];
            match place {
                Some(at) => self.read_device(at, part)?,
                None => part.fill(0),
            }
            done += length;
        }
        Ok(())
    }

    /// Reads content (not decoding compression); returns how many bytes there were.
    pub(crate) fn read_stream(&self, stream: &Stream, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let available = stream.len().saturating_sub(offset);
        let length = usize::try_from(available).unwrap_or(usize::MAX).min(buf.len());
        let buf = &mut buf[..length];
        match stream {
            Stream::Resident(value) => {
                if length > 0 {
                    buf.copy_from_slice(&value[offset as usize..][..length]);
                }
            }
            Stream::Runs { runs, sizes } => {
                let written =
                    usize::try_from(sizes.initialized.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
                let (data, zeros) = buf.split_at_mut(written);
                self.read_runs(runs, offset, data)?;
                zeros.fill(0);
            }
        }
        Ok(length)
    }

    /// All of a stream; damaged when it is longer than `limit` bytes. `what` names it in the message.
    pub(crate) fn read_small(&self, stream: &Stream, limit: u64, what: &str) -> Result<Vec<u8>> {
        if stream.len() > limit {
            return Err(damaged(format!("{what} is too long")).expected_found(format!("up to {limit}"), stream.len()));
        }
        let mut bytes = vec![0; stream.len() as usize];
        self.read_stream(stream, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The page of a metadata stream at an offset of the volume (a multiple of the page size).
    pub(crate) fn page(&self, offset: u64) -> Result<Arc<Vec<u8>>> {
        if let Some(page) = self.cache.borrow().pages.get(offset) {
            return Ok(page);
        }
        let mut page = vec![0; self.page_size()];
        self.device.read_at(VolumeOffset(offset), &mut page)?;
        let page = Arc::new(page);
        self.cache.borrow_mut().pages.remember(offset, Arc::clone(&page), PAGE_CACHE_BYTES / self.page_size());
        Ok(page)
    }

    /// Offset of a cluster on the volume, in bytes.
    pub(crate) fn offset_of(&self, lcn: Lcn) -> u64 {
        self.geometry.bytes_in(lcn.0)
    }
}

impl<D: VolumeWrite> Pager<D> {
    /// Changes bytes of a metadata stream in memory, page by page.
    pub(crate) fn write_metadata(&mut self, runs: &Runlist, offset: u64, data: &[u8]) -> Result<()> {
        let page_size = self.page_size() as u64;
        let mut done = 0;
        for (place, length) in pieces(&self.geometry, runs, offset, data.len())? {
            let start = place.ok_or_else(|| damaged("metadata in a hole"))?;
            let end = start + length as u64;
            let mut at = start;
            while at < end {
                let base = at - at % page_size;
                let stop = end.min(base + page_size);
                let mut page = (*self.page(base)?).clone();
                let count = (stop - at) as usize;
                page[(at - base) as usize..][..count].copy_from_slice(&data[done..done + count]);
                self.put_page(base, page);
                done += count;
                at = stop;
            }
        }
        Ok(())
    }

    /// Writes data to whole clusters from `vcn` on. The rest of the last page is zeroed; the rest of a large
    /// cluster stays as it is, beyond the initialized size.
    pub(crate) fn write_clusters(&mut self, runs: &Runlist, vcn: Vcn, data: &[u8]) -> Result<()> {
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

    /// Writes to the runs of a stream, straight to the device; damaged if a hole is among them. See
    /// [`write_device`](Self::write_device).
    pub(crate) fn write_runs(&mut self, runs: &Runlist, offset: u64, data: &[u8]) -> Result<()> {
        let mut rest = data;
        for (place, length) in pieces(&self.geometry, runs, offset, data.len())? {
            let place = place.ok_or_else(|| damaged("write into a hole"))?;
            let (now, later) = rest.split_at(rest.len().min(length));
            self.write_device(place, now)?;
            rest = later;
        }
        Ok(())
    }

    /// Writes straight to the device, past the cache: only for bytes that no cached block holds.
    pub(crate) fn write_device(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.device.write_at(VolumeOffset(offset), data)
    }
}
