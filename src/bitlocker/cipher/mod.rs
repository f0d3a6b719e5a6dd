//! The ciphers of the sectors: each sector on its own, by its place on the volume.

mod aes_blocks;
mod cbc;
mod elephant;
mod sector_cipher;
mod xts;

pub use aes_blocks::Sector;
pub use sector_cipher::{Cipher, SectorCipher};
