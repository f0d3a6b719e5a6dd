//! Requests that replace a value of the guest's own.

use super::builder::{PlanBuilder, value_place};
use super::replaced_value::ReplacedValue;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::{Change, GuestHive};
use crate::upcase::Fold;
use crate::windows::record::Action;
use crate::windows::registry;

impl PlanBuilder<'_> {
    /// Takes the values that earlier runs replaced, from their manifest.
    pub fn set_earlier_replaced(&mut self, earlier: Vec<ReplacedValue>) {
        self.replaced.earlier = earlier.into_iter().map(|value| (value.place(), value)).collect();
    }

    /// Requests another content for a value of the guest's own (`None`: that it does not exist), and notes what it was,
    /// so that it can be brought back. What earlier runs replaced counts as winject's, not as the guest's.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub fn replace_value(
        &mut self,
        hive: GuestHive,
        key: &str,
        name: &str,
        data: Option<RegistryData>,
    ) -> Result<Action> {
        let found = registry::get_value(self.hive(hive)?, key, name)?;
        let mut value = ReplacedValue {
            hive,
            key: key.to_owned(),
            name: name.to_owned(),
            data: data.clone(),
            before: found.clone(),
        };
        let place = value.place();
        if let Some(earlier) = self.replaced.earlier.get(&place).filter(|earlier| earlier.data == found) {
            value.before.clone_from(&earlier.before);
        }
        let is_replaced = value.data != value.before;
        self.replaced.current.insert(place, is_replaced.then_some(value));
        let step_place = value_place(hive, key, name);
        if found == data {
            self.drop_step(&step_place);
            return Ok(Action::Unchanged);
        }
        let (key, name) = (key.to_owned(), name.to_owned());
        let (change, action) = match data {
            Some(data) => {
                let action = if found.is_some() { Action::Updated } else { Action::Created };
                (Change::SetValue { hive, key, name, data, before: found }, action)
            }
            None => (Change::DeleteValue { hive, key, name }, Action::Removed),
        };
        self.push_step(step_place, change);
        Ok(action)
    }

    /// The values that earlier runs replaced, where the guest still holds what they made of them.
    ///
    /// # Errors
    /// When a hive is damaged.
    pub fn earlier_replaced(&self) -> Result<Vec<ReplacedValue>> {
        let mut out = Vec::new();
        for value in self.replaced.earlier.values().filter(|value| self.has_hive(value.hive)) {
            if registry::get_value(self.hive(value.hive)?, &value.key, &value.name)? == value.data {
                out.push(value.clone());
            }
        }
        Ok(out)
    }

    /// This value as an earlier run replaced it, if the guest still holds what that run made of it.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub fn earlier_replacement(&self, hive: GuestHive, key: &str, name: &str) -> Result<Option<&ReplacedValue>> {
        let place = (hive, key.folded(), name.folded());
        let Some(earlier) = self.replaced.earlier.get(&place) else { return Ok(None) };
        Ok((registry::get_value(self.hive(hive)?, key, name)? == earlier.data).then_some(earlier))
    }

    /// What of the guest's own is replaced after the run, by this run or an earlier one, in the order of the places.
    ///
    /// # Errors
    /// When a hive is damaged.
    pub fn replaced_values(&self) -> Result<Vec<ReplacedValue>> {
        let mut all = self.replaced.current.clone();
        for (place, value) in &self.replaced.earlier {
            if !all.contains_key(place) && self.is_left_at(value)? {
                all.insert(place.clone(), Some(value.clone()));
            }
        }
        Ok(all.into_values().flatten().collect())
    }

    /// Whether the guest holds after the run what winject once made of this value.
    fn is_left_at(&self, value: &ReplacedValue) -> Result<bool> {
        Ok(self.has_hive(value.hive) && self.value_after(value.hive, &value.key, &value.name)? == value.data)
    }

    /// A value as it is after the edits that are planned for it so far.
    ///
    /// # Errors
    /// When the guest has no such hive, or it is damaged there.
    pub fn value_after(&self, hive: GuestHive, key: &str, name: &str) -> Result<Option<RegistryData>> {
        match self.planned_step(&value_place(hive, key, name)) {
            Some(Change::SetValue { data, .. }) => Ok(Some(data.clone())),
            Some(_) => Ok(None),
            None => registry::get_value(self.hive(hive)?, key, name),
        }
    }
}
