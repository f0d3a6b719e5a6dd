//! What the volume keeps in memory: blocks read or changed, and the undo of the running call.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A block in memory.
#[derive(Debug)]
struct Slot<T> {
    value: Arc<T>,
    dirty: bool,
    /// It is better kept than others.
    lasts: bool,
    /// When it was used last.
    used: Cell<u64>,
    /// It stands among those that can be forgotten.
    listed: bool,
}

/// Blocks of one kind, by number or by offset on the volume. While a call runs, the first change of each block keeps
/// what was there, so that a failing call can be undone.
#[derive(Debug)]
pub(crate) struct Blocks<T> {
    slots: HashMap<u64, Slot<T>>,
    dirty: BTreeSet<u64>,
    undo: Option<BTreeMap<u64, Option<Slot<T>>>>,
    /// Counts the uses of blocks.
    uses: Cell<u64>,
    /// What can be forgotten: blocks that do not last and those that do. Also what was changed or removed since.
    listed: [Vec<u64>; 2],
    /// Forgotten blocks, whose memory can be used for others.
    spare: Vec<Arc<T>>,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self {
            slots: HashMap::new(),
            dirty: BTreeSet::new(),
            undo: None,
            uses: Cell::new(0),
            listed: Default::default(),
            spare: Vec::new(),
        }
    }
}

impl<T> Blocks<T> {
    /// The block, if it is in memory.
    pub fn get(&self, key: u64) -> Option<Arc<T>> {
        let slot = self.slots.get(&key)?;
        slot.used.set(self.now());
        Some(Arc::clone(&slot.value))
    }

    /// The time of a use.
    fn now(&self) -> u64 {
        let now = self.uses.get() + 1;
        self.uses.set(now);
        now
    }

    /// Remembers what was read. When `limit` unchanged blocks are held, those that were not used for long go first.
    pub fn remember(&mut self, key: u64, value: Arc<T>, limit: usize) {
        self.shrink(limit, 0);
        self.insert_clean(key, value, false);
    }

    /// Remembers what was read, however many blocks are held. A block that `lasts` is better kept than others.
    pub fn insert_clean(&mut self, key: u64, value: Arc<T>, lasts: bool) {
        let used = Cell::new(self.now());
        self.slots.insert(key, Slot { value, dirty: false, lasts, used, listed: true });
        self.listed[usize::from(lasts)].push(key);
    }

    /// Stores a changed block.
    pub fn put(&mut self, key: u64, value: Arc<T>) {
        let used = Cell::new(self.now());
        let (lasts, listed) = self.slots.get(&key).map_or((false, false), |s| (s.lasts, s.listed));
        let old = self.slots.insert(key, Slot { value, dirty: true, lasts, used, listed });
        self.dirty.insert(key);
        if let Some(undo) = &mut self.undo {
            undo.entry(key).or_insert(old);
        }
    }

