//! Searching and splitting one node.

use std::cmp::Ordering;

use crate::error::{Error, Layer, Result};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::index_node::{EntryView, IndexEntry, Node, NodeView};
use crate::ntfs::format::units::Vcn;

/// The first entry of a node that is not less than the key.
pub(super) struct Found {
    /// Index of the entry in the node.
    pub position: usize,
    /// Its offset from the node's header, in bytes.
    pub offset: usize,
    /// Whether it has the key; else the key belongs before it.
    pub is_match: bool,
    pub child: Option<Vcn>,
}

/// Compares one entry after the other: for nodes whose offsets are not known or not in order.
pub(super) fn find_linear(view: NodeView<'_>, compare: impl Fn(&EntryView<'_>) -> Ordering) -> Result<Found> {
    for (position, entry) in view.entries().enumerate() {
        let entry = entry?;
        let order = compare(&entry);
        if order != Ordering::Less {
            let is_match = order == Ordering::Equal;
            return Ok(Found { position, offset: entry.offset, is_match, child: entry.child() });
        }
    }
    Err(damaged("index node without a last entry"))
}

/// Binary search in a node whose entries begin at `offsets` and are in order.
pub(super) fn find_binary(
    view: NodeView<'_>,
    offsets: &[u16],
    compare: impl Fn(&EntryView<'_>) -> Ordering,
) -> Result<Found> {
    let at = |position: usize| -> Result<EntryView<'_>> {
        let offset = offsets.get(position).ok_or_else(|| damaged("index node without a last entry"))?;
        view.entry(usize::from(*offset))
    };
    // the last entry comes after everything
    let (mut low, mut high) = (0, offsets.len().saturating_sub(1));
    let mut equal = None;
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(&at(middle)?) {
            Ordering::Less => low = middle + 1,
            order => {
                high = middle;
                if order == Ordering::Equal {
                    equal = Some(middle);
                }
            }
        }
    }
    let entry = at(low)?;
    Ok(Found { position: low, offset: entry.offset, is_match: equal == Some(low), child: entry.child() })
}

/// Splits a node that is too long: what stays in the block `left_vcn`, the entry that moves up (with the left block as
/// its child), and what goes to the new block. `inserted` is the position of the entry that made it too long.
pub(super) fn split(node: Node, inserted: usize, capacity: usize, left_vcn: Vcn) -> Result<(Node, IndexEntry, Node)> {
    let mut entries = node.entries;
    let ordinary = entries.len().saturating_sub(1);
    if ordinary < 3 {
        return Err(Error::unsupported(Layer::Ntfs, "index blocks too small for the names in them"));
    }
    let half = entries.iter().map(IndexEntry::length).sum::<usize>() / 2;
    let mut sum = 0;
    let by_bytes = entries.iter().position(|e| {
        sum += e.length();
        sum > half
    });
    // names that arrive in ascending order leave full nodes on the left
    let ascending = inserted + 1 == ordinary;
    let middle = if ascending { ordinary - 2 } else { by_bytes.unwrap_or(ordinary / 2).clamp(1, ordinary - 2) };
    let right = entries.split_off(middle + 1);
    let mut up = entries.pop().ok_or_else(|| Error::bug(Layer::Ntfs, "nothing to split"))?;
    entries.push(IndexEntry::last(up.child));
    up.child = Some(left_vcn);
    let (left, right) = (Node { entries }, Node { entries: right });
    if left.length() > capacity || right.length() > capacity {
        return Err(Error::unsupported(Layer::Ntfs, "index blocks too small for the names in them"));
    }
    Ok((left, up, right))
}
