//! One copy of the metadata: block header, data set, and the validation that follows them.

use sha2::{Digest, Sha256};

use super::entry::{Entries, Entry, value};
use super::header::SIGNATURE;
use super::key::{Sealed, hash_of_key_entry};
use crate::error::Result;
use crate::field::Field;
use crate::guid::Guid;

/// Bytes that a copy occupies on the volume: metadata version 2, and 1 (Windows Vista).
pub(super) const AREA: usize = 65536;
pub(super) const AREA_VISTA: usize = 16384;

const SIZE: Field<u16> = Field::at(8);
const VERSION: Field<u16> = Field::at(10);
const CURRENT_STATE: Field<u16> = Field::at(12);
const NEXT_STATE: Field<u16> = Field::at(14);
const ENCRYPTED_SIZE: Field<u64> = Field::at(16);
const STATE_SIZE: Field<u32> = Field::at(24);
const RELOCATED_SECTORS: Field<u32> = Field::at(28);
const OFFSETS: usize = 32;
const RELOCATED_OFFSET: Field<u64> = Field::at(56);
/// The data set, and its fields as block offsets.
const DATA_SET: usize = 64;
const DATA_SET_HEADER: usize = 48;
const DATA_SET_SIZE: Field<u32> = Field::at(DATA_SET);
const DATA_SET_VERSION: Field<u32> = Field::at(DATA_SET + 4);
const DATA_SET_HEADER_SIZE: Field<u32> = Field::at(DATA_SET + 8);
const DATA_SET_END: Field<u32> = Field::at(DATA_SET + 12);
const VOLUME: usize = DATA_SET + 16;
const METHOD: Field<u16> = Field::at(DATA_SET + 36);
/// The validation's fields, from the end of the block.
const VALIDATION: usize = 8;
const CRC: Field<u32> = Field::at(4);

/// Why a copy cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// Its version is not known here.
    Version {
        /// The version.
        version: u16,
        /// Whether its checksum is right: Windows wrote it so.
        is_sound: bool,
    },
    /// Anything else, in words that follow "copy N of the metadata".
    Damaged(String),
}

/// A sound copy.
pub(super) struct Block {
    /// Block header, data set and padding: what the checksums cover.
    pub bytes: Vec<u8>,
    /// What follows them: the sealed hash.
    validation: Vec<u8>,
}

impl Block {
    /// Checks a copy: `area` is all that the volume reserves for it, `own` its volume offset.
    pub fn parse(area: &[u8], own: u64, version: u16) -> Result<Self, Fault> {
        let damaged = |text: &str| Err(Fault::Damaged(text.to_owned()));
        if area.first_chunk() != Some(SIGNATURE) {
            return damaged("has no signature");
        }
        let found = VERSION.get(area);
        if found != version {
            // one of another Windows is not a damaged one
            let is_sound = has_checksum(area, unit(found));
            return Err(Fault::Version { version: found, is_sound });
        }
        let size = usize::from(SIZE.get(area)) * unit(version);
        let (Some(bytes), Some(rest)) = (area.get(..size), area.get(size..)) else {
            return damaged("is longer than its area");
        };
        if size < DATA_SET + DATA_SET_HEADER || rest.len() < VALIDATION {
            return damaged("has an impossible size");
        }
        if CRC.get(rest) != crc32fast::hash(bytes) {
            return damaged("has a wrong checksum");
        }
        let block = Self { bytes: bytes.to_vec(), validation: rest.get(VALIDATION..).unwrap_or_default().to_vec() };
        if !block.offsets().contains(&own) {
            return damaged("does not name its own place");
        }
        let end = DATA_SET_END.get(bytes) as usize;
        let length = DATA_SET_SIZE.get(bytes) as usize;
        if DATA_SET_VERSION.get(bytes) != 1 || DATA_SET_HEADER_SIZE.get(bytes) as usize != DATA_SET_HEADER {
            return damaged("has a data set of an unknown version");
        }
        if !(DATA_SET_HEADER..=length).contains(&end) || length > size - DATA_SET {
            return damaged("has a data set of an impossible size");
        }
        Ok(block)
    }

    /// The state that the volume is in, and the one that Windows wants.
    pub fn states(&self) -> (u16, u16) {
        (CURRENT_STATE.get(&self.bytes), NEXT_STATE.get(&self.bytes))
    }

    /// Bytes from the start of the volume that are encrypted (0 in Vista, where all are).
    pub fn encrypted_size(&self) -> u64 {
        ENCRYPTED_SIZE.get(&self.bytes)
    }

    /// Bytes of the conversion log at the encrypted size.
    pub fn state_size(&self) -> u32 {
        STATE_SIZE.get(&self.bytes)
    }

    /// Sectors of the start of the volume that lie elsewhere.
    pub fn relocated_sectors(&self) -> u32 {
        RELOCATED_SECTORS.get(&self.bytes)
    }

    /// Where they lie; of Vista the cluster of `$MFTMirr`.
    pub fn relocated_offset(&self) -> u64 {
        RELOCATED_OFFSET.get(&self.bytes)
    }

    /// Volume offsets of the three copies.
    pub fn offsets(&self) -> [u64; 3] {
        [0, 1, 2].map(|n| Field::<u64>::at(OFFSETS + 8 * n).get(&self.bytes))
    }

    /// GUID of the volume.
    pub fn volume(&self) -> Guid {
        self.bytes.get(VOLUME..).and_then(<[u8]>::first_chunk).map(|guid| Guid(*guid)).unwrap_or_default()
    }

    /// Number of the cipher.
    pub fn method(&self) -> u16 {
        METHOD.get(&self.bytes)
    }

    /// The entries of the data set.
    pub fn entries(&self) -> Entries<'_> {
        let end = DATA_SET.saturating_add(DATA_SET_END.get(&self.bytes) as usize);
        Entries::new(self.bytes.get(DATA_SET + DATA_SET_HEADER..end).unwrap_or_default())
    }

    /// Whether the block is the one whose hash Windows sealed with `master_key`.
    pub fn is_sealed_with(&self, master_key: &[u8; 32]) -> bool {
        let opened = |entry: &Entry<'_>| match entry.value {
            value::SEALED => Sealed::parse(entry.data).and_then(|sealed| sealed.open(master_key)),
            _ => None,
        };
        let entry = Entries::new(&self.validation).next();
        let hash = entry.and_then(Result::ok).and_then(|entry| opened(&entry));
        hash.is_some_and(|hash| hash.bytes() == self.hash())
    }

    /// Whether the hash that follows the block of a decrypted volume, which has no keys, is that of the block.
    pub fn has_open_hash(&self) -> bool {
        let entry = Entries::new(&self.validation).next().and_then(Result::ok);
        let hash = entry.filter(|entry| entry.value == value::KEY).and_then(|entry| hash_of_key_entry(entry.data));
        hash == Some(self.hash())
    }

    fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }
}

/// In what a block of this version counts its size, in bytes.
fn unit(version: u16) -> usize {
    if version == 1 { 1 } else { 16 }
}

/// Whether the checksum of a block is right, whatever else it holds.
fn has_checksum(area: &[u8], unit: usize) -> bool {
    let Some((bytes, rest)) = area.split_at_checked(usize::from(SIZE.get(area)) * unit) else { return false };
    CRC.try_get(rest) == Some(crc32fast::hash(bytes))
}
