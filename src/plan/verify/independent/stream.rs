//! The content of an attribute: resident, in clusters, sparse or compressed.

use super::block_cache::BlockCache;
use super::bytes::{damaged, size, slice};
use super::geometry::Geometry;
use super::lznt1;
use super::record::{Attribute, COMPRESSED, ENCRYPTED, Run, Value};
use crate::error::{Error, ErrorCode, Layer, Result};

/// Largest compression unit, in bytes.
const UNIT_MAX: u64 = 1 << 20;

/// An attribute, all of its extents joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    resident: Option<Vec<u8>>,
    /// Ascending and without gaps from VCN 0.
    pub runs: Vec<Run>,
    /// Length of the content in bytes.
    pub len: u64,
    /// From this byte on the content is zero.
    pub initialized: u64,
    /// Clusters of a compression unit, of a compressed stream.
    unit: Option<u64>,
}

impl Stream {
    /// Joins the attribute records of one attribute, which are in the order of their lowest VCN.
    pub(super) fn join(parts: &[&Attribute], geometry: &Geometry) -> Result<Self> {
        let Some(first) = parts.first() else { return Err(damaged("an attribute has no records")) };
        if first.flags & ENCRYPTED != 0 {
            return Err(Error::unsupported(Layer::Plan, "cannot read an encrypted file")
                .with_code(ErrorCode::FileEncrypted)
                .hint("decrypt it in the guest (cipher /d), and try again"));
        }
        let extent = match &first.value {
            Value::Resident(bytes) => {
                let len = bytes.len() as u64;
                return Ok(Self { resident: Some(bytes.clone()), runs: Vec::new(), len, initialized: len, unit: None });
            }
            Value::Extent(extent) => extent,
        };
        let unit = match first.flags & 0x00FF {
            COMPRESSED if extent.unit != 0 => {
                let clusters = 1u64.checked_shl(u32::from(extent.unit)).unwrap_or(u64::MAX);
                let bytes = clusters.checked_mul(geometry.cluster).filter(|bytes| *bytes <= UNIT_MAX);
                bytes.ok_or_else(|| damaged("a compression unit is too large"))?;
                Some(clusters)
            }
            0 | COMPRESSED => None,
            _ => return Err(damaged("an attribute is compressed by an unknown method")),
        };
        let mut this = Self {
            resident: None,
            runs: Vec::new(),
            len: extent.data_size,
            initialized: extent.initialized.min(extent.data_size),
            unit,
        };
        let mut end = 0;
        for part in parts {
            let Value::Extent(extent) = &part.value else {
                return Err(damaged("an attribute is resident and non-resident"));
            };
            if extent.lowest != end {
                return Err(damaged("the extents of an attribute have a gap or overlap"));
            }
            end = extent.end;
            this.runs.extend_from_slice(&extent.runs);
        }
        if end.checked_mul(geometry.cluster).is_none_or(|mapped| mapped < this.len) {
            return Err(damaged("a stream is longer than its runs"));
        }
        Ok(this)
    }

    /// Adds the next extent of `$MFT`, which is found through the ones before it.
    pub(super) fn extend(&mut self, runs: &[Run]) {
        self.runs.extend_from_slice(runs);
    }

    /// The stream of `$MFT` while only its first extent is known.
    pub(super) fn of_runs(runs: Vec<Run>, len: u64, initialized: u64) -> Self {
        Self { resident: None, runs, len, initialized, unit: None }
    }

