//! Reading: keys, subkeys, values.

use std::cmp::Ordering;

use super::cells::{CellOffset, damaged};
use super::format::{DEPTH_MAX, LeafKind, NIL, SEGMENT, big_data, key, list, value};
use super::name::{StoredName, sort_by_name};
use super::{Hive, KeyId, Name, RegistryData, RegistryValue, ValueType};
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::field::Le;

impl Hive {
    /// The root key, which every hive has.
    #[must_use]
    pub fn root(&self) -> KeyId {
        KeyId(self.root)
    }

    /// Finds the key at `path` below `from`: components separated by `\`, compared without case as Windows does; the
    /// empty path is `from` itself. `None` if there is no such key.
    ///
    /// # Errors
    /// When a key on the path is damaged.
    pub fn find(&self, from: KeyId, path: &str) -> Result<Option<KeyId>> {
        let mut at = from;
        for component in components(path) {
            match self.subkey(at, &component)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Finds the subkey of this name; `None` if there is no such key.
    ///
    /// # Errors
    /// When the index of the parent is damaged.
    pub fn subkey(&self, parent: KeyId, name: &Name) -> Result<Option<KeyId>> {
        self.find_subkey(parent.0, name).map(|found| found.map(KeyId))
    }

    /// Name of the key, as stored.
    ///
    /// # Errors
    /// When the key is damaged.
    pub fn key_name(&self, key: KeyId) -> Result<Name> {
        self.stored_key_name(key.0).map(StoredName::to_name)
    }

    /// The key's name where it lies.
    pub(super) fn stored_name(&self, key: KeyId) -> Result<StoredName<'_>> {
        self.stored_key_name(key.0)
    }

    /// The key's path from the root, for messages; the root's own is empty.
    #[must_use]
    pub fn key_path(&self, key: KeyId) -> String {
        let mut names = Vec::new();
        let mut at = key.0;
        while at != self.root && names.len() < DEPTH_MAX {
            let Ok(name) = self.stored_key_name(at) else { break };
            names.push(name.to_name().to_string());
            let Ok(parent) = self.cells.get(at, key::PARENT) else { break };
            at = CellOffset(parent);
        }
        names.reverse();
        names.join("\\")
    }

    /// Time at which the key was last written.
    ///
    /// # Errors
    /// When the key is damaged.
    pub fn key_time(&self, key: KeyId) -> Result<FileTime> {
        self.check_key(key.0)?;
        Ok(FileTime(self.cells.get(key.0, key::LAST_WRITTEN)?))
    }

    /// The key's class name; `None` for most keys, which have none.
    ///
    /// # Errors
    /// When the key is damaged.
    pub fn class(&self, key: KeyId) -> Result<Option<Name>> {
        self.check_key(key.0)?;
        let length = usize::from(self.cells.get(key.0, key::CLASS_LENGTH)?);
        let Some(at) = CellOffset::from_field(self.cells.get(key.0, key::CLASS)?).filter(|_| length > 0) else {
            return Ok(None);
        };
        let bytes = self.cells.data(at)?.get(..length).ok_or_else(|| damaged(at, "class name leaves its cell"))?;
        Ok(Some(StoredName::Wide(bytes).to_name()))
    }

    /// The key's security descriptor, self-relative (MS-DTYP 2.4.6).
    ///
    /// # Errors
    /// When the key or its security cell is damaged.
    pub fn security(&self, key: KeyId) -> Result<&[u8]> {
        self.check_key(key.0)?;
        let at = CellOffset(self.cells.get(key.0, key::SECURITY)?);
        self.descriptor(at)
    }

    /// All subkeys, in the order of the index: by name, compared without case.
    ///
    /// # Errors
    /// When the index of the key is damaged.
    pub fn subkeys(&self, key: KeyId) -> Result<Vec<KeyId>> {
        let mut found = Vec::new();
        let bound = self.cells.length() as usize / key::NAME;
        for leaf in self.index(key.0)?.leaves {
            if found.len() + leaf.count > bound {
                return Err(damaged(leaf.at, "more subkeys than the hive can hold"));
            }
            for i in 0..leaf.count {
                found.push(KeyId(self.leaf_key(&leaf, i)?));
            }
        }
        Ok(found)
    }

    /// All values with their data, in the order of the key's list.
    ///
    /// # Errors
    /// When the list or a value is damaged.
    pub fn values(&self, key: KeyId) -> Result<Vec<RegistryValue>> {
        let mut values = Vec::new();
        self.each_value(key, &mut |value| {
            values.push(value);
            Ok(())
        })?;
        Ok(values)
    }

    /// Like [`values`](Self::values), one after the other.
    ///
    /// # Errors
    /// Damage, and those of `see`.
    pub fn each_value(&self, key: KeyId, see: &mut dyn FnMut(RegistryValue) -> Result<()>) -> Result<()> {
        let mut budget = self.cells.length() as usize;
        for at in self.value_list(key.0)? {
            see(self.value_within(at, &mut budget)?)?;
        }
        Ok(())
    }

    /// The value at `at`, whose size goes off the `budget`, in bytes: damage can make many values share one large cell,
    /// or be the same one.
    pub(super) fn value_within(&self, at: CellOffset, budget: &mut usize) -> Result<RegistryValue> {
        let value = self.read_value(at)?;
        let size = value.data.bytes.len() + value.name.units().len() + value::NAME;
        *budget = budget.checked_sub(size).ok_or_else(|| damaged(at, "values overlap"))?;
        Ok(value)
    }

    /// The cells of a key's values, in the order of their names.
    pub(super) fn sorted_values(&self, key: KeyId) -> Result<Vec<(StoredName<'_>, CellOffset)>> {
        let named = self.value_list(key.0)?.map(|at| Ok((self.stored_value_name(at)?, at)));
        named.collect::<Result<Vec<_>>>().map(sort_by_name)
    }

    /// Reads the value of this name, compared without case; the empty name is the default value. `None` if the key has
    /// no such value.
    ///
    /// # Errors
    /// When the list or the value is damaged.
    pub fn value(&self, key: KeyId, name: &str) -> Result<Option<RegistryData>> {
        match self.find_value(key.0, &Name::from(name))? {
            Some(at) => self.read_typed(at).map(Some),
            None => Ok(None),
        }
    }

    /// Like [`value`](Self::value), with the stored spelling of the name, which need not be valid UTF-16.
    ///
    /// # Errors
    /// See [`value`](Self::value).
    pub fn value_named(&self, key: KeyId, name: &Name) -> Result<Option<RegistryValue>> {
        match self.find_value(key.0, name)? {
            Some(at) => self.read_value(at).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn check_key(&self, at: CellOffset) -> Result<()> {
        let data = self.cells.data(at)?;
        if data.len() < key::NAME || !data.starts_with(key::SIGNATURE) {
            return Err(damaged(at, "not a key node (nk)"));
        }
        Ok(())
    }

    pub(super) fn stored_key_name(&self, at: CellOffset) -> Result<StoredName<'_>> {
        let data = self.cells.data(at)?;
        if !data.starts_with(key::SIGNATURE) {
            return Err(damaged(at, "not a key node (nk)"));
        }
        let read = || {
            let length = usize::from(key::NAME_LENGTH.try_get(data)?);
            let bytes = data.get(key::NAME..)?.get(..length)?;
            Some(StoredName::new(bytes, key::FLAGS.try_get(data)? & key::LATIN_NAME != 0))
        };
        read().ok_or_else(|| damaged(at, "key name leaves its cell"))
    }

    pub(super) fn find_subkey(&self, parent: CellOffset, name: &Name) -> Result<Option<CellOffset>> {
        let index = self.index(parent)?;
        if index.leaves.is_empty() {
            return Ok(None);
        }
        if let Ok(place) = self.place_of(&index, name) {
            if let Some(found) = place.found {
                return Ok(Some(found));
            }
            if self.verified {
                return Ok(None);
            }
        }
        // The index of an unchecked hive may be out of order.
        for leaf in &index.leaves {
            for i in 0..leaf.count {
                let at = self.leaf_key(leaf, i)?;
                if self.stored_key_name(at)?.is(name) {
                    return Ok(Some(at));
                }
            }
        }
        Ok(None)
    }

    /// The cells of a key's values.
    pub(super) fn value_cells(&self, at: CellOffset) -> Result<Vec<CellOffset>> {
        Ok(self.value_list(at)?.collect())
    }

    fn value_list(&self, at: CellOffset) -> Result<impl Iterator<Item = CellOffset> + '_> {
        let count = self.value_count(at)?;
        let predefined = self.cells.get(at, key::FLAGS)? & key::PREDEFINED != 0;
        let entries = if count == 0 || predefined {
            &[]
        } else {
            let list_at = CellOffset(self.cells.get(at, key::VALUE_LIST)?);
            let cell = self.cells.data(list_at)?;
            let entries = usize::try_from(count).ok().and_then(|n| n.checked_mul(4)).and_then(|n| cell.get(..n));
            entries.ok_or_else(|| damaged(list_at, format!("{count} values in a list of {} bytes", cell.len())))?
        };
        Ok(entries.chunks_exact(4).filter_map(u32::try_load).map(CellOffset))
    }

    /// How many values a key has.
    pub(super) fn value_count(&self, at: CellOffset) -> Result<u32> {
        self.check_key(at)?;
        self.cells.get(at, key::VALUES)
    }

    /// Where a value's cell stands in its key's list.
    pub(super) fn place_of_value(&self, key: CellOffset, value: CellOffset) -> Result<usize> {
        let place = self.value_list(key)?.position(|at| at == value);
        place.ok_or_else(|| damaged(key, "the value is not in the key's list"))
    }

    /// The cell of the value of this name.
    pub(super) fn find_value(&self, key: CellOffset, name: &Name) -> Result<Option<CellOffset>> {
        for at in self.value_list(key)? {
            if self.stored_value_name(at)?.is(name) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    pub(super) fn stored_value_name(&self, at: CellOffset) -> Result<StoredName<'_>> {
        let data = self.cells.data(at)?;
        if !data.starts_with(value::SIGNATURE) {
            return Err(damaged(at, "not a key value (vk)"));
        }
        let read = || {
            let length = usize::from(value::NAME_LENGTH.try_get(data)?);
            let bytes = data.get(value::NAME..)?.get(..length)?;
            Some(StoredName::new(bytes, value::FLAGS.try_get(data)? & value::LATIN_NAME != 0))
        };
        read().ok_or_else(|| damaged(at, "value name leaves its cell"))
    }

    fn read_value(&self, at: CellOffset) -> Result<RegistryValue> {
        let name = self.stored_value_name(at)?.to_name();
        Ok(RegistryValue { name, data: self.read_typed(at)? })
    }

    fn read_typed(&self, at: CellOffset) -> Result<RegistryData> {
        let kind = ValueType(self.cells.get(at, value::TYPE)?);
        Ok(RegistryData { kind, bytes: self.read_data(at)? })
    }

    pub(super) fn read_data(&self, at: CellOffset) -> Result<Vec<u8>> {
        let field = self.cells.get(at, value::DATA_LENGTH)?;
        let length = (field & !value::RESIDENT) as usize;
        if field & value::RESIDENT != 0 {
            let inline = self.cells.get(at, value::DATA)?.to_le_bytes();
            return Ok(inline.get(..length).ok_or_else(|| damaged(at, "resident data longer than 4 bytes"))?.to_vec());
        }
        if length == 0 {
            return Ok(Vec::new());
        }
        let data_at = CellOffset(self.cells.get(at, value::DATA)?);
        if length > SEGMENT && self.minor >= 4 {
            return self.read_big(data_at, length);
        }
        let data = self.cells.data(data_at)?.get(..length);
        Ok(data.ok_or_else(|| damaged(data_at, format!("{length} bytes of data leave their cell")))?.to_vec())
    }

    fn read_big(&self, at: CellOffset, length: usize) -> Result<Vec<u8>> {
        if length > self.cells.length() as usize {
            return Err(damaged(at, format!("value of {length} bytes in a hive of {}", self.cells.length())));
        }
        let mut data = Vec::with_capacity(length);
        for segment in self.big_segments(at)?.1 {
            let take = (length - data.len()).min(SEGMENT);
            let bytes = self.cells.data(segment)?.get(..take);
            data.extend_from_slice(bytes.ok_or_else(|| damaged(segment, "segment of big data is too short"))?);
        }
        if data.len() != length {
            return Err(damaged(at, "big data has too few segments").expected_found(length, data.len()));
        }
        Ok(data)
    }

    /// The list cell and the segments of a big data record.
    pub(super) fn big_segments(&self, at: CellOffset) -> Result<(CellOffset, Vec<CellOffset>)> {
        let record = self.cells.data(at)?;
        if !record.starts_with(big_data::SIGNATURE) {
            return Err(damaged(at, "not a big data record (db)"));
        }
        let count = usize::from(self.cells.get(at, big_data::SEGMENTS)?);
        let list_at = CellOffset(self.cells.get(at, big_data::LIST)?);
        let cell = self.cells.data(list_at)?;
        let segments: Option<Vec<_>> = (0..count).map(|i| list::entry(cell, 0, i, 4).map(CellOffset)).collect();
        Ok((list_at, segments.ok_or_else(|| damaged(list_at, "segment list is too short"))?))
    }

    /// Depth of a key, the root being 1.
    pub(super) fn depth(&self, key: CellOffset) -> Result<usize> {
        let mut at = key;
        for depth in 1..=DEPTH_MAX {
            if at == self.root {
                return Ok(depth);
            }
            self.check_key(at)?;
            at = CellOffset(self.cells.get(at, key::PARENT)?);
        }
        Err(damaged(key, "key is deeper than 512 levels"))
    }
}

/// The names in a path.
pub(super) fn components(path: &str) -> impl Iterator<Item = Name> + '_ {
    path.split('\\').filter(|c| !c.is_empty()).map(Name::from)
}

/// One leaf of a subkey index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaf {
    pub(super) at: CellOffset,
    pub(super) kind: LeafKind,
    pub(super) count: usize,
}

