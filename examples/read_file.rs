//! Reads a file out of an NTFS volume inside a disk image of any format:
//! `cargo run --example read_file guest.vmdk /Windows/win.ini`.
//!
//! The volumes are tried in the order of the partition table; the image is opened for reading only.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;
use std::path::Path;

use winject::{ImageOptions, NtfsOptions, NtfsVolume, PartitionView, open_image, read_partitions};

/// The largest file that is read, in bytes.
const LIMIT: u64 = 64 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, path] = arguments.as_slice() else { return Err("usage: read_file IMAGE PATH".into()) };
    let image = open_image(Path::new(image), &ImageOptions::default())?;
    for partition in &read_partitions(image.as_ref())?.partitions {
        let view = PartitionView::new(image.as_ref(), partition)?;
        let Ok(volume) = NtfsVolume::open(view, &NtfsOptions::read_only()) else { continue };
        if let Some(file) = volume.find(path)? {
            std::io::stdout().write_all(&volume.read(file, LIMIT)?)?;
            return Ok(());
        }
    }
    Err(format!("no NTFS volume of the image has {path}").into())
}
