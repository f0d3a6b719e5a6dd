//! The subkey lists `li`, `lf`, `lh` and `ri`: signature, count, entries ("Subkeys list").

use super::limits::{FAST_LEAF_MAX, LEAF_MAX};
use crate::field::{Field, Le};

/// Signature of an index root, whose entries are the cell offsets of leaves.
pub(crate) const ROOT: &[u8; 2] = b"ri";
pub(crate) const COUNT: Field<u16> = Field::at(2);
pub(crate) const ENTRIES: usize = 4;

/// The kinds of leaf, named by their signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafKind {
    /// Index leaf `li`: cell offsets alone.
    Li,
    /// Fast leaf `lf`: each offset with the first four characters of the name, the hint.
    Lf,
    /// Hash leaf `lh`: each offset with the hash of the name.
    Lh,
}

impl LeafKind {
    /// Bytes of an entry.
    pub(crate) fn stride(self) -> usize {
        if self == Self::Li { 4 } else { 8 }
    }

    /// The kind of the list in a cell; `None` when it is not a leaf.
    pub(crate) fn of(cell: &[u8]) -> Option<Self> {
        [Self::Li, Self::Lf, Self::Lh].into_iter().find(|kind| cell.starts_with(kind.signature()))
    }

    pub(crate) fn signature(self) -> &'static [u8; 2] {
        match self {
            Self::Li => b"li",
            Self::Lf => b"lf",
            Self::Lh => b"lh",
        }
    }

    /// Entries that Windows puts into one leaf.
    pub(crate) fn entries_max(self) -> usize {
        if self == Self::Lf { FAST_LEAF_MAX } else { LEAF_MAX }
    }
}

/// Entry `index` of an array of `u32` that starts at byte `start` of a cell.
pub(crate) fn entry(cell: &[u8], start: usize, index: usize, stride: usize) -> Option<u32> {
    let at = index.checked_mul(stride)?.checked_add(start)?;
    u32::try_load(cell.get(at..)?)
}
