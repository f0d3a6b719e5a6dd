//! What a user knows or has that opens a volume.

use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::cipher::Cipher;
use super::entry::{Entries, value};
use super::key::{key_of_entry, method};
use super::stretch::stretch;
use crate::error::{Error, Kind, Layer, Result};
use crate::field::Field;
use crate::guid::Guid;

/// Times that one secret is stretched over its life, which takes most of a second each: a crafted volume can name any number
/// of protectors.
pub(super) const STRETCHES_MAX: u32 = 16;
/// Groups of a recovery password, and digits of a group.
const GROUPS: usize = 8;
const DIGITS: usize = 6;
/// Characters of a password that are accepted (Windows takes 256).
const PASSWORD_MAX: usize = 1024;
/// Bytes of a startup key file that are accepted; Windows writes 156 or 180.
const STARTUP_KEY_MAX: usize = 4096;

/// A secret that may open a volume. Nothing of it is ever printed, and it is zeroised when dropped.
#[non_exhaustive]
pub enum Secret {
    /// 48 digits.
    RecoveryPassword(Stretched),
    /// Any text.
    Password(Stretched),
    /// The content of a `.BEK` file.
    StartupKey(StartupKey),
    /// The key of the volume itself.
    VolumeKey(VolumeKey),
}

/// A recovery password or a password, as the hash that is stretched for each protector.
pub struct Stretched {
    hash: Zeroizing<[u8; 32]>,
    /// How often it was stretched.
    count: AtomicU32,
}

impl Stretched {
    fn new(hash: Zeroizing<[u8; 32]>) -> Self {
        Self { hash, count: AtomicU32::new(0) }
    }

    /// The key of a protector with this salt; `None` when the secret was stretched too often.
    pub(super) fn key(&self, salt: &[u8; 16]) -> Option<Zeroizing<[u8; 32]>> {
        (self.count.fetch_add(1, Ordering::Relaxed) < STRETCHES_MAX).then(|| stretch(&self.hash, salt))
    }
}

/// The key of a startup key or recovery key file.
pub struct StartupKey {
    /// The protector that it belongs to.
    pub(super) protector: Guid,
    pub(super) key: Zeroizing<[u8; 32]>,
}

/// The key of a volume.
pub struct VolumeKey {
    bytes: Zeroizing<Vec<u8>>,
    /// The cipher, where the file names it.
    cipher: Option<Cipher>,
}

impl VolumeKey {
    /// The key's bytes for `cipher`; `None` when it is a key of another one.
    pub(super) fn bytes_for(&self, cipher: Cipher) -> Option<&[u8]> {
        match self.cipher {
            Some(own) if own != cipher => None,
            // the file has always 64 bytes
            Some(_) => self.bytes.get(..cipher.key_length()),
            None => Some(&self.bytes).filter(|bytes| bytes.len() == cipher.key_length()).map(|bytes| bytes.as_slice()),
        }
    }
}

impl Secret {
    /// Parses a recovery password: eight groups of six digits, with `-`, blanks or nothing between them.
    ///
    /// # Errors
    /// Says which group is wrong, and not what it holds.
    pub fn recovery_password(text: &str) -> Result<Self> {
        let raw = parse_recovery_password(text)?;
        Ok(Self::RecoveryPassword(Stretched::new(sha256(&*raw))))
    }

    /// Takes a password as it was typed; one line break at its end is not part of it.
    ///
    /// # Errors
    /// When it is empty or absurdly long.
    pub fn password(text: &str) -> Result<Self> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(usage("the password is empty"));
        }
        if text.len() > PASSWORD_MAX {
            return Err(usage(format!("the password is longer than {PASSWORD_MAX} bytes")));
        }
        let mut units = Zeroizing::new(Vec::with_capacity(2 * text.len()));
        for unit in text.encode_utf16() {
            units.extend_from_slice(&unit.to_le_bytes());
        }
        Ok(Self::Password(Stretched::new(sha256(&*sha256(&units)))))
    }

    /// Parses the content of a startup key or recovery key file (`.BEK`).
    ///
    /// # Errors
    /// When it is not such a file.
    pub fn startup_key(file: &[u8]) -> Result<Self> {
        let key = parse_startup_key(file);
        key.map(Self::StartupKey).ok_or_else(|| usage("not a startup key file of BitLocker (.BEK)"))
    }

    /// Parses the key of a volume: hexadecimal digits, or the binary file that dislocker writes.
    ///
    /// # Errors
    /// When it is neither, or has a length that no cipher takes.
    pub fn volume_key(content: &[u8]) -> Result<Self> {
        let named = Field::<u16>::at(0).try_get(content).and_then(Cipher::of);
        if let (Some(cipher), Some(bytes), 66) = (named, content.get(2..), content.len()) {
            return Ok(Self::VolumeKey(VolumeKey { bytes: Zeroizing::new(bytes.to_vec()), cipher: Some(cipher) }));
        }
        let digits = content.trim_ascii();
        if !matches!(digits.len(), 32 | 64 | 128) {
            return Err(usage("not the key of a volume: it has neither 32, 64 or 128 hexadecimal digits nor 66 bytes"));
        }
        // with its capacity from the start: growing would leave copies
        let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
        for [high, low] in digits.as_chunks::<2>().0 {
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                return Err(usage("not the key of a volume: it holds more than hexadecimal digits"));
            };
            bytes.push(high << 4 | low);
        }
        Ok(Self::VolumeKey(VolumeKey { bytes, cipher: None }))
    }

    /// What it is, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RecoveryPassword(_) => "recovery password",
            Self::Password(_) => "password",
            Self::StartupKey(_) => "startup key",
            Self::VolumeKey(_) => "volume key",
        }
    }
}

