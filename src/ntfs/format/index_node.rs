//! Index nodes and entries: the pieces of `$I30` and of the view indexes. The tree algorithms are in
//! the module `tree`.
//!
//! Layout: `INDEX_ROOT`, `INDEX_ALLOCATION`, `INDEX_HEADER` and `INDEX_ENTRY` as the format is publicly known.

use std::cmp::Ordering;

use super::error::damaged;
use super::name::{compare_exactly, compare_ignoring_case};
use super::units::{FileId, Vcn};
use super::upcase::UpcaseTable;
use crate::error::Result;
use crate::field::{Field, align8};
use crate::ntfs::format::fixup;

/// Fields of the value of `$INDEX_ROOT`.
pub mod root {
    use super::Field;
    /// Indexed attribute type: 0x30 for names, 0 for view indexes.
    pub const TYPE: Field<u32> = Field::at(0x00);
    /// How keys are ordered, see [`Collation`](super::Collation).
    pub const COLLATION: Field<u32> = Field::at(0x04);
    /// Bytes of an index block.
    pub const BLOCK_SIZE: Field<u32> = Field::at(0x08);
    /// Clusters of a block, or 512-byte units if a cluster is larger.
    pub const UNITS_PER_BLOCK: Field<u8> = Field::at(0x0C);
    /// Offset of the node.
    pub const NODE: usize = 0x10;
}

/// Fields of an index block (`INDX`).
pub mod block {
    use super::Field;
    /// Last `$LogFile` record that touched the block; never invented, never changed.
    pub const LSN: Field<u64> = Field::at(0x08);
    /// The block's own VCN.
    pub const VCN: Field<u64> = Field::at(0x10);
    /// Offset of the node.
    pub const NODE: usize = 0x18;
    /// Offset of the update sequence array in new blocks.
    pub const ARRAY: u16 = 0x28;
}

/// Fields of a node's header; all offsets count from the header.
pub mod node {
    use super::Field;
    /// Offset of the first entry.
    pub const ENTRIES: Field<u32> = Field::at(0x00);
    /// Bytes used, header included.
    pub const USED: Field<u32> = Field::at(0x04);
    /// Bytes available for header and entries.
    pub const ALLOCATED: Field<u32> = Field::at(0x08);
    /// Bit 0: has children.
    pub const FLAGS: Field<u8> = Field::at(0x0C);
    /// Bytes of the header.
    pub const SIZE: usize = 0x10;
}

/// Fields of an entry.
pub mod entry {
    use super::Field;
    /// Reference of the file that the name leads to (directories).
    pub const REFERENCE: Field<u64> = Field::at(0x00);
    /// Offset of the data (view indexes).
    pub const DATA_OFFSET: Field<u16> = Field::at(0x00);
    /// Bytes of the data (view indexes).
    pub const DATA_LENGTH: Field<u16> = Field::at(0x02);
    /// Bytes of the entry.
    pub const LENGTH: Field<u16> = Field::at(0x08);
    /// Bytes of the key.
    pub const KEY_LENGTH: Field<u16> = Field::at(0x0A);
    /// Bits [`HAS_CHILD`] and [`LAST`] of this entry.
    pub const FLAGS: Field<u16> = Field::at(0x0C);
    /// Offset of the key.
    pub const KEY: usize = 0x10;
    /// The last 8 bytes are the VCN of a child.
    pub const HAS_CHILD: u16 = 1;
    /// The keyless entry at the end of a node.
    pub const LAST: u16 = 2;
}

/// How the keys of an index are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collation {
    /// `$FILE_NAME`, by the name in upper case.
    FileName,
    /// One u32 (`$SII`, `$Q`).
    U32,
    /// By a SID, bytewise (`$Quota:$O`).
    Sid,
    /// Hash, then id (`$SDH`).
    SecurityHash,
    /// Array of u32 (`$ObjId:$O`, `$Reparse:$R`).
    U32Array,
}

