//! Attributes of one file record, and mapping pairs.

use super::bytes::{damaged, long_at, short_at, slice, u8_at, u16_at, u32_at, u64_at, utf16_at};
use crate::error::Result;

pub(super) const STANDARD_INFORMATION: u32 = 0x10;
pub(super) const ATTRIBUTE_LIST: u32 = 0x20;
pub(super) const SECURITY_DESCRIPTOR: u32 = 0x50;
pub(super) const DATA: u32 = 0x80;
pub(super) const INDEX_ROOT: u32 = 0x90;
pub(super) const INDEX_ALLOCATION: u32 = 0xA0;
const END: u32 = 0xFFFF_FFFF;

/// Attribute flag of LZNT1 compression.
pub(super) const COMPRESSED: u16 = 0x0001;
/// Attribute flag of EFS.
pub(super) const ENCRYPTED: u16 = 0x4000;

/// Flag of a record in use.
const IN_USE: u16 = 1;
/// Flag of a record with an index of names.
pub(super) const DIRECTORY: u16 = 2;

/// Clusters one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub vcn: u64,
    pub length: u64,
    /// First cluster on the volume; `None` for a hole.
    pub lcn: Option<u64>,
}

/// The part of a non-resident attribute that one record describes. The sizes (bytes) count in the part that starts at
/// VCN 0 alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    pub lowest: u64,
    /// One after the highest VCN.
    pub end: u64,
    pub runs: Vec<Run>,
    pub data_size: u64,
    pub initialized: u64,
    /// Clusters of a compression unit as a power of two; 0: not compressed.
    pub unit: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Resident(Vec<u8>),
    Extent(Extent),
}

/// An attribute record of a file record: one whole attribute, or one extent of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    pub kind: u32,
    pub name: Vec<u16>,
    pub flags: u16,
    pub instance: u16,
    pub value: Value,
}

impl Attribute {
    pub(super) fn lowest(&self) -> u64 {
        match &self.value {
            Value::Resident(_) => 0,
            Value::Extent(extent) => extent.lowest,
        }
    }
}

/// A file record in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub sequence: u16,
    pub flags: u16,
    /// Reference of the base record; 0 in a base record.
    pub base: u64,
    pub attributes: Vec<Attribute>,
}

impl Record {
    /// Reads a record whose fix-ups have been undone.
    pub(super) fn read(block: &[u8], cluster_count: u64) -> Result<Self> {
        let flags = u16_at(block, 0x16)?;
        if flags & IN_USE == 0 {
            return Err(damaged("a file record that is referred to is not in use"));
        }
        let used = long_at(block, 0x18)?;
        let used = slice(block, 0, used)?;
        let mut attributes = Vec::new();
        let mut at = short_at(block, 0x14)?;
        loop {
            let kind = u32_at(used, at)?;
            if kind == END {
                break;
            }
            let length = long_at(used, at.saturating_add(4))?;
            // The shortest header has 24 bytes, so that the loop ends.
            if length < 0x18 || length % 8 != 0 {
                return Err(damaged("an attribute has an impossible length"));
            }
            attributes.push(attribute(kind, slice(used, at, length)?, cluster_count)?);
            at = at.saturating_add(length);
        }
        Ok(Self { sequence: u16_at(block, 0x10)?, flags, base: u64_at(block, 0x20)?, attributes })
    }
}

fn attribute(kind: u32, bytes: &[u8], cluster_count: u64) -> Result<Attribute> {
    let name = utf16_at(bytes, short_at(bytes, 0x0A)?, usize::from(u8_at(bytes, 9)?));
    let name = if u8_at(bytes, 9)? == 0 { Vec::new() } else { name? };
    let value = match u8_at(bytes, 8)? {
        0 => Value::Resident(slice(bytes, short_at(bytes, 0x14)?, long_at(bytes, 0x10)?)?.to_vec()),
        1 => Value::Extent(extent(bytes, cluster_count)?),
        _ => return Err(damaged("an attribute is neither resident nor non-resident")),
    };
    Ok(Attribute { kind, name, flags: u16_at(bytes, 0x0C)?, instance: u16_at(bytes, 0x0E)?, value })
}

fn extent(bytes: &[u8], cluster_count: u64) -> Result<Extent> {
    let lowest = u64_at(bytes, 0x10)?;
    // Nothing allocated: the highest VCN is -1.
    let end = u64_at(bytes, 0x18)?.wrapping_add(1);
    let pairs = bytes.get(short_at(bytes, 0x20)?..).ok_or_else(|| damaged("mapping pairs are beyond their record"))?;
    let runs = mapping_pairs(pairs, lowest, cluster_count)?;
    if runs.last().map_or(lowest, |run| run.vcn.saturating_add(run.length)) != end {
        return Err(damaged("mapping pairs do not end at the highest VCN"));
    }
    let is_first = lowest == 0;
    let sizes = |at: usize| if is_first { u64_at(bytes, at) } else { Ok(0) };
    Ok(Extent { lowest, end, runs, data_size: sizes(0x30)?, initialized: sizes(0x38)?, unit: u16_at(bytes, 0x22)? })
}

/// A little-endian number of 1 to 8 bytes with a sign.
fn signed(bytes: &[u8]) -> Option<i64> {
    let last = *bytes.last()?;
    let mut wide = [if last & 0x80 == 0 { 0 } else { 0xFF }; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}

fn mapping_pairs(pairs: &[u8], lowest: u64, cluster_count: u64) -> Result<Vec<Run>> {
    let wrong = || damaged("mapping pairs are malformed");
    let (mut runs, mut at, mut vcn, mut lcn) = (Vec::new(), 0usize, lowest, 0i64);
    loop {
        let header = usize::from(u8_at(pairs, at)?);
        if header == 0 {
            return Ok(runs);
        }
        let (length_size, delta_size) = (header & 15, header >> 4);
        let length = signed(slice(pairs, at + 1, length_size)?).and_then(|length| u64::try_from(length).ok());
        let length = length.filter(|length| *length > 0).ok_or_else(wrong)?;
        let delta = slice(pairs, at + 1 + length_size, delta_size)?;
        let start = if delta.is_empty() {
            None
        } else {
            lcn = signed(delta).and_then(|delta| lcn.checked_add(delta)).ok_or_else(wrong)?;
            let start = u64::try_from(lcn).map_err(|_| wrong())?;
            if start.checked_add(length).is_none_or(|end| end > cluster_count) {
                return Err(damaged("a run is beyond the end of the volume"));
            }
            Some(start)
        };
        runs.push(Run { vcn, length, lcn: start });
        vcn = vcn.checked_add(length).filter(|vcn| *vcn < 1 << 60).ok_or_else(wrong)?;
        at += 1 + length_size + delta_size;
    }
}
