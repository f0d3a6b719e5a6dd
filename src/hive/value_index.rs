//! Finding the values of large keys by name while they are edited.
//!
//! A key's value list is unsorted: to find a name, all names have to be read. A key that is edited and has many values
//! gets an index by name in memory, so that ten thousand changes of it do not read its names ten thousand times.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::cells::CellOffset;
use super::{Hive, Name};
use crate::error::Result;
use crate::upcase::upcase;

/// Keys with fewer values are searched.
const WORTHWHILE: u32 = 200;

/// The indexes of the keys that were edited.
#[derive(Default)]
pub(super) struct ValueIndex {
    keys: HashMap<CellOffset, ByName>,
    hasher: NameHasher,
}

/// Hashes names as they are compared, with a key of this process.
#[derive(Default)]
struct NameHasher(RandomState);

impl NameHasher {
    fn hash(&self, units: impl Iterator<Item = u16>) -> u64 {
        let mut hasher = self.0.build_hasher();
        units.for_each(|unit| hasher.write_u16(upcase(unit)));
        hasher.finish()
    }
}

/// The values of one key. Names are unique in a hive that is edited: the checker demands it.
#[derive(Default)]
struct ByName {
    /// By the hash of the name.
    cells: HashMap<u64, CellOffset>,
    /// Those whose hash another one has.
    others: Vec<CellOffset>,
}

impl ValueIndex {
    /// The key has this value now.
    pub(super) fn add(&mut self, key: CellOffset, name: &Name, value: CellOffset) {
        if let Some(names) = self.keys.get_mut(&key) {
            names.add(self.hasher.hash(name.units().iter().copied()), value);
        }
    }

    /// The key's value is gone.
    pub(super) fn remove(&mut self, key: CellOffset, name: &Name, value: CellOffset) {
        if let Some(names) = self.keys.get_mut(&key) {
            let hash = self.hasher.hash(name.units().iter().copied());
            if names.cells.get(&hash) == Some(&value) {
                names.cells.remove(&hash);
            }
            names.others.retain(|&other| other != value);
        }
    }

    /// The key is gone.
    pub(super) fn forget(&mut self, key: CellOffset) {
        self.keys.remove(&key);
    }
}

impl ByName {
    fn add(&mut self, hash: u64, value: CellOffset) {
        match self.cells.entry(hash) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(value);
            }
            std::collections::hash_map::Entry::Occupied(_) => self.others.push(value),
        }
    }
}

impl Hive {
    /// The cell of the value of this name, in a hive that passed the checker.
    pub(super) fn value_to_edit(&mut self, key: CellOffset, name: &Name) -> Result<Option<CellOffset>> {
        if self.value_count(key)? < WORTHWHILE {
            return self.find_value(key, name);
        }
        if !self.value_index.keys.contains_key(&key) {
            let mut names = ByName::default();
            for at in self.value_cells(key)? {
                names.add(self.value_index.hasher.hash(self.stored_value_name(at)?.units()), at);
            }
            self.value_index.keys.insert(key, names);
        }
        let Some(names) = self.value_index.keys.get(&key) else { return Ok(None) };
        let hash = self.value_index.hasher.hash(name.units().iter().copied());
        for &at in names.cells.get(&hash).into_iter().chain(&names.others) {
            if self.stored_value_name(at)?.is(name) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::hive::ValueType;

    const NOW: FileTime = FileTime(9);

    #[test]
    fn names_with_equal_hashes_are_told_apart() {
        let mut hive = Hive::create("ROOT", NOW);
        let root = hive.root();
        for i in 0..=WORTHWHILE {
            hive.set_value(root, &format!("v{i}"), ValueType(i), b"", NOW).unwrap();
        }
        assert!(hive.value_index.keys.contains_key(&root.0));
        // As if every name had the hash of v0.
        let mut names = ByName::default();
        let hash = hive.value_index.hasher.hash("V0".encode_utf16());
        hive.value_cells(root.0).unwrap().into_iter().for_each(|at| names.add(hash, at));
        assert_eq!(names.others.len(), WORTHWHILE as usize);
        hive.value_index.keys.insert(root.0, names);
        for i in 0..=WORTHWHILE {
            let at = hive.value_to_edit(root.0, &Name::from(format!("V{i}").as_str())).unwrap();
            assert!(at.is_some(), "v{i}");
        }
        assert!(hive.delete_value(root, "v0", NOW).unwrap());
        assert!(hive.delete_value(root, "v7", NOW).unwrap());
        assert!(!hive.delete_value(root, "v7", NOW).unwrap());
        assert_eq!(hive.values(root).unwrap().len(), WORTHWHILE as usize - 1);
    }

    #[test]
    fn a_key_made_again_has_a_new_index() {
        let mut hive = Hive::create("ROOT", NOW);
        for _ in 0..3 {
            let key = hive.create_key(hive.root(), "Key", NOW).unwrap();
            for i in 0..=2 * WORTHWHILE {
                assert!(hive.set_value(key, &format!("v{i}"), ValueType(i), b"", NOW).unwrap());
            }
            for i in (0..=2 * WORTHWHILE).filter(|i| i % 3 == 0) {
                assert!(hive.delete_value(key, &format!("V{i}"), NOW).unwrap());
            }
            hive.delete_key(key, NOW).unwrap();
            assert!(hive.value_index.keys.is_empty());
        }
    }
}
