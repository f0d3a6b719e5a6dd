//! WIM files: Windows images, such as `Winre.wim`. Reads only.
//!
//! Formats: "Windows Imaging File Format (WIM)" by Microsoft. A file is a header, resources (most of them contents of files,
//! each stored once), and a table that finds a resource by the SHA-1 of its content. The directory tree of an image is a
//! resource, too, its *metadata*.
//!
//! | not done | what happens instead |
//! |---|---|
//! | solid files (ESD), LZMS, split files | refused by name |
//! | LZX in chunks of more than 32 KiB | refused by name |
//! | reading the content of files | not needed: the table has its SHA-1 |
//! | writing | never |

mod error;
mod format;
mod header;
mod lookup;
mod resource;
mod tree;

pub use header::Wim;
pub use lookup::Lookup;
pub use tree::{Tree, WimEntry};
