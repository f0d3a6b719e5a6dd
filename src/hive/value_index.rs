//! Finding the values of large keys by name while they are edited.
//!
//! A key's value list is unsorted: to find a name, all names have to be read. A key that is edited and has many values
//! gets an index by name in memory, so that ten thousand changes of it do not read its names ten thousand times.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::Name;
use super::cells::CellOffset;
use super::name::StoredName;
use crate::error::Result;
use crate::upcase::upcase;

/// Keys with fewer values are searched without an index.
pub(super) const WORTHWHILE: u32 = 200;

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
pub(super) struct ByName {
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

    /// Whether the key has an index.
    pub(super) fn has(&self, key: CellOffset) -> bool {
        self.keys.contains_key(&key)
    }

    /// Indexes all values of a key: their names as stored, and their cells.
    pub(super) fn build<'n>(
        &self,
        values: impl Iterator<Item = Result<(StoredName<'n>, CellOffset)>>,
    ) -> Result<ByName> {
        let mut names = ByName::default();
        for value in values {
            let (name, at) = value?;
            names.add(self.hasher.hash(name.units()), at);
        }
        Ok(names)
    }

    /// Keeps the index that [`build`](Self::build) made for the key.
    pub(super) fn insert(&mut self, key: CellOffset, names: ByName) {
        self.keys.insert(key, names);
    }

    /// The cells of the key's values that may have this name; their names have to be compared.
    pub(super) fn candidates(&self, key: CellOffset, name: &Name) -> impl Iterator<Item = CellOffset> + '_ {
        let hash = self.hasher.hash(name.units().iter().copied());
        let names = self.keys.get(&key);
        names.into_iter().flat_map(move |names| names.cells.get(&hash).into_iter().chain(&names.others)).copied()
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

#[cfg(test)]
impl ValueIndex {
    /// Indexes the key again, as if every name had the hash of `name`.
    pub(super) fn build_colliding(&mut self, key: CellOffset, name: &str, values: Vec<CellOffset>) {
        let mut names = ByName::default();
        let hash = self.hasher.hash(name.encode_utf16());
        let count = values.len();
        values.into_iter().for_each(|at| names.add(hash, at));
        assert_eq!(names.others.len() + 1, count);
        self.keys.insert(key, names);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
