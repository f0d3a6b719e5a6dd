//! The data of files on the host; holes of large images cost nothing.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use sha2::{Digest, Sha256};
use winject::internals::block::is_zero;

const PIECE_BYTES: u64 = 1 << 20;

/// Calls `take` with every piece of data and its offset, in ascending order. Pieces begin at multiples of 4 KiB. Returns
/// the file's length.
pub fn for_each_piece(path: &Path, mut take: impl FnMut(u64, &[u8])) -> u64 {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let mut buf = vec![0u8; PIECE_BYTES as usize];
    let mut at = 0;
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        let hole = seek(&file, SeekFrom::Hole(data)).unwrap();
        at = at.max(data / 4096 * 4096);
        while at < hole {
            let part = &mut buf[..usize::try_from(PIECE_BYTES.min(length - at)).unwrap()];
            file.read_exact_at(part, at).unwrap();
            take(at, part);
            at += part.len() as u64;
        }
    }
    length
}

/// SHA-256 of a file of the host: its length and every block that is not zero, with its place. (Two files with the
/// same hash have the same bytes.)
pub fn sha256(path: &Path) -> String {
    let mut hash = Sha256::new();
    hash.update(std::fs::metadata(path).unwrap().len().to_le_bytes());
    for_each_piece(path, |at, piece| hash_blocks(&mut hash, at, piece));
    winject::internals::hex::encode(&hash.finalize())
}

/// Adds every block of `data` that is not zero, with its place.
pub fn hash_blocks(hash: &mut Sha256, at: u64, data: &[u8]) {
    for (index, block) in data.chunks(4096).enumerate() {
        if !is_zero(block) {
            hash.update((at + index as u64 * 4096).to_le_bytes());
            hash.update(block);
        }
    }
}
