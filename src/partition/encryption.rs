//! State of a BitLocker volume, and the key that opens it.

use std::sync::Arc;

use serde::Serialize;

use crate::bitlocker::{Metadata, OpenedBy, Unlocked};
use crate::error::{Error, Result};

/// A volume that BitLocker encrypts: what its metadata say, and what opened it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Encryption {
    /// Cipher, state and protectors; `None` if the metadata cannot be read.
    #[serde(flatten)]
    pub metadata: Option<Metadata>,
    /// What opened the volume; `None` if it is locked.
    pub opened_by: Option<OpenedBy>,
    /// The opened volume, shared by all views of it, or why it is locked.
    #[serde(skip)]
    pub(super) volume: Result<Arc<Unlocked>>,
}

impl Encryption {
    /// A volume that `opened_by` has opened.
    pub(super) fn open(volume: Arc<Unlocked>, opened_by: OpenedBy) -> Self {
        Self { metadata: Some(volume.metadata().clone()), opened_by: Some(opened_by), volume: Ok(volume) }
    }

    /// A volume that cannot be read for this reason.
    pub(super) fn locked(metadata: Option<Metadata>, reason: Error) -> Self {
        Self { metadata, opened_by: None, volume: Err(reason) }
    }

    /// Why the volume cannot be read; `None` if it is open.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        self.volume.as_ref().err().cloned()
    }

    /// Why the volume must not be written, whether or not it can be read; `None` if it may.
    #[must_use]
    pub fn write_refusal(&self) -> Option<Error> {
        match &self.volume {
            Ok(volume) => volume.write_refusal(),
            Err(error) => Some(error.clone()),
        }
    }
}

/// Two descriptions are of the same volume in the same state of being open.
impl PartialEq for Encryption {
    fn eq(&self, other: &Self) -> bool {
        let volume = |one: &Self| one.metadata.as_ref().map(|metadata| metadata.volume);
        volume(self) == volume(other) && self.opened_by == other.opened_by
    }
}

impl Eq for Encryption {}
