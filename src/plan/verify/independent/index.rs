//! Looks keys up in an index.

use std::cmp::Ordering;

use super::bytes::{damaged, long_at, short_at, slice, u16_at, u64_at, unprotect};
use super::file::{File, Files};
use super::record::{INDEX_ALLOCATION, INDEX_ROOT};
use crate::error::Result;

/// Where the node header lies in the value of `$INDEX_ROOT`.
const ROOT_NODE: usize = 0x10;
/// Where the node header lies in an index block.
const BLOCK_NODE: usize = 0x18;
/// A tree is never deeper: each level holds several entries.
const DEPTH_MAX: usize = 32;
/// Largest value of `$INDEX_ROOT`, which is resident.
const ROOT_MAX: u64 = 64 << 10;
const HAS_CHILD: u16 = 1;
const IS_LAST: u16 = 2;

/// Where to go on after one node.
enum Step {
    Found(Vec<u8>),
    /// The VCN of the block that would hold it.
    Child(u64),
    Absent,
}

/// The key of an entry.
pub(super) fn key(entry: &[u8]) -> Result<&[u8]> {
    slice(entry, 0x10, short_at(entry, 0x0A)?)
}

/// Size of an index's blocks, in bytes.
pub(super) fn block_size(root: &[u8]) -> Result<u64> {
    let size = long_at(root, 8)?;
    let is_legal = size.is_power_of_two() && (512..=65536).contains(&size);
    if is_legal { Ok(size as u64) } else { Err(damaged("an index has blocks of an impossible size")) }
}

/// The value of `$INDEX_ROOT`; `None` when the file has no such index.
pub(super) fn root(files: &Files<'_>, file: &File, name: &[u16]) -> Result<Option<Vec<u8>>> {
    let root = files.stream(file, INDEX_ROOT, name)?;
    root.map(|root| files.read_all(&root, ROOT_MAX)).transpose()
}

/// The entry of a key in an index; `order` compares what is looked for with the key of an entry.
pub(super) fn find(
    files: &Files<'_>,
    file: &File,
    name: &[u16],
    order: &dyn Fn(&[u8]) -> Result<Ordering>,
) -> Result<Option<Vec<u8>>> {
    let Some(root) = root(files, file, name)? else { return Ok(None) };
    let size = block_size(&root)?;
    let unit = if files.geometry.cluster <= size { files.geometry.cluster } else { 512 };
    let mut step = search(&root, ROOT_NODE, order)?;
    let mut blocks = None;
    let mut block = vec![0; super::bytes::size(size)?];
    for _ in 0..DEPTH_MAX {
        let vcn = match step {
            Step::Found(entry) => return Ok(Some(entry)),
            Step::Absent => return Ok(None),
            Step::Child(vcn) => vcn,
        };
        if blocks.is_none() {
            blocks = files.stream(file, INDEX_ALLOCATION, name)?;
        }
        let blocks = blocks.as_ref().ok_or_else(|| damaged("an index has no blocks"))?;
        let at = vcn.checked_mul(unit).ok_or_else(|| damaged("an index block is beyond its index"))?;
        files.read(blocks, at, &mut block)?;
        unprotect(&mut block, b"INDX")?;
        if u64_at(&block, 0x10)? != vcn {
            return Err(damaged("an index block is not the one that is pointed to"));
        }
        step = search(&block, BLOCK_NODE, order)?;
    }
    Err(damaged("an index is too deep"))
}

/// Searches one node, whose header is at `header`.
fn search(node: &[u8], header: usize, order: &dyn Fn(&[u8]) -> Result<Ordering>) -> Result<Step> {
    let mut at = header.saturating_add(long_at(node, header)?);
    let used = slice(node, 0, header.saturating_add(long_at(node, header + 4)?))?;
    while at < used.len() {
        let length = short_at(used, at.saturating_add(8))?;
        if length < 0x10 {
            return Err(damaged("an index entry has an impossible length"));
        }
        let entry = slice(used, at, length)?;
        let flags = u16_at(entry, 0x0C)?;
        let found = if flags & IS_LAST != 0 { Ordering::Less } else { order(key(entry)?)? };
        match found {
            Ordering::Equal => return Ok(Step::Found(entry.to_vec())),
            Ordering::Less if flags & HAS_CHILD != 0 => return u64_at(entry, length - 8).map(Step::Child),
            Ordering::Less => return Ok(Step::Absent),
            Ordering::Greater => at += length,
        }
    }
    Err(damaged("an index node has no last entry"))
}
