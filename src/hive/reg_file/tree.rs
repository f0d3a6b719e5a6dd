//! Between hives and documents: export, import, difference.

use std::fmt;

use super::document::{Document, RegSink};
use super::path::KeyPath;
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::hive::name::{StoredName, sort_by_name};
use crate::hive::{Hive, KeyId, Name, RegistryData};

/// Numbers of changes that [`apply`] or an [`Import`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Keys that were created, named ones only.
    pub keys_created: usize,
    /// Keys that were deleted, with what was below them.
    pub keys_deleted: usize,
    /// Values that were set and were different or missing before.
    pub values_set: usize,
    /// Values that were deleted.
    pub values_deleted: usize,
}

impl Applied {
    /// The changes of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            keys_created: self.keys_created.saturating_add(other.keys_created),
            keys_deleted: self.keys_deleted.saturating_add(other.keys_deleted),
            values_set: self.values_set.saturating_add(other.values_set),
            values_deleted: self.values_deleted.saturating_add(other.values_deleted),
        }
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys_created, keys_deleted, values_set, values_deleted } = self;
        write!(
            f,
            "{keys_created} keys created, {keys_deleted} deleted; {values_set} values set, {values_deleted} deleted"
        )
    }
}

/// The key at `path` and everything below it, in the order of the index.
///
/// # Errors
/// Damage on the way.
pub fn export(hive: &Hive, key: KeyId, path: &KeyPath) -> Result<Document> {
    let mut document = Document::default();
    export_to(hive, key, path, &mut document)?;
    Ok(document)
}

/// Like [`export`], piece by piece: apart from the hive, only one value and the path to its key are in memory.
///
/// # Errors
/// Damage on the way, and those of the sink.
pub fn export_to(hive: &Hive, key: KeyId, path: &KeyPath, sink: &mut dyn RegSink) -> Result<()> {
    walk(hive, key, path, &mut |key, path| add_key(hive, key, path, sink))
}

/// Shows `see` a key and everything below it, in the order of the index, each key before its subkeys.
///
/// # Errors
/// Damage on the way, and those of `see`.
pub fn walk(hive: &Hive, key: KeyId, path: &KeyPath, see: &mut dyn FnMut(KeyId, &KeyPath) -> Result<()>) -> Result<()> {
    walk_limited(hive, key, &mut path.clone(), &mut keys_at_most(hive), see)
}

/// No key is smaller than 80 bytes, and every key is met once in a sound hive.
fn keys_at_most(hive: &Hive) -> usize {
    hive.file_size() / 80
}

fn count(left: &mut usize, keys: usize) -> Result<()> {
    let looped = || Error::damaged(Layer::Hive, "the keys of the hive form a loop");
    *left = left.checked_sub(keys).ok_or_else(looped)?;
    Ok(())
}

/// Like [`walk`]. `path` is restored at the end; `left` is how many subkeys may still follow.
fn walk_limited(
    hive: &Hive,
    key: KeyId,
    path: &mut KeyPath,
    left: &mut usize,
    see: &mut dyn FnMut(KeyId, &KeyPath) -> Result<()>,
) -> Result<()> {
    let mut enter = |key, path: &KeyPath| {
        let children = hive.subkeys(key)?;
        count(left, children.len())?;
        see(key, path)?;
        Ok(children.into_iter())
    };
    let mut levels = vec![enter(key, path)?];
    while let Some(level) = levels.last_mut() {
        if let Some(child) = level.next() {
            path.push(hive.key_name(child)?);
            levels.push(enter(child, path)?);
        } else {
            levels.pop();
            if !levels.is_empty() {
                path.pop();
            }
        }
    }
    Ok(())
}

/// One key with its values.
fn add_key(hive: &Hive, key: KeyId, path: &KeyPath, sink: &mut dyn RegSink) -> Result<()> {
    sink.key(path, false)?;
    hive.each_value(key, &mut |value| sink.value(&value.name, Some(&value.data)))
}

/// Makes the changes that a document asks for. `CurrentControlSet` stands for the control set that the hive's `Select`
/// names.
///
/// # Errors
/// Those of the edits of [`Hive`].
pub fn apply(hive: &mut Hive, document: &Document, now: FileTime) -> Result<Applied> {
    let mut import = Import::new(now);
    for section in &document.sections {
        import.key(hive, &section.path, section.delete, &mut |_, _| ())?;
        for (name, data) in section.values.iter().filter(|_| !section.delete) {
            import.value(hive, name, data.as_ref(), &mut |_, _| ())?;
        }
    }
    Ok(import.applied())
}

/// What an import changed in a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportChange<'a> {
    /// The key was created.
    KeyCreated,
    /// The key was deleted, with everything below it.
    KeyDeleted,
    /// A value was set or deleted.
    Value {
        /// Its name.
        name: &'a Name,
        /// Its data before; `None` if it is new.
        old: Option<&'a RegistryData>,
        /// Its data after; `None` if it was deleted.
        new: Option<&'a RegistryData>,
    },
}

