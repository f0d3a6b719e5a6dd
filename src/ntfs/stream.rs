//! Content of an attribute, resident or in clusters, and where its bytes are on the volume.

use crate::error::Result;
use crate::ntfs::format::attribute::{FLAG_COMPRESSION_MASK, FLAG_ENCRYPTED, StreamSizes};
use crate::ntfs::format::boot::Geometry;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::Vcn;

/// The content of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The value, which is in the record.
    Resident(Vec<u8>),
    /// Content in clusters of the volume.
    Runs {
        /// The clusters, extents joined.
        runs: Runlist,
        /// Sizes and flags of the first extent.
        sizes: StreamSizes,
    },
}

impl Stream {
    /// Bytes of content, written or not.
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
pub(crate) type Piece = (Option<u64>, usize);

/// The pieces of `length` bytes from `offset` of a run list.
pub(crate) fn pieces(geometry: &Geometry, runs: &Runlist, offset: u64, length: usize) -> Result<Vec<Piece>> {
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
