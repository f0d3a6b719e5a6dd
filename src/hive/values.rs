//! Editing values: resident, plain and big data.

use super::cells::{CellOffset, cell_size, damaged};
use super::format::{CELL_MAX, NIL, SEGMENT, VALUE_NAME_MAX, big_data, key, value};
use super::value_index::WORTHWHILE;
use super::{Hive, KeyId, Name, RegistryData, ValueType};
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};

/// Largest data that fits into the type's length field.
const DATA_MAX: usize = u16::MAX as usize * SEGMENT;

impl Hive {
    /// Sets a value, making it if needed; an existing one keeps its place and the spelling of its name. Returns whether
    /// anything changed: the same type and bytes again change nothing, not even the key's time.
    ///
    /// The bytes are stored as given: no terminator is added.
    ///
    /// # Errors
    /// A name longer than 16383 characters or with a NUL; data too large for the hive's version (1 MiB in 1.3); a hive
    /// that must not be edited (see [`Hive`]).
    pub fn set_value(&mut self, key: KeyId, name: &str, data: &RegistryData, now: FileTime) -> Result<bool> {
        self.set_value_named(key, &Name::from(name), data, now)
    }

    /// Like [`set_value`](Self::set_value), for a name that need not be valid UTF-16.
    ///
    /// # Errors
    /// See [`set_value`](Self::set_value).
    pub fn set_value_named(&mut self, key: KeyId, name: &Name, data: &RegistryData, now: FileTime) -> Result<bool> {
        let RegistryData { kind, bytes: data } = data;
        self.ensure_editable()?;
        self.check_value(name, data).map_err(|e| e.path(self.key_path(key)))?;
        let existing = self.value_to_edit(key.0, name)?;
        if let Some(at) = existing
            && self.cells.get(at, value::TYPE)? == kind.0
            && self.read_data(at)? == *data
        {
            return Ok(false);
        }
        self.edit(|hive| {
            match existing {
                Some(at) => {
                    hive.replace_data(at, data)?;
                    hive.cells.put(at, value::TYPE, kind.0)?;
                }
                None => hive.add_value(key.0, name, *kind, data)?,
            }
            let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            if hive.cells.get(key.0, key::LARGEST_VALUE_DATA)? < length {
                hive.cells.put(key.0, key::LARGEST_VALUE_DATA, length)?;
            }
            hive.cells.put(key.0, key::LAST_WRITTEN, now.0)?;
            Ok(true)
        })
    }

    /// Deletes the value of this name; returns whether the key had one.
    ///
    /// # Errors
    /// A damaged list of values; a hive that must not be edited (see [`Hive`]).
    pub fn delete_value(&mut self, key: KeyId, name: &str, now: FileTime) -> Result<bool> {
        self.delete_value_named(key, &Name::from(name), now)
    }

    /// Like [`delete_value`](Self::delete_value), for a name that need not be valid UTF-16.
    ///
    /// # Errors
    /// See [`delete_value`](Self::delete_value).
    pub fn delete_value_named(&mut self, key: KeyId, name: &Name, now: FileTime) -> Result<bool> {
        self.ensure_editable()?;
        let Some(at) = self.value_to_edit(key.0, name)? else { return Ok(false) };
        let place = self.place_of_value(key.0, at)?;
        self.edit(|hive| {
            let count = hive.cells.get(key.0, key::VALUES)?.saturating_sub(1);
            let list = CellOffset(hive.cells.get(key.0, key::VALUE_LIST)?);
            hive.cells.put(key.0, key::VALUES, count)?;
            if count == 0 {
                hive.cells.put(key.0, key::VALUE_LIST, NIL)?;
                hive.cells.put(key.0, key::LARGEST_VALUE_NAME, 0)?;
                hive.cells.put(key.0, key::LARGEST_VALUE_DATA, 0)?;
                hive.cells.free(list)?;
            } else {
                let cell = hive.cells.data_mut(list)?.get_mut(place * 4..(count as usize + 1) * 4);
                cell.ok_or_else(|| damaged(list, "value list is too short"))?.copy_within(4.., 0);
            }
            hive.cells.put(key.0, key::LAST_WRITTEN, now.0)?;
            hive.free_value(at)?;
            hive.value_index.remove(key.0, name, at);
            Ok(true)
        })
    }