/// Sees each change, with the path of its key from the root of the hive.
pub type SeeChange<'s> = dyn FnMut(&KeyPath, ImportChange<'_>) + 's;

/// Makes the changes that a `.reg` file asks for, one after the other, as [`apply`] does for a whole document.
#[derive(Debug)]
pub struct Import {
    now: FileTime,
    /// The key of the section and its path; `None` for one that was deleted.
    key: Option<(KeyId, KeyPath)>,
    done: Applied,
}

impl Import {
    /// An import in which everything gets this time.
    #[must_use]
    pub fn new(now: FileTime) -> Self {
        Self { now, key: None, done: Applied::default() }
    }

    /// What was changed so far.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.done
    }

    /// Creates or deletes the key at `path`; the values that follow belong to it. `see` is told what changed.
    ///
    /// # Errors
    /// Those of the edits of [`Hive`].
    pub fn key(&mut self, hive: &mut Hive, path: &KeyPath, delete: bool, see: &mut SeeChange<'_>) -> Result<()> {
        let path = path.resolve_control_set(hive)?;
        let found = path.find(hive)?;
        self.key = match found {
            Some(key) if delete => {
                hive.delete_key(key, self.now)?;
                self.done.keys_deleted += 1;
                see(&path, ImportChange::KeyDeleted);
                None
            }
            None if !delete => {
                let names = path.names();
                let key = names.iter().try_fold(hive.root(), |key, name| hive.create_subkey(key, name, self.now))?;
                self.done.keys_created += 1;
                see(&path, ImportChange::KeyCreated);
                Some((key, path))
            }
            found => found.map(|key| (key, path)),
        };
        Ok(())
    }

    /// Sets a value of the last key, or deletes it (`None`). `see` is told what changed.
    ///
    /// # Errors
    /// Those of the edits of [`Hive`].
    pub fn value(
        &mut self,
        hive: &mut Hive,
        name: &Name,
        data: Option<&RegistryData>,
        see: &mut SeeChange<'_>,
    ) -> Result<()> {
        let (key, path) = self.key.as_ref().ok_or_else(|| Error::bug(Layer::Hive, "a value without a key"))?;
        let old = hive.value_named(*key, name)?.map(|value| value.data);
        let is_changed = match data {
            Some(data) => {
                let is_changed = hive.set_value_named(*key, name, data, self.now)?;
                self.done.values_set += usize::from(is_changed);
                is_changed
            }
            None => {
                let is_changed = hive.delete_value_named(*key, name, self.now)?;
                self.done.values_deleted += usize::from(is_changed);
                is_changed
            }
        };
        if is_changed {
            see(path, ImportChange::Value { name, old: old.as_ref(), new: data });
        }
        Ok(())
    }
}

/// The changes that turn the tree below `old` into the tree below `new`; `path` is where both are.
///
/// # Errors
/// Damage on the way.
pub fn diff(old: (&Hive, KeyId), new: (&Hive, KeyId), path: &KeyPath) -> Result<Document> {
    let mut document = Document::default();
    diff_to(old, new, path, &mut document)?;
    Ok(document)
}

/// Like [`diff`], piece by piece: both trees are walked in step, key by key.
///
/// # Errors
/// Damage on the way, and those of the sink.
pub fn diff_to(old: (&Hive, KeyId), new: (&Hive, KeyId), path: &KeyPath, sink: &mut dyn RegSink) -> Result<()> {
    let mut walk = Comparison {
        path: path.clone(),
        left: keys_at_most(old.0) + keys_at_most(new.0),
        left_new: keys_at_most(new.0),
        old: old.0,
        new: new.0,
        sink,
    };
    let mut levels = vec![walk.compare(old.1, new.1)?.into_iter()];
    while let Some(level) = levels.last_mut() {
        if let Some((before, after)) = level.next() {
            walk.path.push(new.0.key_name(after)?);
            levels.push(walk.compare(before, after)?.into_iter());
        } else {
            levels.pop();
            if !levels.is_empty() {
                walk.path.pop();
            }
        }
    }
    Ok(())
}

struct Comparison<'a> {
    old: &'a Hive,
    new: &'a Hive,
    path: KeyPath,
    /// Pairs of keys that may still come.
    left: usize,
    /// Keys that are only in the new hive and may still come.
    left_new: usize,
    sink: &'a mut dyn RegSink,
}

