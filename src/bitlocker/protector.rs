//! Protectors: the ways in which a volume can be opened.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::guid::Guid;

/// What a protector asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtectorKind {
    /// Nothing: the key lies on the volume. BitLocker is suspended, or device encryption waits for activation.
    ClearKey,
    /// The TPM of the machine.
    Tpm,
    /// The TPM of the machine, and a PIN.
    TpmPin,
    /// The TPM of the machine, and a startup key, perhaps with a PIN.
    TpmStartupKey,
    /// A startup key or recovery key file (`.BEK`).
    StartupKey,
    /// A recovery password of 48 digits.
    RecoveryPassword,
    /// A password.
    Password,
    /// A smart card, or the certificate of a data recovery agent.
    PublicKey,
    /// A number that is not known here.
    Unknown(u16),
}

impl fmt::Display for ProtectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClearKey => "clear key",
            Self::Tpm => "TPM",
            Self::TpmPin => "TPM and PIN",
            Self::TpmStartupKey => "TPM and startup key",
            Self::StartupKey => "startup key",
            Self::RecoveryPassword => "recovery password",
            Self::Password => "password",
            Self::PublicKey => "smart card or certificate",
            Self::Unknown(number) => return write!(f, "protector of type {number:#06x}"),
        })
    }
}

impl Serialize for ProtectorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One protector, as the metadata describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protector {
    /// The protector's GUID. Its first 8 digits are what Windows shows as the key ID.
    pub id: Guid,
    /// What it asks for.
    pub kind: ProtectorKind,
    /// The description that the metadata give it, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Protector {
    /// The first 8 digits of the id, as Windows asks for them ("Recovery key ID").
    #[must_use]
    pub fn key_id(&self) -> String {
        self.id.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for Protector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (key ID {})", self.kind, self.key_id())
    }
}
