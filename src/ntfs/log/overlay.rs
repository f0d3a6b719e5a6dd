//! The blocks of a volume that a replay changes, kept in memory instead of being written.

use std::collections::BTreeMap;

use super::refusal::refuse;
use crate::error::Result;
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// Bytes of a block: what every offset and length in an overlay is a multiple of.
pub const BLOCK: usize = 512;
/// Blocks that an overlay holds at most (128 MiB): far more than the metadata that a log of 64 MiB can name.
const BLOCKS_MAX: usize = 1 << 18;
/// Bytes of the longest write that [`Overlay::writes`] yields.
const WRITE_MAX: usize = 1 << 20;

/// The replayed blocks of a volume, keyed by volume offset.
///
/// Each write is a whole multiple of 512 bytes; the writes are sorted and do not overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    writes: Vec<(VolumeOffset, Vec<u8>)>,
}

impl Overlay {
    /// Replaces in `buf`, the bytes of the volume from `offset` on, those that the replay changed.
    pub fn patch(&self, offset: VolumeOffset, buf: &mut [u8]) {
        let end = offset.0.saturating_add(buf.len() as u64);
        let first = self.writes.partition_point(|(at, data)| at.0.saturating_add(data.len() as u64) <= offset.0);
        for (at, data) in self.writes.iter().skip(first).take_while(|(at, _)| at.0 < end) {
            copy_overlap(at.0, data, offset.0, buf);
        }
    }

    /// The writes in the order of their offsets.
    pub fn writes(&self) -> impl Iterator<Item = (VolumeOffset, &[u8])> {
        self.writes.iter().map(|(offset, data)| (*offset, data.as_slice()))
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// Copies the bytes that `data`, which lies at `from`, and `buf`, which lies at `to`, have in common.
fn copy_overlap(from: u64, data: &[u8], to: u64, buf: &mut [u8]) {
    let skip = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    let start = usize::try_from(from.saturating_sub(to)).unwrap_or(usize::MAX);
    if let (Some(data), Some(buf)) = (data.get(skip..), buf.get_mut(start..)) {
        for (byte, new) in buf.iter_mut().zip(data) {
            *byte = *new;
        }
    }
}

/// A volume with changes that only exist in memory, block by block.
pub(super) struct Changes<'a> {
    device: &'a dyn VolumeRead,
    blocks: BTreeMap<u64, [u8; BLOCK]>,
}

impl<'a> Changes<'a> {
    pub fn new(device: &'a dyn VolumeRead) -> Self {
        Self { device, blocks: BTreeMap::new() }
    }

    /// Fills `buf` from `offset`, changes included.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.device.read_at(VolumeOffset(offset), buf)?;
        let end = offset.saturating_add(buf.len() as u64);
        let blocks = offset / BLOCK as u64..end.div_ceil(BLOCK as u64);
        if blocks.start < blocks.end {
            for (number, block) in self.blocks.range(blocks) {
                copy_overlap(number.saturating_mul(BLOCK as u64), block, offset, buf);
            }
        }
        Ok(())
    }

    /// Changes the bytes from `offset` on.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.checked_add(data.len() as u64).filter(|&end| end <= self.device.len());
        let end = end.ok_or_else(|| refuse(format!("a change at byte {offset:#x} would leave the volume")))?;
        for number in offset / BLOCK as u64..end.div_ceil(BLOCK as u64) {
            let start = number * BLOCK as u64;
            let mut block = [0; BLOCK];
            let is_whole = offset <= start && start + BLOCK as u64 <= end;
            if !is_whole {
                self.read(start, &mut block)?;
            }
            copy_overlap(offset, data, start, &mut block);
            self.blocks.insert(number, block);
            if self.blocks.len() > BLOCKS_MAX {
                return Err(refuse("the log changes more than 128 MiB of metadata"));
            }
        }
        Ok(())
    }

    /// The changes as they go out: neighbouring blocks joined, blocks that are as before left out.
    pub fn into_overlay(self) -> Result<Overlay> {
        let mut writes: Vec<(VolumeOffset, Vec<u8>)> = Vec::new();
        for (number, block) in self.blocks {
            let offset = number.saturating_mul(BLOCK as u64);
            let mut before = [0; BLOCK];
            self.device.read_at(VolumeOffset(offset), &mut before)?;
            if before == block {
                continue;
            }
            match writes.last_mut() {
                Some((at, data)) if at.0 + data.len() as u64 == offset && data.len() < WRITE_MAX => {
                    data.extend_from_slice(&block);
                }
                _ => writes.push((VolumeOffset(offset), block.to_vec())),
            }
        }
        Ok(Overlay { writes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryVolume;

    #[test]
    fn what_was_changed_is_read_back_patched_and_written_in_order() {
        let device = MemoryVolume((0..8192u32).map(|i| (i % 251) as u8).collect());
        let mut changes = Changes::new(&device);
        let mut want = device.0.clone();
        for (at, length, value) in [(4000, 200, 1), (100, 3, 2), (4100, 50, 3), (7000, 1192, 4), (511, 2, 5)] {
            changes.write(at as u64, &vec![value; length]).unwrap();
            want[at..at + length].fill(value);
            let mut got = vec![0; 700];
            changes.read(3900, &mut got).unwrap();
            assert_eq!(got, want[3900..4600]);
        }
        changes.write(2048, &device.0[2048..3000]).unwrap();
        assert!(changes.write(8000, &[0; 193]).is_err());
        let overlay = changes.into_overlay().unwrap();
        let mut written = device.0.clone();
        let mut end = 0;
        for (at, data) in overlay.writes() {
            assert!(at.0 >= end && at.0 % 512 == 0 && data.len().is_multiple_of(512));
            assert!(!(2048..3000).contains(&at.0), "blocks that did not change are not written");
            end = at.0 + data.len() as u64;
            written[at.0 as usize..end as usize].copy_from_slice(data);
        }
        assert_eq!(written, want);
        for (from, to) in [(0, 8192), (3, 4), (4095, 4097), (600, 5000), (8191, 8192)] {
            let mut buf = device.0[from..to].to_vec();
            overlay.patch(VolumeOffset(from as u64), &mut buf);
            assert_eq!(buf, want[from..to]);
        }
    }
}
