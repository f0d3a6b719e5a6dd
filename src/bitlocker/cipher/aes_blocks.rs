//! AES on batches of blocks, and the sectors that the ciphers cut a volume into.

use aes::cipher::consts::U16;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockCipher, BlockDecrypt, BlockEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes256};

/// A block of AES.
pub(super) type Block = GenericArray<u8, U16>;
/// Blocks that are handed to AES at once: a sector of 512 bytes.
pub(super) const BATCH: usize = 32;

/// AES with 128 or 256 bits.
pub trait Aes: BlockCipher + BlockEncrypt + BlockDecrypt + BlockSizeUser<BlockSize = U16> + KeyInit {}
impl Aes for Aes128 {}
impl Aes for Aes256 {}

/// One block encrypted: how tweaks and initialisation vectors are made.
pub(super) fn encrypt_number(aes: &impl Aes, number: u128) -> u128 {
    let mut block = Block::from(number.to_le_bytes());
    aes.encrypt_block(&mut block);
    u128::from_le_bytes(block.into())
}

/// The sizes of sectors that BitLocker has: each sector is encrypted on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sector {
    /// 512 bytes.
    Bytes512,
    /// 4096 bytes.
    Bytes4096,
}

impl Sector {
    /// The length in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bytes512 => 512,
            Self::Bytes4096 => 4096,
        }
    }
}