impl Collation {
    /// From the number on disk.
    ///
    /// # Errors
    /// Damaged, for an unknown number.
    pub fn from_raw(raw: u32) -> Result<Self> {
        Ok(match raw {
            0x01 => Self::FileName,
            0x10 => Self::U32,
            0x11 => Self::Sid,
            0x12 => Self::SecurityHash,
            0x13 => Self::U32Array,
            _ => return Err(damaged("unknown collation of an index").expected_found("1, 0x10..0x13", raw)),
        })
    }

    /// The number on disk.
    #[must_use]
    pub fn to_raw(self) -> u32 {
        match self {
            Self::FileName => 0x01,
            Self::U32 => 0x10,
            Self::Sid => 0x11,
            Self::SecurityHash => 0x12,
            Self::U32Array => 0x13,
        }
    }

    /// Compares two keys. Names that differ only in case are `Equal`.
    #[must_use]
    pub fn compare(self, a: &[u8], b: &[u8], upcase: &UpcaseTable) -> Ordering {
        match self {
            Self::FileName => {
                let name = |key| super::file_name::name_bytes(key).unwrap_or_default();
                compare_ignoring_case(name(a), name(b), upcase)
            }
            _ => self.compare_words(a, b),
        }
    }

    /// [`compare`](Self::compare), with names that differ only in case in their full order.
    #[must_use]
    pub fn compare_fully(self, a: &[u8], b: &[u8], upcase: &UpcaseTable) -> Ordering {
        match self {
            Self::FileName => {
                let name = |key| super::file_name::name_bytes(key).unwrap_or_default();
                compare_exactly(name(a), name(b), upcase)
            }
            _ => self.compare_words(a, b),
        }
    }

    fn compare_words(self, a: &[u8], b: &[u8]) -> Ordering {
        if self == Self::Sid {
            return a.cmp(b);
        }
        let words = |key: &'_ [u8]| {
            key.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect::<Vec<_>>()
        };
        words(a).cmp(&words(b))
    }
}

/// One entry in a node, its bounds checked.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    /// Offset from the node's header.
    pub offset: usize,
    bytes: &'a [u8],
}

impl<'a> EntryView<'a> {
    /// The whole entry, with the VCN of its child.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The file it points to (directories).
    #[must_use]
    pub fn file(&self) -> FileId {
        FileId::from_raw(entry::REFERENCE.get(self.bytes))
    }

    /// The key; empty in the last entry.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        let length = usize::from(entry::KEY_LENGTH.get(self.bytes));
        self.bytes.get(entry::KEY..entry::KEY + length).unwrap_or_default()
    }

    /// The data (view indexes).
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        let start = usize::from(entry::DATA_OFFSET.get(self.bytes));
        let length = usize::from(entry::DATA_LENGTH.get(self.bytes));
        self.bytes.get(start..start + length).unwrap_or_default()
    }

    /// Whether it is the keyless last entry.
    #[must_use]
    pub fn is_last(&self) -> bool {
        entry::FLAGS.get(self.bytes) & entry::LAST != 0
    }

    /// VCN of the child, if it has one.
    #[must_use]
    pub fn child(&self) -> Option<Vcn> {
        let at = self.bytes.len().checked_sub(8)?;
        (entry::FLAGS.get(self.bytes) & entry::HAS_CHILD != 0).then(|| Vcn(Field::<u64>::at(at).get(self.bytes)))
    }
}

/// A node: its header and entries, wherever it is stored.
#[derive(Debug, Clone, Copy)]
pub struct NodeView<'a> {
    bytes: &'a [u8],
}

