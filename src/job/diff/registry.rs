//! Compares the registry of two Windows, hive by hive.

use super::difference::{Change, Difference, See};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::hive::reg_file::{KeyPath, RegSink, diff_to, export_to};
use crate::hive::{Hive, HiveFile, KeyId, Name, RegistryData};
use crate::io::VolumeRead;
use crate::job::hive_name::HiveName;
use crate::ntfs::Volume;
use crate::windows::load_hive_file;

/// A Windows: its volume, and its folder on it.
pub(super) struct Guest<'a, D> {
    pub(super) volume: &'a Volume<D>,
    pub(super) folder: &'a str,
}

impl<D: VolumeRead> Guest<'_, D> {
    fn load(&self, name: HiveName) -> Result<Option<HiveFile>> {
        load_hive_file(self.volume, &format!("{}/System32/config/{}", self.folder, name.file()))
    }
}

/// Shows `see` what differs between the hives of two Windows. One hive of each is in memory at a time.
///
/// # Errors
/// When a hive is damaged, or dirty and its logs cannot repair that; what `see` returns.
pub(super) fn compare_registry<D: VolumeRead>(
    old: &Guest<'_, D>,
    new: &Guest<'_, D>,
    cancel: &Cancel,
    see: &mut See<'_>,
) -> Result<()> {
    for name in HiveName::all() {
        cancel.check()?;
        let root = name.root();
        let at_root = |error: crate::Error| error.path(root.to_string());
        let (before, after) = (old.load(name)?, new.load(name)?);
        let mut changes = Changes { root: &root, old: None, key: root.clone(), see };
        match (&before, &after) {
            (Some(HiveFile { hive: old, .. }), Some(HiveFile { hive: new, .. })) => {
                changes.old = Some((old, None));
                let (old, new) = ((old, old.root()), (new, new.root()));
                diff_to(old, new, &KeyPath::default(), &mut changes).map_err(at_root)?;
            }
            (None, Some(HiveFile { hive, .. })) => {
                export_to(hive, hive.root(), &KeyPath::default(), &mut changes).map_err(at_root)?;
            }
            (Some(_), None) => see(&Difference::Key { change: Change::Removed, key: &root })?,
            (None, None) => {}
        }
    }
    Ok(())
}

/// Receives the changes of one hive, and looks up what was there before.
struct Changes<'a, 's, 'h> {
    /// Path of the hive's root in the registry.
    root: &'a KeyPath,
    /// The old hive, and the last key in it.
    old: Option<(&'h Hive, Option<KeyId>)>,
    /// Full path of the last key.
    key: KeyPath,
    see: &'a mut See<'s>,
}

impl RegSink for Changes<'_, '_, '_> {
    fn key(&mut self, path: &KeyPath, delete: bool) -> Result<()> {
        self.key = self.root.concat(path);
        let change = if delete { Change::Removed } else { Change::Added };
        if let Some((hive, key)) = &mut self.old {
            *key = path.find(hive)?;
        }
        // A key that was there stands for the values that follow.
        if delete || self.old_key().is_none() {
            (self.see)(&Difference::Key { change, key: &self.key })?;
        }
        Ok(())
    }

    fn value(&mut self, name: &Name, data: Option<&RegistryData>) -> Result<()> {
        let old = match self.old_key() {
            Some((hive, key)) => hive.value_named(key, name)?,
            None => None,
        };
        let old = old.as_ref().map(|value| &value.data);
        (self.see)(&Difference::Value { key: &self.key, name, old, new: data })
    }
}

impl<'h> Changes<'_, '_, 'h> {
    /// The last key in the old hive, if it is there.
    fn old_key(&self) -> Option<(&'h Hive, KeyId)> {
        let (hive, key) = self.old?;
        Some((hive, key?))
    }
}
