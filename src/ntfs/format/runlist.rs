//! Runlists: which clusters of the volume hold an attribute's content ("mapping pairs" of the public documentation).

use super::error::damaged;
use super::units::{Lcn, Vcn};
use crate::error::Result;

/// Highest number of runs that one list may have: a bound on memory, far above what a volume can use.
const RUNS_MAX: usize = 1 << 22;

/// A contiguous piece of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First cluster inside the attribute.
    pub vcn: Vcn,
    /// First cluster on the volume; `None` for a hole.
    pub lcn: Option<Lcn>,
    /// Length in clusters, never 0.
    pub length: u64,
}

impl Run {
    /// The VCN after the run.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.vcn.0.saturating_add(self.length)
    }
}

/// The runs of an attribute (or of one extent of it), ascending and without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runlist {
    first: Vcn,
    runs: Vec<Run>,
}

impl Runlist {
    /// An empty list that begins at `first`.
    #[must_use]
    pub fn starting_at(first: Vcn) -> Self {
        Self { first, runs: Vec::new() }
    }

    /// The runs in ascending order of VCNs, without gaps between them.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// First VCN of the extent that the list describes.
    #[must_use]
    pub fn first(&self) -> Vcn {
        self.first
    }

    /// The VCN after the last run.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.runs.last().map_or(self.first.0, Run::end)
    }

    /// Whether there is no run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Clusters that really are on the volume (holes left out).
    #[must_use]
    pub fn real_clusters(&self) -> u64 {
        self.runs.iter().filter(|r| r.lcn.is_some()).map(|r| r.length).sum()
    }

    /// Appends clusters; merges with the last run where both continue.
    pub fn push(&mut self, lcn: Option<Lcn>, length: u64) {
        if length == 0 {
            return;
        }
        let vcn = Vcn(self.end());
        if let Some(last) = self.runs.last_mut() {
            let continues = match (last.lcn, lcn) {
                (None, None) => true,
                (Some(a), Some(b)) => a.0.checked_add(last.length) == Some(b.0),
                _ => false,
            };
            if continues {
                last.length = last.length.saturating_add(length);
                return;
            }
        }
        self.runs.push(Run { vcn, lcn, length });
    }

    /// Appends all runs of `next`, which must begin where this list ends.
    ///
    /// # Errors
    /// Damaged, when there is a gap or an overlap.
    pub fn append(&mut self, next: &Self) -> Result<()> {
        if next.first.0 != self.end() {
            return Err(
                damaged("extents of an attribute do not follow each other").expected_found(self.end(), next.first.0)
            );
        }
        for run in &next.runs {
            self.push(run.lcn, run.length);
        }
        Ok(())
    }

    /// The run that holds `vcn`.
    #[must_use]
    pub fn find(&self, vcn: Vcn) -> Option<&Run> {
        let index = self.runs.partition_point(|r| r.end() <= vcn.0);
        self.runs.get(index).filter(|r| r.vcn <= vcn)
    }

    /// Cuts the list so that it ends before `vcn`, and returns the real clusters cut off.
    pub fn truncate(&mut self, vcn: Vcn) -> Vec<(Lcn, u64)> {
        let mut cut = Vec::new();
        while let Some(last) = self.runs.last_mut() {
            if last.end() <= vcn.0 {
                break;
            }
            let keep = vcn.0.saturating_sub(last.vcn.0);
            if let Some(lcn) = last.lcn {
                cut.push((Lcn(lcn.0.saturating_add(keep)), last.length - keep));
            }
            if keep > 0 {
                last.length = keep;
                break;
            }
            self.runs.pop();
        }
        cut
    }

    /// Cuts in two: what lies before `vcn`, and what lies from it on.
    #[must_use]
    pub fn split_at(&self, vcn: Vcn) -> (Self, Self) {
        let (mut head, mut tail) = (Self::starting_at(self.first), Self::starting_at(vcn));
        for run in &self.runs {
            let before = run.length.min(vcn.0.saturating_sub(run.vcn.0));
            if before > 0 {
                head.push_raw(run.lcn, before);
            }
            if before < run.length {
                tail.push_raw(run.lcn.map(|lcn| Lcn(lcn.0.saturating_add(before))), run.length - before);
            }
        }
        (head, tail)
    }

    /// The runs as real clusters, holes left out.
    pub fn real(&self) -> impl Iterator<Item = (Lcn, u64)> + '_ {
        self.runs.iter().filter_map(|r| r.lcn.map(|lcn| (lcn, r.length)))
    }

    /// Decodes mapping pairs. Every real run is checked against the volume's `cluster_count`.
    ///
    /// # Errors
    /// Damaged, when the pairs are cut short, negative, or leave the volume.
    pub fn decode(bytes: &[u8], first: Vcn, cluster_count: u64) -> Result<Self> {
        let mut list = Self::starting_at(first);
        let mut lcn = 0i64;
        let mut rest = bytes;
        loop {
            let Some((&head, tail)) = rest.split_first() else {
                return Err(damaged("mapping pairs without an end"));
            };
            if head == 0 {
                return Ok(list);
            }
            let (length_size, delta_size) = (usize::from(head & 15), usize::from(head >> 4));
            if length_size == 0 || length_size > 8 || delta_size > 8 || tail.len() < length_size + delta_size {
                return Err(damaged("malformed mapping pair").expected_found("sizes of 1..8 bytes", head));
            }
            let length = signed(&tail[..length_size]);
            let delta = signed(&tail[length_size..length_size + delta_size]);
            rest = &tail[length_size + delta_size..];
            // a hole may be as long as an attribute can be: 2^63 bytes of at least 512-byte clusters
            let length = u64::try_from(length)
                .ok()
                .filter(|&l| l > 0 && l < 1 << 54 && list.end() < 1 << 54)
                .ok_or_else(|| damaged("mapping pair with an impossible length").expected_found("1..2^54", length))?;
            if delta_size == 0 {
                list.push_raw(None, length);
            } else {
                lcn = lcn.checked_add(delta).ok_or_else(|| damaged("mapping pair overflows"))?;
                let start = u64::try_from(lcn)
                    .ok()
                    .filter(|s| s.checked_add(length).is_some_and(|end| end <= cluster_count))
                    .ok_or_else(|| {
                        damaged("run outside the volume").expected_found(format!("0..{cluster_count}"), lcn)
                    })?;
                list.push_raw(Some(Lcn(start)), length);
            }
            if list.runs.len() > RUNS_MAX {
                return Err(damaged("too many runs").expected_found(RUNS_MAX, "more"));
            }
        }
    }

    /// Appends without merging (what was on disk stays as it was).
    fn push_raw(&mut self, lcn: Option<Lcn>, length: u64) {
        let vcn = Vcn(self.end());
        self.runs.push(Run { vcn, lcn, length });
    }

    /// The mapping pairs of the whole list, with the terminating zero.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.runs.len() * 8 + 1);
        let mut previous = 0i64;
        for run in &self.runs {
            encode_run(run, &mut previous, &mut out);
        }
        out.push(0);
        out
    }

    /// Splits off the longest beginning whose mapping pairs (with terminator) take at most `limit` bytes.
    /// Returns it and the rest; at least one run is taken when there is one.
    #[must_use]
    pub fn split_to_fit(&self, limit: usize) -> (Self, Option<Self>) {
        let (mut out, mut previous) = (Vec::new(), 0i64);
        for (index, run) in self.runs.iter().enumerate() {
            encode_run(run, &mut previous, &mut out);
            if out.len() + 1 > limit && index > 0 {
                let rest = Self { first: run.vcn, runs: self.runs[index..].to_vec() };
                return (Self { first: self.first, runs: self.runs[..index].to_vec() }, Some(rest));
            }
        }
        (self.clone(), None)
    }
}

