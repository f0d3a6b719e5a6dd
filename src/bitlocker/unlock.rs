//! The opened volume.

use serde::Serialize;

use super::metadata::Metadata;
use super::protector::Protector;
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::units::VolumeOffset;

/// What opened a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OpenedBy {
    /// One of its protectors.
    Protector(Protector),
    /// The key of the volume itself.
    VolumeKey,
}

/// An opened volume: its keys, and where what lies. Reads and writes the plain view of any device that holds the volume (the
/// image, or a stage over it). Zeroised when dropped.
pub struct Unlocked {
    metadata: Metadata,
}

impl Unlocked {
    /// What the volume says of itself.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Fills `buf` from the plain view at `offset`, at any alignment. Reserved areas read as zeros.
    ///
    /// # Errors
    /// When the range is not inside the volume, or the device cannot be read.
    pub fn read<D: VolumeRead + ?Sized>(&self, _device: &D, _offset: VolumeOffset, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported(Layer::BitLocker, "not built yet"))
    }

    /// Encrypts `data` and stores it at `offset` of the plain view, at any alignment: whole sectors are read, changed and
    /// written.
    ///
    /// # Errors
    /// When the volume must not be written ([`Unlocked::write_refusal`]), the range touches a reserved area or is not inside the volume, or the
    /// device fails. Nothing is written then, unless the device failed half-way.
    pub fn write<D: VolumeWrite + ?Sized>(&self, _device: &mut D, _offset: VolumeOffset, _data: &[u8]) -> Result<()> {
        Err(Error::unsupported(Layer::BitLocker, "not built yet"))
    }

    /// Why the volume must not be written; `None` when it may.
    #[must_use]
    pub fn write_refusal(&self) -> Option<Error> {
        self.metadata.write_refusal()
    }

    /// Checks that the metadata areas and the physical first 8 KiB of `device` hold the bytes that they held when the volume
    /// was opened.
    ///
    /// # Errors
    /// When they differ, or the device cannot be read.
    pub fn check_untouched<D: VolumeRead + ?Sized>(&self, _device: &D) -> Result<()> {
        Err(Error::unsupported(Layer::BitLocker, "not built yet"))
    }
}
