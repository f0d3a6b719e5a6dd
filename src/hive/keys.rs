//! Editing keys: creation, deletion with the subtree, class names.

use super::cells::CellOffset;
use super::format::{DEPTH_MAX, KEY_NAME_MAX, NIL, key};
use super::navigate::components;
use super::{Hive, KeyId, Name};
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};

impl Hive {
    /// Creates the key at `path` below `parent`, with every missing component, and returns it; what exists keeps its
    /// spelling. A new key shares its parent's security descriptor, as most keys of real hives do.
    ///
    /// # Errors
    /// A name that is empty, longer than 255 characters or holds a NUL; more than 512 levels; a hive that must not be
    /// edited (see [`Hive`]).
    pub fn create_key(&mut self, parent: KeyId, path: &str, now: FileTime) -> Result<KeyId> {
        let mut at = parent;
        for component in components(path) {
            at = self.create_subkey(at, &component, now)?;
        }
        Ok(at)
    }

    /// Like [`create_key`](Self::create_key), for one level and a name that need not be valid UTF-16.
    ///
    /// # Errors
    /// See [`create_key`](Self::create_key).
    pub fn create_subkey(&mut self, parent: KeyId, name: &Name, now: FileTime) -> Result<KeyId> {
        self.ensure_editable()?;
        if let Some(existing) = self.subkey(parent, name)? {
            return Ok(existing);
        }
        check_key_name(name).map_err(|e| e.path(self.key_path(parent)))?;
        if self.cells.get(parent.0, key::FLAGS)? & key::LINK != 0 {
            let error = Error::refused(Layer::Hive, "the key is a symbolic link and can have no subkeys");
            return Err(error.path(self.key_path(parent)).hint("create the key where the link leads"));
        }
        if self.depth(parent.0)? >= DEPTH_MAX {
            let error = Error::refused(Layer::Hive, "keys nest at most 512 levels deep").path(self.key_path(parent));
            return Err(error.hint("choose a shorter path"));
        }
        self.edit(|hive| hive.add_key(parent.0, name, now).map(KeyId))
    }

    fn add_key(&mut self, parent: CellOffset, name: &Name, now: FileTime) -> Result<CellOffset> {
        let security = CellOffset(self.cells.get(parent, key::SECURITY)?);
        let virtualization = self.cells.get(parent, key::VIRTUALIZATION)?;
        let (bytes, latin) = name.encode();
        let at = self.cells.allocate(key::NAME + bytes.len())?;
        let cell = self.cells.data_mut(at)?;
        let mut write = || {
            cell.get_mut(..2)?.copy_from_slice(key::SIGNATURE);
            cell.get_mut(key::NAME..)?.get_mut(..bytes.len())?.copy_from_slice(&bytes);
            key::FLAGS.try_set(cell, if latin { key::LATIN_NAME } else { 0 })?;
            key::LAST_WRITTEN.try_set(cell, now.0)?;
            key::PARENT.try_set(cell, parent.0)?;
            for none in [key::SUBKEY_LIST, key::VOLATILE_LIST, key::VALUE_LIST, key::CLASS] {
                none.try_set(cell, NIL)?;
            }
            key::SECURITY.try_set(cell, security.0)?;
            if virtualization & key::RECURSE != 0 {
                key::VIRTUALIZATION.try_set(cell, virtualization & 0xF0)?;
            }
            key::NAME_LENGTH.try_set(cell, u16::try_from(bytes.len()).ok()?)
        };
        write().ok_or_else(|| Error::bug(Layer::Hive, "a new key does not fit its cell"))?;
        self.share_security(security)?;
        self.insert_subkey(parent, at, name)?;
        let count = self.cells.get(parent, key::SUBKEYS)?;
        self.cells.put(parent, key::SUBKEYS, count.saturating_add(1))?;
        let length = u16::try_from(name.wide_length()).unwrap_or(u16::MAX);
        if self.cells.get(parent, key::LARGEST_NAME)? < length {
            self.cells.put(parent, key::LARGEST_NAME, length)?;
        }
        self.cells.put(parent, key::LAST_WRITTEN, now.0)?;
        Ok(at)
    }

    /// Deletes a key and everything below it. `now` becomes the time of its parent.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for the root and for keys that are marked as not to be deleted.
    pub fn delete_key(&mut self, key: KeyId, now: FileTime) -> Result<()> {
        if key.0 == self.root {
            let error = Error::refused(Layer::Hive, "the root key cannot be deleted");
            return Err(error.hint("delete the keys below it"));
        }
        self.ensure_editable()?;
        self.check_key(key.0)?;
        let subtree = self.subtree(key.0)?;
        for &at in &subtree {
            if self.cells.get(at, key::FLAGS)? & key::NO_DELETE != 0 {
                let error = Error::refused(Layer::Hive, "the key is marked as not to be deleted");
                return Err(error.path(self.key_path(KeyId(at))).hint("leave this key in place"));
            }
        }
        self.edit(|hive| {
            let name = hive.stored_key_name(key.0)?.to_name();
            let parent = CellOffset(hive.cells.get(key.0, key::PARENT)?);
            hive.remove_subkey(parent, key.0, &name)?;
            hive.forget_child(parent, now)?;
            subtree.iter().rev().try_for_each(|&at| hive.free_key(at))
        })
    }

