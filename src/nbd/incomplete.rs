//! The beginning of a copy of a disk that is not complete.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// How it begins, in place of a partition table.
const TEXT: &[u8] = b"winject: an incomplete copy of a disk: run the command again that wrote it\n";

/// Whether a disk that begins so is a copy which was interrupted.
pub(crate) fn is_incomplete(head: &[u8]) -> bool {
    head.starts_with(TEXT)
}

/// The beginning, of this length, of a copy that is being made. No two are the same, so that two copies to one export, by
/// whatever names, are told apart.
pub(super) fn beginning(length: usize) -> Vec<u8> {
    let mut bytes = TEXT.to_vec();
    for _ in 0..2 {
        // Each state has keys of its own.
        bytes.extend(format!("{:016x}", RandomState::new().build_hasher().finish()).bytes());
    }
    bytes.resize(length, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_recognised_and_differ() {
        let (one, other) = (beginning(65536), beginning(65536));
        assert!(is_incomplete(&one) && one.len() == 65536 && one != other && one[510..512] == [0, 0]);
        assert!(!is_incomplete(&[0; 65536]) && !is_incomplete(&one[..20]) && beginning(10).len() == 10);
    }
}
