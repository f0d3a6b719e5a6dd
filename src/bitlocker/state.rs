//! Which form of BitLocker a volume has, and how far its encryption is.

use serde::Serialize;

/// Which Windows' form of BitLocker it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// Completely encrypted (perhaps the used space only).
    Encrypted,
    /// Decrypted; the header of BitLocker is still there.
    Decrypted,
    /// Encryption or decryption was interrupted in the middle of a step, and a conversion log is live.
    Interrupted,
    /// Encryption or decryption has come as far as the encrypted size.
    Paused,
    /// Encryption on write is still running.
    EncryptOnWrite,
    /// Numbers that are not known here.
    Unknown,
}

impl State {
    /// From the numbers of a metadata block, current and next, and the mark of the header.
    pub(super) fn of(current: u16, next: u16, encrypt_on_write: bool) -> Self {
        match (current, next) {
            (1, 1) => Self::Decrypted,
            _ if encrypt_on_write => Self::EncryptOnWrite,
            (4, 4) => Self::Encrypted,
            (2, _) => Self::Interrupted,
            (1 | 3..=5, 1..=5) => Self::Paused,
            _ => Self::Unknown,
        }
    }
}
