//! Values of the guest's own that winject replaces.

use std::collections::BTreeMap;

use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::upcase::Fold;

/// A value of the guest's own with what winject makes of it. The manifest lists it, so that `winject remove` brings back
/// what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedValue {
    /// The hive that it belongs to.
    pub hive: GuestHive,
    /// Path of the key below the hive's root.
    pub key: String,
    /// Name of the value; empty for the default value.
    pub name: String,
    /// What winject writes; `None` where it removes the value.
    pub data: Option<RegistryData>,
    /// What the guest had; `None` where it had no such value.
    pub before: Option<RegistryData>,
}

/// Hive, key and name of a value, in lower case.
pub(super) type Place = (GuestHive, String, String);

impl ReplacedValue {
    pub(super) fn place(&self) -> Place {
        (self.hive, self.key.folded(), self.name.folded())
    }
}

/// The replaced values of earlier runs and of this one.
#[derive(Debug, Default)]
pub(super) struct ReplacedValues {
    /// As the manifest of the last run lists them.
    pub(super) earlier: BTreeMap<Place, ReplacedValue>,
    /// Those that this run asks for; `None` where the guest gets back what it had.
    pub(super) current: BTreeMap<Place, Option<ReplacedValue>>,
}
