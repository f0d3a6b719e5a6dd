//! `.reg` files of version 5, the text form of a part of a registry.
//!
//! ```text
//! Windows Registry Editor Version 5.00
//!
//! [HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\viostor]
//! "Start"=dword:00000000
//! "Obsolete"=-
//!
//! [-HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\old]
//! ```
//!
//! Everything works on UTF-16 code units, so that names and texts which are no valid Unicode survive. Key paths of a
//! [`Document`] are relative to the root of a hive; reading and writing take a *prefix*, the part of the paths in the
//! file that stands for that root.

mod document;
mod parse;
mod path;
mod tree;
mod write;

pub use document::{Document, RegSink, Section};
pub use parse::{Parser, RegEntry};
pub use path::KeyPath;
pub use tree::{Applied, Import, ImportChange, SeeChange, apply, diff, diff_to, export, export_to, walk};
pub use write::Writer;
