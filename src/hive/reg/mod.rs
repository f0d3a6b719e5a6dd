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

mod parse;
mod path;
mod tree;
mod write;

pub use parse::{Entry, Parser};
pub use path::KeyPath;
pub use tree::{Applied, Import, apply, diff, diff_to, export, export_to, walk};
pub use write::Writer;

use super::{Data, Name, ValueType};
use crate::error::Result;

/// The content of a `.reg` file: sections, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// The sections.
    pub sections: Vec<Section>,
}

/// One key of a `.reg` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The key, from the root of the hive.
    pub path: KeyPath,
    /// The key is to be deleted (`[-Key]`).
    pub delete: bool,
    /// Values to set, or (`None`) to delete.
    pub values: Vec<(Name, Option<Data>)>,
}

/// What takes a `.reg` file piece by piece: a [`Document`], or a [`Writer`] that needs no memory for what it has written.
pub trait Sink {
    /// A key; the values that follow belong to it.
    ///
    /// # Errors
    /// What the sink cannot take.
    fn key(&mut self, path: &KeyPath, delete: bool) -> Result<()>;

    /// A value of the last key: its type and data, or `None` for one that is to be deleted.
    ///
    /// # Errors
    /// What the sink cannot take.
    fn value(&mut self, name: &Name, data: Option<(ValueType, &[u8])>) -> Result<()>;
}

impl Sink for Document {
    fn key(&mut self, path: &KeyPath, delete: bool) -> Result<()> {
        self.sections.push(Section { path: path.clone(), delete, values: Vec::new() });
        Ok(())
    }

    fn value(&mut self, name: &Name, data: Option<(ValueType, &[u8])>) -> Result<()> {
        let data = data.map(|(kind, bytes)| Data { kind, bytes: bytes.to_vec() });
        if let Some(section) = self.sections.last_mut() {
            section.values.push((name.clone(), data));
        }
        Ok(())
    }
}

impl Document {
    /// Reads a file: UTF-16 with a byte order mark, or UTF-8.
    ///
    /// # Errors
    /// A usage error with the number of the line that makes no sense; a key that is not below `prefix`.
    pub fn parse(bytes: &[u8], prefix: &KeyPath) -> Result<Self> {
        parse::parse(bytes, prefix)
    }

    /// The file as the registry editor writes it: UTF-16LE with a byte order mark, lines ending in CR LF.
    ///
    /// # Errors
    /// A key whose name holds a line break cannot be written.
    pub fn to_bytes(&self, prefix: &KeyPath) -> Result<Vec<u8>> {
        let units = write::write(self, prefix, false)?;
        Ok(std::iter::once(0xFEFF).chain(units).flat_map(u16::to_le_bytes).collect())
    }

    /// The same in UTF-8 without a byte order mark, for `hivexregedit --merge`, which reads nothing else and takes texts
    /// for bytes: so data that are not ASCII are written as `hex(1):`. In names, what is no valid UTF-16 is replaced.
    ///
    /// # Errors
    /// As [`to_bytes`](Self::to_bytes).
    pub fn to_text(&self, prefix: &KeyPath) -> Result<String> {
        Ok(String::from_utf16_lossy(&write::write(self, prefix, true)?))
    }
}
