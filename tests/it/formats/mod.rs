//! The containers that are read: VMDK, OVA, VHD, VHDX, VDI.

mod chains;
mod corpus;
pub mod craft;
mod hostile;
mod matrix;
pub mod ova;
mod vhd;
mod vhdx_log;

use std::path::Path;
use std::process::Command;

use winject::internals::block::{Image, OpenOptions, open};
use winject::internals::units::ImageOffset;

use crate::support;

/// Opens an image with the default options.
pub fn image(path: &Path) -> Box<dyn Image> {
    open(path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The error that opening gives; opening must not succeed.
pub fn open_error(path: &Path) -> winject::Error {
    match open(path, &OpenOptions::default()) {
        Ok(_) => panic!("{} must not open", path.display()),
        Err(error) => error,
    }
}

/// All bytes, read in pieces of an odd size; what the extents call zero must be zero.
pub fn read_all(image: &dyn Image) -> Vec<u8> {
    const PIECE: usize = 77_777;
    let mut bytes = vec![0xAA; usize::try_from(image.len()).unwrap()];
    for (i, piece) in bytes.chunks_mut(PIECE).enumerate() {
        image.read_at(ImageOffset((i * PIECE) as u64), piece).unwrap();
    }
    let mut at = 0;
    while at < image.len() {
        let extent = image.extent_at(ImageOffset(at), image.len() - at).unwrap();
        assert!(extent.length > 0 && extent.length <= image.len() - at);
        let range = at as usize..(at + extent.length) as usize;
        assert!(!extent.kind.is_zero() || bytes[range].iter().all(|b| *b == 0), "an extent of data is called zero");
        at += extent.length;
    }
    bytes
}

/// What a foreign reader (anything with `Read`) says.
pub fn read_foreign(mut reader: impl std::io::Read, length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(&mut reader, length), &mut bytes).unwrap();
    bytes
}

/// What qemu-img says: the raw content of `path` (of format `format`).
pub fn read_qemu(path: &Path, format: &str) -> Vec<u8> {
    let out = tempfile::NamedTempFile::new().unwrap();
    qemu_img(&["convert", "-f", format, "-O", "raw", path.to_str().unwrap(), out.path().to_str().unwrap()]);
    std::fs::read(out.path()).unwrap()
}

/// Runs qemu-img; the caller has made sure that it is there.
pub fn qemu_img(arguments: &[&str]) -> String {
    let output = support::run(Command::new("qemu-img").args(arguments));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A small deterministic generator, so that a failure can be repeated from its seed.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// A disk with random, patterned and compressible data, and holes in between.
pub fn disk(size: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        let length = (random.below(400_000) as usize + 1).min(size - at);
        let run = &mut bytes[at..at + length];
        match random.below(5) {
            0 => random.fill(run),
            1 => run.iter_mut().enumerate().for_each(|(i, b)| *b = (i / 512) as u8),
            2 => run
                .iter_mut()
                .enumerate()
                .for_each(|(i, b)| *b = b"The quick brown fox jumps over the lazy dog. "[(i * i / 97) % 45]),
            _ => {}
        }
        at += length;
    }
    // The first and the last sector are where mistakes are made.
    random.fill(&mut bytes[..512]);
    random.fill(&mut bytes[size - 512..]);
    bytes
}

/// Fails with the place of the first difference, not with megabytes of text.
pub fn assert_same(a: &[u8], b: &[u8], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}: lengths");
    if let Some(at) = (0..a.len()).find(|i| a[*i] != b[*i]) {
        panic!("{what}: first difference at {at:#x}");
    }
}

tests![in chains, corpus, hostile, matrix, ova, vhd, vhdx_log;];