impl<'a> NodeView<'a> {
    /// The node whose header is at the start of `bytes`.
    ///
    /// # Errors
    /// Damaged, when the sizes in the header leave `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let entries = node::ENTRIES.get(bytes) as usize;
        let used = node::USED.get(bytes) as usize;
        if entries < node::SIZE || !entries.is_multiple_of(8) || used > bytes.len() || entries.saturating_add(16) > used
        {
            return Err(damaged("impossible sizes in the header of an index node")
                .expected_found(format!("{entries}+16..{}", bytes.len()), used));
        }
        Ok(Self { bytes: &bytes[..used] })
    }

    /// Whether the entries have children.
    #[must_use]
    pub fn has_children(&self) -> bool {
        node::FLAGS.get(self.bytes) & 1 != 0
    }

    /// The entry at an offset from the node's header.
    ///
    /// # Errors
    /// Damaged, when it is malformed or leaves the node.
    pub fn entry(&self, offset: usize) -> Result<EntryView<'a>> {
        entry_at(self.bytes, offset, self.has_children())
    }

    /// The entries up to and including the last one; ends after the first error.
    pub fn entries(&self) -> impl Iterator<Item = Result<EntryView<'a>>> + use<'a> {
        let bytes = self.bytes;
        let has_children = self.has_children();
        let mut offset = Some(node::ENTRIES.get(bytes) as usize);
        std::iter::from_fn(move || {
            let at = offset.take()?;
            let entry = entry_at(bytes, at, has_children);
            if let Ok(e) = &entry
                && !e.is_last()
            {
                offset = Some(at + e.bytes.len());
            }
            Some(entry)
        })
    }
}

/// Checks and returns the entry at `offset`.
fn entry_at(bytes: &[u8], offset: usize, has_children: bool) -> Result<EntryView<'_>> {
    let rest = bytes.get(offset..).filter(|r| r.len() >= entry::KEY);
    let rest = rest.ok_or_else(|| damaged("index node without a last entry"))?;
    let length = usize::from(entry::LENGTH.get(rest));
    let flags = entry::FLAGS.get(rest);
    let child = flags & entry::HAS_CHILD != 0;
    let key = if flags & entry::LAST == 0 { usize::from(entry::KEY_LENGTH.get(rest)) } else { 0 };
    let least = entry::KEY + key + if child { 8 } else { 0 };
    if length < least || !length.is_multiple_of(8) || length > rest.len() {
        return Err(damaged("index entry with an impossible length")
            .expected_found(format!("{least}..{} and a multiple of 8", rest.len()), length));
    }
    if child != has_children {
        return Err(damaged("index node mixes entries with and without children"));
    }
    if flags & entry::LAST == 0 && key == 0 {
        return Err(damaged("index entry without a key"));
    }
    Ok(EntryView { offset, bytes: &rest[..length] })
}

/// An entry on its own, while the tree is being edited: its child is kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The bytes without the child's VCN; length and flags are set when the node is built.
    bytes: Vec<u8>,
    /// The block with the entries before this one, in a node with children.
    pub child: Option<Vcn>,
}

impl IndexEntry {
    /// An entry of a directory.
    #[must_use]
    pub fn for_name(file: FileId, key: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(align8(entry::KEY + key.len()));
        bytes.resize(entry::KEY, 0);
        entry::REFERENCE.set(&mut bytes, file.to_raw());
        entry::KEY_LENGTH.set(&mut bytes, key.len() as u16);
        bytes.extend_from_slice(key);
        bytes.resize(align8(bytes.len()), 0);
        Self { bytes, child: None }
    }

    /// An entry of a view index. The data follows the key directly; `tail` bytes after the data are not counted in
    /// its length (the "II" of `$SDH`).
    #[must_use]
    pub fn for_view(key: &[u8], data: &[u8], tail: &[u8]) -> Self {
        let mut bytes = vec![0u8; entry::KEY];
        entry::DATA_OFFSET.set(&mut bytes, if data.is_empty() { 0 } else { (entry::KEY + key.len()) as u16 });
        entry::DATA_LENGTH.set(&mut bytes, data.len() as u16);
        entry::KEY_LENGTH.set(&mut bytes, key.len() as u16);
        for part in [key, data, tail] {
            bytes.extend_from_slice(part);
        }
        bytes.resize(align8(bytes.len()), 0);
        Self { bytes, child: None }
    }

    /// The keyless entry at the end of a node.
    #[must_use]
    pub fn last(child: Option<Vcn>) -> Self {
        let mut bytes = vec![0u8; entry::KEY];
        entry::FLAGS.set(&mut bytes, entry::LAST);
        Self { bytes, child }
    }

