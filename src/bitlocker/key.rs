//! Keys, and the sealed form in which the metadata hold them.

use aes::Aes256;
use ccm::Ccm;
use ccm::aead::consts::{U12, U16};
use ccm::aead::{AeadInPlace, KeyInit};
use zeroize::Zeroizing;

use crate::field::Field;

/// Offset of the key's bytes in an opened container.
const CONTAINER_HEADER: usize = 12;
const CONTAINER_SIZE: Field<u16> = Field::at(0);
const CONTAINER_VALUE: Field<u16> = Field::at(4);
const CONTAINER_METHOD: Field<u16> = Field::at(8);
const NONCE: usize = 12;
const TAG: usize = 16;

/// What a key is for, as containers and key entries name it.
pub(super) mod method {
    pub const CLEAR_KEY: u16 = 0x2000;
    pub const EXTERNAL_KEY: u16 = 0x2002;
    pub const MASTER_KEY: u16 = 0x2003;
    pub const HASH: u16 = 0x2005;
}

/// A key that something was sealed with, or that was sealed. Zeroised when dropped.
pub(super) struct Key {
    pub method: u16,
    bytes: Zeroizing<Vec<u8>>,
}

impl Key {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key's bytes, if there are as many as AES-256 takes.
    pub fn to_array(&self) -> Option<Zeroizing<[u8; 32]>> {
        self.bytes.as_slice().try_into().ok().map(Zeroizing::new)
    }
}

/// A value that was encrypted with AES-CCM (RFC 3610: AES-256, nonce of 12 bytes, tag of 16, no associated data).
#[derive(Clone)]
pub(super) struct Sealed {
    nonce: [u8; NONCE],
    tag: [u8; TAG],
    ciphertext: Vec<u8>,
}

impl Sealed {
    /// From the data of an entry: nonce, tag, ciphertext.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (nonce, rest) = data.split_first_chunk()?;
        let (tag, ciphertext) = rest.split_first_chunk()?;
        Some(Self { nonce: *nonce, tag: *tag, ciphertext: ciphertext.to_vec() })
    }

    /// Opens it; `None` when `key` is not the one that it was sealed with, or when it does not hold a key.
    pub fn open(&self, key: &[u8; 32]) -> Option<Key> {
        let mut container = Zeroizing::new(self.ciphertext.clone());
        let cipher = Ccm::<Aes256, U16, U12>::new(key.into());
        cipher.decrypt_in_place_detached((&self.nonce).into(), &[], &mut container, (&self.tag).into()).ok()?;
        let complete = usize::from(CONTAINER_SIZE.get(&container)) == container.len();
        if !complete || CONTAINER_VALUE.get(&container) != 1 {
            return None;
        }
        let bytes = container.get(CONTAINER_HEADER..)?.to_vec();
        Some(Key { method: CONTAINER_METHOD.get(&container), bytes: Zeroizing::new(bytes) })
    }
}

/// The key of an entry of type "key": method, flags, and 32 bytes, if the method is `expected`.
pub(super) fn key_of_entry(data: &[u8], expected: u16) -> Option<Zeroizing<[u8; 32]>> {
    let found = Field::<u16>::at(0).try_get(data)?;
    data.get(4..)?.try_into().ok().filter(|_| found == expected).map(Zeroizing::new)
}

/// The hash that an open key entry holds.
pub(super) fn hash_of_key_entry(data: &[u8]) -> Option<[u8; 32]> {
    key_of_entry(data, method::HASH).map(|hash| *hash)
}
