//! Content of an attribute, resident or in clusters, and how it is read from the device.

use std::sync::Arc;

use super::volume::Volume;
use crate::error::Result;
use crate::io::VolumeRead;
use crate::ntfs::format::attribute::{FLAG_COMPRESSION_MASK, FLAG_ENCRYPTED, StreamSizes};
use crate::ntfs::format::boot::Geometry;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{Lcn, Vcn};
use crate::units::VolumeOffset;

/// Bytes of unchanged pages of metadata streams that are kept.
pub(super) const PAGES_KEPT: usize = 512 << 10;

/// The content of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stream {
    /// In the record.
    Resident(Vec<u8>),
    /// In clusters.
    Runs {
        /// Where.
        runs: Runlist,
        /// Sizes and flags.
        sizes: StreamSizes,
    },
}

impl Stream {
    /// Bytes of content.
    pub fn len(&self) -> u64 {
        match self {
            Self::Resident(value) => value.len() as u64,
            Self::Runs { sizes, .. } => sizes.data,
        }
    }

    /// Flags of the attribute.
    pub fn flags(&self) -> u16 {
        match self {
            Self::Resident(_) => 0,
            Self::Runs { sizes, .. } => sizes.flags,
        }
    }

    /// Whether the bytes in the clusters are not the content itself.
    pub fn is_encoded(&self) -> bool {
        self.flags() & (FLAG_COMPRESSION_MASK | FLAG_ENCRYPTED) != 0
    }

    /// The runs; none for resident content.
    pub fn runs(&self) -> Option<&Runlist> {
        match self {
            Self::Resident(_) => None,
            Self::Runs { runs, .. } => Some(runs),
        }
    }

    /// Bytes in real clusters, or of the value rounded up: what directories show as allocated.
    pub fn allocated_for_directory(&self, geometry: &Geometry) -> u64 {
        match self {
            Self::Resident(value) => crate::field::align8(value.len()) as u64,
            Self::Runs { runs, sizes } if sizes.has_total() => geometry.bytes_in(runs.real_clusters()),
            Self::Runs { sizes, .. } => sizes.allocated,
        }
    }

    /// Bytes of content that have been written.
    pub fn initialized(&self) -> u64 {
        match self {
            Self::Resident(value) => value.len() as u64,
            Self::Runs { sizes, .. } => sizes.initialized,
        }
    }

    /// Checks that a stream of the file system's own has all its bytes in clusters, as they are.
    pub fn check_metadata(&self, what: &str) -> Result<()> {
        if self.is_encoded() || self.runs().is_some_and(|r| r.runs().iter().any(|run| run.lcn.is_none())) {
            return Err(damaged(format!("{what} has holes or is compressed")));
        }
        Ok(())
    }

    /// Checks that sizes and runs agree as far as reading relies on it.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        let Self::Runs { runs, sizes } = self else { return Ok(()) };
        let mapped = runs.end().checked_mul(u64::from(geometry.cluster_size));
        let mapped = mapped.filter(|&m| m <= i64::MAX as u64);
        let mapped = mapped.ok_or_else(|| damaged("attribute is impossibly long"))?;
        if runs.first() != Vcn(0) || sizes.initialized > sizes.data || sizes.data > mapped {
            return Err(damaged("sizes and runs of an attribute contradict each other")
                .expected_found(format!("up to {mapped}"), format!("{} of {}", sizes.initialized, sizes.data)));
        }
        Ok(())
    }
}

/// Where a piece of a stream is: offset on the volume (`None`: hole) and bytes.
pub(super) type Piece = (Option<u64>, usize);

/// The pieces of `length` bytes from `offset` of a run list.
pub(super) fn pieces(geometry: &Geometry, runs: &Runlist, offset: u64, length: usize) -> Result<Vec<Piece>> {
    let cluster = u64::from(geometry.cluster_size);
    let mut out = Vec::with_capacity(1);
    let (mut at, mut left) = (offset, length);
    while left > 0 {
        let vcn = Vcn(at / cluster);
        let run = runs.find(vcn).ok_or_else(|| damaged("access beyond the runs of an attribute"))?;
        let inside = at - run.vcn.0 * cluster;
        let available = run.length.saturating_mul(cluster).saturating_sub(inside);
        let take = usize::try_from(available).unwrap_or(usize::MAX).min(left);
        out.push((run.lcn.map(|lcn| lcn.0 * cluster + inside), take));
        at = at.saturating_add(take as u64);
        left -= take;
    }
    Ok(out)
}

impl<D: VolumeRead> Volume<D> {
    /// Bytes per page of a metadata stream: never more than a cluster, so that a page has one owner.
    pub(super) fn page_size(&self) -> usize {
        self.geometry.cluster_size.min(4096) as usize
    }

    /// Reads from the device, and sees metadata pages that are changed but not yet written.
    pub(super) fn read_device(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
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
    pub(super) fn read_runs(&self, runs: &Runlist, offset: u64, buf: &mut [u8]) -> Result<()> {
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
    pub(super) fn read_stream(&self, stream: &Stream, offset: u64, buf: &mut [u8]) -> Result<usize> {
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

    /// All of a stream that is known to be small.
    pub(super) fn read_small(&self, stream: &Stream, limit: u64, what: &str) -> Result<Vec<u8>> {
        if stream.len() > limit {
            return Err(damaged(format!("{what} is too long")).expected_found(format!("up to {limit}"), stream.len()));
        }
        let mut bytes = vec![0; stream.len() as usize];
        self.read_stream(stream, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The page of a metadata stream at an offset of the volume (a multiple of the page size).
    pub(super) fn page(&self, offset: u64) -> Result<Arc<Vec<u8>>> {
        if let Some(page) = self.cache.borrow().pages.get(offset) {
            return Ok(page);
        }
        let mut page = vec![0; self.page_size()];
        self.device.read_at(VolumeOffset(offset), &mut page)?;
        let page = Arc::new(page);
        self.cache.borrow_mut().pages.remember(offset, Arc::clone(&page), PAGES_KEPT / self.page_size());
        Ok(page)
    }

    /// Changes bytes of a metadata stream in memory, page by page.
    pub(super) fn write_metadata(&mut self, runs: &Runlist, offset: u64, data: &[u8]) -> Result<()> {
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
                self.cache.borrow_mut().pages.put(base, Arc::new(page));
                done += count;
                at = stop;
            }
        }
        Ok(())
    }

    /// Offset of a cluster on the volume.
    pub(super) fn offset_of(&self, lcn: Lcn) -> u64 {
        self.geometry.bytes_in(lcn.0)
    }
}
