//! Requests that concern the boot volume. They are no part of the desired state that the manifest lists: it has a part of its
//! own for them, with what was there before.

use super::builder::{PlanBuilder, key_place};
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::{BootPlace, Change, GuestHive};
use crate::upcase::Fold;
use crate::windows::registry;

impl PlanBuilder<'_> {
    /// Says where the boot volume is, for the requests that follow.
    pub fn set_boot_place(&mut self, place: &BootPlace) {
        self.boot = Some(place.clone());
    }

    /// The data of an element of the boot configuration; `None` if it is not there.
    ///
    /// # Errors
    /// When the hive is damaged there, or the guest has no boot configuration.
    pub fn boot_element(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let data = registry::get_value(self.hive(GuestHive::Bcd)?, key, "Element")?;
        Ok(data.map(|data| data.bytes))
    }

    /// Whether the boot configuration has this object.
    ///
    /// # Errors
    /// When the hive is damaged there, or the guest has no boot configuration.
    pub fn has_boot_object(&self, object: &str) -> Result<bool> {
        Ok(registry::find_key(self.hive(GuestHive::Bcd)?, &format!("Objects\\{object}"))?.is_some())
    }

    /// Requests an element with these data, or none.
    ///
    /// # Errors
    /// When the hive is damaged there, or the guest has no boot configuration.
    pub fn set_boot_element(&mut self, key: &str, data: Option<&[u8]>) -> Result<()> {
        let hive = GuestHive::Bcd;
        let before = registry::get_value(self.hive(hive)?, key, "Element")?;
        let place = key_place(hive, key);
        let (key, name) = (key.to_owned(), "Element".to_owned());
        match data.map(RegistryData::binary) {
            Some(data) if before.as_ref() == Some(&data) => {}
            Some(data) => self.push_step(place, Change::SetValue { hive, key, name, data, before }),
            None if registry::find_key(self.hive(hive)?, &key)?.is_none() => {}
            None => self.push_step(place, Change::DeleteKey { hive, key }),
        }
        Ok(())
    }

    /// Requests a new file of the boot volume that is a copy of another one there.
    pub fn copy_boot_file(&mut self, from: &str, path: &str, size: u64, sha256: [u8; 32]) {
        let change = Change::CopyBootFile { path: path.to_owned(), from: from.to_owned(), size, sha256 };
        self.push_step(format!("boot file {}", path.folded()), change);
    }
}
