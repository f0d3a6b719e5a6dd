//! Content that stays open while it is read piece by piece.

use super::content::{Source, open_source, read_source};
use super::format::boot::Geometry;
use super::format::runlist::Runlist;
use super::format::units::{FileId, Vcn};
use super::pager::Pager;
use super::stream::Stream;
use crate::error::Result;
use crate::io::VolumeRead;

/// The content of a file, or one of its streams, opened for reading.
pub struct OpenContent {
    source: Source,
    length: u64,
}

impl OpenContent {
    pub(crate) fn open<D: VolumeRead>(pager: &Pager<D>, file: FileId, stream: &str) -> Result<Self> {
        let (source, length) = open_source(pager, file, &stream.into())?;
        Ok(Self { source, length })
    }

    /// Bytes of content.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn read_at<D: VolumeRead>(&self, pager: &Pager<D>, offset: u64, buf: &mut [u8]) -> Result<usize> {
        read_source(pager, &self.source, offset, buf)
    }

    /// Where data begins at or after `offset`: what lies before it are zeros of a hole. The length if no data follow.
    pub(crate) fn next_data(&self, geometry: &Geometry, offset: u64) -> u64 {
        let (runs, initialized, unit) = match &self.source {
            Source::Plain(Stream::Runs { runs, sizes }) => (runs, sizes.initialized, 1),
            Source::Lznt1(runs, sizes) => (runs, sizes.initialized, 1 << sizes.compression_unit),
            _ => return offset.min(self.length),
        };
        let data = if offset < initialized { data_after(runs, geometry, unit, offset) } else { None };
        data.filter(|data| *data < initialized).unwrap_or(self.length).min(self.length)
    }
}

/// The first byte of a real cluster at or after `offset`, or of the unit of so many clusters that it lies in.
fn data_after(runs: &Runlist, geometry: &Geometry, unit: u64, offset: u64) -> Option<u64> {
    let vcn = offset / u64::from(geometry.cluster_size);
    // The unit in which the offset lies may begin with data.
    let first = Vcn(vcn - vcn % unit);
    let all = runs.runs();
    let from = all.partition_point(|run| run.end() <= first.0);
    let run = all.iter().skip(from).find(|run| run.lcn.is_some())?;
    Some(geometry.bytes_in(run.vcn.0 - run.vcn.0 % unit).max(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::format::units::Lcn;
    use crate::ntfs::testing;

    fn runs(list: &[(Option<u64>, u64)]) -> Runlist {
        let mut runs = Runlist::default();
        list.iter().for_each(|(lcn, length)| runs.push(lcn.map(Lcn), *length));
        runs
    }

    #[test]
    fn data_are_found_after_a_hole_and_none_after_the_last() {
        let geometry = testing::pager().geometry.clone();
        let cluster = u64::from(geometry.cluster_size);
        let list = runs(&[(None, 10), (Some(7), 2), (None, 4), (Some(90), 1), (None, 9)]);
        let next = |unit, offset| data_after(&list, &geometry, unit, offset);
        assert_eq!(next(1, 5), Some(10 * cluster));
        assert_eq!(next(1, 10 * cluster + 3), Some(10 * cluster + 3));
        assert_eq!(next(1, 12 * cluster), Some(16 * cluster));
        assert_eq!(next(1, 17 * cluster), None);
        // A compressed unit of 16 clusters is data as a whole.
        assert_eq!(next(16, 0), Some(0));
        assert_eq!(next(16, 5 * cluster), Some(5 * cluster));
        assert_eq!(next(16, 14 * cluster), Some(14 * cluster));
        assert_eq!(next(16, 20 * cluster), Some(20 * cluster));
        assert_eq!(next(16, 32 * cluster), None);
    }
}