    /// A copy of an entry in a node.
    #[must_use]
    pub fn from_view(view: &EntryView<'_>) -> Self {
        let child = view.child();
        let length = view.bytes.len() - if child.is_some() { 8 } else { 0 };
        let mut bytes = view.bytes[..length].to_vec();
        entry::LENGTH.set(&mut bytes, 0);
        entry::FLAGS.set(&mut bytes, if view.is_last() { entry::LAST } else { 0 });
        Self { bytes, child }
    }

    /// The key: a `$FILE_NAME` structure in directories.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        let length = usize::from(entry::KEY_LENGTH.get(&self.bytes));
        self.bytes.get(entry::KEY..entry::KEY + length).unwrap_or_default()
    }

    /// Whether it is the keyless last entry.
    #[must_use]
    pub fn is_last(&self) -> bool {
        entry::FLAGS.get(&self.bytes) & entry::LAST != 0
    }

    /// Bytes in a node.
    #[must_use]
    pub fn length(&self) -> usize {
        self.bytes.len() + if self.child.is_some() { 8 } else { 0 }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(child) = self.child {
            out.extend_from_slice(&child.0.to_le_bytes());
        }
        let last = if self.is_last() { entry::LAST } else { 0 };
        let flags = last | if self.child.is_some() { entry::HAS_CHILD } else { 0 };
        let bytes = &mut out[start..];
        entry::LENGTH.set(bytes, self.length() as u16);
        entry::FLAGS.set(bytes, flags);
    }
}

/// A node taken apart for an edit. The last entry is always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// All entries; the last one is the keyless one.
    pub entries: Vec<IndexEntry>,
}

impl Node {
    /// Takes a node apart.
    ///
    /// # Errors
    /// Damaged, when an entry is malformed.
    pub fn from_view(view: &NodeView<'_>) -> Result<Self> {
        let entries = view.entries().map(|e| e.map(|e| IndexEntry::from_view(&e))).collect::<Result<Vec<_>>>()?;
        Ok(Self { entries })
    }

    /// Whether the entries have children.
    #[must_use]
    pub fn has_children(&self) -> bool {
        self.entries.last().is_some_and(|e| e.child.is_some())
    }

    /// Whether there is nothing but the last entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() <= 1
    }

    /// Bytes of all entries.
    #[must_use]
    pub fn length(&self) -> usize {
        self.entries.iter().map(IndexEntry::length).sum()
    }

    /// The entries as they are stored, without the header of the node.
    #[must_use]
    pub fn encode_entries(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.length());
        for entry in &self.entries {
            entry.encode(&mut out);
        }
        out
    }

    /// The value of `$INDEX_ROOT` with this node; `head` is the old value's first 16 bytes (type, collation, sizes).
    #[must_use]
    pub fn encode_root(&self, head: &[u8]) -> Vec<u8> {
        let entries = self.encode_entries();
        let size = (node::SIZE + entries.len()) as u32;
        let mut value = head.to_vec();
        value.resize(root::NODE + node::SIZE, 0);
        let header = &mut value[root::NODE..];
        node::ENTRIES.set(header, node::SIZE as u32);
        node::USED.set(header, size);
        node::ALLOCATED.set(header, size);
        header[node::FLAGS.offset..].fill(0);
        node::FLAGS.set(header, u8::from(self.has_children()));
        value.extend_from_slice(&entries);
        value
    }
}

/// The value of `$INDEX_ROOT` of an empty index.
#[must_use]
pub fn empty_root(kind: u32, collation: Collation, block_size: u32, unit: u32) -> Vec<u8> {
    let mut head = vec![0u8; root::NODE];
    root::TYPE.set(&mut head, kind);
    root::COLLATION.set(&mut head, collation.to_raw());
    root::BLOCK_SIZE.set(&mut head, block_size);
    root::UNITS_PER_BLOCK.set(&mut head, (block_size / unit.max(1)) as u8);
    Node { entries: vec![IndexEntry::last(None)] }.encode_root(&head)
}

/// An index block, its fix-ups undone and its node header checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexBlock {
    bytes: Vec<u8>,
}

