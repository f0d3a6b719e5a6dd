//! The list of all schemas.

use serde::Serialize;

/// The answer of `--list` in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct List {
    /// The kinds of answers and documents.
    pub(super) schemas: Vec<Listed>,
}

/// A kind of answer or document.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Listed {
    /// Its name, for `winject schema NAME`.
    pub(super) name: &'static str,
    /// Which command gives or takes it.
    pub(super) about: &'static str,
}
