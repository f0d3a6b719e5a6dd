//! Between hives and documents: export, import, difference.

use std::collections::BTreeMap;

use super::{Document, KeyPath, Section};
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::hive::{Data, Hive, KeyId, Name, Value};

/// What [`apply`] changed.
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

/// The key at `path` and everything below it, in the order of the index.
///
/// # Errors
/// Damage on the way.
pub fn export(hive: &Hive, key: KeyId, path: &KeyPath) -> Result<Document> {
    let mut sections = Vec::new();
    add_subtree(hive, key, path.clone(), &mut sections)?;
    Ok(Document { sections })
}

fn add_subtree(hive: &Hive, key: KeyId, path: KeyPath, sections: &mut Vec<Section>) -> Result<()> {
    let mut pending = vec![(key, path)];
    let mut left = hive.file_size() / 80; // no key is smaller, so this many at most
    while let Some((key, path)) = pending.pop() {
        for child in hive.subkeys(key)?.into_iter().rev() {
            let looped = || Error::damaged(Layer::Hive, "the keys of the hive form a loop");
            left = left.checked_sub(1).ok_or_else(looped)?;
            pending.push((child, path.join(hive.key_name(child)?)));
        }
        let values = hive.values(key)?.into_iter().map(|v| (v.name, Some(Data { kind: v.kind, bytes: v.data })));
        sections.push(Section { path, delete: false, values: values.collect() });
    }
    Ok(())
}

/// Makes the changes that a document asks for. `CurrentControlSet` stands for the control set that the hive's `Select`
/// names.
///
/// # Errors
/// As the edits of [`Hive`].
pub fn apply(hive: &mut Hive, document: &Document, now: FileTime) -> Result<Applied> {
    let mut done = Applied::default();
    for section in &document.sections {
        let path = section.path.resolve_control_set(hive)?;
        let existing = path.find(hive)?;
        if section.delete {
            if let Some(key) = existing {
                hive.delete_key(key, now)?;
                done.keys_deleted += 1;
            }
            continue;
        }
        let key = match existing {
            Some(key) => key,
            None => {
                done.keys_created += 1;
                path.names().iter().try_fold(hive.root(), |key, name| hive.create_subkey(key, name, now))?
            }
        };
        for (name, data) in &section.values {
            match data {
                Some(data) => {
                    done.values_set += usize::from(hive.set_value_named(key, name, data.kind, &data.bytes, now)?);
                }
                None => done.values_deleted += usize::from(hive.delete_value_named(key, name, now)?),
            }
        }
    }
    Ok(done)
}

/// The changes that turn the tree below `old` into the tree below `new`; `path` is where both are.
///
/// # Errors
/// Damage on the way.
pub fn diff(old: (&Hive, KeyId), new: (&Hive, KeyId), path: &KeyPath) -> Result<Document> {
    let mut sections = Vec::new();
    let mut pending = vec![(old.1, new.1, path.clone())];
    let mut left = (old.0.file_size() + new.0.file_size()) / 80;
    while let Some((before, after, path)) = pending.pop() {
        left = left.checked_sub(1).ok_or_else(|| Error::damaged(Layer::Hive, "the keys of the hive form a loop"))?;
        let values = changed_values(old.0.values(before)?, new.0.values(after)?);
        if !values.is_empty() {
            sections.push(Section { path: path.clone(), delete: false, values });
        }
        let (mut gone, came) = (children(old.0, before)?, children(new.0, after)?);
        let mut both = Vec::new();
        for (folded, (name, child)) in came {
            match gone.remove(&folded) {
                Some((_, before)) => both.push((before, child, path.join(name))),
                None => add_subtree(new.0, child, path.join(name), &mut sections)?,
            }
        }
        for (name, _) in gone.into_values() {
            sections.push(Section { path: path.join(name), delete: true, values: Vec::new() });
        }
        pending.extend(both.into_iter().rev());
    }
    Ok(Document { sections })
}

/// Subkeys by folded name.
fn children(hive: &Hive, key: KeyId) -> Result<BTreeMap<Vec<u16>, (Name, KeyId)>> {
    let mut all = BTreeMap::new();
    for child in hive.subkeys(key)? {
        let name = hive.key_name(child)?;
        all.insert(name.folded(), (name, child));
    }
    Ok(all)
}

fn changed_values(old: Vec<Value>, new: Vec<Value>) -> Vec<(Name, Option<Data>)> {
    let mut gone: BTreeMap<Vec<u16>, Value> = old.into_iter().map(|v| (v.name.folded(), v)).collect();
    let mut changes = Vec::new();
    for value in new {
        let before = gone.remove(&value.name.folded());
        if before.is_none_or(|b| b.kind != value.kind || b.data != value.data) {
            changes.push((value.name, Some(Data { kind: value.kind, bytes: value.data })));
        }
    }
    changes.extend(gone.into_values().map(|value| (value.name, None)));
    changes
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
            hive.set_value(key, "", ValueType::SZ, b"a\0\0\0", NOW).unwrap();
            hive.set_value(key, "Number", ValueType(i), &[i as u8; 9], NOW).unwrap();
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
        new.set_value(key, "", ValueType::SZ, b"b\0\0\0", NOW).unwrap();
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