    /// A key and everything below it, parents first.
    fn subtree(&self, top: CellOffset) -> Result<Vec<CellOffset>> {
        let mut found = vec![top];
        let mut next = 0;
        let bound = self.cells.length() as usize / key::NAME;
        while let Some(&at) = found.get(next) {
            next += 1;
            found.extend(self.subkeys(KeyId(at))?.into_iter().map(|k| k.0));
            if found.len() > bound {
                return Err(Error::damaged(Layer::Hive, "more keys than the hive can hold").at(at));
            }
        }
        Ok(found)
    }

    fn forget_child(&mut self, parent: CellOffset, now: FileTime) -> Result<()> {
        let count = self.cells.get(parent, key::SUBKEYS)?.saturating_sub(1);
        self.cells.put(parent, key::SUBKEYS, count)?;
        if count == 0 && self.cells.get(parent, key::VOLATILE_SUBKEYS)? == 0 {
            self.cells.put(parent, key::LARGEST_NAME, 0)?;
            self.cells.put(parent, key::LARGEST_CLASS, 0)?;
        }
        self.cells.put(parent, key::LAST_WRITTEN, now.0)
    }

    /// Frees a key's cells, but not those of its subkeys.
    fn free_key(&mut self, at: CellOffset) -> Result<()> {
        self.value_index.forget(at);
        for value in self.value_cells(at)? {
            self.free_value(value)?;
        }
        if self.cells.get(at, key::VALUES)? > 0 {
            self.cells.free(CellOffset(self.cells.get(at, key::VALUE_LIST)?))?;
        } else {
            self.free_stale_list(self.cells.get(at, key::VALUE_LIST)?)?;
        }
        if self.cells.get(at, key::CLASS_LENGTH)? > 0 {
            self.cells.free(CellOffset(self.cells.get(at, key::CLASS)?))?;
        }
        let index = self.index(at)?;
        if index.leaves.is_empty() {
            self.free_stale_list(self.cells.get(at, key::SUBKEY_LIST)?)?;
        }
        for leaf in index.leaves {
            self.cells.free(leaf.at)?;
        }
        if let Some(root) = index.root {
            self.cells.free(root)?;
        }
        self.release_security(CellOffset(self.cells.get(at, key::SECURITY)?))?;
        self.cells.free(at)
    }

    /// Sets a key's class name, or removes it (`None`). Returns whether anything changed.
    ///
    /// # Errors
    /// A class name that is too long; a hive that must not be edited (see [`Hive`]).
    pub fn set_class(&mut self, key: KeyId, class: Option<&Name>, now: FileTime) -> Result<bool> {
        let class = class.filter(|c| !c.is_empty());
        self.ensure_editable()?;
        if self.class(key)?.as_ref() == class {
            return Ok(false);
        }
        let bytes: Vec<u8> =
            class.map(|c| c.units().iter().flat_map(|u| u.to_le_bytes()).collect()).unwrap_or_default();
        let length = u16::try_from(bytes.len()).map_err(|_| {
            Error::refused(Layer::Hive, "class name is longer than 32767 characters").hint("shorten it")
        })?;
        self.edit(|hive| {
            let old = (hive.cells.get(key.0, key::CLASS_LENGTH)? > 0).then_some(hive.cells.get(key.0, key::CLASS)?);
            let new = if bytes.is_empty() { NIL } else { hive.cells.allocate_with(&bytes)?.0 };
            hive.cells.put(key.0, key::CLASS, new)?;
            hive.cells.put(key.0, key::CLASS_LENGTH, length)?;
            hive.cells.put(key.0, key::LAST_WRITTEN, now.0)?;
            if let Some(old) = old {
                hive.cells.free(CellOffset(old))?;
            }
            if key.0 != hive.root {
                let parent = CellOffset(hive.cells.get(key.0, key::PARENT)?);
                if hive.cells.get(parent, key::LARGEST_CLASS)? < u32::from(length) {
                    hive.cells.put(parent, key::LARGEST_CLASS, u32::from(length))?;
                }
            }
            Ok(true)
        })
    }
}

fn check_key_name(name: &Name) -> Result<()> {
    let refuse =
        |why: &str| Err(Error::refused(Layer::Hive, format!("key name {name:?} {why}")).hint("choose another name"));
    match name.units() {
        [] => refuse("is empty"),
        units if units.len() > KEY_NAME_MAX => refuse("is longer than 255 characters"),
        units if units.contains(&0) => refuse("holds a NUL"),
        units if units.contains(&u16::from(b'\\')) => refuse("holds a backslash"),
        _ => Ok(()),
    }
}