/// The subkey index of a key.
#[derive(Debug)]
pub(super) struct Index {
    /// The index root (`ri`), if there is one.
    pub(super) root: Option<CellOffset>,
    pub(super) leaves: Vec<Leaf>,
}

/// Where a name is in an index, or would be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) leaf: usize,
    pub(super) entry: usize,
    pub(super) found: Option<CellOffset>,
}

impl Hive {
    /// The leaves of a key's subkey index.
    pub(super) fn index(&self, key: CellOffset) -> Result<Index> {
        self.check_key(key)?;
        let at = self.cells.get(key, key::SUBKEY_LIST)?;
        if self.cells.get(key, key::SUBKEYS)? == 0 || at == NIL {
            return Ok(Index { root: None, leaves: Vec::new() });
        }
        let at = CellOffset(at);
        let cell = self.cells.data(at)?;
        if !cell.starts_with(list::ROOT) {
            return Ok(Index { root: None, leaves: Vec::from([self.leaf(at)?]) });
        }
        let count = usize::from(self.cells.get(at, list::COUNT)?);
        let leaves: Option<Vec<_>> = (0..count).map(|i| list::entry(cell, list::ENTRIES, i, 4)).collect();
        let leaves = leaves.ok_or_else(|| damaged(at, "index root is longer than its cell"))?;
        let leaves = leaves.into_iter().map(|leaf| self.leaf(CellOffset(leaf))).collect::<Result<_>>()?;
        Ok(Index { root: Some(at), leaves })
    }

