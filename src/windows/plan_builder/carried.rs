//! Facts of earlier runs that stay in the desired state.

use std::collections::BTreeSet;

use super::builder::{PlanBuilder, file_place, key_place, value_place};
use super::desired::Desired;
use crate::error::Result;
use crate::hex;
use crate::plan::{Change, GuestHive};
use crate::upcase::Fold;
use crate::windows::registry;

impl PlanBuilder<'_> {
    /// Adds facts that earlier runs established to the desired state: those that still hold, and that this run neither asks
    /// for nor changes.
    ///
    /// # Errors
    /// When the volume or a hive is damaged.
    pub fn carry_over(&mut self, facts: impl Iterator<Item = Desired>) -> Result<()> {
        let mut known: BTreeSet<String> = self.desired_state().iter().map(place).collect();
        for fact in facts {
            let place = place(&fact);
            // A key is not absent that this run writes to.
            let is_filled = [':', '\\'].iter().any(|sign| {
                let below = format!("{place}{sign}");
                known.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below))
            });
            let is_contradicted = matches!(fact, Desired::AbsentKey { .. }) && is_filled;
            if !known.contains(&place) && !is_contradicted && !self.is_changed(&fact, &place) && self.holds(&fact)? {
                known.insert(place);
                self.add_desired(fact);
            }
        }
        Ok(())
    }

    /// Whether the plan changes what the fact is about.
    fn is_changed(&self, fact: &Desired, place: &str) -> bool {
        if self.planned_step(place).is_some() {
            return true;
        }
        match fact {
            Desired::Value { hive, key, name, .. } => {
                let is_replaced = self.replaced.current.contains_key(&(*hive, key.folded(), name.folded()));
                is_replaced || self.is_key_removed(*hive, key)
            }
            Desired::AbsentKey { .. }
            | Desired::File { .. }
            | Desired::Upload { .. }
            | Desired::UploadFolder { .. } => false,
        }
    }

    /// Whether the plan removes the key, or one above it.
    fn is_key_removed(&self, hive: GuestHive, key: &str) -> bool {
        let above = |key: &String| key.rsplit_once('\\').map(|(above, _)| above.to_owned());
        std::iter::successors(Some(key.folded()), above)
            .any(|key| matches!(self.planned_step(&key_place(hive, &key)), Some(Change::DeleteKey { .. })))
    }

    /// Whether the guest is as the fact says, before the plan.
    fn holds(&self, fact: &Desired) -> Result<bool> {
        match fact {
            Desired::File { path, sha256 } | Desired::Upload { path, sha256 } => {
                let found = if self.is_folder(path)? { None } else { self.files.sha256(path)? };
                Ok(found.is_some_and(|found| hex::encode(&found).eq_ignore_ascii_case(sha256)))
            }
            Desired::UploadFolder { path } => self.is_own_folder(path),
            Desired::Value { hive, key, name, data } => {
                Ok(self.has_hive(*hive) && registry::get_value(self.hive(*hive)?, key, name)?.as_ref() == Some(data))
            }
            Desired::AbsentKey { hive, key } => {
                Ok(self.has_hive(*hive) && registry::find_key(self.hive(*hive)?, key)?.is_none())
            }
        }
    }
}

/// The place of a fact: two facts with the same place are about the same file, value or key. It is that of the step that
/// would change it.
fn place(fact: &Desired) -> String {
    match fact {
        Desired::File { path, .. } | Desired::Upload { path, .. } | Desired::UploadFolder { path } => file_place(path),
        Desired::Value { hive, key, name, .. } => value_place(*hive, key, name),
        Desired::AbsentKey { hive, key } => key_place(*hive, key),
    }
}
