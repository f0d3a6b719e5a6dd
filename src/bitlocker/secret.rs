//! What a user knows or has that opens a volume.

use crate::error::{Error, Layer, Result};

/// A secret that may open a volume. Nothing of it is ever printed, and it is zeroised when dropped.
#[non_exhaustive]
pub enum Secret {
    /// 48 digits.
    RecoveryPassword(()),
    /// Any text.
    Password(()),
    /// The content of a `.BEK` file.
    StartupKey(()),
    /// The key of the volume itself.
    VolumeKey(()),
}

impl Secret {
    /// Parses a recovery password: eight groups of six digits, with `-`, blanks or nothing between them.
    ///
    /// # Errors
    /// Says which group is wrong, and not what it holds.
    pub fn recovery_password(_text: &str) -> Result<Self> {
        Err(not_yet())
    }

    /// Takes a password as it was typed; a line break at its end is not part of it.
    ///
    /// # Errors
    /// When it is empty or absurdly long.
    pub fn password(_text: &str) -> Result<Self> {
        Err(not_yet())
    }

    /// Parses the content of a startup key or recovery key file (`.BEK`).
    ///
    /// # Errors
    /// When it is not such a file.
    pub fn startup_key(_file: &[u8]) -> Result<Self> {
        Err(not_yet())
    }

    /// Parses the key of a volume: hexadecimal digits, or the binary file that dislocker writes.
    ///
    /// # Errors
    /// When it is neither, or has a length that no cipher takes.
    pub fn volume_key(_content: &[u8]) -> Result<Self> {
        Err(not_yet())
    }

    /// What it is, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RecoveryPassword(()) => "recovery password",
            Self::Password(()) => "password",
            Self::StartupKey(()) => "startup key",
            Self::VolumeKey(()) => "volume key",
        }
    }
}

fn not_yet() -> Error {
    Error::unsupported(Layer::BitLocker, "not built yet")
}
