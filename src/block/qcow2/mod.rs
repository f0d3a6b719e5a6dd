//! qcow2, versions 2 and 3.

mod bytes;
mod cache;
mod compress;
mod create;
mod entry;
mod header;
mod image;

pub(crate) use create::{Backing, NewImage};
pub use header::Compression;
pub use image::Qcow2Image;