/// The 16 bytes that the 48 digits stand for.
fn parse_recovery_password(text: &str) -> Result<Zeroizing<[u8; 16]>> {
    let mut raw = Zeroizing::new([0; 2 * GROUPS]);
    let mut digits = Zeroizing::new([0u8; GROUPS * DIGITS]);
    let mut count = 0;
    for c in text.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
        let group = count / DIGITS + 1;
        let value = c.to_digit(10).and_then(|value| u8::try_from(value).ok());
        let value = value.ok_or_else(|| wrong_group(group.min(GROUPS), "has a character that is not a digit"))?;
        let Some(place) = digits.get_mut(count) else {
            return Err(wrong_password("it has more than 48 digits"));
        };
        *place = value;
        count += 1;
    }
    if count < digits.len() {
        return Err(wrong_password(&format!("it has {count} digits of 48")));
    }
    for (number, (group, pair)) in digits.as_chunks::<DIGITS>().0.iter().zip(raw.as_chunks_mut::<2>().0).enumerate() {
        let value = group.iter().fold(0u32, |value, digit| 10 * value + u32::from(*digit));
        let quotient = Some(value / 11).filter(|_| value % 11 == 0).and_then(|quotient| u16::try_from(quotient).ok());
        let quotient = quotient.ok_or_else(|| wrong_group(number + 1, "is mistyped: its check digit is wrong"))?;
        *pair = quotient.to_le_bytes();
    }
    Ok(raw)
}

fn wrong_group(group: usize, why: &str) -> Error {
    wrong_password(&format!("group {group} of {GROUPS} {why}"))
}

fn wrong_password(why: &str) -> Error {
    usage(format!("not a recovery password: {why}"))
        .hint("it has 8 groups of 6 digits, 111111-222222-…; compare it with where it was saved")
}

/// Fields of a startup key file.
const FILE_SIZE: Field<u32> = Field::at(0);
const FILE_VERSION: Field<u32> = Field::at(4);
const FILE_HEADER: Field<u32> = Field::at(8);
const FILE_ENTRIES: usize = 48;
const EXTERNAL_PROPERTIES: usize = 24;

fn parse_startup_key(file: &[u8]) -> Option<StartupKey> {
    let size = FILE_SIZE.try_get(file)? as usize;
    if file.len() > STARTUP_KEY_MAX
        || FILE_VERSION.get(file) != 1
        || FILE_HEADER.get(file) as usize != FILE_ENTRIES
        || !(FILE_ENTRIES..=file.len()).contains(&size)
    {
        return None;
    }
    for entry in Entries::new(file.get(FILE_ENTRIES..size)?) {
        let entry = entry.ok()?;
        if entry.value != value::EXTERNAL_KEY {
            continue;
        }
        let protector = Guid(*entry.data.first_chunk()?);
        for property in Entries::new(entry.data.get(EXTERNAL_PROPERTIES..)?) {
            let property = property.ok()?;
            let key = Some(property).filter(|p| p.value == value::KEY);
            if let Some(key) = key.and_then(|p| key_of_entry(p.data, method::EXTERNAL_KEY)) {
                return Some(StartupKey { protector, key });
            }
        }
    }
    None
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn sha256(bytes: &[u8]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(Sha256::digest(bytes).into())
}

fn usage(text: impl Into<String>) -> Error {
    Error::new(Kind::Usage, Layer::BitLocker, text)
}