impl IndexBlock {
    /// Undoes the fix-ups of a block as read from disk, and checks that it is the block with this VCN.
    ///
    /// # Errors
    /// Damaged, when it is torn, no index block, another block, or its node leaves it.
    pub fn parse(mut bytes: Vec<u8>, vcn: Vcn) -> Result<Self> {
        fixup::unseal(&mut bytes, fixup::INDX)?;
        if block::VCN.get(&bytes) != vcn.0 {
            return Err(
                damaged("index block with the number of another one").expected_found(vcn, block::VCN.get(&bytes))
            );
        }
        let this = Self { bytes };
        let array = usize::from(fixup::ARRAY_OFFSET.get(&this.bytes));
        let array_end = array + 2 * usize::from(fixup::ARRAY_COUNT.get(&this.bytes));
        let entries = node::ENTRIES.get(this.node_bytes()) as usize;
        if array < block::NODE + node::SIZE || entries.saturating_add(block::NODE) < array_end {
            return Err(damaged("index entries overlap the update sequence array"));
        }
        this.node()?;
        Ok(this)
    }

    /// A fresh block without entries (not even the last one).
    #[must_use]
    pub fn blank(vcn: Vcn, size: usize) -> Self {
        let mut bytes = vec![0u8; size];
        fixup::format(&mut bytes, fixup::INDX, block::ARRAY);
        block::VCN.set(&mut bytes, vcn.0);
        let array_end = usize::from(block::ARRAY) + 2 * (size / fixup::STRIDE + 1);
        let header = &mut bytes[block::NODE..];
        let entries = align8(array_end) - block::NODE;
        node::ENTRIES.set(header, entries as u32);
        node::USED.set(header, entries as u32);
        node::ALLOCATED.set(header, (size - block::NODE) as u32);
        Self { bytes }
    }

    fn node_bytes(&self) -> &[u8] {
        self.bytes.get(block::NODE..).unwrap_or_default()
    }

