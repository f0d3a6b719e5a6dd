//! Which cipher a volume has, and that cipher with its key.

use std::fmt;

use aes::{Aes128, Aes256};
use serde::Serialize;

use super::aes_blocks::Sector;
use super::cbc::Cbc;
use super::elephant::Elephant;
use super::xts::Xts;

/// The cipher of the sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Cipher {
    /// AES-CBC with the Elephant diffuser, 128 bits: the default of Windows Vista and 7.
    #[serde(rename = "AES-CBC-128-Elephant")]
    Elephant128,
    /// AES-CBC with the Elephant diffuser, 256 bits.
    #[serde(rename = "AES-CBC-256-Elephant")]
    Elephant256,
    /// AES-CBC, 128 bits: the default of Windows 8 and 8.1, and of removable disks.
    #[serde(rename = "AES-CBC-128")]
    Cbc128,
    /// AES-CBC, 256 bits.
    #[serde(rename = "AES-CBC-256")]
    Cbc256,
    /// AES-XTS, 128 bits: the default since Windows 10 1511.
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

impl Cipher {
    /// From the number that the metadata have; `None` for any other.
    #[must_use]
    pub fn of(method: u16) -> Option<Self> {
        Some(match method {
            0x8000 => Self::Elephant128,
            0x8001 => Self::Elephant256,
            0x8002 => Self::Cbc128,
            0x8003 => Self::Cbc256,
            0x8004 => Self::Xts128,
            0x8005 => Self::Xts256,
            _ => return None,
        })
    }

    /// Bytes of the volume key in its container.
    #[must_use]
    pub fn key_length(self) -> usize {
        match self {
            Self::Cbc128 => 16,
            Self::Cbc256 | Self::Xts128 => 32,
            Self::Elephant128 | Self::Elephant256 | Self::Xts256 => 64,
        }
    }
}

/// A cipher with its keys, which are zeroised when it is dropped.
pub enum SectorCipher {
    /// See [`Cipher::Elephant128`].
    Elephant128(Box<Elephant<Aes128>>),
    /// See [`Cipher::Elephant256`].
    Elephant256(Box<Elephant<Aes256>>),
    /// See [`Cipher::Cbc128`].
    Cbc128(Box<Cbc<Aes128>>),
    /// See [`Cipher::Cbc256`].
    Cbc256(Box<Cbc<Aes256>>),
    /// See [`Cipher::Xts128`].
    Xts128(Box<Xts<Aes128>>),
    /// See [`Cipher::Xts256`].
    Xts256(Box<Xts<Aes256>>),
}

impl SectorCipher {
    /// A cipher with the key of a volume; `None` when the key has another length than [`Cipher::key_length`].
    #[must_use]
    pub fn new(cipher: Cipher, key: &[u8]) -> Option<Self> {
        if key.len() != cipher.key_length() {
            return None;
        }
        Some(match cipher {
            Cipher::Elephant128 => Self::Elephant128(Box::new(Elephant::new(key.get(..16)?, key.get(32..48)?)?)),
            Cipher::Elephant256 => Self::Elephant256(Box::new(Elephant::new(key.get(..32)?, key.get(32..)?)?)),
            Cipher::Cbc128 => Self::Cbc128(Box::new(Cbc::new(key)?)),
            Cipher::Cbc256 => Self::Cbc256(Box::new(Cbc::new(key)?)),
            Cipher::Xts128 => Self::Xts128(Box::new(Xts::new(key.get(..16)?, key.get(16..)?)?)),
            Cipher::Xts256 => Self::Xts256(Box::new(Xts::new(key.get(..32)?, key.get(32..)?)?)),
        })
    }

    /// Decrypts whole sectors, of which the first lies at the volume offset `start`. Bytes of an incomplete last sector
    /// stay as they are.
    pub fn decrypt(&self, sector: Sector, start: u64, data: &mut [u8]) {
        match self {
            Self::Elephant128(cipher) => cipher.decrypt(sector, start, data),
            Self::Elephant256(cipher) => cipher.decrypt(sector, start, data),
            Self::Cbc128(cipher) => cipher.decrypt(sector, start, data),
            Self::Cbc256(cipher) => cipher.decrypt(sector, start, data),
            Self::Xts128(cipher) => cipher.decrypt(sector, start, data),
            Self::Xts256(cipher) => cipher.decrypt(sector, start, data),
        }
    }

    /// The reverse of [`SectorCipher::decrypt`].
    pub fn encrypt(&self, sector: Sector, start: u64, data: &mut [u8]) {
        match self {
            Self::Elephant128(cipher) => cipher.encrypt(sector, start, data),
            Self::Elephant256(cipher) => cipher.encrypt(sector, start, data),
            Self::Cbc128(cipher) => cipher.encrypt(sector, start, data),
            Self::Cbc256(cipher) => cipher.encrypt(sector, start, data),
            Self::Xts128(cipher) => cipher.encrypt(sector, start, data),
            Self::Xts256(cipher) => cipher.encrypt(sector, start, data),
        }
    }
}
