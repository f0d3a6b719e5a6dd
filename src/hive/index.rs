//! Editing a key's subkey index: insertion with the splits that live kernels make, removal.
//!
//! A leaf holds at most 507 (`lf`) or 1013 (`li`, `lh`) entries. A full single `lf` turns into an `li` in place; any
//! other full leaf is halved under an index root, the first half keeping 506 of 1013 entries.

use super::Hive;
use super::cells::{CellOffset, damaged};
use super::format::{LeafKind, NIL, key, list};
use super::name::Name;
use super::navigate::{Index, Leaf, Place};
use crate::error::{Error, Layer, Result};

impl LeafKind {
    /// The bytes of an entry.
    fn entry(self, child: CellOffset, name: &Name) -> Vec<u8> {
        let mut entry = child.0.to_le_bytes().to_vec();
        match self {
            Self::Li => {}
            Self::Lf => entry.extend(name.hint()),
            Self::Lh => entry.extend(name.hash().to_le_bytes()),
        }
        entry
    }
}

impl Hive {
    /// Puts `child` into the index of `parent`; the count and the cached maxima of `parent` are the caller's.
    pub(super) fn insert_subkey(&mut self, parent: CellOffset, child: CellOffset, name: &Name) -> Result<()> {
        let index = self.index(parent)?;
        if index.leaves.is_empty() {
            self.free_stale_list(self.cells.get(parent, key::SUBKEY_LIST)?)?;
            let kind = if self.minor >= 5 { LeafKind::Lh } else { LeafKind::Lf };
            let at = self.new_list(kind.signature(), &kind.entry(child, name), 1)?;
            return self.cells.put(parent, key::SUBKEY_LIST, at.0);
        }
        let mut place = self.place_of(&index, name)?;
        let mut leaf = *self.nth_leaf(&index, place.leaf)?;
        let mut root = index.root;
        if leaf.count >= leaf.kind.entries_max() {
            if root.is_none() && leaf.kind == LeafKind::Lf {
                leaf = self.drop_hints(leaf)?;
            } else {
                (root, leaf, place) = self.split(parent, &index, place)?;
            }
        }
        let entry = leaf.kind.entry(child, name);
        let at = self.insert_entry(leaf.at, place.entry, &entry, leaf.kind.entries_max())?;
        if at != leaf.at {
            match root {
                Some(root) => self.set_root_entry(root, place.leaf, at)?,
                None => self.cells.put(parent, key::SUBKEY_LIST, at.0)?,
            }
        }
        Ok(())
    }

    /// Takes the subkey `child` of this name out of the index of `parent`.
    pub(super) fn remove_subkey(&mut self, parent: CellOffset, child: CellOffset, name: &Name) -> Result<()> {
        let index = self.index(parent)?;
        let missing = || damaged(parent, "the index does not hold the key");
        if index.leaves.is_empty() {
            return Err(missing());
        }
        let place = self.place_of(&index, name)?;
        if place.found != Some(child) {
            return Err(missing());
        }
        let leaf = *self.nth_leaf(&index, place.leaf)?;
        if leaf.count > 1 {
            return self.remove_entry(leaf.at, place.entry, leaf.kind.stride(), leaf.count);
        }
        // Binary search reads the last entry, so an empty leaf or root must not remain.
        match index.root {
            Some(root) if index.leaves.len() > 1 => self.remove_entry(root, place.leaf, 4, index.leaves.len())?,
            root => {
                self.cells.put(parent, key::SUBKEY_LIST, NIL)?;
                if let Some(root) = root {
                    self.cells.free(root)?;
                }
            }
        }
        self.cells.free(leaf.at)
    }

    /// Drops a key's reference to the list that it points to though it has no entries. The last such reference frees
    /// the cell, unless something else uses it.
    pub(super) fn free_stale_list(&mut self, at: u32) -> Result<()> {
        match self.stale_lists.get_mut(&at) {
            Some(keys) if *keys > 1 => *keys -= 1,
            Some(_) => {
                self.stale_lists.remove(&at);
                self.cells.free(CellOffset(at))?;
            }
            None => {}
        }
        Ok(())
    }

    fn new_list(&mut self, signature: &[u8; 2], entries: &[u8], count: usize) -> Result<CellOffset> {
        let mut cell = signature.to_vec();
        cell.extend(list_count(count)?.to_le_bytes());
        cell.extend_from_slice(entries);
        self.cells.allocate_with(&cell)
    }