    /// The first VCN that no run maps.
    pub(super) fn end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.vcn.saturating_add(run.length))
    }

    /// Whether the volume's clusters hold every byte as it is.
    pub(super) fn is_plain(&self) -> bool {
        self.unit.is_none() && self.initialized == self.len && self.runs.iter().all(|run| run.lcn.is_some())
    }

    pub(super) fn is_resident(&self) -> bool {
        self.resident.is_some()
    }

    /// Fills `buf` from byte `at`. A range beyond the end is damage.
    pub(super) fn read(&self, device: &BlockCache<'_>, geometry: &Geometry, at: u64, buf: &mut [u8]) -> Result<()> {
        if at.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(damaged("a stream ends too early"));
        }
        if let Some(bytes) = &self.resident {
            buf.copy_from_slice(slice(bytes, size(at)?, buf.len())?);
            return Ok(());
        }
        let written = size(self.initialized.saturating_sub(at))?.min(buf.len());
        let (written, zeros) = buf.split_at_mut(written);
        zeros.fill(0);
        match self.unit {
            Some(unit) => self.read_compressed(device, geometry, unit, at, written),
            None => self.read_clusters(device, geometry, at, written),
        }
    }

    /// The whole stream; one longer than `limit` bytes is damage.
    pub(super) fn read_all(&self, device: &BlockCache<'_>, geometry: &Geometry, limit: u64) -> Result<Vec<u8>> {
        if self.len > limit {
            return Err(damaged("a stream is longer than it can be"));
        }
        let mut bytes = vec![0; size(self.len)?];
        self.read(device, geometry, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The run of a VCN, and how many clusters of it lie before that VCN.
    fn run(&self, vcn: u64) -> Result<(&Run, u64)> {
        let after = self.runs.partition_point(|run| run.vcn <= vcn);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        let run = run.and_then(|run| Some((run, vcn.checked_sub(run.vcn)?)));
        run.filter(|(run, inside)| *inside < run.length).ok_or_else(|| damaged("no run maps a part of a stream"))
    }

    fn read_clusters(&self, device: &BlockCache<'_>, geometry: &Geometry, at: u64, buf: &mut [u8]) -> Result<()> {
        let overflow = || damaged("a run is beyond the end of the volume");
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let (run, inside) = self.run(at / geometry.cluster)?;
            let skip = at % geometry.cluster;
            let left = (run.length - inside).saturating_mul(geometry.cluster) - skip;
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (to, next) = rest.split_at_mut(count);
            match run.lcn {
                Some(lcn) => {
                    let start = lcn.checked_add(inside).and_then(|lcn| lcn.checked_mul(geometry.cluster));
                    device.read(start.and_then(|start| start.checked_add(skip)).ok_or_else(overflow)?, to)?;
                }
                None => to.fill(0),
            }
            at = at.checked_add(count as u64).ok_or_else(overflow)?;
            rest = next;
        }
        Ok(())
    }

    fn read_compressed(
        &self,
        device: &BlockCache<'_>,
        geometry: &Geometry,
        unit: u64,
        at: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let unit_bytes = unit * geometry.cluster;
        let (mut at, mut rest) = (at, buf);
        let mut unpacked = vec![0; size(unit_bytes)?];
        while !rest.is_empty() {
            self.unpack(device, geometry, at / unit_bytes * unit, &mut unpacked)?;
            let from = unpacked.get(size(at % unit_bytes)?..).unwrap_or_default();
            let count = from.len().min(rest.len());
            let (to, next) = rest.split_at_mut(count);
            to.copy_from_slice(slice(from, 0, count)?);
            at = at.saturating_add(count as u64);
            rest = next;
        }
        Ok(())
    }

    /// Unpacks the compression unit that starts at VCN `first`.
    fn unpack(&self, device: &BlockCache<'_>, geometry: &Geometry, first: u64, out: &mut [u8]) -> Result<()> {
        let cluster = size(geometry.cluster)?;
        let mut packed = Vec::new();
        let clusters = out.len() / cluster;
        let mut has_hole = false;
        for vcn in (first..).take(clusters) {
            // The last unit of a stream may be mapped in part.
            let lcn = if vcn < self.end() {
                self.run(vcn).map(|(run, inside)| run.lcn.map(|lcn| lcn + inside))?
            } else {
                None
            };
            match lcn {
                Some(_) if has_hole => return Err(damaged("a compression unit has clusters after its hole")),
                Some(lcn) => {
                    let start = packed.len();
                    packed.resize(start + cluster, 0);
                    let to = packed.get_mut(start..).unwrap_or_default();
                    device.read(lcn.saturating_mul(geometry.cluster), to)?;
                }
                None => has_hole = true,
            }
        }
        if packed.is_empty() {
            out.fill(0);
        } else if packed.len() == out.len() {
            out.copy_from_slice(&packed);
        } else {
            lznt1::decompress(&packed, out)?;
        }
        Ok(())
    }
}
