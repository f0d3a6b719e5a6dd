//! What a volume says of itself without any secret.

use std::fmt;

use serde::Serialize;

use super::protector::Protector;
use super::secret::Secret;
use super::unlock::{OpenedBy, Unlocked};
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;
use crate::io::VolumeRead;

/// Which Windows' form of BitLocker it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Variant {
    /// Windows Vista and Server 2008.
    Vista,
    /// Windows 7 and later, on a fixed disk.
    Fixed,
    /// BitLocker To Go, on a removable disk.
    ToGo,
}

/// How far the encryption is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// Completely encrypted (perhaps the used space only).
    Encrypted,
    /// Decrypted; the header of BitLocker is still there.
    Decrypted,
    /// Encryption or decryption was interrupted in the middle of a step.
    Interrupted,
    /// Encryption or decryption stands still at the encrypted size.
    Paused,
    /// Encryption on write is still running.
    EncryptOnWrite,
    /// Numbers that are not known here.
    Unknown,
}

/// The cipher of the sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-CBC with the Elephant diffuser, 128 bits.
    #[serde(rename = "AES-CBC-128-Elephant")]
    Elephant128,
    /// AES-CBC with the Elephant diffuser, 256 bits.
    #[serde(rename = "AES-CBC-256-Elephant")]
    Elephant256,
    /// AES-CBC, 128 bits.
    #[serde(rename = "AES-CBC-128")]
    Cbc128,
    /// AES-CBC, 256 bits.
    #[serde(rename = "AES-CBC-256")]
    Cbc256,
    /// AES-XTS, 128 bits.
    #[serde(rename = "AES-XTS-128")]
    Xts128,
    /// AES-XTS, 256 bits.
    #[serde(rename = "AES-XTS-256")]
    Xts256,
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What the header and the metadata of a volume say; nothing of it is secret.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Metadata {
    /// GUID of the volume.
    pub volume: Guid,
    /// Which form of BitLocker.
    pub variant: Variant,
    /// How far the encryption is.
    pub state: State,
    /// The cipher; `None` on a decrypted volume, or when its number is not known.
    pub cipher: Option<Cipher>,
    /// Bytes per sector, the unit of encryption.
    pub sector_size: u32,
    /// Bytes from the start of the volume that are encrypted.
    pub encrypted_size: u64,
    /// Length of the partition in bytes.
    pub volume_size: u64,
    /// What the volume calls itself: computer, label and date of encryption.
    pub description: Option<String>,
    /// What opens the volume, in the order of the metadata.
    pub protectors: Vec<Protector>,
    /// What is wrong with copies of the metadata, in words.
    pub findings: Vec<String>,
}

impl Metadata {
    /// Reads header and metadata, of which at least one copy must be sound.
    ///
    /// # Errors
    /// Not BitLocker, a version or form that is not known, metadata that are damaged or out of bounds; or the volume cannot
    /// be read.
    pub fn read<D: VolumeRead + ?Sized>(_device: &D) -> Result<Self> {
        Err(Error::unsupported(Layer::BitLocker, "not built yet"))
    }

    /// Why the data of the volume cannot be read, whatever secrets there are; `None` when they can.
    #[must_use]
    pub fn read_refusal(&self) -> Option<Error> {
        None
    }

    /// Why the volume must not be written, whatever secrets there are; `None` when it may.
    #[must_use]
    pub fn write_refusal(&self) -> Option<Error> {
        None
    }

    /// Opens the volume: by its clear key if it has one, else by the first of `secrets` that fits.
    ///
    /// # Errors
    /// Names the protectors when none of `secrets` fits; or says why the volume cannot be read at all.
    pub fn unlock<D: VolumeRead + ?Sized>(&self, _device: &D, _secrets: &[Secret]) -> Result<(Unlocked, OpenedBy)> {
        Err(Error::unsupported(Layer::BitLocker, "not built yet"))
    }
}
