//! The content of a `.reg` file in memory.

use super::path::KeyPath;
use crate::error::Result;
use crate::hive::{Name, RegistryData};

/// The content of a `.reg` file: sections, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// One for each key line, in the order of the file.
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
    pub values: Vec<(Name, Option<RegistryData>)>,
}

/// Receives a `.reg` file piece by piece: a [`Document`], or a [`Writer`](super::Writer) that needs no memory for what it has written.
pub trait RegSink {
    /// A key; the values that follow belong to it.
    ///
    /// # Errors
    /// What the sink cannot take.
    fn key(&mut self, path: &KeyPath, delete: bool) -> Result<()>;

    /// A value of the last key: its type and data, or `None` for one that is to be deleted.
    ///
    /// # Errors
    /// What the sink cannot take.
    fn value(&mut self, name: &Name, data: Option<&RegistryData>) -> Result<()>;
}

impl RegSink for Document {
    fn key(&mut self, path: &KeyPath, delete: bool) -> Result<()> {
        self.sections.push(Section { path: path.clone(), delete, values: Vec::new() });
        Ok(())
    }

    fn value(&mut self, name: &Name, data: Option<&RegistryData>) -> Result<()> {
        if let Some(section) = self.sections.last_mut() {
            section.values.push((name.clone(), data.cloned()));
        }
        Ok(())
    }
}