    /// Turns an `lf` into an `li` where it stands.
    fn drop_hints(&mut self, leaf: Leaf) -> Result<Leaf> {
        let mut cell = LeafKind::Li.signature().to_vec();
        cell.extend(list_count(leaf.count)?.to_le_bytes());
        for i in 0..leaf.count {
            cell.extend(self.leaf_key(&leaf, i)?.0.to_le_bytes());
        }
        self.cells.data_mut(leaf.at)?.fill(0);
        self.cells.overwrite(leaf.at, &cell)?;
        Ok(Leaf { kind: LeafKind::Li, ..leaf })
    }

    /// Halves the full leaf at `place`; returns the index root (made if there was none), and where `place` is now.
    fn split(&mut self, parent: CellOffset, index: &Index, place: Place) -> Result<(Option<CellOffset>, Leaf, Place)> {
        let leaf = *self.nth_leaf(index, place.leaf)?;
        let (half, stride) = (leaf.count / 2, leaf.kind.stride());
        let (from, to) = (list::ENTRIES + half * stride, list::ENTRIES + leaf.count * stride);
        let upper = self.cells.data(leaf.at)?.get(from..to).unwrap_or_default().to_vec();
        let second = self.new_list(leaf.kind.signature(), &upper, leaf.count - half)?;
        let root = match index.root {
            Some(root) => {
                let moved = self.insert_entry(root, place.leaf + 1, &second.0.to_le_bytes(), usize::from(u16::MAX))?;
                if moved != root {
                    self.cells.put(parent, key::SUBKEY_LIST, moved.0)?;
                }
                moved
            }
            None => {
                let both = [leaf.at.0.to_le_bytes(), second.0.to_le_bytes()].concat();
                let root = self.new_list(list::ROOT, &both, 2)?;
                self.cells.put(parent, key::SUBKEY_LIST, root.0)?;
                root
            }
        };
        self.cells.put(leaf.at, list::COUNT, list_count(half)?)?;
        let first = Leaf { count: half, ..leaf };
        let second = Leaf { at: second, count: leaf.count - half, ..leaf };
        Ok(if place.entry >= half {
            (Some(root), second, Place { leaf: place.leaf + 1, entry: place.entry - half, found: None })
        } else {
            (Some(root), first, place)
        })
    }

    fn set_root_entry(&mut self, root: CellOffset, i: usize, leaf: CellOffset) -> Result<()> {
        let start = list::ENTRIES + 4 * i;
        let slot = self.cells.data_mut(root)?.get_mut(start..start + 4);
        slot.ok_or_else(|| damaged(root, "index root is too short"))?.copy_from_slice(&leaf.0.to_le_bytes());
        Ok(())
    }

    /// Inserts `entry` as number `i` of a list, growing its cell by half when it is full (up to `entries_max` entries);
    /// returns where the list is now.
    fn insert_entry(&mut self, at: CellOffset, i: usize, entry: &[u8], entries_max: usize) -> Result<CellOffset> {
        let count = usize::from(self.cells.get(at, list::COUNT)?);
        let stride = entry.len();
        let used = list::ENTRIES + count * stride;
        let mut at = at;
        if used + stride > self.cells.data(at)?.len() {
            let room = (count + count / 2).min(entries_max).max(count + 1);
            at = self.cells.grow_cell(at, list::ENTRIES + room * stride)?;
        }
        let start = list::ENTRIES + i * stride;
        let cell = self.cells.data_mut(at)?;
        let area = cell.get_mut(start..used + stride);
        let area = area.ok_or_else(|| Error::bug(Layer::Hive, "subkey list did not grow"))?;
        let kept = area.len() - stride;
        area.copy_within(..kept, stride);
        area.iter_mut().zip(entry).for_each(|(slot, byte)| *slot = *byte);
        self.cells.put(at, list::COUNT, list_count(count + 1)?)?;
        Ok(at)
    }

    fn remove_entry(&mut self, at: CellOffset, i: usize, stride: usize, count: usize) -> Result<()> {
        let (start, end) = (list::ENTRIES + i * stride, list::ENTRIES + count * stride);
        let cell = self.cells.data_mut(at)?;
        let area = cell.get_mut(start..end).ok_or_else(|| damaged(at, "subkey list is too short"))?;
        area.copy_within(stride.min(area.len()).., 0);
        self.cells.put(at, list::COUNT, list_count(count - 1)?)
    }
}

fn list_count(count: usize) -> Result<u16> {
    let max = || Error::refused(Layer::Hive, "too many subkeys for one index").hint("split the key");
    u16::try_from(count).map_err(|_| max())
}