impl Comparison<'_> {
    /// One key that is in both hives; returns the pairs of subkeys that are too.
    fn compare(&mut self, before: KeyId, after: KeyId) -> Result<Vec<(KeyId, KeyId)>> {
        self.values(before, after)?;
        let mut old = sorted_children(self.old, before)?.into_iter().peekable();
        let (mut both, mut gone) = (Vec::new(), Vec::new());
        for (name, after) in sorted_children(self.new, after)? {
            gone.extend(std::iter::from_fn(|| old.next_if(|(other, _)| other.cmp_upcased(name).is_lt())));
            if let Some((_, before)) = old.next_if(|(other, _)| other.cmp_upcased(name).is_eq()) {
                both.push((before, after));
            } else {
                count(&mut self.left_new, 1)?;
                self.path.push(name.to_name());
                let (hive, sink) = (self.new, &mut *self.sink);
                walk_limited(hive, after, &mut self.path, &mut self.left_new, &mut |key, path| {
                    add_key(hive, key, path, sink)
                })?;
                self.path.pop();
            }
        }
        for (name, _) in gone.into_iter().chain(old) {
            self.path.push(name.to_name());
            self.sink.key(&self.path, true)?;
            self.path.pop();
        }
        count(&mut self.left, both.len())?;
        Ok(both)
    }

    fn values(&mut self, before: KeyId, after: KeyId) -> Result<()> {
        let old = self.old.sorted_values(before)?;
        let mut is_matched = vec![false; old.len()];
        let mut is_first = true;
        let (hive, path, sink) = (self.old, &self.path, &mut *self.sink);
        let mut change = |name: &Name, data: Option<&RegistryData>| {
            if std::mem::take(&mut is_first) {
                sink.key(path, false)?;
            }
            sink.value(name, data)
        };
        let mut budget = hive.file_size();
        self.new.each_value(after, &mut |value| {
            let place = old.binary_search_by(|(name, _)| name.cmp_name(&value.name)).ok();
            let matched = place.and_then(|place| is_matched.get_mut(place));
            let is_new = matched.is_none_or(|matched| std::mem::replace(matched, true));
            if let Some((_, at)) = place.filter(|_| !is_new).and_then(|place| old.get(place)) {
                let there = hive.value_within(*at, &mut budget)?;
                if there.data == value.data {
                    return Ok(());
                }
            }
            change(&value.name, Some(&value.data))
        })?;
        for ((name, _), _) in old.iter().zip(&is_matched).filter(|(_, matched)| !**matched) {
            change(&name.to_name(), None)?;
        }
        Ok(())
    }
}

/// Subkeys in the order of their names; of several that Windows takes for the same the last one.
fn sorted_children(hive: &Hive, key: KeyId) -> Result<Vec<(StoredName<'_>, KeyId)>> {
    hive.subkeys(key)?
        .into_iter()
        .map(|child| Ok((hive.stored_name(child)?, child)))
        .collect::<Result<Vec<_>>>()
        .map(sort_by_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hive::ValueType;

    const NOW: FileTime = FileTime(9);

    fn sample() -> Hive {
        let mut hive = Hive::create("ROOT", NOW);
        for i in 0..20 {
            let key = hive.create_key(hive.root(), &format!("A\\Key {i}\\x"), NOW).unwrap();
            hive.set_value(key, "", &RegistryData::new(ValueType::SZ, b"a\0\0\0"), NOW).unwrap();
            hive.set_value(key, "Number", &RegistryData::new(ValueType(i), [i as u8; 9]), NOW).unwrap();
        }
        hive
    }

    #[test]
    fn export_and_import_give_the_same_tree() {
        let hive = sample();
        let document = export(&hive, hive.root(), &KeyPath::default()).unwrap();
        let mut copy = Hive::create("OTHER", NOW);
        let done = apply(&mut copy, &document, NOW).unwrap();
        assert_eq!((done.keys_created, done.values_set), (41, 40));
        assert_eq!(export(&copy, copy.root(), &KeyPath::default()).unwrap(), document);
        assert_eq!(apply(&mut copy, &document, NOW).unwrap(), Applied::default());
    }

    #[test]
    fn a_difference_leads_from_one_to_the_other() {
        let (old, mut new) = (sample(), sample());
        let key = new.find(new.root(), r"A\Key 3").unwrap().unwrap();
        new.delete_key(key, NOW).unwrap();
        let key = new.find(new.root(), r"A\Key 4\x").unwrap().unwrap();
        new.delete_value(key, "number", NOW).unwrap();
        new.set_value(key, "", &RegistryData::new(ValueType::SZ, b"b\0\0\0"), NOW).unwrap();
        new.create_key(new.root(), r"B\empty", NOW).unwrap();
        let document = diff((&old, old.root()), (&new, new.root()), &KeyPath::default()).unwrap();
        assert_eq!(document.sections.len(), 4, "{document:?}");
        let mut old = old;
        let done = apply(&mut old, &document, NOW).unwrap();
        assert_eq!(done, Applied { keys_created: 2, keys_deleted: 1, values_set: 1, values_deleted: 1 });
        let rest = diff((&old, old.root()), (&new, new.root()), &KeyPath::default()).unwrap();
        assert_eq!(rest, Document::default());
    }
}