/// Appends one mapping pair.
fn encode_run(run: &Run, previous: &mut i64, out: &mut Vec<u8>) {
    let length = run.length as i64;
    let length_size = signed_size(length);
    match run.lcn {
        None => {
            out.push(length_size as u8);
            out.extend_from_slice(&length.to_le_bytes()[..length_size]);
        }
        Some(lcn) => {
            let delta = (lcn.0 as i64).wrapping_sub(*previous);
            *previous = lcn.0 as i64;
            let delta_size = signed_size(delta);
            out.push((length_size | delta_size << 4) as u8);
            out.extend_from_slice(&length.to_le_bytes()[..length_size]);
            out.extend_from_slice(&delta.to_le_bytes()[..delta_size]);
        }
    }
}

/// Bytes of the shortest two's complement form, at least one.
fn signed_size(value: i64) -> usize {
    (1..8).find(|&n| value >> (8 * n - 1) == 0 || value >> (8 * n - 1) == -1).unwrap_or(8)
}

/// A little-endian two's complement number of 0..=8 bytes.
fn signed(bytes: &[u8]) -> i64 {
    let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 };
    let mut whole = [fill; 8];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_from_128_need_two_bytes() {
        let mut list = Runlist::default();
        list.push(Some(Lcn(0x80)), 0x80);
        assert_eq!(list.encode(), [0x22, 0x80, 0x00, 0x80, 0x00, 0x00]);
        assert_eq!(Runlist::decode(&list.encode(), Vcn(0), 1000).unwrap(), list);
    }

    #[test]
    fn truncation_returns_what_was_cut() {
        let mut list = Runlist::default();
        list.push(Some(Lcn(10)), 5);
        list.push(None, 5);
        list.push(Some(Lcn(30)), 5);
        assert_eq!(list.truncate(Vcn(3)), [(Lcn(30), 5), (Lcn(13), 2)]);
        assert_eq!(list.end(), 3);
        assert_eq!(list.truncate(Vcn(0)), [(Lcn(10), 3)]);
        assert!(list.is_empty());
    }

    proptest! {
        #[test]
        fn encode_decode_is_identity(pieces in proptest::collection::vec((any::<Option<u32>>(), 1u64..1 << 33), 0..40)) {
            let mut list = Runlist::default();
            for (lcn, length) in pieces {
                list.push_raw(lcn.map(|l| Lcn(l.into())), length);
            }
            let bytes = list.encode();
            prop_assert_eq!(Runlist::decode(&bytes, Vcn(0), u64::MAX >> 8).unwrap(), list.clone());
            let (head, tail) = list.split_to_fit(30);
            let mut joined = head;
            if let Some(tail) = tail {
                prop_assert_eq!(tail.first().0, joined.end());
                joined.runs.extend(tail.runs);
            }
            prop_assert_eq!(joined, list);
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Runlist::decode(&bytes, Vcn(0), 1 << 20);
        }
    }
}
