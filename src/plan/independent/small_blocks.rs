//! Finds a name in a folder whose index blocks are smaller than a cluster.
//!
//! The crate `ntfs` takes every pointer to a child block for a number of clusters. Where a block is smaller than a
//! cluster NTFS counts units of 512 bytes instead, so that the crate stops at the first child. This walk takes the
//! attributes and the order of names from the crate, and reads the blocks itself; it shares nothing with the writer.

use std::cmp::Ordering;
use std::io::SeekFrom;

use nt_string::u16strle::U16StrLe;
use ntfs::{Ntfs, NtfsAttributeType, NtfsFile, NtfsReadSeek, UpcaseOrd};

use super::{Device, foreign};
use crate::error::{Error, Kind, Layer, Result};
use crate::io::VolumeRead;

/// The unit of pointers to child blocks, and the stride of fix-ups.
const UNIT: u64 = 512;
/// Where the node header lies in the value of `$INDEX_ROOT`.
const ROOT_NODE: usize = 0x10;
/// Where the node header lies in an index block.
const BLOCK_NODE: usize = 0x18;
/// A tree is never deeper: each level holds more than ten entries.
const DEPTH_MAX: usize = 32;
const HAS_CHILD: u16 = 1;
const IS_LAST: u16 = 2;

fn wrong(what: &'static str) -> Error {
    Error::new(Kind::Verify, Layer::Plan, "the staged volume cannot be read back").expected_found("a sound index", what)
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    at.checked_add(length).and_then(|end| bytes.get(at..end)).ok_or_else(|| wrong("a field beyond its block"))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    slice(bytes, at, N)?.try_into().map_err(|_| wrong("a field beyond its block"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<usize> {
    usize::try_from(u32::from_le_bytes(number(bytes, at)?)).map_err(|_| wrong("a size beyond memory"))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    number(bytes, at).map(u64::from_le_bytes)
}

/// Where to go on after one node.
enum Step {
    /// The record of the name.
    Found(u64),
    /// The block that would hold it.
    Child(u64),
    /// It is not there.
    Absent,
}

/// Searches one node, whose header is at `header`.
fn search(node: &[u8], header: usize, ntfs: &Ntfs, name: &str) -> Result<Step> {
    let first = header.checked_add(u32_at(node, header)?).ok_or_else(|| wrong("a first entry beyond its node"))?;
    let end = header.checked_add(u32_at(node, header.saturating_add(4))?).filter(|end| *end <= node.len());
    let end = end.ok_or_else(|| wrong("a node larger than its block"))?;
    let mut at = first;
    while at < end {
        let length = usize::from(u16_at(node, at.saturating_add(8))?);
        if length < 0x10 || length > end - at {
            return Err(wrong("an entry larger than its node"));
        }
        let entry = slice(node, at, length)?;
        let flags = u16_at(entry, 0x0C)?;
        let order = if flags & IS_LAST == 0 {
            let units = usize::from(number::<1>(entry, 0x50)?[0]);
            name.upcase_cmp(ntfs, &U16StrLe(slice(entry, 0x52, units * 2)?))
        } else {
            Ordering::Less
        };
        match order {
            Ordering::Equal => return Ok(Step::Found(u64_at(entry, 0)? & 0xFFFF_FFFF_FFFF)),
            Ordering::Less if flags & HAS_CHILD != 0 => return Ok(Step::Child(u64_at(entry, length - 8)?)),
            Ordering::Less => return Ok(Step::Absent),
            Ordering::Greater => at += length,
        }
    }
    Err(wrong("a node without a last entry"))
}

/// Checks the signature and the place of a block, and undoes its fix-up.
fn unprotect(block: &mut [u8], vcn: u64) -> Result<()> {
    if slice(block, 0, 4)? != b"INDX" || u64_at(block, 0x10)? != vcn {
        return Err(wrong("a block that is not the one pointed to"));
    }
    let array = usize::from(u16_at(block, 4)?);
    let usn = number::<2>(block, array)?;
    for stride in 0..block.len() / 512 {
        let word = number::<2>(block, array.saturating_add(2 * (stride + 1)))?;
        let tail = block.get_mut(stride * 512 + 510..stride * 512 + 512).ok_or_else(|| wrong("a torn block"))?;
        if tail != usn {
            return Err(wrong("a torn block"));
        }
        tail.copy_from_slice(&word);
    }
    Ok(())
}

/// The record number of `name` in a folder.
///
/// # Errors
/// When the index is not sound.
pub(super) fn find<D: VolumeRead + ?Sized>(
    directory: &NtfsFile<'_>,
    ntfs: &Ntfs,
    device: &mut Device<'_, D>,
    name: &str,
) -> Result<Option<u64>> {
    let mut root = None;
    let mut allocation = None;
    let mut attributes = directory.attributes();
    while let Some(item) = attributes.next(device) {
        let item = item.map_err(foreign)?;
        let attribute = item.to_attribute().map_err(foreign)?;
        let is_i30 = attribute.name().map_err(foreign)? == "$I30";
        match attribute.ty().map_err(foreign)? {
            NtfsAttributeType::IndexRoot if is_i30 => {
                let length = usize::try_from(attribute.value_length()).map_err(|_| wrong("a root beyond memory"))?;
                let mut bytes = vec![0; length];
                let mut value = attribute.value(device).map_err(foreign)?;
                value.read_exact(device, &mut bytes).map_err(foreign)?;
                root = Some(bytes);
            }
            NtfsAttributeType::IndexAllocation if is_i30 && allocation.is_none() => allocation = Some(item.clone()),
            _ => {}
        }
    }
    let root = root.ok_or_else(|| wrong("a folder without an index root"))?;
    let size = u32_at(&root, 8)?;
    if !(512..=65536).contains(&size) || !size.is_power_of_two() {
        return Err(wrong("an index block of an impossible size"));
    }
    let mut step = search(&root, ROOT_NODE, ntfs, name)?;
    let mut block = vec![0; size];
    for _ in 0..DEPTH_MAX {
        let vcn = match step {
            Step::Found(record) => return Ok(Some(record)),
            Step::Absent => return Ok(None),
            Step::Child(vcn) => vcn,
        };
        let item = allocation.as_ref().ok_or_else(|| wrong("a child block without an index allocation"))?;
        let attribute = item.to_attribute().map_err(foreign)?;
        let mut value = attribute.value(device).map_err(foreign)?;
        let at = vcn.checked_mul(UNIT).ok_or_else(|| wrong("a child block beyond the index"))?;
        value.seek(device, SeekFrom::Start(at)).map_err(foreign)?;
        value.read_exact(device, &mut block).map_err(foreign)?;
        unprotect(&mut block, vcn)?;
        step = search(&block, BLOCK_NODE, ntfs, name)?;
    }
    Err(wrong("an index without an end"))
}
