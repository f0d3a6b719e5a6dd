//! Conversion: the whole disk, including staged changes, is written as a new raw or qcow2 image in one pass.
//!
//! Worker threads take windows of the disk in order, read them, detect zeros and compress in parallel; finished windows
//! are laid out strictly in guest order. The output is therefore the same from run to run and does not depend on the
//! number of threads: data are contiguous after one block of metadata, holes and zeros stay holes.
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
mod export;
mod flush;
mod inputs;
mod interrupt;
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
pub(crate) use checksum::{checksum_of, checksum_of_disk};
pub use conversion::convert;
pub(crate) use export::{ExportCopy, refuse_export};
pub(crate) use inputs::Inputs;
pub use options::{ConvertOptions, ConvertProgress, Converted};
