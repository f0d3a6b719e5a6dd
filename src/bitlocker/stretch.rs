//! The slow hash that makes a key of a password.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Rounds of the hash.
const ROUNDS: u64 = 1 << 20;
const LAST: usize = 32;
const COUNT: usize = 80;
const RECORD: usize = 88;

/// Makes the key of a protector of the hash of a password and the protector's salt. Takes most of a second.
pub(super) fn stretch(hash: &[u8; 32], salt: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let mut record = Zeroizing::new([0u8; RECORD]);
    for (to, from) in record.iter_mut().skip(LAST).zip(hash.iter().chain(salt)) {
        *to = *from;
    }
    for round in 0..ROUNDS {
        record[COUNT..].copy_from_slice(&round.to_le_bytes());
        let digest: [u8; 32] = Sha256::digest(&record[..]).into();
        record[..LAST].copy_from_slice(&digest);
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&record[..LAST]);
    key
}
