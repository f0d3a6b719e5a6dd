//! The base block: the first 4096 bytes of the file ("Base block").

use crate::field::{Field, Le};

pub(crate) const SIGNATURE: &[u8; 4] = b"regf";
pub(crate) const PRIMARY_SEQUENCE: Field<u32> = Field::at(4);
pub(crate) const SECONDARY_SEQUENCE: Field<u32> = Field::at(8);
pub(crate) const LAST_WRITTEN: Field<u64> = Field::at(12);
pub(crate) const MAJOR: Field<u32> = Field::at(20);
pub(crate) const MINOR: Field<u32> = Field::at(24);
pub(crate) const TYPE: Field<u32> = Field::at(28);
pub(crate) const FORMAT: Field<u32> = Field::at(32);
pub(crate) const ROOT: Field<u32> = Field::at(36);
pub(crate) const LENGTH: Field<u32> = Field::at(40);
pub(crate) const CLUSTER: Field<u32> = Field::at(44);
pub(crate) const FLAGS: Field<u32> = Field::at(144);
/// `rmtm` when the transaction fields around it are in use.
pub(crate) const TRANSACTION_SIGNATURE: Field<u32> = Field::at(164);
pub(crate) const CHECKSUM: Field<u32> = Field::at(508);
/// Bytes that the checksum covers, and that a log repeats.
pub(crate) const HEAD: usize = 512;
pub(crate) const TYPE_PRIMARY: u32 = 0;
pub(crate) const TYPE_OLD_LOG: [u32; 2] = [1, 2];
pub(crate) const TYPE_NEW_LOG: u32 = 6;
/// [`FLAGS`]: layered keys are allowed (1.6).
pub(crate) const FLAG_LAYERED: u32 = 2;

/// The checksum of a base block's first 508 bytes (XOR of its words; 0 and -1 are avoided); `None` if it is shorter.
pub(crate) fn checksum(head: &[u8]) -> Option<u32> {
    let words = head.get(..CHECKSUM.offset)?.chunks_exact(4);
    let sum = words.fold(0u32, |sum, word| sum ^ u32::load(word));
    Some(match sum {
        0 => 1,
        0xFFFF_FFFF => 0xFFFF_FFFE,
        sum => sum,
    })
}

/// Whether the base block says that the last write did not end.
pub(crate) fn is_dirty(head: &[u8]) -> bool {
    checksum(head) != CHECKSUM.try_get(head) || PRIMARY_SEQUENCE.try_get(head) != SECONDARY_SEQUENCE.try_get(head)
}

/// Whether sequence number `a` is later than `b`; they wrap at 2³².
pub(crate) fn is_later(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 0x8000_0000
}

/// The later of two sequence numbers.
pub(crate) fn later_sequence(a: u32, b: u32) -> u32 {
    if is_later(b, a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_avoids_zero_and_minus_one() {
        assert_eq!(checksum(&[0; 512]), Some(1));
        let mut head = [0u8; 512];
        head[..4].fill(0xFF);
        assert_eq!(checksum(&head), Some(0xFFFF_FFFE));
        assert_eq!(checksum(&[0; 507]), None);
    }

    #[test]
    fn sequence_numbers_wrap() {
        assert_eq!(later_sequence(5, 7), 7);
        assert_eq!(later_sequence(u32::MAX, 3), 3);
        assert!(!is_later(4, 4));
    }
}