    /// The node.
    ///
    /// # Errors
    /// Damaged, when the sizes in the header leave the block.
    pub fn node(&self) -> Result<NodeView<'_>> {
        NodeView::parse(self.node_bytes())
    }

    /// Bytes available for entries.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.node_bytes().len().saturating_sub(node::ENTRIES.get(self.node_bytes()) as usize)
    }

    /// Bytes of the node that are used, its header included.
    #[must_use]
    pub fn used(&self) -> usize {
        node::USED.get(self.node_bytes()) as usize
    }

    /// The bytes, without fix-ups.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffer, for use by another block.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The node's bytes (from its header on) for changing a field in place.
    pub fn node_bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(block::NODE..).unwrap_or_default()
    }

    /// Replaces all entries; `false` when they do not fit.
    #[must_use]
    pub fn set_node(&mut self, node: &Node) -> bool {
        let entries = node.encode_entries();
        if entries.len() > self.capacity() {
            return false;
        }
        let has_children = node.has_children();
        let bytes = self.node_bytes_mut();
        let start = node::ENTRIES.get(bytes) as usize;
        bytes[start..].fill(0);
        bytes[start..start + entries.len()].copy_from_slice(&entries);
        node::USED.set(bytes, (start + entries.len()) as u32);
        node::FLAGS.set(bytes, node::FLAGS.get(bytes) & !1 | u8::from(has_children));
        true
    }

    /// Inserts an entry at `offset` from the node's header, without taking the node apart; `false` when it does not
    /// fit.
    #[must_use]
    pub fn insert_at(&mut self, offset: usize, entry: &IndexEntry) -> bool {
        let mut new = Vec::with_capacity(entry.length());
        entry.encode(&mut new);
        let bytes = self.node_bytes_mut();
        let used = node::USED.get(bytes) as usize;
        let end = used + new.len();
        if end > bytes.len() || offset > used {
            return false;
        }
        bytes.copy_within(offset..used, offset + new.len());
        bytes[offset..offset + new.len()].copy_from_slice(&new);
        node::USED.set(bytes, end as u32);
        true
    }

    /// Removes the entry at `offset` from the node's header, without taking the node apart; `false` when there is none
    /// or it is the last one.
    #[must_use]
    pub fn remove_at(&mut self, offset: usize) -> bool {
        let Ok(entry) = self.node().and_then(|node| node.entry(offset).map(|e| (e.bytes().len(), e.is_last()))) else {
            return false;
        };
        let (length, is_last) = entry;
        let bytes = self.node_bytes_mut();
        let used = node::USED.get(bytes) as usize;
        if is_last || offset + length > used {
            return false;
        }
        bytes.copy_within(offset + length..used, offset);
        bytes[used - length..used].fill(0);
        node::USED.set(bytes, (used - length) as u32);
        true
    }

    /// What goes to disk; the update sequence number advances here, too.
    ///
    /// # Errors
    /// Damaged, when the header has no valid update sequence array.
    pub fn seal(&mut self) -> Result<Vec<u8>> {
        let mut sealed = Vec::new();
        self.seal_into(&mut sealed)?;
        Ok(sealed)
    }

    /// [`seal`](Self::seal), appended to a buffer.
    ///
    /// # Errors
    /// See [`seal`](Self::seal).
    pub fn seal_into(&mut self, sealed: &mut Vec<u8>) -> Result<()> {
        fixup::seal_copy(&mut self.bytes, sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_windows_writes() {
        let root = empty_root(0x30, Collation::FileName, 4096, 4096);
        assert_eq!((root.len(), root[0x0C]), (0x30, 1));
        let promoted = Node { entries: vec![IndexEntry::last(Some(Vcn(0)))] }.encode_root(&root[..16]);
        assert_eq!(promoted.len(), 0x38);
        let block = IndexBlock::blank(Vcn(0), 4096);
        assert_eq!(node::ENTRIES.get(block.node_bytes()), 0x28);
        assert_eq!(block.capacity(), 4096 - 0x40);
        assert_eq!(IndexEntry::for_view(&[1; 4], &[2; 20], &[]).length(), 0x28);
        assert_eq!(IndexEntry::for_view(&[1; 8], &[2; 20], b"I\0I\0").length(), 0x30);
        assert_eq!(IndexEntry::for_view(&[1; 12], &[], &[]).length(), 0x20);
    }

    #[test]
    fn nodes_survive_disk_and_edits() {
        let mut block = IndexBlock::blank(Vcn(5), 4096);
        let entries: Vec<IndexEntry> = (1..40u8).map(|n| IndexEntry::for_view(&[n; 4], &[n; 20], &[])).collect();
        let mut node = Node { entries: vec![IndexEntry::last(None)] };
        assert!(block.set_node(&node));
        for (at, e) in entries.iter().enumerate() {
            node.entries.insert(at, e.clone());
            let offset = block.node().unwrap().entries().nth(at).unwrap().unwrap().offset;
            assert!(block.insert_at(offset, e));
        }
        let mut block = IndexBlock::parse(block.seal().unwrap(), Vcn(5)).unwrap();
        assert!(Node::from_view(&block.node().unwrap()).unwrap() == node);
        let before = block.clone();
        assert!(block.set_node(&node));
        assert!(block == before);
        assert!(IndexBlock::parse(block.seal().unwrap(), Vcn(6)).is_err());
    }

    #[test]
    fn mutated_blocks_never_panic() {
        let mut block = IndexBlock::blank(Vcn(0), 1024);
        let mut node = Node { entries: (1..9u8).map(|n| IndexEntry::for_view(&[n; 4], &[n; 20], &[])).collect() };
        node.entries.push(IndexEntry::last(None));
        assert!(block.set_node(&node));
        let good = block.seal().unwrap();
        for at in 0..512 {
            for value in [0, 1, 2, 3, 8, 0x10, 0x7F, 0x80, 0xFF] {
                let mut bad = good.clone();
                bad[at] = value;
                if let Ok(mut b) = IndexBlock::parse(bad, Vcn(0)) {
                    let view = b.node().unwrap();
                    for entry in view.entries().flatten() {
                        let _ = (entry.key().len(), entry.data().len(), entry.child());
                    }
                    if let Ok(mut n) = Node::from_view(&view) {
                        let at = n.entries.len() - 1;
                        n.entries.insert(at, IndexEntry::for_view(&[99; 4], &[], &[]));
                        let _ = b.set_node(&n);
                    }
                }
            }
        }
    }
}
