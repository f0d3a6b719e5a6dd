//! One index: its root, its blocks and their order (C1 to C7).

use std::cmp::Ordering;

use super::bits::Bits;
use super::code::Code;
use super::context::Context;
use super::file::{File, Stream};
use super::report::Fault;
use crate::error::Result;
use crate::hex;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::fixup;
use crate::ntfs::index::{Collation, block, entry, node, root};

/// Levels that an index may have: with two entries in each block this is more than the volume can hold.
const DEPTH_MAX: usize = 32;
/// Blocks that an index may have, a bound on memory: 2^32 bytes of blocks hold tens of millions of names.
const BLOCKS_MAX: u64 = 1 << 24;

/// An entry met on the way through an index, in order.
pub(super) struct IndexEntry<'a> {
    pub key: &'a [u8],
    /// The entry with its header, key and data.
    pub bytes: &'a [u8],
    /// Offset of the entry on the volume.
    pub offset: Option<u64>,
}

/// What an index must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub kind: u32,
    pub collation: Collation,
}

impl Expected {
    /// By the index's name; `owner` tells the two `$O` apart.
    pub(super) fn of(name: &str, owner: Option<&str>) -> Option<Self> {
        let view = |collation| Some(Self { kind: 0, collation });
        match (name, owner) {
            ("$I30", _) => Some(Self { kind: AttributeType::FILE_NAME.0, collation: Collation::FileName }),
            ("$SII" | "$Q", _) => view(Collation::U32),
            ("$SDH", _) => view(Collation::SecurityHash),
            ("$R", _) | ("$O", Some("$ObjId")) => view(Collation::U32Array),
            ("$O", Some("$Quota")) => view(Collation::Sid),
            _ => None,
        }
    }
}

/// A node on the way from the root to where the walk is.
struct IndexNode {
    bytes: Vec<u8>,
    /// Whether the node is a block of the allocation, not the root.
    is_block: bool,
    /// Offset of the next entry in `bytes`.
    at: usize,
    /// Offset of the first entry in `bytes`.
    first: usize,
    end: usize,
    has_children: bool,
    /// The child of the entry at `at` has been visited.
    descended: bool,
    title: String,
    /// Offset of `bytes` on the volume.
    start: Option<u64>,
}

/// Walks the index `name` of `file` in order and gives every entry to `visit`.
pub(super) fn walk(
    context: &Context<'_>,
    file: &File<'_, '_>,
    name: &str,
    expected: Option<Expected>,
    visit: &mut dyn FnMut(&IndexEntry<'_>) -> Result<()>,
) -> Result<()> {
    let Some(stream) = file.stream(AttributeType::INDEX_ROOT, name) else { return Ok(()) };
    let Some(value) = stream.first.view.value() else { return Ok(()) };
    let mut walk = Walk {
        context,
        record: file.number,
        name,
        collation: None,
        block_size: 0,
        unit: 1,
        allocation: file.stream(AttributeType::INDEX_ALLOCATION, name),
        visited: Bits::new(0),
        previous: None,
    };
    let root_at = stream
        .first
        .offset
        .map(|at| at + u64::from(crate::ntfs::attribute::resident::VALUE_OFFSET.get(stream.first.view.bytes())));
    if walk.check_root(value, root_at, expected) {
        walk.walk_tree(value, root_at, visit)?;
        let bitmap = file.stream(AttributeType::BITMAP, name);
        walk.check_bitmap(bitmap.as_ref())?;
    }
    Ok(())
}

struct Walk<'w> {
    context: &'w Context<'w>,
    record: u64,
    name: &'w str,
    collation: Option<Collation>,
    block_size: u64,
    /// Bytes that an index VCN counts.
    unit: u64,
    allocation: Option<Stream<'w, 'w>>,
    visited: Bits,
    previous: Option<Vec<u8>>,
}