    fn leaf(&self, at: CellOffset) -> Result<Leaf> {
        let cell = self.cells.data(at)?;
        let kind = LeafKind::of(cell).ok_or_else(|| damaged(at, "not a subkey list"))?;
        let count = usize::from(self.cells.get(at, list::COUNT)?);
        if list::ENTRIES + count * kind.stride() > cell.len() {
            return Err(damaged(at, format!("{count} subkeys in a list of {} bytes", cell.len())));
        }
        Ok(Leaf { at, kind, count })
    }

    /// The key that entry `i` of a leaf names.
    pub(super) fn leaf_key(&self, leaf: &Leaf, i: usize) -> Result<CellOffset> {
        let entry = list::entry(self.cells.data(leaf.at)?, list::ENTRIES, i, leaf.kind.stride());
        entry.map(CellOffset).ok_or_else(|| damaged(leaf.at, "subkey list is too short"))
    }

    /// Where `name` is, or has to go, in a sorted index with at least one leaf.
    pub(super) fn place_of(&self, index: &Index, name: &Name) -> Result<Place> {
        // The first leaf whose last entry is not below the name, else the last leaf.
        let (mut low, mut high) = (0, index.leaves.len());
        while low < high {
            let middle = low.midpoint(high);
            let leaf = self.nth_leaf(index, middle)?;
            let last = leaf.count.checked_sub(1).ok_or_else(|| damaged(leaf.at, "subkey list without entries"))?;
            let last = self.leaf_key(leaf, last)?;
            if self.stored_key_name(last)?.cmp_name(name) == Ordering::Less { low = middle + 1 } else { high = middle }
        }
        let at = low.min(index.leaves.len().saturating_sub(1));
        let leaf = self.nth_leaf(index, at)?;
        let (mut low, mut high) = (0, leaf.count);
        while low < high {
            let middle = low.midpoint(high);
            let key = self.leaf_key(leaf, middle)?;
            match self.stored_key_name(key)?.cmp_name(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Place { leaf: at, entry: middle, found: Some(key) }),
            }
        }
        Ok(Place { leaf: at, entry: low, found: None })
    }

    pub(super) fn nth_leaf<'a>(&self, index: &'a Index, i: usize) -> Result<&'a Leaf> {
        index.leaves.get(i).ok_or_else(|| Error::bug(Layer::Hive, "no such leaf in the index"))
    }
}
