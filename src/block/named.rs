//! The names of files that images hold.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::folder_of;
use crate::nbd::named_export;

/// Names that are collected. More are named by a hostile image alone.
const NAMES_MAX: usize = 256;

/// Collects the names that images hold while they are opened.
#[derive(Debug, Clone, Default)]
pub struct NamedFiles(Arc<Mutex<Vec<PathBuf>>>);

impl NamedFiles {
    /// Adds the file that the image at `image` calls `name`.
    pub(super) fn add(&self, image: &Path, name: &str) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() < NAMES_MAX {
            files.extend(paths_of(image, name));
        }
    }

    /// The names that were collected, which are left out from now on.
    pub(super) fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where the file that the image calls `name` may lie, or the URI of the export. Of QEMU's `json:`, all file names at any depth count.
fn paths_of(image: &Path, name: &str) -> Vec<PathBuf> {
    if let Some(export) = named_export(name) {
        return export.ok().into_iter().map(|uri| PathBuf::from(uri.to_string())).collect();
    }
    let mut names = Vec::new();
    match name.strip_prefix("json:").and_then(|json| serde_json::from_str(json).ok()) {
        Some(json) => add_file_names(&json, &mut names),
        None => names.push(name.to_owned()),
    }
    let real = image.canonicalize().unwrap_or_else(|_| image.to_owned());
    let folders = [folder_of(image), folder_of(&real)];
    let paths = names.iter().flat_map(|name| {
        let name = name.strip_prefix("file:").unwrap_or(name);
        folders.map(|folder| folder.join(name))
    });
    paths.filter(|path| !path.as_os_str().as_encoded_bytes().contains(&0)).collect()
}

fn add_file_names(json: &serde_json::Value, names: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if key == "filename" || key.ends_with(".filename") => names.push(text.to_owned()),
                    _ => add_file_names(value, names),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| add_file_names(value, names)),
        _ => {}
    }
}
