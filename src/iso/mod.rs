//! Reading ISO 9660 (Rock Ridge, Joliet, level 4) and UDF.
//!
//! An image may hold the same files under several trees of names. The richest one is read: Rock Ridge, then Joliet, then
//! UDF, then the names of ISO 9660:1999, then the plain ones. Opening reads directories only; a file's data are read
//! on demand.
//!
//! Everything comes from an untrusted image: every directory is visited once, depth, count and sizes are bounded, and
//! every extent is checked against the end of the image.

mod bytes;
mod directory;
mod error;
mod host;
mod image;
mod listing;
mod record;
mod rock_ridge;
mod tree;
mod udf;
mod volume;

pub use host::HostFile;
pub use image::{Iso, trees};
pub use listing::IsoFile;
pub use tree::Tree;
