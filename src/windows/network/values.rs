//! The registry as it was before winject changed it.
//!
//! A run that keeps the network also changes settings of the guest: it takes addresses from ghost adapters and frees the
//! names of connections. A later run has to see the settings as they were, so that it comes to the same result.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::hive::{Hive, RegistryData};
use crate::upcase::Fold;
use crate::windows::registry;

/// The values of a hive; those that an earlier run replaced are what they were before it.
pub(super) struct Values<'a> {
    pub(super) hive: &'a Hive,
    earlier: &'a EarlierValues,
}

/// Values as they were before winject replaced them, by key and name; `None` for one that did not exist.
#[derive(Debug, Default)]
pub struct EarlierValues(BTreeMap<(String, String), Option<RegistryData>>);

impl EarlierValues {
    /// Adds a value.
    pub fn add(&mut self, key: &str, name: &str, data: Option<RegistryData>) {
        self.0.insert((key.folded(), name.folded()), data);
    }
}

impl<'a> Values<'a> {
    pub(super) const fn new(hive: &'a Hive, earlier: &'a EarlierValues) -> Self {
        Self { hive, earlier }
    }

    pub(super) fn data(&self, key: &str, name: &str) -> Result<Option<RegistryData>> {
        match self.earlier.0.get(&(key.folded(), name.folded())) {
            Some(earlier) => Ok(earlier.clone()),
            None => registry::get_value(self.hive, key, name),
        }
    }

    pub(super) fn text(&self, key: &str, name: &str) -> Result<Option<String>> {
        Ok(self.data(key, name)?.and_then(|data| data.as_text()))
    }

    pub(super) fn texts(&self, key: &str, name: &str) -> Result<Vec<String>> {
        Ok(self.data(key, name)?.map(|data| data.to_texts()).unwrap_or_default())
    }

    pub(super) fn number(&self, key: &str, name: &str) -> Result<Option<u32>> {
        Ok(self.data(key, name)?.and_then(|data| data.as_u32()))
    }
}
