//! Volumes for tests: 1 MiB with an NTFS boot sector, whose metadata are sealed as Windows seals them.

use aes::Aes256;
use ccm::Ccm;
use ccm::aead::consts::{U12, U16};
use ccm::aead::{AeadInPlace, KeyInit};
use sha2::{Digest, Sha256};

use super::block::AREA;
use super::cipher::{Cipher, Sector, SectorCipher};
use super::entry::{role, value};
use super::header::{NORMAL, SIGNATURE};
use super::key::method;
use super::secret::Secret;
use crate::guid::Guid;
use crate::io::MemoryVolume;

/// Length of a volume.
pub(crate) const LENGTH: u64 = 1 << 20;
/// Places of the copies of the metadata, and of the start of the volume.
pub(crate) const COPIES: [u64; 3] = [128 << 10, 256 << 10, 384 << 10];
const START: u64 = 512 << 10;
const MASTER_KEY: [u8; 32] = [0x31; 32];
const VOLUME_KEY: [u8; 32] = [0x42; 32];
const XTS_128: u16 = 0x8004;
/// Numbers of the clear key and of a startup key.
const CLEAR_KEY: u16 = 0;
const STARTUP_KEY: u16 = 0x0200;

/// What a volume is like.
#[derive(Clone)]
pub(crate) struct Sample {
    /// Version of the metadata.
    pub version: u16,
    /// Bytes that are encrypted.
    pub encrypted: u64,
    /// Whether it has a clear key, and whether that opens it.
    pub clear_key: Option<bool>,
    /// Its protectors: startup keys by number.
    pub startup_keys: Vec<u8>,
    /// What the entry for the start of the volume says: length, place.
    pub start: (u64, u64),
}

impl Default for Sample {
    fn default() -> Self {
        Self { version: 2, encrypted: LENGTH, clear_key: Some(true), startup_keys: vec![1, 2], start: (8192, START) }
    }
}

impl Sample {
    /// GUID of the volume.
    pub fn volume_id() -> Guid {
        Guid([0xEE; 16])
    }

    /// GUID of a startup key's protector.
    pub fn protector(number: u8) -> Guid {
        Guid([number; 16])
    }

    /// The startup key of this number.
    pub fn startup_key(number: u8) -> Secret {
        let key = entry(0, value::KEY, &[&method::EXTERNAL_KEY.to_le_bytes()[..], &[0; 2], &[number; 32]].concat());
        let key = entry(6, value::EXTERNAL_KEY, &[&Self::protector(number).0[..], &[0; 8], &key].concat());
        let mut file = vec![0; 48];
        for (at, number) in [(0, 48 + key.len()), (4, 1), (8, 48)] {
            file[at..at + 4].copy_from_slice(&(number as u32).to_le_bytes());
        }
        file.extend(key);
        Secret::startup_key(&file).unwrap()
    }

    /// The key of the volume, or one that does not fit.
    pub fn volume_key(is_right: bool) -> Secret {
        let byte = if is_right { VOLUME_KEY[0] } else { 0x43 };
        Secret::volume_key(format!("{byte:02x}").repeat(VOLUME_KEY.len()).as_bytes()).unwrap()
    }

    /// The volume.
    pub fn volume(&self) -> MemoryVolume {
        let mut bytes = vec![0; LENGTH as usize];
        let mut put =
            |at: u64, content: &[u8]| bytes[at as usize..at as usize + content.len()].copy_from_slice(content);
        let copies = COPIES.map(u64::to_le_bytes).concat();
        for (at, content) in
            [(3, &SIGNATURE[..]), (11, &[0, 2]), (13, &[8]), (160, &NORMAL.0), (176, &copies), (510, &[0x55, 0xAA])]
        {
            put(at, content);
        }
        let copy = self.copy();
        assert!(copy.len() <= AREA);
        COPIES.into_iter().for_each(|at| put(at, &copy));
        let mut start = boot_sector();
        if self.encrypted > START {
            let cipher = SectorCipher::new(Cipher::Xts128, &VOLUME_KEY).unwrap();
            cipher.encrypt(Sector::Bytes512, START, &mut start);
        }
        put(START, &start);
        MemoryVolume(bytes)
    }

