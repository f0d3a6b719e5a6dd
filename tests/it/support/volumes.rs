//! Volumes: the one of the package, and those of images.

use std::io::Read as _;
use std::path::Path;

use winject::internals::block::{self, PathPolicy};
use winject::internals::partition;

/// The packed NTFS volume of the package, which needs no tool.
pub fn small_volume() -> Vec<u8> {
    let packed = std::fs::File::open(super::root().join("test-images/ntfs/small.img.gz")).unwrap();
    let mut image = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut image).unwrap();
    image
}

/// Where a partition of an image begins, and its length in bytes.
pub fn place_of(image: &Path, number: u32) -> (u64, u64) {
    let options = block::OpenOptions { path_policy: PathPolicy::anything(), ..Default::default() };
    let disk = block::open(image, &options).unwrap();
    let table = partition::read(&*disk).unwrap();
    let found = table.partition(number).unwrap();
    (found.start.0, found.length)
}
