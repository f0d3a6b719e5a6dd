//! Where driver files come from: a directory or an ISO image, read file by file, and the layout of its folders.
//!
//! Opening lists names and sizes only. A file is read when it is asked for, so that an ISO of several hundred megabytes
//! costs what its few needed files cost.

mod directory;
mod file;
mod image;
pub mod layout;
mod media;

pub use file::{FILE_SIZE_MAX, SourceFile};
pub use layout::Layout;
pub use media::{Source, Sources};