    /// One copy of the metadata, with what follows it.
    fn copy(&self) -> Vec<u8> {
        let mut entries = Vec::new();
        if let Some(opens) = self.clear_key {
            let key = [&method::CLEAR_KEY.to_le_bytes()[..], &[0; 2], &[if opens { 7 } else { 8 }; 32]].concat();
            entries.extend(master_key(Guid([0xCC; 16]), CLEAR_KEY, &entry(0, value::KEY, &key), &[7; 32]));
        }
        for number in &self.startup_keys {
            entries.extend(master_key(Self::protector(*number), STARTUP_KEY, &[], &[*number; 32]));
        }
        entries.extend(entry(role::VOLUME_KEY, value::SEALED, &seal(XTS_128, &VOLUME_KEY, &MASTER_KEY)));
        let (length, place) = self.start;
        entries.extend(entry(
            role::RELOCATED_HEADER,
            value::PLACE,
            &[place.to_le_bytes(), length.to_le_bytes()].concat(),
        ));
        let data_set = 48 + entries.len();
        let size = (64 + data_set).next_multiple_of(16);
        let mut block = vec![0; size];
        let mut put = |at: usize, content: &[u8]| block[at..at + content.len()].copy_from_slice(content);
        put(0, SIGNATURE);
        put(8, &((size / 16) as u16).to_le_bytes());
        put(10, &self.version.to_le_bytes());
        put(12, &[4, 0, 4, 0]);
        put(16, &self.encrypted.to_le_bytes());
        put(28, &16u32.to_le_bytes());
        put(32, &COPIES.map(u64::to_le_bytes).concat());
        put(56, &START.to_le_bytes());
        for (at, number) in [(64, data_set), (68, 1), (72, 48), (76, data_set)] {
            put(at, &(number as u32).to_le_bytes());
        }
        put(80, &Self::volume_id().0);
        put(100, &XTS_128.to_le_bytes());
        put(112, &entries);
        let hash = entry(4, value::SEALED, &seal(method::HASH, &Sha256::digest(&block), &MASTER_KEY));
        let crc = crc32fast::hash(&block);
        block.extend([0; 4]);
        block.extend(crc.to_le_bytes());
        block.extend(hash);
        block
    }
}

/// An entry of the metadata.
fn entry(role: u16, value: u16, data: &[u8]) -> Vec<u8> {
    let header = [(8 + data.len()) as u16, role, value, 1];
    header.into_iter().flat_map(u16::to_le_bytes).chain(data.iter().copied()).collect()
}

/// The master key as a protector seals it.
fn master_key(id: Guid, protection: u16, properties: &[u8], key: &[u8; 32]) -> Vec<u8> {
    let sealed = entry(0, value::SEALED, &seal(method::MASTER_KEY, &MASTER_KEY, key));
    entry(2, value::MASTER_KEY, &[&id.0[..], &[0; 10], &protection.to_le_bytes(), properties, &sealed].concat())
}

/// A key in its container, encrypted with another.
fn seal(method: u16, content: &[u8], key: &[u8; 32]) -> Vec<u8> {
    let header = [(12 + content.len()) as u16, 0, 1, 1, method, 0];
    let mut container: Vec<u8> = header.into_iter().flat_map(u16::to_le_bytes).chain(content.iter().copied()).collect();
    let nonce = [9; 12];
    let cipher = Ccm::<Aes256, U16, U12>::new(key.into());
    let tag = cipher.encrypt_in_place_detached((&nonce).into(), &[], &mut container).unwrap();
    [&nonce[..], &tag, &container].concat()
}

/// The boot sector of an NTFS that fills the volume but for its last sector.
fn boot_sector() -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[3..11].copy_from_slice(b"NTFS    ");
    sector[11..14].copy_from_slice(&[0, 2, 8]);
    sector[40..48].copy_from_slice(&(LENGTH / 512 - 1).to_le_bytes());
    sector[48] = 4;
    sector[56] = 2;
    sector[64] = 0xF6;
    sector[68] = 1;
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    sector
}
