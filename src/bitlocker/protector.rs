//! Protectors: the ways in which a volume can be opened.

use std::fmt;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::entry::{Entries, Entry, damaged, value};
use super::key::{Sealed, key_of_entry, method};
use crate::error::Result;
use crate::field::Field;
use crate::guid::Guid;

/// Fields of a volume master key's value, and of a stretch inside it.
const PROTECTION: Field<u16> = Field::at(26);
const PROPERTIES: usize = 28;
const SALT: usize = 4;

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

impl ProtectorKind {
    /// From the number of a volume master key's protection.
    fn of(number: u16) -> Self {
        match number {
            0x0000 => Self::ClearKey,
            0x0100 => Self::Tpm,
            0x0200 => Self::StartupKey,
            0x0400 | 0x0500 => Self::TpmPin,
            0x0300 | 0x0700 => Self::TpmStartupKey,
            0x0800 => Self::RecoveryPassword,
            0x1000 => Self::PublicKey,
            0x2000 => Self::Password,
            number => Self::Unknown(number),
        }
    }
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

crate::schema::json_schema_as!(ProtectorKind, String);

/// One protector, as the metadata describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
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

/// The volume master key as one protector seals it.
pub(super) struct SealedMasterKey {
    pub protector: Protector,
    /// Salt of the stretch of a password.
    pub salt: Option<[u8; 16]>,
    /// The key of a suspended volume.
    pub clear_key: Option<Zeroizing<[u8; 32]>>,
    /// The master key.
    pub sealed: Option<Sealed>,
}

impl SealedMasterKey {
    /// From an entry with a value of type [`value::MASTER_KEY`].
    pub fn parse(entry: &Entry<'_>) -> Result<Self> {
        let id = entry.data.first_chunk().map(|id| Guid(*id));
        let kind = PROTECTION.try_get(entry.data).map(ProtectorKind::of);
        let (Some(id), Some(kind), Some(properties)) = (id, kind, entry.data.get(PROPERTIES..)) else {
            return Err(damaged("a protector of the metadata is cut off"));
        };
        let protector = Protector { id, kind, description: None };
        let mut out = Self { protector, salt: None, clear_key: None, sealed: None };
        for property in Entries::new(properties) {
            let property = property?;
            match property.value {
                value::TEXT => drop(out.protector.description.get_or_insert(property.text())),
                value::STRETCH if out.salt.is_none() => {
                    out.salt = property.data.get(SALT..).and_then(<[u8]>::first_chunk).copied();
                }
                value::KEY if out.clear_key.is_none() => {
                    out.clear_key = key_of_entry(property.data, method::CLEAR_KEY);
                }
                value::SEALED if out.sealed.is_none() => out.sealed = Sealed::parse(property.data),
                _ => {}
            }
        }
        Ok(out)
    }
}
