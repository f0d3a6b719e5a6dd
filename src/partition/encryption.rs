//! What is known of a volume that BitLocker encrypts, and the key that opens it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::bitlocker::{Metadata, OpenedBy, Unlocked};
use crate::error::Error;

/// A volume that BitLocker encrypts: what its metadata say, and what opened it.
#[derive(Debug, Clone, Serialize)]
pub struct Encryption {
    /// Cipher, state and protectors; `None` if the metadata cannot be read.
    #[serde(flatten)]
    pub metadata: Option<Metadata>,
    /// What opened the volume; `None` if it is locked.
    pub opened_by: Option<OpenedBy>,
    /// Why it is locked.
    #[serde(skip)]
    locked: Option<Error>,
    #[serde(skip)]
    pub(super) key: Option<VolumeKey>,
}

impl Encryption {
    /// A volume that `opened_by` has opened.
    pub(super) fn open(key: VolumeKey, opened_by: OpenedBy) -> Self {
        Self { metadata: Some(key.0.metadata().clone()), opened_by: Some(opened_by), locked: None, key: Some(key) }
    }

    /// A volume that cannot be read for this reason.
    pub(super) fn locked(metadata: Option<Metadata>, reason: Error) -> Self {
        Self { metadata, opened_by: None, locked: Some(reason), key: None }
    }

    /// Why the volume cannot be read; `None` if it is open.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        self.locked.clone()
    }

    /// Why the volume must not be written, whether or not it can be read; `None` if it may.
    #[must_use]
    pub fn write_refusal(&self) -> Option<Error> {
        self.refusal().or_else(|| self.key.as_ref()?.0.write_refusal())
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

/// The key of an opened volume, shared by all views of it. Nothing of it is ever printed.
#[derive(Clone)]
pub(super) struct VolumeKey(pub(super) Arc<Unlocked>);

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeKey")
    }
}
