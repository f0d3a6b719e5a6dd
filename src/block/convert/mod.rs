//! Conversion: the whole disk, with whatever is staged over it, written as a new raw or qcow2 image in one pass.
//!
//! Threads take windows of the disk in order, read them, find the zeros and compress side by side; whatever is ready
//! is laid out strictly in guest order. The output is therefore the same from run to run, whatever the number of
//! threads: data lie contiguous behind one block of metadata, holes and zeros stay holes.
//!
//! ```
//! use winject::internals::block::{self, convert::{ConvertOptions, convert}, OpenOptions};
//! # fn main() -> winject::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let (input, output) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
//! # std::fs::write(&input, vec![7; 1 << 20]).unwrap();
//! let image = block::open(&input, &OpenOptions::default())?;
//! let done = convert(&*image, &output, &ConvertOptions::default())?;
//! assert_eq!(done.virtual_size, 1 << 20);
//! # Ok(())
//! # }
//! ```

mod background;
mod checksum;
mod compress;
mod conversion;
mod flush;
mod layout;
mod options;
mod overlay_changes;
mod pipeline;
mod qcow2;
mod raw;
mod window;

pub use super::DiskSource;
pub use super::formats::qcow2::Compression;
pub(crate) use background::BackgroundCopy;
pub use conversion::convert;
pub use options::{ConvertOptions, ConvertProgress, Converted};