    /// The cell of the value of this name, in a hive that passed the checker.
    fn value_to_edit(&mut self, key: CellOffset, name: &Name) -> Result<Option<CellOffset>> {
        if self.value_count(key)? < WORTHWHILE {
            return self.find_value(key, name);
        }
        if !self.value_index.has(key) {
            let cells = self.value_cells(key)?;
            let names = cells.into_iter().map(|at| Ok((self.stored_value_name(at)?, at)));
            let names = self.value_index.build(names)?;
            self.value_index.insert(key, names);
        }
        for at in self.value_index.candidates(key, name) {
            if self.stored_value_name(at)?.is(name) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn check_value(&self, name: &Name, data: &[u8]) -> Result<()> {
        let refuse = |why: String, hint: &str| Err(Error::refused(Layer::Hive, why).hint(hint));
        if name.units().len() > VALUE_NAME_MAX {
            return refuse("value name is longer than 16383 characters".into(), "shorten the name");
        }
        if name.units().contains(&0) {
            return refuse(format!("value name {name:?} holds a NUL"), "choose another name");
        }
        if self.minor < 4 && data.len() > CELL_MAX - 4 {
            let why = format!("value {name:?} has {} bytes; a hive of version 1.3 takes 1 MiB at most", data.len());
            return refuse(why, "shorten the data");
        }
        if data.len() > DATA_MAX {
            return refuse(
                format!("value {name:?} has {} bytes, a hive takes {DATA_MAX}", data.len()),
                "shorten the data",
            );
        }
        Ok(())
    }

    fn add_value(&mut self, key: CellOffset, name: &Name, kind: ValueType, data: &[u8]) -> Result<()> {
        let (bytes, latin) = name.encode();
        let at = self.cells.allocate(value::NAME + bytes.len())?;
        let cell = self.cells.data_mut(at)?;
        let mut write = || {
            cell.get_mut(..2)?.copy_from_slice(value::SIGNATURE);
            cell.get_mut(value::NAME..)?.get_mut(..bytes.len())?.copy_from_slice(&bytes);
            value::NAME_LENGTH.try_set(cell, u16::try_from(bytes.len()).ok()?)?;
            value::TYPE.try_set(cell, kind.0)?;
            value::FLAGS.try_set(cell, if latin { value::LATIN_NAME } else { 0 })
        };
        write().ok_or_else(|| Error::bug(Layer::Hive, "a new value does not fit its cell"))?;
        let (length, field) = self.store_data(data)?;
        self.cells.put(at, value::DATA_LENGTH, length)?;
        self.cells.put(at, value::DATA, field)?;
        self.append_value(key, at)?;
        self.value_index.add(key, name, at);
        let length = u32::try_from(name.wide_length()).unwrap_or(u32::MAX);
        if self.cells.get(key, key::LARGEST_VALUE_NAME)? < length {
            self.cells.put(key, key::LARGEST_VALUE_NAME, length)?;
        }
        Ok(())
    }

    /// Puts a value at the end of the key's list. Short lists grow by what is needed, long ones in hundreds, very long
    /// ones by an eighth: each list that is outgrown leaves a hole in the hive.
    fn append_value(&mut self, key: CellOffset, at: CellOffset) -> Result<()> {
        let count = self.cells.get(key, key::VALUES)? as usize;
        if (count + 1) * 4 > CELL_MAX - 4 {
            let error = Error::refused(Layer::Hive, "too many values in one key").path(self.key_path(KeyId(key)));
            return Err(error.hint("spread the values over several keys"));
        }
        let list = if count == 0 {
            self.free_stale_list(self.cells.get(key, key::VALUE_LIST)?)?;
            self.cells.allocate(4)?
        } else {
            let old = CellOffset(self.cells.get(key, key::VALUE_LIST)?);
            if (count + 1) * 4 <= self.cells.data(old)?.len() {
                old
            } else {
                let room =
                    if count < 99 { count + 1 } else { (count + 1).next_multiple_of(100).max(count + count / 8) };
                self.cells.grow_cell(old, (room * 4).min(CELL_MAX - 4))?
            }
        };
        let slot = self.cells.data_mut(list)?.get_mut(count * 4..count * 4 + 4);
        slot.ok_or_else(|| damaged(list, "value list is too short"))?.copy_from_slice(&at.0.to_le_bytes());
        self.cells.put(key, key::VALUE_LIST, list.0)?;
        self.cells.put(key, key::VALUES, u32::try_from(count + 1).unwrap_or(u32::MAX))
    }

    /// Stores data and returns the two fields of the value that describe them.
    fn store_data(&mut self, data: &[u8]) -> Result<(u32, u32)> {
        let length = u32::try_from(data.len()).map_err(|_| Error::bug(Layer::Hive, "data longer than checked"))?;
        if data.len() <= 4 {
            let mut inline = [0; 4];
            inline.iter_mut().zip(data).for_each(|(slot, byte)| *slot = *byte);
            return Ok((length | value::RESIDENT, u32::from_le_bytes(inline)));
        }
        if self.is_big(data.len()) {
            return Ok((length, self.store_big(data)?.0));
        }
        let at = self.cells.allocate(plain_room(data.len()))?;
        self.cells.overwrite(at, data)?;
        Ok((length, at.0))
    }

    fn is_big(&self, length: usize) -> bool {
        length > SEGMENT && self.minor >= 4
    }

    // Each segment gets a whole segment's cell, the last one too: so does Windows.
    fn store_big(&mut self, data: &[u8]) -> Result<CellOffset> {
        let mut list = Vec::new();
        for part in data.chunks(SEGMENT) {
            let at = self.cells.allocate(SEGMENT)?;
            self.cells.overwrite(at, part)?;
            list.push(at);
        }
        let bytes: Vec<u8> = list.iter().flat_map(|at| at.0.to_le_bytes()).collect();
        let list_at = self.cells.allocate_with(&bytes)?;
        let at = self.cells.allocate(big_data::SIZE)?;
        self.cells.overwrite(at, big_data::SIGNATURE)?;
        let count = u16::try_from(list.len()).map_err(|_| Error::bug(Layer::Hive, "more segments than checked"))?;
        self.cells.put(at, big_data::SEGMENTS, count)?;
        self.cells.put(at, big_data::LIST, list_at.0)?;
        Ok(at)
    }

    /// Gives a value other data: in the cells it has when they fit, else in new ones, the old ones being freed last.
    fn replace_data(&mut self, at: CellOffset, data: &[u8]) -> Result<()> {
        if self.replace_in_place(at, data)? {
            let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            return self.cells.put(at, value::DATA_LENGTH, length);
        }
        let old = (self.cells.get(at, value::DATA_LENGTH)?, self.cells.get(at, value::DATA)?);
        let (length, field) = self.store_data(data)?;
        self.cells.put(at, value::DATA_LENGTH, length)?;
        self.cells.put(at, value::DATA, field)?;
        self.free_data(old.0, old.1)
    }

    fn replace_in_place(&mut self, at: CellOffset, data: &[u8]) -> Result<bool> {
        let length = self.cells.get(at, value::DATA_LENGTH)?;
        let old_length = length as usize;
        if length & value::RESIDENT != 0 || old_length == 0 || data.len() <= 4 {
            return Ok(false);
        }
        let field = CellOffset(self.cells.get(at, value::DATA)?);
        match (self.is_big(old_length), self.is_big(data.len())) {
            (false, false) => {
                let have = self.cells.data(field)?.len() + 4;
                let need = cell_size(plain_room(data.len()))? as usize;
                if need > have || need * 2 < have {
                    return Ok(false);
                }
                self.overwrite_padded(field, data)?;
                Ok(true)
            }
            (true, true) if old_length.div_ceil(SEGMENT) == data.len().div_ceil(SEGMENT) => {
                let (_, segments) = self.big_segments(field)?;
                for (part, &segment) in data.chunks(SEGMENT).zip(&segments) {
                    if self.cells.data(segment)?.len() < part.len() {
                        return Ok(false);
                    }
                }
                for (part, &segment) in data.chunks(SEGMENT).zip(&segments) {
                    self.overwrite_padded(segment, part)?;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn overwrite_padded(&mut self, at: CellOffset, data: &[u8]) -> Result<()> {
        self.cells.data_mut(at)?.fill(0);
        self.cells.overwrite(at, data)
    }

    /// Frees a value's cells.
    pub(super) fn free_value(&mut self, at: CellOffset) -> Result<()> {
        let (length, field) = (self.cells.get(at, value::DATA_LENGTH)?, self.cells.get(at, value::DATA)?);
        self.free_data(length, field)?;
        self.cells.free(at)
    }

    fn free_data(&mut self, length: u32, field: u32) -> Result<()> {
        if length & value::RESIDENT != 0 || length == 0 {
            return Ok(());
        }
        let at = CellOffset(field);
        if self.is_big(length as usize) {
            let (list, segments) = self.big_segments(at)?;
            for segment in segments {
                self.cells.free(segment)?;
            }
            self.cells.free(list)?;
        }
        self.cells.free(at)
    }
}

/// Room that a cell for `length` bytes of plain data gets: beyond 16 KiB (only hives of version 1.3 have such cells)
/// Windows rounds the cell up to a power of two.
fn plain_room(length: usize) -> usize {
    if length <= SEGMENT { length } else { (length + 4).next_power_of_two() - 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: FileTime = FileTime(9);

    #[test]
    fn names_with_equal_hashes_are_told_apart() {
        let mut hive = Hive::create("ROOT", NOW);
        let root = hive.root();
        for i in 0..=WORTHWHILE {
            hive.set_value(root, &format!("v{i}"), &RegistryData::new(ValueType(i), b""), NOW).unwrap();
        }
        assert!(hive.value_index.has(root.0));
        let cells = hive.value_cells(root.0).unwrap();
        hive.value_index.build_colliding(root.0, "V0", cells);
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
                assert!(hive.set_value(key, &format!("v{i}"), &RegistryData::new(ValueType(i), b""), NOW).unwrap());
            }
            for i in (0..=2 * WORTHWHILE).filter(|i| i % 3 == 0) {
                assert!(hive.delete_value(key, &format!("V{i}"), NOW).unwrap());
            }
            hive.delete_key(key, NOW).unwrap();
            assert!(hive.value_index.is_empty());
        }
    }
}
