//! What the volume keeps in memory: blocks read or changed, and the undo of the running call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A block in memory.
#[derive(Debug)]
struct Slot<T> {
    value: Arc<T>,
    dirty: bool,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), dirty: self.dirty }
    }
}

/// Blocks of one kind, by number or by offset on the volume. While a call runs, the first change of each block keeps
/// what was there, so that a failing call can be undone.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    slots: BTreeMap<u64, Slot<T>>,
    dirty: BTreeSet<u64>,
    undo: Option<BTreeMap<u64, Option<Slot<T>>>>,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), dirty: BTreeSet::new(), undo: None }
    }
}

impl<T> Blocks<T> {
    /// The block, if it is in memory.
    pub fn get(&self, key: u64) -> Option<Arc<T>> {
        self.slots.get(&key).map(|s| Arc::clone(&s.value))
    }

    /// Remembers what was read. When `limit` unchanged blocks are held, all of them go first.
    pub fn remember(&mut self, key: u64, value: Arc<T>, limit: usize) {
        if self.slots.len().saturating_sub(self.dirty.len()) >= limit {
            self.slots.retain(|_, s| s.dirty);
        }
        self.slots.insert(key, Slot { value, dirty: false });
    }

    /// Stores a changed block.
    pub fn put(&mut self, key: u64, value: Arc<T>) {
        let old = self.slots.insert(key, Slot { value, dirty: true });
        self.dirty.insert(key);
        if let Some(undo) = &mut self.undo {
            undo.entry(key).or_insert(old);
        }
    }

    /// Forgets a block, changed or not.
    pub fn remove(&mut self, key: u64) {
        let old = self.slots.remove(&key);
        self.dirty.remove(&key);
        if let Some(undo) = &mut self.undo {
            undo.entry(key).or_insert(old);
        }
    }

    /// A call begins.
    pub fn begin(&mut self) {
        self.undo = Some(BTreeMap::new());
    }

    /// The call succeeded.
    pub fn commit(&mut self) {
        self.undo = None;
    }

    /// The call failed: everything is as it was.
    pub fn rollback(&mut self) {
        for (key, old) in self.undo.take().unwrap_or_default() {
            self.dirty.remove(&key);
            match old {
                Some(slot) if slot.dirty => {
                    self.dirty.insert(key);
                    self.slots.insert(key, slot);
                }
                // what was not changed is on the device, and perhaps in clusters that are free again
                _ => {
                    self.slots.remove(&key);
                }
            }
        }
    }

    /// Numbers of the changed blocks, ascending.
    pub fn dirty(&self) -> &BTreeSet<u64> {
        &self.dirty
    }

    /// Stores what a changed block has become by being written out: no longer changed.
    pub fn written(&mut self, key: u64, value: Arc<T>) {
        self.slots.insert(key, Slot { value, dirty: false });
        self.dirty.remove(&key);
    }

    /// Changed blocks with keys in `range`.
    pub fn dirty_in(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = (u64, &Arc<T>)> {
        self.dirty.range(range).filter_map(|key| Some((*key, &self.slots.get(key)?.value)))
    }

    /// Forgets everything that is not changed, when more than `limit` blocks are held.
    pub fn shrink(&mut self, limit: usize) {
        if self.slots.len() > limit {
            self.forget_clean();
        }
    }

    /// Forgets everything that is not changed.
    pub fn forget_clean(&mut self) {
        self.slots.retain(|_, s| s.dirty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollback_restores_changed_blocks_and_forgets_the_others() {
        let mut blocks = Blocks::default();
        blocks.remember(1, Arc::new('a'), 10);
        blocks.put(2, Arc::new('b'));
        blocks.begin();
        blocks.put(1, Arc::new('x'));
        blocks.put(1, Arc::new('y'));
        blocks.remove(2);
        blocks.put(3, Arc::new('z'));
        blocks.rollback();
        assert_eq!((blocks.get(1), blocks.get(2), blocks.get(3)), (None, Some('b'.into()), None));
        assert_eq!(blocks.dirty().iter().collect::<Vec<_>>(), [&2]);
    }

    #[test]
    fn only_unchanged_blocks_are_dropped() {
        let mut blocks = Blocks::default();
        blocks.put(0, Arc::new(0));
        for n in 1..100 {
            blocks.remember(n, Arc::new(n), 8);
        }
        assert!(blocks.slots.len() <= 9);
        assert_eq!(blocks.get(0), Some(Arc::new(0)));
    }
}
