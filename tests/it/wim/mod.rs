//! WIM files that wimlib made, and the recovery environment of a guest that starts from one.

mod files;
mod hostile;
mod judged;
mod recovery;

use std::io::Read as _;

use winject::internals::io::MemoryVolume;
use winject::internals::wim::Wim;

use crate::support;

/// The fixtures that can be read, each with the same tree.
const READABLE: [&str; 3] = ["plain.wim.gz", "xpress.wim", "lzx.wim"];

/// A fixture of `test-images/wim`.
fn fixture(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(support::root().join("test-images/wim").join(name)).unwrap();
    if !name.ends_with(".gz") {
        return bytes;
    }
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut out).unwrap();
    out
}

fn open(bytes: &[u8]) -> winject::Result<Wim<MemoryVolume>> {
    Wim::open(MemoryVolume(bytes.to_vec()))
}

tests![in files, hostile, judged, recovery;];