    /// Changes a block that is in memory; `None` when it is not.
    pub fn change<R>(&mut self, key: u64, change: impl FnOnce(&mut T) -> R) -> Option<R>
    where
        T: Clone,
    {
        let now = self.now();
        let slot = self.slots.get_mut(&key)?;
        if let Some(undo) = &mut self.undo {
            // what was not changed is on the device and need not be kept
            undo.entry(key).or_insert_with(|| {
                let (lasts, used) = (slot.lasts, slot.used.clone());
                slot.dirty.then(|| Slot { value: Arc::clone(&slot.value), dirty: true, lasts, used, listed: false })
            });
        }
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.insert(key);
        }
        slot.used.set(now);
        Some(change(Arc::make_mut(&mut slot.value)))
    }

    /// Forgets a block, changed or not.
    pub fn remove(&mut self, key: u64) {
        let old = self.slots.remove(&key);
        self.dirty.remove(&key);
        if let Some(undo) = &mut self.undo {
            undo.entry(key).or_insert(old);
        }
    }

    /// Begins an operation that [`rollback`](Self::rollback) can undo.
    pub fn begin(&mut self) {
        self.undo = Some(BTreeMap::new());
    }

    /// Ends an operation that succeeded.
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
                    // it may have left the list meanwhile; to stand there twice does no harm
                    self.slots.insert(key, Slot { listed: false, ..slot });
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

    /// Calls `visit` with every changed block, in the order of their numbers.
    pub fn visit_dirty<E>(&mut self, mut visit: impl FnMut(u64, &mut T) -> Result<(), E>) -> Result<(), E>
    where
        T: Clone,
    {
        for &key in &self.dirty {
            if let Some(slot) = self.slots.get_mut(&key) {
                visit(key, Arc::make_mut(&mut slot.value))?;
            }
        }
        Ok(())
    }

    /// What was changed has been written out.
    pub fn written(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.dirty = false;
                if !std::mem::replace(&mut slot.listed, true) {
                    self.listed[usize::from(slot.lasts)].push(key);
                }
            }
        }
    }

    /// Changed blocks with keys in `range`.
    pub fn dirty_in(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = (u64, &Arc<T>)> {
        self.dirty.range(range).filter_map(|key| Some((*key, &self.slots.get(key)?.value)))
    }

    /// When `limit` unchanged blocks are held, forgets the half of them that was not used for longer. Up to `most`
    /// blocks that last do not count, and stay.
    pub fn shrink(&mut self, limit: usize, most: usize) {
        if self.listed[1].len() > most && self.unlist_changed(true) > most {
            for key in std::mem::take(&mut self.listed[1]) {
                if let Some(slot) = self.slots.get_mut(&key) {
                    slot.lasts = false;
                    self.listed[0].push(key);
                }
            }
        }
        if self.listed[0].len() < limit.max(1) || self.unlist_changed(false) < limit.max(1) {
            return;
        }
        let used = |key: &u64| self.slots.get(key).map_or(0, |slot| slot.used.get());
        let mut uses: Vec<u64> = self.listed[0].iter().map(used).collect();
        let Some(last) = uses.len().checked_sub(limit / 2 + 1) else { return };
        let (_, &mut last, _) = uses.select_nth_unstable(last);
        let (slots, spare) = (&mut self.slots, &mut self.spare);
        self.listed[0].retain(|key| {
            let stays = slots.get(key).is_some_and(|slot| slot.used.get() > last);
            if !stays && let Some(slot) = slots.remove(key) {
                spare.push(slot.value);
            }
            stays
        });
        self.spare.truncate(limit / 2);
    }

    /// Takes from a list what was changed or removed since it came there; returns how many are left.
    fn unlist_changed(&mut self, lasting: bool) -> usize {
        let slots = &mut self.slots;
        let list = &mut self.listed[usize::from(lasting)];
        list.retain(|key| {
            slots.get_mut(key).is_some_and(|slot| {
                slot.listed = !slot.dirty;
                slot.listed && slot.lasts == lasting
            })
        });
        list.len()
    }

    /// A forgotten block, for the use of its memory.
    pub fn spare(&mut self) -> Option<T> {
        self.spare.pop().and_then(Arc::into_inner)
    }

    /// Forgets everything that is not changed.
    pub fn forget_clean(&mut self) {
        self.slots.retain(|_, s| s.dirty);
        self.slots.values_mut().for_each(|s| s.listed = false);
        self.listed.iter_mut().for_each(Vec::clear);
        self.spare.clear();
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
        blocks.remember(1, Arc::new('a'), 10);
        blocks.begin();
        for (key, to, from) in [(1, 'x', 'a'), (1, 'y', 'x'), (2, 'z', 'b')] {
            assert_eq!(blocks.change(key, |value| std::mem::replace(value, to)), Some(from));
        }
        assert_eq!(blocks.change(3, |_| ()), None);
        assert_eq!((blocks.get(1), blocks.get(2)), (Some('y'.into()), Some('z'.into())));
        blocks.rollback();
        assert_eq!((blocks.get(1), blocks.get(2), blocks.get(3)), (None, Some('b'.into()), None));
        assert_eq!(blocks.dirty().iter().collect::<Vec<_>>(), [&2]);
    }

    #[test]
    fn only_unchanged_blocks_are_dropped_and_those_in_use_last() {
        for limit in 0..9 {
            let mut blocks = Blocks::default();
            blocks.put(0, Arc::new(0));
            blocks.remember(1, Arc::new(1), limit);
            for n in 2..100 {
                assert_eq!(blocks.get(1).is_some(), limit > 1 || n == 2, "{limit} {n}");
                blocks.remember(n, Arc::new(n), limit);
                assert!(blocks.slots.len() <= limit.max(1) + 1);
                assert_eq!(blocks.get(n), Some(Arc::new(n)));
            }
            assert_eq!(blocks.get(0), Some(Arc::new(0)));
        }
    }

    #[test]
    fn lasting_blocks_stay_unless_there_are_too_many() {
        for most in [0, 20, 50] {
            let mut blocks = Blocks::default();
            for n in 0..1000u64 {
                blocks.shrink(8, most);
                blocks.insert_clean(n, Arc::new(n), n % 25 == 0);
            }
            let lasting = (0..1000).filter(|n| n % 25 == 0 && blocks.get(*n).is_some()).count();
            let others = (0..1000).filter(|n| n % 25 != 0 && blocks.get(*n).is_some()).count();
            assert!(others <= 8, "{others}");
            assert!(if most == 50 { lasting == 40 } else { lasting <= most + 8 }, "{most}: {lasting}");
        }
    }

    #[test]
    fn every_unchanged_block_can_be_forgotten() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let operations = proptest::collection::vec((0..9u8, 0..20u64), 1..300);
        let outcome = runner.run(&operations, |operations| {
            let mut blocks = Blocks::default();
            for (what, key) in operations {
                match what {
                    0 => blocks.put(key, Arc::new(key)),
                    1 => _ = blocks.change(key, |_| ()),
                    2 => blocks.remove(key),
                    3 => blocks.written(),
                    4 => blocks.shrink(6, 3),
                    5 => {
                        blocks.commit();
                        blocks.begin();
                    }
                    6 => {
                        blocks.rollback();
                        blocks.begin();
                    }
                    _ if blocks.get(key).is_none() => blocks.insert_clean(key, Arc::new(key), key % 2 == 0),
                    _ => {}
                }
                for (key, slot) in blocks.slots.iter().filter(|(_, slot)| !slot.dirty) {
                    proptest::prop_assert!(slot.listed && blocks.listed[usize::from(slot.lasts)].contains(key));
                }
                proptest::prop_assert_eq!(
                    &blocks.dirty,
                    &blocks.slots.iter().filter(|s| s.1.dirty).map(|s| *s.0).collect()
                );
            }
            blocks.commit();
            blocks.written();
            blocks.shrink(0, 0);
            proptest::prop_assert!(blocks.slots.len() <= 1, "{:?}", blocks.slots);
            Ok(())
        });
        assert!(outcome.is_ok(), "{outcome:?}");
    }

    #[test]
    fn blocks_are_changed_until_they_are_written() {
        let mut blocks = Blocks::default();
        for n in [3, 1, 2] {
            blocks.put(n, Arc::new(n));
        }
        let mut seen = Vec::new();
        let outcome = blocks.visit_dirty(|n, value| {
            seen.push(n);
            *value += 10;
            if n == 2 { Err("full") } else { Ok(()) }
        });
        assert_eq!((outcome, seen), (Err("full"), vec![1, 2]));
        assert_eq!(blocks.dirty().iter().collect::<Vec<_>>(), [&1, &2, &3]);
        blocks.written();
        assert!(blocks.dirty().is_empty());
        blocks.forget_clean();
        assert_eq!(blocks.get(1), None);
    }
}