impl Walk<'_> {
    fn fault(&self, code: Code, at: Option<u64>, message: impl AsRef<str>) -> Fault {
        Fault::new(code, format!("index {}: {}", self.name, message.as_ref())).record(self.record).at(at)
    }

    /// Checks the root's own fields; `false` when the tree cannot be walked.
    fn check_root(&mut self, value: &[u8], at: Option<u64>, expected: Option<Expected>) -> bool {
        let report = |fault: Fault| self.context.fault(fault);
        if value.len() < root::NODE + node::SIZE {
            report(self.fault(Code::IndexRoot, at, "its root is cut short").values(0x20, value.len()));
            return false;
        }
        let collation = root::COLLATION.get(value);
        self.collation = Collation::from_raw(collation).ok();
        if let Some(expected) = expected {
            if root::TYPE.get(value) != expected.kind {
                let fault = self.fault(Code::IndexRoot, at, "it indexes another attribute type");
                report(fault.values(format!("{:#x}", expected.kind), format!("{:#x}", root::TYPE.get(value))));
            }
            if collation != expected.collation.to_raw() {
                let fault = self.fault(Code::IndexRoot, at, "it has another collation");
                report(fault.values(format!("{:#x}", expected.collation.to_raw()), format!("{collation:#x}")));
            }
            // go on in the order that the entries should have
            self.collation = Some(expected.collation);
        }
        let size = root::BLOCK_SIZE.get(value);
        let should_be = self.context.geometry.index_block_size;
        if size != should_be {
            report(
                self.fault(Code::IndexRoot, at, "it has another block size than the volume").values(should_be, size),
            );
            return false;
        }
        self.block_size = u64::from(size);
        self.unit = u64::from(self.context.geometry.index_unit(size));
        let units = u64::from(root::UNITS_PER_BLOCK.get(value));
        // one byte: 2^8 units or more do not fit, and no formatter makes that
        if units != (self.block_size / self.unit) & 0xFF {
            let fault = self.fault(Code::IndexRoot, at, "wrong number of clusters in an index block");
            report(fault.values(self.block_size / self.unit, units));
        }
        let blocks = self.allocation.as_ref().map_or(0, |a| a.size() / self.block_size).min(BLOCKS_MAX);
        self.visited = Bits::new(blocks);
        true
    }

    fn walk_tree(
        &mut self,
        value: &[u8],
        at: Option<u64>,
        visit: &mut dyn FnMut(&IndexEntry<'_>) -> Result<()>,
    ) -> Result<()> {
        let whole = value.len() as u64;
        let Some(first) = self.open_node(value.to_vec(), root::NODE, whole, "the root".into(), at) else {
            return Ok(());
        };
        let mut stack = vec![first];
        while let Some(frame) = stack.last_mut() {
            match self.step(frame, visit)? {
                Step::Next => {}
                Step::Up => {
                    stack.pop();
                }
                Step::Down(child) => {
                    frame.descended = true;
                    if stack.len() >= DEPTH_MAX {
                        self.context.fault(self.fault(
                            Code::IndexChildPointer,
                            at,
                            "it is deeper than any index can be",
                        ));
                        return Ok(());
                    }
                    if let Some(frame) = self.open_child(child)? {
                        stack.push(frame);
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks a node's header (C2).
    fn open_node(
        &self,
        bytes: Vec<u8>,
        header: usize,
        size: u64,
        title: String,
        start: Option<u64>,
    ) -> Option<IndexNode> {
        let head = &bytes[header..];
        let (first, used, allocated) = (node::ENTRIES.get(head), node::USED.get(head), node::ALLOCATED.get(head));
        let at = start.map(|s| s + header as u64);
        let room = size - header as u64;
        if u64::from(allocated) != room {
            let fault = self.fault(Code::IndexNode, at, format!("{title} has another allocated size"));
            self.context.fault(fault.values(room, allocated));
        }
        let is_sound = first % 8 == 0 && used % 8 == 0 && first as usize >= node::SIZE;
        if !is_sound || first > used || u64::from(used) > room {
            let fault = self.fault(Code::IndexNode, at, format!("{title} has impossible sizes"));
            self.context.fault(fault.values(format!("16 <= first <= used <= {room}"), format!("{first}, {used}")));
            return None;
        }
        let has_children = node::FLAGS.get(head) & 1 != 0;
        let (at, end) = (header + first as usize, header + used as usize);
        let is_block = header == block::NODE;
        Some(IndexNode { bytes, is_block, at, first: at, end, has_children, descended: false, title, start })
    }

    /// Looks at the entry where the frame stands.
    fn step(&mut self, frame: &mut IndexNode, visit: &mut dyn FnMut(&IndexEntry<'_>) -> Result<()>) -> Result<Step> {
        let at = frame.start.map(|s| s + frame.at as u64);
        let report = |walk: &Self, code, message: &str| {
            walk.context.fault(walk.fault(code, at, format!("{}: {message}", frame.title)));
        };
        let rest = &frame.bytes[frame.at..frame.end];
        if rest.len() < entry::KEY {
            report(self, Code::IndexNode, "it has no last entry");
            return Ok(Step::Up);
        }
        let length = usize::from(entry::LENGTH.get(rest));
        let flags = entry::FLAGS.get(rest);
        let (is_last, has_child) = (flags & entry::LAST != 0, flags & entry::HAS_CHILD != 0);
        let key_length = if is_last { 0 } else { usize::from(entry::KEY_LENGTH.get(rest)) };
        let tail = if has_child { 8 } else { 0 };
        if has_child != frame.has_children && !frame.descended {
            report(self, Code::IndexChildPointer, "entries with and without children are mixed");
        }
        if length < entry::KEY + key_length + tail || length % 8 != 0 || length > rest.len() {
            report(self, Code::IndexNode, &format!("an entry with an impossible length {length}"));
            return Ok(Step::Up);
        }
        if !frame.descended && has_child {
            return Ok(Step::Down(u64::from_le_bytes(
                rest[length - 8..length].first_chunk().copied().unwrap_or_default(),
            )));
        }
        frame.descended = false;
        if is_last {
            if length != entry::KEY + tail {
                report(self, Code::IndexNode, &format!("a last entry of {length} bytes"));
            }
            if length != rest.len() {
                report(self, Code::IndexNode, "bytes after the last entry");
            }
            if frame.is_block && frame.at == frame.first && !frame.has_children {
                let fault = self.fault(Code::IndexNode, at, format!("{}: it is empty", frame.title));
                self.context.fault(fault.minor());
            }
            return Ok(Step::Up);
        }
        let key = &rest[entry::KEY..entry::KEY + key_length];
        self.check_order(key, at, &frame.title);
        visit(&IndexEntry { key, bytes: &rest[..length], offset: at })?;
        frame.at += length;
        Ok(Step::Next)
    }

    /// Each key must be greater than the one before it in the walk (C5, C6).
    fn check_order(&mut self, key: &[u8], at: Option<u64>, title: &str) {
        if let (Some(previous), Some(collation)) = (&self.previous, self.collation) {
            let order = collation.compare_fully(previous, key, &self.context.upcase);
            // how SIDs are ordered is not known for certain
            if order == Ordering::Equal || (order == Ordering::Greater && collation != Collation::Sid) {
                let (code, message) = match order {
                    Ordering::Equal => (Code::DuplicateKey, "a key is there twice"),
                    _ => (Code::IndexOrder, "an entry is out of order"),
                };
                let fault = self.fault(code, at, format!("{title}: {message}"));
                let fault = fault.values(format!("a key after {}", self.show(previous)), self.show(key));
                self.context.fault(fault);
            }
        }
        let previous = self.previous.get_or_insert_default();
        previous.clear();
        previous.extend_from_slice(key);
    }

    fn show(&self, key: &[u8]) -> String {
        if self.collation == Some(Collation::FileName) {
            let name = crate::ntfs::file_name::name_bytes(key).map(crate::ntfs::NtfsName::from_le_bytes);
            return format!("\"{}\"", name.unwrap_or_default());
        }
        hex::encode(&key[..key.len().min(20)])
    }

    /// Reads and checks the block that a child pointer names (C3, C4).
    fn open_child(&mut self, vcn: u64) -> Result<Option<IndexNode>> {
        let title = format!("block at VCN {vcn}");
        let (context, record, name) = (self.context, self.record, self.name);
        let report = |code, at: Option<u64>, message: &str| {
            context.fault(Fault::new(code, format!("index {name}: {title}: {message}")).record(record).at(at));
            Ok(None)
        };
        let Some(allocation) = &self.allocation else {
            return report(Code::IndexChildPointer, None, "there is no $INDEX_ALLOCATION");
        };
        let offset = vcn.checked_mul(self.unit).filter(|offset| offset % self.block_size == 0);
        let end = offset.and_then(|o| o.checked_add(self.block_size));
        let (Some(offset), Some(_)) = (offset, end.filter(|&end| end <= allocation.size())) else {
            return report(Code::IndexChildPointer, allocation.first.offset, "a child pointer leaves the allocation");
        };
        let number = offset / self.block_size;
        let Some(runs) = &allocation.runs else { return Ok(None) };
        let at = self.context.locate(runs, offset).and_then(|(start, _)| start);
        if self.visited.insert(number, 1).is_some() {
            return report(Code::IndexChildPointer, at, "two child pointers name it");
        }
        let mut bytes = vec![0; usize::try_from(self.block_size).unwrap_or(0)];
        if !self.context.read_stream(runs, offset, &mut bytes)? {
            return report(Code::IndexChildPointer, at, "it has no clusters");
        }
        if let Err(error) = fixup::unseal(&mut bytes, fixup::INDX) {
            return report(Code::IndexBlock, at, &error.to_string());
        }
        let own = block::VCN.get(&bytes);
        if own != vcn {
            let fault = self.fault(Code::IndexBlock, at, format!("{title}: it has the number of another one"));
            self.context.fault(fault.values(vcn, own));
        }
        self.context.report().stats.index_blocks += 1;
        Ok(self.open_node(bytes, block::NODE, self.block_size, title, at))
    }

    /// Compares the index's bitmap with the blocks that the walk met (C7).
    fn check_bitmap(&self, bitmap: Option<&Stream<'_, '_>>) -> Result<()> {
        let Some(allocation) = &self.allocation else {
            if bitmap.is_some_and(|b| b.first.view.value().is_some_and(|v| v.iter().any(|&byte| byte != 0))) {
                self.context.fault(self.fault(
                    Code::IndexBitmap,
                    None,
                    "it has a bitmap with bits but no $INDEX_ALLOCATION",
                ));
            }
            return Ok(());
        };
        let Some(bitmap) = bitmap else {
            self.context.fault(self.fault(Code::IndexBitmap, allocation.first.offset, "it has blocks but no $BITMAP"));
            return Ok(());
        };
        let at = bitmap.first.offset;
        if allocation.size() % self.block_size != 0 {
            let fault = self.fault(
                Code::IndexChildPointer,
                allocation.first.offset,
                "its allocation is not a whole number of blocks",
            );
            self.context.fault(fault.values(format!("a multiple of {}", self.block_size), allocation.size()));
        }
        let blocks = allocation.size() / self.block_size;
        let Some(bytes) = bitmap.content(self.context, BLOCKS_MAX / 8)? else { return Ok(()) };
        if (bytes.len() as u64).saturating_mul(8) < blocks {
            let fault = self.fault(Code::IndexBitmap, at, "its bitmap is shorter than its allocation");
            self.context.fault(fault.values(blocks.div_ceil(8), bytes.len()));
        }
        for (index, chunk) in (0u64..).zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let (marked, used) = (u64::from_le_bytes(word), self.visited.word(index));
            let differ = (marked ^ used) & if chunk.len() == 8 { u64::MAX } else { (1 << (8 * chunk.len())) - 1 };
            if differ != 0 {
                let block = index * 64 + u64::from(differ.trailing_zeros());
                let is_marked = marked >> differ.trailing_zeros() & 1;
                let fault = self.fault(Code::IndexBitmap, at, format!("the bitmap is wrong for block {block}"));
                self.context.fault(fault.values(1 - is_marked, is_marked));
            }
        }
        Ok(())
    }
}

/// What comes after an entry.
enum Step {
    /// The next entry of the same node.
    Next,
    /// The end of the node: its parent's next entry follows.
    Up,
    /// The child with this VCN.
    Down(u64),
}
