//! The removals in the registry: each once, and keys that only held what is removed go with it.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::plan::GuestHive;
use crate::upcase::Fold;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registration::driver_database::ROOT;
use crate::windows::registration::full::services::LOCKDOWN_KEY;
use crate::windows::registry;

/// A key, or one value of it.
#[derive(Debug)]
struct Removal {
    hive: GuestHive,
    key: String,
    name: Option<String>,
    reason: String,
}

/// Collects removals of keys and values.
#[derive(Debug, Default)]
pub(super) struct RegistryEdits {
    removals: Vec<Removal>,
    /// Keys that are removed, in lower case.
    keys: BTreeSet<(GuestHive, String)>,
    /// Values that are removed: key and name in lower case.
    values: BTreeSet<(GuestHive, String, String)>,
    /// Keys that get a value back, in lower case.
    kept: BTreeSet<(GuestHive, String)>,
}

impl RegistryEdits {
    /// Removes a key with all that is below it.
    pub(super) fn remove_key(&mut self, hive: GuestHive, key: &str, reason: &str) {
        if self.keys.insert((hive, key.folded())) {
            let (key, reason) = (key.to_owned(), reason.to_owned());
            self.removals.push(Removal { hive, key, name: None, reason });
        }
    }

    /// Removes a value.
    pub(super) fn remove_value(&mut self, hive: GuestHive, key: &str, name: &str, reason: &str) {
        if self.values.insert((hive, key.folded(), name.folded())) {
            let (key, name, reason) = (key.to_owned(), Some(name.to_owned()), reason.to_owned());
            self.removals.push(Removal { hive, key, name, reason });
        }
    }

    /// Keeps a key, although all that it holds now may be removed.
    pub(super) fn keep_key(&mut self, hive: GuestHive, key: &str) {
        self.kept.insert((hive, key.folded()));
    }

    /// Hands the removals to the builder.
    ///
    /// # Errors
    /// When a hive is damaged.
    pub(super) fn apply(mut self, builder: &mut PlanBuilder<'_>) -> Result<()> {
        self.prune(builder)?;
        // Removals for one reason stand together, in the order of their first.
        let mut reasons: Vec<String> = Vec::new();
        for removal in &self.removals {
            if !reasons.contains(&removal.reason) {
                reasons.push(removal.reason.clone());
            }
        }
        self.removals.sort_by_key(|removal| reasons.iter().position(|reason| *reason == removal.reason));
        for removal in &self.removals {
            let Removal { hive, key, name, reason } = removal;
            // A value's own key counts, of a key only those above it.
            let above = if name.is_some() { Some(key.as_str()) } else { parent(key) };
            if self.is_below_removed(*hive, above) {
                continue;
            }
            builder.set_reason(reason.as_str());
            match name {
                Some(name) => builder.remove_value(*hive, key, name)?,
                None => builder.remove_key_unrecorded(*hive, key)?,
            };
        }
        Ok(())
    }

    fn is_below_removed(&self, hive: GuestHive, key: Option<&str>) -> bool {
        std::iter::successors(key, |key| parent(key)).any(|key| self.keys.contains(&(hive, key.folded())))
    }

    /// Removes keys that hold nothing else.
    fn prune(&mut self, builder: &PlanBuilder<'_>) -> Result<()> {
        let emptied = |removal: &Removal| {
            let key = if removal.name.is_some() { Some(removal.key.as_str()) } else { parent(&removal.key) };
            key.map(|key| (removal.hive, key.to_owned(), removal.reason.clone()))
        };
        let mut pending: Vec<(GuestHive, String, String)> = self.removals.iter().filter_map(emptied).collect();
        pending.reverse();
        while let Some((hive, key, reason)) = pending.pop() {
            if is_made_for_its_content(&key) && self.is_emptied(builder, hive, &key)? {
                self.remove_key(hive, &key, &reason);
                pending.extend(parent(&key).map(|above| (hive, above.to_owned(), reason)));
            }
        }
        Ok(())
    }

    fn is_emptied(&self, builder: &PlanBuilder<'_>, file: GuestHive, key: &str) -> Result<bool> {
        let hive = builder.hive(file)?;
        let lower = key.folded();
        if self.kept.contains(&(file, lower.clone())) {
            return Ok(false);
        }
        if self.keys.contains(&(file, lower.clone())) || registry::find_key(hive, key)?.is_none() {
            return Ok(false);
        }
        let values = registry::key_values(hive, key)?;
        let subkeys = registry::subkey_names(hive, key)?;
        let is_gone = |name: &String| self.values.contains(&(file, lower.clone(), name.folded()));
        Ok(values.iter().all(|(name, _)| is_gone(name))
            && subkeys.iter().all(|name| self.keys.contains(&(file, format!("{lower}\\{}", name.folded())))))
    }
}

fn parent(key: &str) -> Option<&str> {
    key.rsplit_once('\\').map(|(above, _)| above)
}

/// Whether a key means nothing when it is empty, so that winject, which creates it where it is missing, may remove it.
fn is_made_for_its_content(key: &str) -> bool {
    let key = key.folded();
    key.starts_with(&format!("{ROOT}\\DeviceIds\\").folded())
        || key.ends_with("\\control\\criticaldevicedatabase")
        || key == LOCKDOWN_KEY.folded()
}
